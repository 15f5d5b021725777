"""Kernels of our own, registered as operators of torch: C for a CPU (``cpu``), Triton for CUDA (``cuda``)."""
