"""Networks in files that other runtimes run: ONNX, torch.export, AOTInductor.

>>> from dynaconv.export import export, load
>>> export("dy_mobilenetv2_050", "network.onnx", image_size=224)  # doctest: +SKIP
>>> load("network.onnx").run(images)["logits"]  # doctest: +SKIP
"""

from dynaconv.export.exporting import FORMATS, export
from dynaconv.export.report import ExportReport
from dynaconv.export.runtimes import RUNTIMES, Exported, load

__all__ = ["FORMATS", "RUNTIMES", "ExportReport", "Exported", "export", "load"]
