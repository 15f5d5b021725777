"""Kernels in C for a CPU, compiled on the user's machine at first use; without a compiler all goes on without them."""

from dynaconv.kernels.cpu.build import SWITCH, cache_folder, instruction_set, why_not
from dynaconv.kernels.cpu.memory import keep_freed_memory, keeps_memory
from dynaconv.kernels.cpu.worth import pays

__all__ = ["SWITCH", "cache_folder", "instruction_set", "keep_freed_memory", "keeps_memory", "pays", "why_not"]
