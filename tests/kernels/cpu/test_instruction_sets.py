"""The C files compiled for every instruction set, under the sanitizers, and without memory."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import dynaconv
from dynaconv.kernels import cpu
from dynaconv.kernels.cpu import build, convolve, depthwise, experts, inference

HERE = Path(__file__).resolve().parent
X86 = platform.machine() in ("x86_64", "AMD64")
# -O1: as much as the vectors need to stay in registers, in a third of the time that -O3 takes to compile
FLAGS = ("-std=gnu11", "-O1", "-ffp-contract=fast", "-fPIC", "-fvisibility=hidden")


@pytest.fixture(autouse=True)
def compiler() -> str:
    """The compiler; without one the tests fail in continuous integration, and are left out elsewhere."""
    found = shutil.which(os.environ.get("CC", "cc"))
    if found is None:
        reason = "there is no C compiler here, and so no kernel was tested"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return found


def flags_of_this_processor() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""


@pytest.mark.parametrize(
    ("flag", "name", "needs"),
    [
        ("-march=x86-64-v4", "avx512", "avx512f avx512bw avx512cd avx512dq avx512vl"),
        ("-march=haswell", "avx2", "avx2 fma bmi2"),
        ("-march=x86-64", "baseline", ""),
    ],
)
def test_every_instruction_set(flag: str, name: str, needs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not X86:
        pytest.skip(f"{flag} is for another processor than {platform.machine()}")
    missing = [one for one in needs.split() if one not in flags_of_this_processor().split()]
    if missing:
        pytest.skip(f"this processor lacks {', '.join(missing)}")
    monkeypatch.setattr(build, "_FLAGS", FLAGS)
    monkeypatch.syspath_prepend(str(HERE))
    import kernel_checks

    with build.compiled_with(flag):
        assert build.instruction_set() == name
        kernel_checks.run()


def test_the_sanitizers_find_nothing(compiler: str, tmp_path: Path) -> None:
    """Reads and writes beyond an array, and what C leaves undefined. torch's own memory is watched too."""
    names = ("libasan.so", "libubsan.so")
    found = [
        subprocess.run(
            [compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in names
    ]
    if not all(os.path.isabs(path) for path in found):
        reason = f"{compiler} has no {' and '.join(names)}"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(dynaconv.__file__).parents[1]),
        "LD_PRELOAD": " ".join(found),
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        "DYNACONV_CACHE": str(tmp_path),
    }
    flags = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
    command = [sys.executable, str(HERE / "kernel_checks.py"), *flags]
    made = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr[-6000:]
    assert made.stdout.startswith("equal")


def test_no_memory_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every allocation of every function fails once."""
    monkeypatch.setattr(build, "_FLAGS", ("-std=gnu11", "-O0", "-fPIC", "-fvisibility=hidden"))
    x, bank = torch.randn(2, 5, 6, 7).to(memory_format=torch.channels_last), torch.randn(2, 40, 5, 3, 3)
    routing, moves = torch.rand(2, 2), ((3, 3), (1, 1), (1, 1), (1, 1))
    with build.compiled_with("-DDYNACONV_FAILING_MALLOC") as library:
        left = ctypes.c_int64.in_dll(library, "dynaconv_allocations_left")
        packed, turned = convolve.pack_bank(bank), convolve.pack_bank(bank, transposed=True)
        gradient, sums = torch.randn(2, 40, 6, 7).to(memory_format=torch.channels_last), torch.zeros(2, 40)
        router = inference.LinearRouter(None, None, torch.randn(2, 5), None, True)
        prepared = inference.prepare_layer((5, 6, 7), 40, *moves, depthwise=False, bank=packed, router=router)
        calls = {
            "experts": lambda: experts.convolve(x, bank, routing, None, *moves[1:]),
            "experts, input": lambda: experts.input_gradient(gradient, x, bank, routing, *moves[1:]),
            "experts, bank": lambda: experts.bank_gradient(gradient, x, routing, bank.shape, *moves[1:]),
            "convolve": lambda: convolve.convolve(x, packed, routing, None, 40, *moves, sums=sums),
            "input_gradient": lambda: convolve.input_gradient(gradient, x.shape, turned, routing, *moves),
            "bank_gradient": lambda: convolve.bank_gradient(gradient, x, packed, routing, *moves),
            "route": lambda: inference.route(torch.randn(2, 5), 42, router),
            "frozen_layer": lambda: inference.frozen_layer(prepared, x, None, None),
        }
        for threads in (1, 3):
            torch.set_num_threads(threads)
            for name, call in calls.items():
                failed = 0
                while True:
                    left.value = failed
                    try:
                        call()
                        break
                    except MemoryError:
                        failed += 1
                    finally:
                        left.value = 2**62
                assert failed, name
        torch.set_num_threads(1)
        depthwise.depthwise(x, torch.randn(2, 9, 5), *moves[:1], None, *moves[1:])  # which needs none
        assert torch.equal(convolve.unpack_bank(packed, bank.shape), bank)  # nor do packing and unpacking


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("avx512", {"batch": 8}, None),
        ("avx2", {"batch": 8}, None),
        ("avx2", {"batch": 7}, "not repaid by 7 examples, fewer than 8"),
        ("avx2", {"batch": 16, "pointwise": True, "numbers": 4_000}, None),
        ("avx2", {"batch": 15, "pointwise": True, "numbers": 4_000}, "fewer than 16"),
        ("avx2", {"batch": 64, "pointwise": True, "numbers": 3_999}, "3999 numbers"),
        ("baseline", {"batch": 8}, "fewer than 16"),
        ("baseline", {"batch": 8, "training": True}, None),
        ("baseline", {"batch": 64, "pointwise": True, "numbers": 10**6}, "without AVX2"),
        ("neon", {"batch": 64}, "not measured on neon"),
    ],
)
def test_where_it_pays(name: str, arguments: dict, reason: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynaconv.kernels.cpu.worth.instruction_set", lambda: name)
    found = cpu.pays("dense", **arguments)
    assert found is None if reason is None else reason in str(found)
    assert cpu.pays("depthwise", batch=1) is None
    assert cpu.pays("frozen", batch=1) is None
