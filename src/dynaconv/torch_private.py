"""The private names of torch that this project uses: all in this file, each with a fall-back.

A private name may go in any release. Where one has gone, these functions return what is always right and at worst
slower: "a mode is active", so that torch's own operations run instead of our kernels. :data:`MISSING` names what has
gone, and a test holds it empty; ``make test-torch TORCH=<version>`` runs that test on another torch.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._ops import OpOverload, OpOverloadPacket
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.autograd import forward_ad
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import CheckpointFunction

# These six are classes that extensions of torch are told to use, from modules whose names begin with an underscore.
__all__ = [
    "FakeTensor",
    "FakeTensorMode",
    "OpOverload",
    "OpOverloadPacket",
    "TorchDispatchMode",
    "EXPORT_LOGGERS",
    "MISSING",
    "as_no_view",
    "carry_hooks",
    "compile_package",
    "compiler_pass",
    "compiler_was_used",
    "constant_for_compiler",
    "checkpointed_part",
    "copy_each_",
    "forward_ad_active",
    "hooks_of",
    "in_reentrant_checkpoint",
    "is_exporting",
    "is_hooked",
    "is_watched",
    "is_wrapped",
    "load_package",
    "loader_workers",
    "shut_down_workers",
    "tree_leaves",
    "unwatch_workers",
]

T = TypeVar("T")

EXPORT_LOGGERS = ("torch.onnx", "torch.export", "torch._export")
"""The loggers of torch's exporters."""

MISSING: list[str] = []
"""Names that this torch lacks, as dotted paths."""


def _find(path: str, otherwise: Any) -> Any:
    found: Any = torch
    for name in path.split(".")[1:]:
        if not hasattr(found, name):
            MISSING.append(path)
            return otherwise
        found = getattr(found, name)
    return found


def _unknown() -> int:
    return 1


_dispatch_modes: Callable[[], int] = _find("torch._C._len_torch_dispatch_stack", _unknown)
_function_modes: Callable[[], int] = _find("torch._C._len_torch_function_stack", _unknown)
_modes_of_functions: Callable[[], list[Any]] = _find("torch.overrides._get_current_function_mode_stack", lambda: [None])
_modes_of_dispatch: Callable[[], list[Any]] = _find(
    "torch.utils._python_dispatch._get_current_dispatch_mode_stack", lambda: [None]
)
_transform: Callable[[], Any] = _find("torch._C._functorch.peek_interpreter_stack", _unknown)
_wrapped_by_func: Callable[[Tensor], bool] = _find(
    "torch._C._functorch.is_functorch_wrapped_tensor", lambda tensor: True
)
_wrapped_by_grad: Callable[[Tensor], bool] = _find("torch._C._functorch.is_legacy_batchedtensor", lambda _: True)
_foreach_copy_: Callable[[Sequence[Tensor], Sequence[Tensor]], Any] | None = _find("torch._foreach_copy_", None)
_unsafe_view: Callable[[Tensor, Sequence[int]], Tensor] = _find(
    "torch.ops.aten._unsafe_view.default", lambda tensor, size: tensor.clone()
)
_saved_tensors_hooks: Callable[[bool], Any] = _find(
    "torch._C._autograd._top_saved_tensors_default_hooks", lambda ignore_is_tracing: None
)
_remove_worker_pids: Callable[[int], None] | None = _find("torch._C._remove_worker_pids", None)
_tree_leaves: Callable[[Any], list[Any]] = _find("torch.utils._pytree.tree_leaves", lambda tree: [tree])
_HAS_EXPORT_FLAG: bool = _find("torch.compiler._is_exporting_flag", None) is not None
_HAS_FORWARD_LEVEL: bool = _find("torch.autograd.forward_ad._current_level", None) is not None


def is_exporting() -> bool:
    """Return whether torch.export traces this call (and not torch.compile)."""
    # torch.compiler.is_exporting() is True inside torch.compile on torch 2.11; the flag that it reads is right.
    if not _HAS_EXPORT_FLAG:
        return bool(torch.compiler.is_exporting())
    exporting: bool = torch.compiler._is_exporting_flag
    return exporting


