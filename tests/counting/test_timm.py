"""Agreement with torch's own counter on static networks of many kinds, exactly."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from dynaconv.counting import cost

timm = pytest.importorskip("timm")

FAST = ["mobilenetv3_small_100", "resnet18", "vit_tiny_patch16_224", "convnext_atto", "mixer_s32_224", "regnety_002"]

# One of each kind that timm has, small where there is a choice.
# fmt: off
MANY = [
    "beit_base_patch16_224", "botnet26t_256", "coat_lite_tiny", "coatnet_0_rw_224", "convit_tiny", "convmixer_768_32",
    "crossvit_9_240", "cspresnet50", "cspdarknet53", "davit_tiny", "deit_tiny_patch16_224", "densenet121", "dla34",
    "dpn48b", "edgenext_xx_small", "eca_resnet33ts", "efficientformer_l1", "efficientformerv2_s0", "efficientnet_b0",
    "efficientnetv2_rw_t", "efficientvit_b0", "efficientvit_m0", "eva02_tiny_patch14_224", "fastvit_t8",
    "focalnet_tiny_srf", "gcresnet33ts", "gcvit_xxtiny", "gernet_s", "ghostnet_100", "halonet26t", "hardcorenas_a",
    "hgnetv2_b0", "hrnet_w18_small", "inception_next_tiny", "inception_v3", "inception_resnet_v2", "lambda_resnet26t",
    "lcnet_050", "levit_128s", "maxvit_pico_rw_256", "mnasnet_100", "mobilenetv1_100", "mobilenetv2_100",
    "mobilenetv4_conv_small", "mobileone_s0", "mobilevit_xxs", "mobilevitv2_050", "mvitv2_tiny", "nasnetalarge",
    "nest_tiny", "nf_resnet50", "nfnet_f0", "pnasnet5large", "poolformer_s12", "pvt_v2_b0", "regnetx_002", "repvgg_a0",
    "repvit_m1", "res2net50_26w_4s", "resmlp_12_224", "resnest14d", "resnetv2_50", "resnext50_32x4d", "rexnet_100",
    "seresnet18", "selecsls42", "semnasnet_100", "sequencer2d_s", "skresnet18", "starnet_s1",
    "swin_tiny_patch4_window7_224", "swinv2_cr_tiny_224", "swinv2_tiny_window8_256", "tiny_vit_5m_224", "tinynet_a",
    "tnt_s_patch16_224", "tresnet_m", "twins_svt_small", "vgg11", "visformer_tiny", "volo_d1_224", "vovnet39a",
    "wide_resnet50_2", "xception41", "xcit_nano_12_p16_224", "gmlp_s16_224", "caformer_s18", "hiera_tiny_224",
    "mambaout_femto", "vitamin_small_224",
]
# fmt: on


def check_against_torch(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False).eval()
    size = model.default_cfg["input_size"]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(1, *size, device="meta"))
    report = cost(model, size)
    assert report.total == counter.get_total_flops() / 2
    assert report.total > 1e6
    assert report.mixing == report.routing == 0
    assert report.parameters.total == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", FAST)
def test_few(name: str) -> None:
    check_against_torch(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", MANY)
def test_many(name: str) -> None:
    check_against_torch(name)
