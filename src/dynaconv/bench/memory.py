"""Peak memory of one network's step, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from dynaconv.bench.settings import BenchSettings


def peak_memory(settings: BenchSettings, role: str) -> int | None:
    """Peak memory in bytes of the network and two steps of it; None if the system does not report it.

    On CUDA the figure of the allocator. On Linux the peak of the resident memory (``VmHWM``) minus the resident memory
    before the network was built; the peak is reset after building. Freed memory is returned to the system, unlike in
    the timed process: if it were kept, fragmentation would change the figure by a fifth from run to run.
    """
    command = [sys.executable, "-m", "dynaconv.bench.memory", role, json.dumps(asdict(settings))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())
    if done.returncode:
        raise RuntimeError(f"measuring the memory of {role} failed: {done.stderr[-2000:]}")
    peak: int | None = json.loads(done.stdout.splitlines()[-1])
    return peak


def _environment() -> dict[str, str]:
    import os

    source = str(Path(__file__).resolve().parents[2])
    known = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": source if not known else os.pathsep.join((source, known))}


def _measure(settings: BenchSettings, role: str) -> int | None:
    import gc

    import torch

    from dynaconv.bench.contenders import contenders, make_input, make_step

    torch.set_num_threads(settings.threads)
    x = make_input(settings)
    before = _resident("VmRSS")
    chosen = [each for each in contenders(settings, x[:2], (role,)) if "compiled" not in each.form]
    contender = chosen[-1]  # static: the last of its eager forms is in channels_last
    del chosen
    gc.collect()
    _give_back()
    cuda = settings.device.startswith("cuda")
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    elif before is None or not _forget_peak():
        return None
    step = make_step(contender, settings, x)
    step()
    step()
    if cuda:
        return torch.cuda.max_memory_allocated()
    peak = _resident("VmHWM")
    return None if peak is None or before is None else peak - before


def _resident(field: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [line for line in lines if line.startswith(f"{field}:")]
    return int(found[0].split()[1]) * 1024 if found else None


def _give_back() -> None:
    """Return the memory that building has freed (the other forms) to the system, so that it is not counted."""
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:  # glibc's own
        trim(0)


def _forget_peak() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_measure(BenchSettings(**json.loads(sys.argv[2])), sys.argv[1])) + "\n")
