"""Kernels of our own: C for a CPU (:mod:`dynaconv.kernels.cpu`)."""
