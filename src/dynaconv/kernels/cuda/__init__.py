"""Triton kernels for CUDA: they mix the experts in registers and never write a mixed kernel.

    operators         the operators and their derivative, as torch (and torch.compile) see them
    dense             kernels: 1x1, linear and dense k x k as an implicit matrix product, and the gradient of their bank
    depthwise         kernels: one channel per group, and the gradient of their bank
    device_functions  functions on the device that the kernels share
    shape             strides and convolution parameters as arguments of a kernel
    tiles             tile sizes, and the launch of a kernel

``import triton`` happens when a kernel is launched, not here.
"""
