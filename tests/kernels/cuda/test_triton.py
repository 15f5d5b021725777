"""Strategy ``triton``: its kernels interpreted, compiled for a GPU that is not there, and run on one where there is.

The interpreter shows that they compute the right numbers, the compiler that a GPU could run them; both without a GPU.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from dynaconv.kernels.cuda import tiles
from dynaconv.ops import Call, Geometry, mix, plan_of
from dynaconv.ops.strategies.triton import refuses
from kernels.cuda.triton_cases import BROKEN, PARTLY, QUICK, THOROUGH, TritonCase, check

REPOSITORY = Path(__file__).resolve().parents[3]
TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}
CASES = "tests/kernels/cuda/triton_in_interpreter.py"
NO_TESTS = 5  # what pytest exits with where all were skipped while they were collected
SPILLED = 16  # bytes a thread may keep outside its registers: a few cost nothing, hundreds do


def in_interpreter(*arguments: str) -> None:
    """Run tests in a process of its own whose Triton interprets; its report stands in the message if it fails."""
    pytest.importorskip("triton", reason="triton is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == NO_TESTS and BROKEN in done.stdout:
        pytest.skip(BROKEN)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout, done.stdout


@pytest.mark.timeout(300)  # about 20 s of one processor; other work on the machine must not decide
def test_interpreted_kernels_equal_the_reference() -> None:
    in_interpreter("-m", "not slow", CASES)


LAWS = ["tests/laws/test_strategies.py", "tests/laws/test_laws.py"]
# A law of each kind that the kernels can break; all of them are `slow`.
QUICK_LAWS = "second or forward or batched or vmap or dtype or threads or given or nan or one_hot or leaks"


def test_interpreted_kernels_obey_the_laws() -> None:
    in_interpreter("-m", "not slow", "-k", QUICK_LAWS, *LAWS)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_interpreted_kernels_obey_all_the_laws() -> None:
    in_interpreter("-m", "not slow", *LAWS)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_interpreted_kernels_equal_the_reference_in_every_layout_and_option() -> None:
    in_interpreter("-m", "slow", CASES)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here; the interpreter and the compiler stand in")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", QUICK + THOROUGH + PARTLY, ids=str)
def test_equals_the_reference_on_a_gpu(case: TritonCase, dtype: torch.dtype) -> None:
    pytest.importorskip("triton", reason="triton is not installed")
    check(case, dtype, "cuda")


def call(**other: Any) -> Call:
    """A call on CUDA that the strategy runs, but for what is given."""
    shapes = {"x_shape": (8, 4, 9, 9), "bank_shape": (4, 6, 4, 3, 3)}
    circumstances = {"device": "cuda", "dtype": torch.float32, "needs_grad": True, "exporting": False}
    return Call(**{**shapes, "geometry": Geometry(dims=2), **circumstances, "compiling": False, **other})


def test_runs_a_plain_call_on_cuda() -> None:
    pytest.importorskip("triton", reason="triton is not installed")
    assert refuses(call()) is None
    assert refuses(call(bank_shape=(4, 4, 1, 3, 3), geometry=Geometry(dims=2, groups=4))) is None
    assert refuses(call(x_shape=(8, 4), bank_shape=(4, 6, 4), geometry=Geometry(dims=0))) is None


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"device": "cpu"}, "its kernels run on CUDA; this call is on cpu"),
        ({"dtype": torch.float64}, "this input is torch.float64"),
        ({"exporting": True}, "exported graph"),
        ({"geometry": Geometry(dims=2, transposed=True)}, "this one is transposed"),
        (
            {"x_shape": (8, 4, 5, 5, 5), "bank_shape": (4, 6, 4, 3, 3, 3), "geometry": Geometry(dims=3)},
            "this call has 3",
        ),
        ({"bank_shape": (4, 6, 2, 3, 3), "geometry": Geometry(dims=2, groups=2)}, "groups is 2"),
        ({"bank_shape": (4, 8, 1, 3, 3), "geometry": Geometry(dims=2, groups=4)}, "groups is 4"),
        ({"x_shape": (1, 4, 40_000, 40_000)}, "2\\*\\*31 numbers"),
    ],
)
def test_says_why_it_refuses(other: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr("dynaconv.ops.strategies.triton._INSTALLED", True)
    reason = refuses(call(**other))
    assert reason is not None
    assert re.search(said, reason), reason


def test_says_that_triton_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynaconv.ops.strategies.triton._INSTALLED", False)
    assert refuses(call()) == "triton is not installed; pip install triton"


def test_an_explicit_choice_on_a_cpu_raises_and_auto_does_not_take_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    x, bank, routing = torch.zeros(2, 4), torch.zeros(3, 6, 4), torch.zeros(2, 3)
    with pytest.raises(ValueError, match="strategy 'triton' cannot run this call: its kernels run on CUDA"):
        mix(x, bank, routing, geometry=Geometry(dims=0), strategy="triton")
    assert plan_of(x, bank, routing, geometry=Geometry(dims=0)).others["triton"].startswith("its kernels run on CUDA")


def test_the_package_does_not_import_triton() -> None:
    code = "import sys, dynaconv, dynaconv.kernels.cuda.operators; sys.exit('triton' in sys.modules)"
    path = os.pathsep.join([str(REPOSITORY / "src"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, check=False)
    assert done.returncode == 0


def test_tiles_hold_what_registers_hold_and_the_batch_is_split_without_a_rest() -> None:
    for experts in (1, 3, 4, 8, 32):
        tile = tiles.product_gradient(experts, 196, 512, 512, half=True)
        assert tiles.power_of_two(experts) * tile.columns * tile.depth <= tiles.ACCUMULATORS
        _, channels = tiles.depthwise_gradient(experts, 25, 196, 512, channels_last=True)
        assert tiles.power_of_two(experts) * 32 * channels <= tiles.ACCUMULATORS
    for batch in range(1, 40):
        for count in (1, 5, 100, 1000):
            parts = tiles.splits(batch, count)
            part = tiles.ceil_div(batch, parts)
            assert (parts - 1) * part < batch <= parts * part
    assert tiles.product(256, 12_544, 256, 64, half=True) == (128, 64, 32)
    assert tiles.product(1, 49, 256, 64, half=True) == (64, 16, 32)


def launches(name: str, dtype: torch.dtype, layout: torch.memory_format) -> Iterator[tuple[str, tiles.Launch]]:
    """Every launch of a training step of one layer at a real size, on tensors without memory."""
    from dynaconv.kernels.cuda import dense, depthwise
    from dynaconv.kernels.cuda.operators import _laid_out
    from dynaconv.kernels.cuda.shape import Move

    kernels = depthwise if name == "depthwise" else dense
    outputs, taps = {"depthwise": (96, 3), "1x1": (160, 1), "3x3": (160, 3)}[name]
    inputs_of_bank = 1 if name == "depthwise" else 96
    empty = {"dtype": dtype, "device": "meta"}
    x = torch.empty(32, 96, 14, 14, **empty).contiguous(memory_format=layout)
    y = torch.empty(32, outputs, 14, 14, **empty).contiguous(memory_format=layout)
    bank = _laid_out(torch.empty(4, outputs, inputs_of_bank, taps, taps, **empty), 96 if name == "depthwise" else 1)
    routing, bias = torch.empty(32, 4, device="meta"), torch.empty(4, outputs, **empty)
    move = Move((1, 1), (taps // 2,) * 2, (1, 1))
    yield "forward", kernels.forward(x, bank, routing, bias, y, move)
    yield "input gradient", kernels.input_gradient(y, bank, routing, x, move)
    yield "bank gradient", kernels.bank_gradient(y, x, bank, routing, move, True, True)[0]


def compiled(launch: tiles.Launch, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Compile a launch for an H100 or H200 as its first call there would, knowing sizes of one and multiples of 16."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(folder))
    signature, constants, facts = {}, {}, {}
    for index, parameter in enumerate(launch.kernel.params):
        value = launch.arguments[parameter.name]
        if parameter.is_constexpr or (isinstance(value, int) and value == 1):
            signature[parameter.name], constants[parameter.name] = "constexpr", value
            continue
        signature[parameter.name] = TYPES[value.dtype] if isinstance(value, torch.Tensor) else "i32"
        if isinstance(value, torch.Tensor) or value % 16 == 0:
            facts[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(launch.kernel, signature, constants, facts)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=launch.options)


def check_compiles(name: str, dtype: torch.dtype, layout: torch.memory_format, folder: Path, monkeypatch: Any) -> None:
    triton = pytest.importorskip("triton", reason="triton is not installed")
    if os.environ.get("TRITON_INTERPRET"):
        pytest.skip("kernels cannot be compiled while TRITON_INTERPRET is set")
    for what, launch in launches(name, dtype, layout):
        kernel = compiled(launch, folder, monkeypatch)
        binary = folder / "kernel.cubin"
        binary.write_bytes(kernel.asm["cubin"])
        used = subprocess.run(
            [triton.knobs.nvidia.cuobjdump.path, "-res-usage", str(binary)], capture_output=True, text=True, check=True
        )
        spilled = re.search(r" STACK:(\d+) ", used.stdout)
        assert spilled is not None, used.stdout
        assert int(spilled[1]) <= SPILLED, f"{what} spills registers:\n{used.stdout}"
        if name != "depthwise" and dtype != torch.float32:
            assert "wgmma" in kernel.asm["ptx"] or "mma.sync" in kernel.asm["ptx"], f"{what} has no tensor cores"


@pytest.mark.parametrize("name", ["depthwise", "3x3"])
def test_compiles_for_a_gpu(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_compiles(name, torch.bfloat16, torch.channels_last, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["depthwise", "1x1", "3x3"])
def test_every_form_compiles_for_a_gpu(
    name: str, dtype: torch.dtype, layout: torch.memory_format, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_compiles(name, dtype, layout, tmp_path, monkeypatch)
