"""What one call of ``dynaconv::frozen_layer`` costs beside its kernel, registered in Python or in C++.

    python tools/operator_call.py                                        # as dynaconv.inference registers it
    python tools/operator_call.py build/libdynaconv_operators.so         # as examples/cpp/build.sh builds it

A layer of 8 channels on a map of 4x4, one thread: nearly all of the time is the call. Processor time.
"""

from __future__ import annotations

import statistics
import sys
import time

import torch

ROUNDS, CALLS = 30, 100


def main() -> None:
    torch.set_num_threads(1)
    if len(sys.argv) > 1:
        torch.ops.load_library(sys.argv[1])
    else:
        import dynaconv.inference  # noqa: F401  registers the operator
    x = torch.randn(1, 8, 4, 4).contiguous(memory_format=torch.channels_last)
    bank, bias = torch.randn(4, 1, 8, 32), torch.randn(8)
    router = torch.randn(4, 8), torch.randn(4), torch.randn(4, 4), torch.randn(4)
    geometry = [8, 8, 1, 1], [1, 1], [0, 0], [1, 1], 1
    times = []
    with torch.no_grad():
        for turn in range(ROUNDS + 2):
            begun = time.process_time()
            for _ in range(CALLS):
                torch.ops.dynaconv.frozen_layer.default(
                    x, None, None, bank, None, bias, None, *router, *geometry, True, "clamp", 0.0, 6.0
                )
            if turn >= 2:
                times.append((time.process_time() - begun) / CALLS * 1e6)
    low, middle, high = statistics.quantiles(times, n=4)
    print(f"{middle:.1f} microseconds a call (quartiles {low:.1f} to {high:.1f})")


if __name__ == "__main__":
    main()
