"""A ResNet for pictures of 32x32 pixels (He et al. 2016, section 4.2), as thin as one likes."""

from __future__ import annotations

from collections.abc import Sequence

from timm.models.resnet import BasicBlock
from torch import Tensor, nn

from dynaconv.models.builder import register_class
from dynaconv.models.options import check_width

NAME = "small_resnet"
CHANNELS = 16  # of the first stage, at width 1


class SmallResNet(nn.Module):
    """``(B, 3, S, S)`` to ``(B, num_classes)``: a 3x3 convolution, stages of basic blocks, mean pooling, a classifier.

    Stage s has ``round(16 * width_multiplier) * 2^s`` channels; every stage but the first halves the map. The shortcut
    of a block that changes the shape is a 1x1 convolution (option B of He et al.), and the last normalisation of a
    block begins at zero, as in timm's ResNets.

    Args:
        num_classes: outputs.
        width_multiplier: 1 for the paper's 16, 32 and 64 channels; 0.5 for 8, 16 and 32.
        blocks: of every stage; ``(3, 3, 3)`` is the paper's ResNet-20, ``(1, 1, 1)`` its ResNet-8.
        stem_stride: of the first convolution; 1 in the paper, 2 for a quarter of the cost.
        drop_rate: dropout before the classifier.
        in_chans: channels of the picture.
    """

    def __init__(
        self,
        num_classes: int = 10,
        width_multiplier: float = 1.0,
        blocks: Sequence[int] = (3, 3, 3),
        stem_stride: int = 1,
        drop_rate: float = 0.0,
        in_chans: int = 3,
    ) -> None:
        super().__init__()
        check_width(width_multiplier)
        if not blocks or not all(isinstance(count, int) and count >= 1 for count in blocks):
            raise ValueError(f"blocks is {blocks!r}; expected the number of blocks of every stage, such as (3, 3, 3)")
        if stem_stride not in (1, 2):
            raise ValueError(f"stem_stride is {stem_stride!r}; expected 1 or 2")
        channels = max(1, round(CHANNELS * width_multiplier))
        self.conv1 = nn.Conv2d(in_chans, channels, 3, stride=stem_stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.act1 = nn.ReLU(inplace=True)
        stages, before = [], channels
        for stage, count in enumerate(blocks):
            stages.append(_stage(before, channels * 2**stage, count, stride=1 if stage == 0 else 2))
            before = channels * 2**stage
        self.stages = nn.Sequential(*stages)
        self.num_features, self.num_classes = before, num_classes
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(drop_rate)
        self.fc = nn.Linear(before, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, BasicBlock):
                module.zero_init_last()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages(self.act1(self.bn1(self.conv1(x))))
        logits: Tensor = self.fc(self.dropout(self.pool(x).flatten(1)))
        return logits


def _stage(before: int, channels: int, count: int, stride: int) -> nn.Sequential:
    shortcut = None
    if stride != 1 or before != channels:
        shortcut = nn.Sequential(nn.Conv2d(before, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))
    first = BasicBlock(before, channels, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(channels, channels) for _ in range(count - 1)))


register_class(NAME, SmallResNet, (3, 32, 32), 10)
