"""What backbones from libraries count, freeze, leave out and refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests.contracts.library import LIBRARY
from torso.backbones import BACKBONES
from torso.config import ModelError
from torso.heads import Classify


def parameters(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


# Our part, its arguments, the parameters of its body with every level, the timm model and its parameters with a
# classifier of 1000 classes: the papers' and the libraries' own numbers.
COUNTS: list[tuple[str, dict[str, Any], int, str, int]] = [
    ("resnet", {"depth": 50}, 23_508_032, "resnet50", 25_557_032),
    ("resnet", {"depth": 101}, 42_500_160, "resnet101", 44_549_160),
    ("resnext", {"variant": "50_32x4d"}, 22_979_904, "resnext50_32x4d", 25_028_904),
    ("resnext", {"variant": "101_32x8d"}, 86_742_336, "resnext101_32x8d", 88_791_336),
    ("senet", {"depth": 50}, 26_039_024, "seresnet50", 28_088_024),
    ("senet", {"depth": 154}, 113_039_984, "legacy_senet154", 115_088_984),
    ("sknet", {"variant": "50_32x4d"}, 25_430_784, "skresnext50_32x4d", 27_479_784),
    ("vgg", {"depth": 16}, 14_714_688, "vgg16", 138_357_544),
    ("densenet", {"depth": 121}, 6_953_856, "densenet121", 7_978_856),
    ("densenet", {"depth": 161}, 26_472_000, "densenet161", 28_681_000),
    ("darknet53", {}, 40_584_928, "darknet53", 41_609_928),
    ("cspdarknet53", {}, 26_617_184, "cspdarknet53", 27_642_184),
    ("cspresnext50", {}, 18_520_896, "cspresnext50", 20_569_896),
    ("hrnet", {"width": 18}, 10_948_180, "hrnet_w18", 21_299_004),
    ("mobilenetv1", {}, 3_206_976, "mobilenetv1_100", 4_231_976),
    ("mobilenetv2", {}, 1_811_712, "mobilenetv2_100", 3_504_872),
    ("efficientnet", {"size": "b0"}, 3_595_388, "efficientnet_b0", 5_288_548),
    ("efficientnet", {"size": "b7", "padding": "tensorflow"}, 62_143_440, "tf_efficientnet_b7", 66_347_960),
    ("efficientnetv2", {"size": "s"}, 19_847_248, "efficientnetv2_s", 21_458_488),
    ("efficientnetv2", {"size": "m"}, 52_200_436, "efficientnetv2_m", 54_139_356),
    ("efficientnetv2", {"size": "l"}, 116_412_512, "efficientnetv2_l", 118_515_272),
    ("swin", {"size": "tiny"}, 27_517_818, "swin_tiny_patch4_window7_224", 28_288_354),
    ("xception", {"depth": 41, "levels": (2, 3, 4, 5)}, 24_920_560, "xception41", 26_969_560),
]


@pytest.mark.part("backbone/cspdarknet53", "backbone/cspresnext50", "backbone/darknet53", "backbone/densenet")
@pytest.mark.part("backbone/efficientnet", "backbone/efficientnetv2", "backbone/hrnet", "backbone/mobilenetv1")
@pytest.mark.part("backbone/mobilenetv2", "backbone/resnet", "backbone/resnext", "backbone/senet", "backbone/sknet")
@pytest.mark.part("backbone/swin", "backbone/vgg", "backbone/xception", "backbone/timm_trunk")
@pytest.mark.parametrize(("name", "args", "body", "model", "whole"), COUNTS, ids=[case[3] for case in COUNTS])
def test_parameters_are_counted_as_published(
    name: str, args: dict[str, Any], body: int, model: str, whole: int
) -> None:
    with torch.device("meta"):
        assert parameters(BACKBONES[name](**args)) == body
        trunk = BACKBONES["timm_trunk"](model)
        assert parameters(trunk, Classify(trunk.channels, 1000)) == whole


@pytest.mark.part("backbone/alexnet", "backbone/squeezenet", "backbone/shufflenet_v2")
def test_parameters_of_torchvisions_networks() -> None:
    with torch.device("meta"):
        for variant, classes, count in (("torchvision", 1000, 61_100_840), ("wide", 10, 46_787_978)):
            whole = BACKBONES["alexnet"](variant, fully_connected=True)
            assert parameters(whole, Classify(whole.channels, classes)) == count
            layers = [m.out_channels for m in whole.modules() if isinstance(m, nn.Conv2d)]
            assert layers == ([64, 192, 384, 256, 256] if classes == 1000 else [96, 256, 384, 384, 256])
        for version, count in (("1_0", 1_248_424), ("1_1", 1_235_496)):
            # The classifier is a convolution of 512 channels to 1000 classes.
            assert parameters(BACKBONES["squeezenet"](version)) + 513 * 1000 == count
        for width, count in ((50, 1_366_792), (100, 2_278_604), (150, 3_503_624), (200, 7_393_996)):
            top = BACKBONES["shufflenet_v2"](width, top_conv=True)
            assert parameters(top, Classify(top.channels, 1000)) == count


@pytest.mark.part("backbone/vit", "backbone/resnet")
def test_multiplications_at_224() -> None:
    with torch.device("meta"):
        images = torch.rand(1, 3, 224, 224)
        for name, args, classes, giga in (("vit_tiny_patch16_224", {}, 1000, 1.254), ("resnet50", {}, 1000, 4.089)):
            trunk = BACKBONES["timm_trunk"](name, **args).eval()
            head = Classify(trunk.channels, classes)
            with FlopCounterMode(display=False) as counter:
                head(trunk(images))
            assert round(counter.get_total_flops() / 2e9, 3) == giga
        vit = BACKBONES["vit"]("tiny").eval()
        with FlopCounterMode(display=False) as counter:
            vit.trunk(images)
        assert counter.get_total_flops() == 2 * (1_253_683_200 - 192_000)  # all but the classifier
        assert parameters(vit.body) == 5_717_416 - 193 * 1000 - 2 * 192  # and the final norm


@pytest.mark.part("backbone/timm", "backbone/hrnet", "backbone/xception")
@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("resnet", {"depth": 18, "levels": (2, 3)}),
        ("mobilenetv2", {"width": 35, "levels": (3,)}),
        ("vgg", {"depth": 11, "levels": (1,)}),
        ("xception", {"depth": 41, "levels": (2, 3)}),
        ("hrnet", {"width": 18, "branches": "raw", "levels": (3, 5)}),
        ("hrnet", {"width": 18, "branches": "increased", "levels": (2, 4)}),
    ],
)
def test_everything_that_learns_gets_a_gradient_whatever_the_levels(name: str, args: dict[str, Any]) -> None:
    """Stages above the highest level are not there: they would cost time, and stop distributed training."""
    backbone = BACKBONES[name](**args).train()
    assert backbone.strides == [2**level for level in args["levels"]]
    sum(x.square().mean() for x in backbone(torch.rand(2, 3, 64, 64))).backward()
    assert not [key for key, p in backbone.named_parameters() if p.requires_grad and p.grad is None]
    if name != "hrnet":
        assert parameters(backbone) < parameters(BACKBONES[name](**LIBRARY[name]))


@pytest.mark.part("backbone/alexnet", "backbone/squeezenet", "backbone/shufflenet_v2", "backbone/hrnet")
@pytest.mark.parametrize(
    ("name", "args", "free"),
    [
        ("alexnet", {"frozen_stages": 2}, "body.features_6."),
        ("squeezenet", {"frozen_stages": 1}, "body.features_6."),
        ("shufflenet_v2", {"frozen_stages": 2}, "body.stage3."),
        ("xception", {"frozen_stages": 1, "depth": 41}, "body.model.blocks.1.stack.conv3."),
        ("hrnet", {"frozen_stages": 1, "width": 18}, "body.transition1."),
        ("hrnet", {"frozen_stages": 2, "width": 18}, "body.transition2."),
    ],
)
def test_frozen_stages_of_other_families(name: str, args: dict[str, Any], free: str) -> None:
    backbone = BACKBONES[name](**args).train()
    learns = [p.requires_grad for p in backbone.parameters()]
    names = [key for key, _ in backbone.named_parameters()]
    border = next(place for place, key in enumerate(names) if key.startswith(free))
    assert not any(learns[:border])
    assert all(learns[border:])
    assert border


@pytest.mark.part("backbone/shufflenet_v2")
def test_frozen_norms_of_shufflenet_stay() -> None:
    backbone = BACKBONES["shufflenet_v2"](50, frozen_norm=True).train()
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert not any(m.training or m.weight.requires_grad for m in norms)
    assert all(m.weight.requires_grad for m in backbone.modules() if isinstance(m, nn.Conv2d))


@pytest.mark.part("backbone/vit")
def test_vit_freezes_embeddings_and_blocks() -> None:
    vit = BACKBONES["vit"]("tiny", frozen_stages=3, channels=16)
    frozen = {key for key, p in vit.named_parameters() if not p.requires_grad}
    assert {"body.cls_token", "body.pos_embed", "body.patch_embed.proj.weight"} <= frozen
    assert {key.split(".")[2] for key in frozen if ".blocks." in key} == {"0", "1", "2"}
    assert all(p.requires_grad for p in vit.pyramid.parameters())
    with pytest.raises(ModelError, match="frozen_stages=13, but vit_tiny_patch16_224 has 12 blocks: choose 0 to 12"):
        BACKBONES["vit"]("tiny", frozen_stages=13)


@pytest.mark.part("backbone/vit")
def test_simple_pyramid_without_and_with_its_last_convolutions() -> None:
    vit = BACKBONES["vit"]("tiny", levels=(5, 3, 4, 2), channels=None).eval()
    assert (vit.channels, vit.strides) == ([48, 96, 192, 192], [4, 8, 16, 32])
    with torch.no_grad():
        images = torch.rand(1, 3, 80, 48)
        features, trunk = vit(images), vit.trunk(images)
        assert torch.equal(features[2], trunk)
        torch.testing.assert_close(features[3], nn.functional.max_pool2d(trunk, 2, ceil_mode=True))
        assert [list(x.shape[-2:]) for x in features] == [[20, 12], [10, 6], [5, 3], [3, 2]]
        ended = BACKBONES["vit"]("tiny", levels=(4,), channels=8).eval()(images)
        assert len(ended) == 1
        torch.testing.assert_close(ended[0].mean(1), torch.zeros(1, 5, 3), rtol=0, atol=1e-5)  # layer norm of a cell


def refused(name: str, **args: Any) -> str:
    with pytest.raises(ModelError) as caught:
        BACKBONES[name](**args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.part("backbone/timm", "backbone/senet", "backbone/swin", "backbone/alexnet", "backbone/squeezenet")
def test_what_a_family_does_not_have_is_said() -> None:
    with torch.device("meta"):
        assert "timm's densenet121 has no level 6; its strides are [2, 4, 8, 16, 32]" in refused(
            "densenet", levels=(6,)
        )
        assert "timm's vgg11 was asked for no level" in refused("vgg", depth=11, levels=())
        assert "has no level 1; its strides are [4, 8, 16, 32]" in refused("swin", levels=(1, 2))
        assert "timm has no model 'swin_tiny_patch4_window12_384'" in refused("swin", window=12)
        assert "timm cannot build 'vgg11'" in refused("timm", model="vgg11", output_stride=8)
        assert "timm cannot build 'legacy_senet154'" in refused("senet", depth=154, output_stride=8)
        assert "timm cannot build 'resnet18'" in refused("timm", model="resnet18", options={"nothing": 1})
        assert "alexnet has no level 1" in refused("alexnet", levels=(1,))
        assert "squeezenet1_1 has no level 5" in refused("squeezenet", levels=(5,))
        message = refused("alexnet", frozen_stages=4)
        assert (
            "frozen_stages=4 ends at stride 32, but alexnet with levels=[2, 3, 4] has no stage that ends there"
            in message
        )
        assert "no stages to freeze" in refused("alexnet", fully_connected=True, frozen_stages=1)
        assert "frozen_stages=4 ends at stride 32" in refused("resnet", depth=18, levels=(2, 3), frozen_stages=4)


@pytest.mark.part("backbone/vit", "backbone/shufflenet_v2", "backbone/xception")
def test_files_of_other_models_are_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "w.safetensors")
    save_file({"conv1.weight": torch.zeros(1)}, path)
    assert f"weights {path!r} hold no pos_embed of a ViT with a class token" in refused("vit", weights=path)
    assert "lack conv1.0.weight: they belong to another model" in refused("shufflenet_v2", weights=path)
    assert "lack stem.0.conv.weight: they belong to another model" in refused("xception", depth=41, weights=path)
    save_file({"pos_embed": torch.zeros(1, 12, 192)}, path)
    assert "hold no pos_embed" in refused("vit", weights=path)


@pytest.mark.part("backbone/efficientnet")
def test_paddings_of_efficientnet_are_two_models() -> None:
    """The authors' pads only at the right and the bottom where a side is even."""
    torch.manual_seed(0)
    plain = BACKBONES["efficientnet"]("b0", levels=(1,)).eval()
    other = BACKBONES["efficientnet"]("b0", "tensorflow", levels=(1,)).eval()
    other.load_state_dict(plain.state_dict())
    odd, even = torch.rand(1, 3, 33, 33), torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        # The norms' epsilon differs; with an odd side the padding does not.
        torch.testing.assert_close(plain(odd)[0], other(odd)[0], rtol=0.01, atol=0.01)
        assert (plain(even)[0] - other(even)[0]).abs().max() > 0.05
