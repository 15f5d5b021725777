"""Many cases, or one again: ``PYTHONPATH=src:tests python -m faults.hunt --help``."""

from __future__ import annotations

import argparse
import collections
import sys
import time
import traceback
import warnings
from random import Random

from faults.cases import damages_of, run_case
from faults.files import FILES
from faults.numbers import run_number, words
from faults.oracle import Fault


def main() -> int:
    """Run the cases, print every fault when it is found, and counts in the end; 1 if there was a fault."""
    parser = argparse.ArgumentParser(description="Damage files that the program reads, and see what it says.")
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="files whose name has this in it")
    parser.add_argument("--numbers", action="store_true", help="numbers that are typed, instead of files")
    parser.add_argument("--case", help="one case again, such as checkpoint/flip/17, with its traceback")
    options = parser.parse_args()
    warnings.simplefilter("error")
    random = Random(options.seed)
    every = [word for word in words() if (options.only or "") in word] if options.numbers else []
    names = [name for name in FILES if (options.only or "") in name]
    shares = [FILES[name].share for name in names]
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    began = time.monotonic()
    for number in range(1 if options.case else options.cases):
        if options.numbers:
            case = options.case or random.choice(every)
        else:
            (name,) = random.choices(names, shares)
            case = options.case or f"{name}/{random.choice(damages_of(FILES[name]))}/{random.randrange(10**6)}"
        try:
            outcome = run_number(case) if "=" in case else run_case(case)
        except Fault as fault:
            outcome = "fault"
            print(f"FAULT {fault}", flush=True)
            if options.case:
                traceback.print_exception(fault.__cause__)
        counts[case.split(" " if "=" in case else "/")[0], outcome] += 1
        if (number + 1) % 200 == 0:
            print(f"{number + 1} cases, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    for (name, outcome), count in sorted(counts.items()):
        print(f"{name:<28}{outcome:<12}{count:>6}")
    return int(any(outcome == "fault" for _, outcome in counts))


if __name__ == "__main__":
    sys.exit(main())