def is_watched() -> bool:
    """Return whether a mode or a transform would see the next operation of torch.

    That is a ``TorchDispatchMode`` (a counter, fake tensors), a ``TorchFunctionMode`` (but for a default device, which
    only says where new tensors go), or a transform of ``torch.func`` (``vmap``, ``grad``, ``jvp``). They must be given
    torch's own operations.
    A mode with an attribute ``sees_operators = True`` only looks at tensors, and is content with operators of our own.
    Gradients under ``is_grads_batched=True`` are not seen here: ask :func:`is_wrapped` for each.
    Not for code under torch.compile: ask ``torch.compiler.is_compiling()`` first.
    """
    return bool(
        (_dispatch_modes() and not _only_lookers())
        or _transform() is not None
        or (_function_modes() and not _only_default_device())
    )


def _only_lookers() -> bool:
    """Whether all dispatch modes are content with operators of our own."""
    modes = _modes_of_dispatch()
    return bool(modes) and all(getattr(mode, "sees_operators", False) for mode in modes)


def _only_default_device() -> bool:
    """Whether all modes of functions are ``torch.set_default_device`` or ``with torch.device(...)``."""
    return all(isinstance(mode, DeviceContext) for mode in _modes_of_functions())


def is_wrapped(tensor: Tensor) -> bool:
    """Return whether a tensor is a wrapper for one or several others, without memory of its own to read.

    So it is under ``torch.func``'s transforms, and in a backward pass with ``is_grads_batched=True``, where its type is
    ``torch.Tensor`` and no mode is active.
    """
    return _wrapped_by_func(tensor) or _wrapped_by_grad(tensor)


def constant_for_compiler(function: Callable[[], T]) -> Callable[[], T]:
    """Return the function, marked: torch.compile runs it once while it traces and keeps what it returned.

    ``torch.compiler.assume_constant_result`` sets the same mark, and imports the whole compiler (seconds) to do so.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def compiler_pass(change: Callable[[torch.fx.Graph], None], version: str) -> dict[str, Any]:
    """Return the options of torch.compile with which inductor calls ``change(graph)`` on every graph.

    In that graph every operation returns new tensors: what changes one in place is rewritten before. ``version`` stands
    for what the function does, in the key under which inductor keeps what it compiled. Empty where torch has no such
    option. Imports the whole compiler (seconds).
    """
    try:
        from torch._inductor import config
        from torch._inductor.custom_graph_pass import CustomGraphPass
    except ImportError:
        return {}
    if not hasattr(config, "post_grad_custom_pre_pass"):
        return {}

    class Pass(CustomGraphPass):
        def __call__(self, graph: torch.fx.Graph) -> None:
            change(graph)

        def uuid(self) -> str:
            return version

    return {"post_grad_custom_pre_pass": Pass()}


def compiler_was_used() -> bool:
    """Whether this process has loaded torch.compile; loading it to ask would take seconds."""
    return "torch._dynamo" in sys.modules


def compile_package(program: torch.export.ExportedProgram, path: str, config: dict[str, Any]) -> None:
    """Compile an exported program with AOTInductor into one file."""
    torch._inductor.aoti_compile_and_package(program, package_path=path, inductor_configs=config)


def load_package(path: str) -> Any:
    """The compiled program in a file of :func:`compile_package`."""
    return torch._inductor.aoti_load_package(path)


def forward_ad_active() -> bool:
    """Return whether forward-mode differentiation is on (``forward_ad.dual_level()``, ``torch.func.jvp``).

    True for every tensor inside the level; whether one tensor carries a tangent, ``forward_ad.unpack_dual`` says.
    """
    return forward_ad._current_level >= 0 if _HAS_FORWARD_LEVEL else True


def checkpointed_part() -> Any:
    """Return an object that identifies the part under ``checkpoint(..., use_reentrant=False)`` that runs now, or None.

    It is the same object in the first forward pass and when the part is run again in the backward pass, differs from
    pass to pass, and lives as long as the graph does. Of nested parts it is the innermost.
    """
    hooks = _saved_tensors_hooks(False)
    pack = inspect.unwrap(hooks[0]) if hooks is not None else None
    if not inspect.isfunction(pack) or pack.__module__ != "torch.utils.checkpoint":
        return None
    kept = {
        name: cell.cell_contents for name, cell in zip(pack.__code__.co_freevars, pack.__closure__ or (), strict=True)
    }
    if "frame" in kept:  # first forward pass
        return kept["frame"]
    return kept["target_frame_ref"]() if "target_frame_ref" in kept else None  # run again


def in_reentrant_checkpoint() -> bool:
    """Return whether a forward pass under ``checkpoint(..., use_reentrant=True)`` is among the calls that run now."""
    wanted = inspect.unwrap(CheckpointFunction.forward).__code__
    frame = inspect.currentframe()
    while frame is not None and frame.f_code is not wanted:
        frame = frame.f_back
    return frame is not None


def copy_each_(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copy every source into the target of the same place; all of one device and dtype."""
    if _foreach_copy_ is not None:
        _foreach_copy_(targets, sources)
        return
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)


