"""Non-maximum suppression in a detector's ONNX file."""

from __future__ import annotations

from typing import Any

from onnx import TensorProto, helper

from dynaconv.export.onnx_graph import Nodes

SCORE, OVERLAP, MOST = 0.01, 0.45, 200


def append(graph: Any, *, score: float = SCORE, overlap: float = OVERLAP, most: int = MOST) -> None:
    """Add the output ``selected`` ``(n, 3)``: image, class and box of every detection that is kept.

    For every class but the background (class 0), boxes of a score below ``score`` and those that overlap a better one
    by more than ``overlap`` are dropped; at most ``most`` of a class stay in an image.
    """
    made = Nodes("dynaconv_nms")
    scores = made.add("Transpose", "scores", perm=[0, 2, 1])
    last = made.constant([2**31 - 1])
    objects = made.add("Slice", scores, made.constant([1]), last, made.constant([1]))
    limits = made.constant([most]), made.constant([overlap], "float32"), made.constant([score], "float32")
    found = made.add("NonMaxSuppression", "boxes", objects, *limits)
    made.add("Add", found, made.constant([0, 1, 0]), to="selected")
    graph.initializer.extend(made.constants)
    graph.node.extend(made.nodes)
    graph.output.append(helper.make_tensor_value_info("selected", TensorProto.INT64, ["detections", 3]))
