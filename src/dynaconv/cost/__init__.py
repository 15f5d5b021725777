"""What a network costs: multiply-adds, parameters and memory, counted from the operations that it performs."""

from __future__ import annotations

from dynaconv.cost.protocol import Counted, LayerCount, layer_count

__all__ = ["Counted", "LayerCount", "layer_count"]
