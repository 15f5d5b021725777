"""Kernels in C for CPUs, compiled on the user's machine at first use. Without a compiler torch's operations run."""

from dynaconv.kernels.cpu.build import SWITCH, cache_folder, instruction_set, why_not
from dynaconv.kernels.cpu.memory import keep_freed_memory, keeps_memory
from dynaconv.kernels.cpu.worth import pays

__all__ = ["SWITCH", "cache_folder", "instruction_set", "keep_freed_memory", "keeps_memory", "pays", "why_not"]
