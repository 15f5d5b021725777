"""This project's kernels, registered as operators of torch: in C for CPUs (``cpu``), in Triton for CUDA (``cuda``)."""
