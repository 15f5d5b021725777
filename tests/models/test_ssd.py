"""SSD300: the published costs, the shapes, what is dynamic, training and detection."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from dynaconv.counting import cost
from dynaconv.layers import DynamicLayer
from dynaconv.models.ssd import SSD300
from models.nets import meta

SMALL = "ssd300_condconv_mobilenetv1_050"

# name: published MAdds in millions (Yang et al. 2019, Table 2); ours by the paper's rule, and millions of parameters.
COST = {
    "ssd300_mobilenetv1_050": (352, 352.24, 2.07),
    "ssd300_condconv_mobilenetv1_050": (363, 363.32, 11.40),
    "ssd300_mobilenetv1_075": (730, 728.13, 4.11),
    "ssd300_condconv_mobilenetv1_075": (755, 752.59, 24.97),
    "ssd300_mobilenetv1_100": (1230, 1237.22, 6.82),
    "ssd300_condconv_mobilenetv1_100": (1280, 1280.31, 43.79),
}


def detector(name: str = SMALL, **arguments: Any) -> SSD300:
    model = timm.create_model(name, **{"num_classes": 4, **({"experts": 2} if "condconv" in name else {}), **arguments})
    assert isinstance(model, SSD300)
    return model


def targets(count: int) -> list[dict[str, Tensor]]:
    return [{"boxes": torch.tensor([[30.0, 40.0, 180.0, 160.0]]), "labels": torch.tensor([2])} for _ in range(count)]


@pytest.mark.parametrize("name", COST)
def test_cost_is_the_published_one(name: str) -> None:
    published, madds, parameters = COST[name]
    report = cost(meta(name).raw(), (3, 300, 300))
    assert round(report.under("tf").total / 1e6, 2) == madds
    assert round(report.parameters.total / 1e6, 2) == parameters
    assert abs(madds / published - 1) < 0.01


def test_what_is_dynamic() -> None:
    names = {key for key, module in meta(SMALL).named_modules() if isinstance(module, DynamicLayer)}
    blocks = {f"blocks.3.{b}" for b in range(6)} | {"blocks.4.0", "blocks.4.1"}
    expected = {f"backbone.features.{block}.conv_{kind}" for block in blocks for kind in ("dw", "pw")}
    expected |= {f"backbone.extra.{index}.conv{place}" for index in range(4) for place in (1, 2)}
    assert names == expected
    assert all(module.experts == 8 for module in meta(SMALL).modules() if isinstance(module, DynamicLayer))
    assert not any(isinstance(module, DynamicLayer) for module in meta("ssd300_mobilenetv1_050").modules())


@pytest.mark.parametrize("head", ["paper", "ssd"])
def test_one_anchor_for_every_prediction(head: str) -> None:
    model = detector("ssd300_mobilenetv1_050", head=head).eval()
    with torch.no_grad():
        found = model.raw()(torch.zeros(1, 3, 300, 300))
        maps = list(model.backbone(torch.zeros(1, 3, 300, 300)).values())
    assert [tuple(each.shape[1:]) for each in maps] == [
        *((256, 19, 19), (512, 10, 10), (256, 5, 5)),
        *((128, 3, 3), (128, 2, 2), (64, 1, 1)),
    ]
    per_place = [3, 6, 6, 6, 6, 6] if head == "paper" else [4, 6, 6, 6, 4, 4]
    count = sum(each * side**2 for each, side in zip(per_place, (19, 10, 5, 3, 2, 1), strict=True))
    assert found["cls_logits"].shape == (1, count, 4)
    assert found["bbox_regression"].shape == (1, count, 4)
    assert model.anchor_generator.num_anchors_per_location() == per_place


def test_boxes_of_the_first_map_have_the_scales_of_the_papers_code() -> None:
    pairs = detector("ssd300_mobilenetv1_050").anchor_generator._wh_pairs
    root = 2**0.5
    assert torch.allclose(pairs[0], torch.tensor([[0.1, 0.1], [0.2 * root, 0.2 / root], [0.2 / root, 0.2 * root]]))
    assert [round(each[0, 0].item(), 2) for each in pairs[1:]] == [0.35, 0.5, 0.65, 0.8, 0.95]


def test_scales_of_the_anchors() -> None:
    """The first map has squares of s[0] and sqrt(s[0] s[1]), and boxes of the area s[0]^2 twice as wide as high."""
    scales = [0.07, 0.44, 0.55, 0.66, 0.77, 0.88, 0.99]
    generator: Any = detector(head="ssd", scales=scales).anchor_generator
    expected = [[0.07] * 2, [(0.07 * 0.44) ** 0.5] * 2, [0.07 * 2**0.5, 0.07 / 2**0.5], [0.07 / 2**0.5, 0.07 * 2**0.5]]
    assert generator._wh_pairs[0].tolist() == [pytest.approx(pair) for pair in expected]
    assert generator.num_anchors_per_location() == [4, 6, 6, 6, 4, 4]
    for wrong in (scales[:6], scales[::-1], [0.0, *scales[1:]]):
        with pytest.raises(ValueError, match="expected 7 rising numbers above 0"):
            detector(head="ssd", scales=wrong)
    with pytest.raises(ValueError, match="scales are for head='ssd', and head is 'paper'"):
        detector(scales=scales)


def test_training_reaches_every_parameter() -> None:
    model = detector().train()
    images = [torch.rand(3, 200, 240), torch.rand(3, 320, 180)]
    losses = model(images, targets(2))
    assert set(losses) == {"bbox_regression", "classification"}
    sum(losses.values()).backward()
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    empty = [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}, *targets(1)]
    assert all(loss.isfinite() for loss in model(images, empty).values())


def test_detections_and_examples_apart() -> None:
    model = detector().eval()
    images = [torch.rand(3, 200, 240), torch.rand(3, 320, 180)]
    with torch.no_grad():
        together, alone = model(images), model(images[1:])
        raw = model.raw().double()
        batch = torch.rand(2, 3, 300, 300, dtype=torch.float64)
        assert torch.allclose(raw(batch)["cls_logits"][1:], raw(batch[1:])["cls_logits"], atol=1e-9)
    assert [set(each) for each in together] == [{"boxes", "labels", "scores"}] * 2
    assert together[1]["labels"].shape == alone[0]["labels"].shape


@pytest.mark.parametrize("routed", [True, False])
def test_every_expert_of_the_extra_blocks_is_drawn(routed: bool) -> None:
    extra = detector(SMALL if routed else "ssd300_mobilenetv1_050").backbone.extra
    for block in extra:
        for layer in (block.conv1, block.conv2):
            experts = layer.weight if routed else layer.weight[None]
            spread = [expert.std().item() for expert in experts]
            fan_in = layer.weight[0].numel() / layer.out_channels if routed else layer.weight[0].numel()
            assert spread == pytest.approx([(1 / (3 * fan_in)) ** 0.5] * len(spread), rel=0.12)
            assert not routed or not experts[0].equal(experts[1])


def test_the_backbone_takes_the_weights_of_a_classifier() -> None:
    from dynaconv.models import load_weights

    classifier = timm.create_model("condconv_mobilenetv1_050", experts=2, num_classes=7)
    features = detector().backbone.features
    left = load_weights(features, classifier.state_dict(), classifier=False)
    assert all(key.startswith("classifier.") for key in left)
    assert features.blocks[3][0].conv_dw.weight.equal(classifier.blocks[3][0].conv_dw.weight)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"head": "papers"}, "Did you mean 'paper'"),
        ({"num_classes": 1}, "num_classes is 1; expected at least 2"),
        ({"num_classes": 2.5}, "num_classes is 2.5"),
        ({"experts": -1}, "experts is -1"),
        ({"pretrained": True}, "has no published weights"),
    ],
)
def test_impossible_values_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        meta(SMALL, **arguments)


def test_an_unknown_argument_is_named() -> None:
    with pytest.raises(TypeError, match=r"has no argument 'num_class'.*'num_classes'"):
        meta(SMALL, num_class=3)


def test_predictors_are_static_pointwise_convolutions() -> None:
    head = meta(SMALL).head
    layers = [module for module in head.modules() if isinstance(module, nn.Conv2d)]
    assert {layer.kernel_size for layer in layers} == {(1, 1)}
    assert [layer.out_channels for layer in layers] == [91 * a for a in (3, 6, 6, 6, 6, 6)] + [
        4 * a for a in (3, 6, 6, 6, 6, 6)
    ]
