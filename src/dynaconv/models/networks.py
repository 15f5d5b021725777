"""timm's network classes, with dynamic layers."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from typing import Any, ClassVar, cast

from timm.models import EfficientNet, EfficientNetFeatures, MobileNetV3, MobileNetV3Features, ResNet
from torch import nn

from dynaconv.conversion.layer import convert
from dynaconv.layers import CondLinear, DynamicLinear
from dynaconv.models.options import Design
from dynaconv.models.placement import choose_scopes
from dynaconv.models.routing_structures import install_routers, make_router
from dynaconv.models.timm_private import SqueezeExcite, efficientnet_init_weights, round_channels


class MobileNetV3V1(MobileNetV3):
    """MobileNetV3 with squeeze-and-excitation after the last 1x1 convolution, as its first arXiv version had it."""

    def __init__(self, *args: Any, last_se: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if last_se:
            _append_se(self, kwargs)


class MobileNetV3V1Features(MobileNetV3Features):
    """The feature extractor of :class:`MobileNetV3V1`."""

    def __init__(self, *args: Any, last_se: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if last_se:
            _append_se(self, kwargs)


def _append_se(model: nn.Module, arguments: dict[str, Any]) -> None:
    *_, stage = cast(nn.Sequential, model.get_submodule("blocks"))
    assert isinstance(stage, nn.Sequential)
    channels = cast(int, stage.get_submodule("0.conv").out_channels)
    placed = {name: arguments[name] for name in ("device", "dtype") if name in arguments}
    gate = SqueezeExcite(
        channels, gate_layer="hard_sigmoid", force_act_layer=nn.ReLU, rd_round_fn=round_channels, **placed
    )
    efficientnet_init_weights(gate)
    stage.append(gate)


class DynamicNetwork(nn.Module):
    """Mixin before one of timm's classes: builds the network, then makes the layers of its design dynamic.

    Every expert is initialised like the kernel of the static network: K - 1 further networks are built to copy their
    kernels (not on the meta device, where tensors have no values).
    """

    static_class: ClassVar[type[nn.Module]]
    design: Design

    def __init__(self, *, design: Design, **kwargs: Any) -> None:
        build = partial(self.static_class, **kwargs)
        # timm's builder modifies its block arguments, so every network gets a copy.
        super().__init__(**deepcopy(kwargs))
        self.design = design
        scopes = choose_scopes(self, design)
        names = [name for scope in scopes for name in scope.layers]
        if not names:  # a feature extractor: all dynamic layers were in the head
            return
        like = next(self.parameters())
        donors = [] if like.is_meta else [deepcopy(build)() for _ in range(design.experts - 1)]
        for name in names:
            layer = convert(
                self.get_submodule(name),
                method=design.method,
                experts=design.experts,
                router=_NoRouter,
                donors=[donor.get_submodule(name) for donor in donors],
                noise=0.0,
            )
            self.set_submodule(name, layer)
        with like.device:
            install_routers(self, scopes, design, like.dtype)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """As timm's; a dynamic classifier stays dynamic, and keeps its router."""
        name = "fc" if isinstance(self, ResNet) else "classifier"
        before = getattr(self, name)
        super().reset_classifier(num_classes, global_pool)  # type: ignore[misc]
        after = getattr(self, name)
        if not self.design.dynamic_classifier or not isinstance(after, nn.Linear):
            return
        if isinstance(before, DynamicLinear):
            router = before.router
        elif self.design.routing in ("single", "partially_shared", "hierarchical"):
            raise ValueError(
                f"the classifier reads another scope's routing weights (routing={self.design.routing!r}) and is gone; "
                "build the network with num_classes instead"
            )
        else:
            router = make_router(after.in_features, self.design)
        kind = CondLinear if self.design.method == "condconv" else DynamicLinear
        weight = after.weight
        made = kind(
            after.in_features,
            after.out_features,
            experts=self.design.experts,
            router=router,
            device=weight.device,
            dtype=weight.dtype,
        )
        setattr(self, name, made.train(self.training))


class _NoRouter(nn.Module):
    """Placeholder for the router of a layer until its scope is known."""

    def __init__(self, in_channels: int, experts: int) -> None:
        super().__init__()


class DynamicEfficientNet(DynamicNetwork, EfficientNet):
    static_class = EfficientNet


class DynamicEfficientNetFeatures(DynamicNetwork, EfficientNetFeatures):
    static_class = EfficientNetFeatures


class DynamicMobileNetV3(DynamicNetwork, MobileNetV3V1):
    static_class = MobileNetV3V1


class DynamicMobileNetV3Features(DynamicNetwork, MobileNetV3V1Features):
    static_class = MobileNetV3V1Features


class DynamicResNet(DynamicNetwork, ResNet):
    static_class = ResNet


NETWORKS: dict[str, type[DynamicNetwork]] = {
    "efficientnet": DynamicEfficientNet,
    "mobilenetv3": DynamicMobileNetV3,
    "resnet": DynamicResNet,
}

FEATURES: dict[str, type[DynamicNetwork]] = {
    "efficientnet": DynamicEfficientNetFeatures,
    "mobilenetv3": DynamicMobileNetV3Features,
}