def as_no_view(tensor: Tensor) -> Tensor:
    """Return the same memory as a tensor that is no view, so that what follows may work in place.

    For a result of which nothing else holds the memory: torch lets nothing work in place on a view that was made
    without gradients, inside an ``autograd.Function`` or in a checkpointed part.
    """
    return _unsafe_view(tensor, tensor.shape) if tensor._is_view() else tensor


def loader_workers(loader: torch.utils.data.DataLoader[Any]) -> list[int]:
    """Return the process ids of a loader's workers at work; none before the first batch."""
    iterator = getattr(loader, "_iterator", None)
    return [worker.pid for worker in getattr(iterator, "_workers", [])]


def shut_down_workers(loader: torch.utils.data.DataLoader[Any]) -> None:
    """End a loader's worker processes; iterating again starts new ones."""
    iterator = getattr(loader, "_iterator", None)
    loader._iterator = None
    if iterator is not None and hasattr(iterator, "_shutdown_workers"):
        iterator._shutdown_workers()


def unwatch_workers(iterator: Any) -> None:
    """Keep torch from raising an error for this loader's workers at any signal of any child process.

    When a worker has died, torch does so in whatever line is being run then: amid a step, a checkpoint, an error being
    handled. Whoever calls this looks at the workers himself, where batches are waited for.
    """
    if _remove_worker_pids is not None and getattr(iterator, "_worker_pids_set", False):
        _remove_worker_pids(id(iterator))
        iterator._worker_pids_set = False


def tree_leaves(tree: Any) -> list[Any]:
    """Return the leaves of a pytree (containers that libraries have registered with torch); else ``[tree]``."""
    return _tree_leaves(tree)


# Of a module: what register_forward_hook and its like fill. The last one is a flag, None without hooks.
_RUN_HOOKS = (
    *("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called"),
    *("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs"),
    *("_backward_hooks", "_backward_pre_hooks", "_is_full_backward_hook"),
)
# What those of state_dict() and load_state_dict() fill.
_STATE_HOOKS = (
    *("_state_dict_hooks", "_state_dict_pre_hooks"),
    *("_load_state_dict_pre_hooks", "_load_state_dict_post_hooks"),
)
MISSING += [f"torch.nn.Module.{name}" for name in (*_RUN_HOOKS, *_STATE_HOOKS) if name not in vars(nn.Module())]


def is_hooked(module: nn.Module) -> bool:
    """Return whether a module has forward hooks, forward pre-hooks or backward hooks."""
    return any(bool(module.__dict__.get(name)) for name in _RUN_HOOKS)


def hooks_of(module: nn.Module) -> dict[str, int]:
    """Return how many hooks of every kind a module has, of its state too; kinds without any are left out."""
    names = (*_RUN_HOOKS, *_STATE_HOOKS)
    return {name: len(hooks) for name in names if isinstance(hooks := module.__dict__.get(name), dict) and hooks}


def carry_hooks(old: nn.Module, new: nn.Module) -> None:
    """Give ``new`` the hooks of ``old``, whose place it takes."""
    for name in _RUN_HOOKS:
        if name in old.__dict__ and name in new.__dict__:
            new.__dict__[name] = old.__dict__[name]
