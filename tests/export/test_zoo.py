"""Networks of the zoo, of timm and of torchvision go into ONNX files with a free batch, at the network's own cost."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

import dynaconv
import dynaconv.models
from dynaconv.export import export, load

CLASSIFIERS = [name for name in dynaconv.models.ZOO if not name.startswith(("ssd300_", "keypoints_"))]
POSES = [name for name in timm.list_models("keypoints_*") if "dy_" in name]


def _settled(name: str) -> torch.nn.Module:
    """The network with statistics of its norms. As initialised, CondConv-MobileNetV2 makes its roundings so large that
    float32 and float64 differ by a tenth of the largest output in torch itself, and ``freeze`` refuses it."""
    torch.manual_seed(0)
    network = timm.create_model(name).train()
    with torch.no_grad():
        for _ in range(20):
            network(torch.randn(8, 3, 64, 64))
    return network.eval()


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_classifier(name: str, tmp_path: Path) -> None:
    report = export(_settled(name), tmp_path / "x.onnx", image_size=64)
    assert report.error <= 1e-4
    assert report.batch is None
    assert report.madds
    assert report.graph_madds == pytest.approx(report.madds, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", POSES)
def test_every_network_for_keypoints(name: str, tmp_path: Path) -> None:
    report = export(name, tmp_path / "x.onnx", image_size=(64, 64))
    assert load(report.path).run(torch.randn(2, 3, 64, 64))["heatmaps"].shape == (2, 17, 16, 16)


@pytest.mark.slow
def test_a_detector_with_suppression(tmp_path: Path) -> None:
    report = export("ssd300_condconv_mobilenetv1_050", tmp_path / "x.onnx", nms=True)
    assert not report.free_size
    found = load(report.path).run(torch.randn(2, 3, 300, 300))
    anchors = found["boxes"].shape[1]
    assert found["boxes"].shape == (2, anchors, 4)
    assert found["scores"].shape == (2, anchors, 91)
    images, classes, boxes = found["selected"].unbind(1)
    assert images.max() <= 1
    assert classes.min() >= 1
    assert boxes.max() < anchors


@pytest.mark.slow
def test_timms_condconv(tmp_path: Path) -> None:
    source = timm.create_model("tf_efficientnet_cc_b0_4e").eval()
    network = dynaconv.models.from_timm(source)
    report = export(network, tmp_path / "x.onnx", image_size=64)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = source(images)
    assert (load(report.path).run(images)["logits"] - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "regnety_002"])
def test_networks_of_others_made_dynamic(name: str, tmp_path: Path) -> None:
    network = dynaconv.dynamize(timm.create_model(name, num_classes=10).eval(), experts=2)
    assert export(network, tmp_path / "x.onnx", image_size=64).error <= 1e-4


def test_a_network_of_torchvision_made_dynamic(tmp_path: Path) -> None:
    from torchvision.models import squeezenet1_1

    features = squeezenet1_1().features[:5]  # two of its eight modules of branches
    network = torch.nn.Sequential(features, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()).eval()
    network = dynaconv.dynamize(network, method="condconv", experts=2)
    assert export(network, tmp_path / "x.onnx", image_size=32).error <= 1e-4
