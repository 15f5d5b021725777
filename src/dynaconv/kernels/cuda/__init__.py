"""Kernels of our own for CUDA, in Triton: they mix the experts in registers and never write a mixed kernel.

    operators         the operators and their derivative, as torch (and torch.compile) see them
    dense             kernels: 1x1, linear and dense k x k as an implicit matrix product, and the gradient of their bank
    depthwise         kernels: one channel per group, and the gradient of their bank
    device_functions  what the kernels share, as functions on the device
    shape             how their arguments describe tensors and movement
    tiles             how large a tile a program takes, and the launch of a kernel

``import triton`` happens when a kernel is launched, not here.
"""
