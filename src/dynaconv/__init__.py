"""Dynamic convolution: layers whose kernels are mixed anew for every example."""

from __future__ import annotations

__version__ = "0.1.0"
