"""Every backbone from a library gives the features of the library's whole model, whose weight file it loads by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.contracts.library import LIBRARY
from tests.parity.test_backbones import saved, scattered
from torso.backbones import BACKBONES

TIMM = {
    "cspdarknet53": "cspdarknet53",
    "cspresnext50": "cspresnext50",
    "darknet53": "darknet53",
    "densenet": "densenet121",
    "efficientnet": "efficientnet_b0",
    "efficientnetv2": "efficientnetv2_s",
    "mobilenetv1": "mobilenetv1_100",
    "mobilenetv2": "mobilenetv2_035",
    "resnet": "resnet18",
    "resnext": "resnext50_32x4d",
    "senet": "seresnet18",
    "sknet": "skresnet18",
    "swin": "swin_tiny_patch4_window7_224",
    "vgg": "vgg11",
    "xception": "xception41",
}


def theirs(model: str, **options: Any) -> nn.Module:
    import timm

    torch.manual_seed(0)
    return scattered(timm.create_model(model, pretrained=False, **options)).eval()


def compare(found: list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected)
    for mine, other in zip(found, expected, strict=True):
        assert mine.std() > 0
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9 * float(other.abs().max()))


def random(*size: int) -> Tensor:
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def by_stride(features: list[Tensor], width: int) -> dict[int, Tensor]:
    """The last of the features with each stride."""
    return {width // x.shape[-1]: x for x in features}


@pytest.mark.part("backbone/cspdarknet53", "backbone/cspresnext50", "backbone/darknet53", "backbone/densenet")
@pytest.mark.part("backbone/efficientnet", "backbone/efficientnetv2", "backbone/mobilenetv1", "backbone/mobilenetv2")
@pytest.mark.part("backbone/resnet", "backbone/resnext", "backbone/senet", "backbone/sknet", "backbone/swin")
@pytest.mark.part("backbone/vgg", "backbone/xception")
@pytest.mark.parametrize("name", sorted(TIMM))
def test_features_are_those_of_timms_whole_model(name: str, tmp_path: Path) -> None:
    # Any size for Swin; the fully connected layers of VGG, which are not compared, would make the file 500 MB.
    options = {"swin": {"strict_img_size": False}, "vgg": {"mlp_ratio": 2**-9}}.get(name, {})
    whole = theirs(TIMM[name], **options)
    path = saved(whole.state_dict(), tmp_path / ("w.pth" if len(name) % 2 else "w.safetensors"))
    args = dict(LIBRARY[name], levels=(2, 3, 4, 5), weights=path)
    if name == "xception":
        args["output_stride"] = 32
    ours, whole = BACKBONES[name](**args).eval().double(), whole.double()
    with torch.no_grad():
        x = random(64, 96)
        expected = by_stride(whole.forward_intermediates(x, intermediates_only=True), 96)
        compare(ours(x), [expected[stride] for stride in ours.strides])
        # Where every side is rounded up by the network itself nothing is padded; else theirs sees what ours pads to.
        x = random(65, 97)
        multiple = ours.multiple
        padded = functional.pad(x, (0, -97 % multiple, 0, -65 % multiple))
        expected = whole.forward_intermediates(padded, intermediates_only=True)[-4:]
        compare(ours(x), [f[..., : -(-65 // s), : -(-97 // s)] for f, s in zip(expected, ours.strides, strict=True)])


@pytest.mark.part("backbone/swin")
def test_swin_at_224_is_timms_as_it_is(tmp_path: Path) -> None:
    whole = theirs("swin_tiny_patch4_window7_224")
    path = saved(whole.state_dict(), tmp_path / "w.safetensors")
    ours = BACKBONES["swin"](weights=path).eval()
    with torch.no_grad():
        x = random(224, 224).float()
        for mine, other in zip(ours(x), whole.forward_intermediates(x, intermediates_only=True), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


@pytest.mark.part("backbone/hrnet")
@pytest.mark.parametrize("branches", ["raw", "increased"])
def test_hrnet_gives_timms_branches(branches: str, tmp_path: Path) -> None:
    whole = theirs("hrnet_w18").double()
    path = saved(whole.float().state_dict(), tmp_path / "w.safetensors")
    ours = BACKBONES["hrnet"](18, branches, weights=path).eval().double()
    assert ours.channels == ([18, 36, 72, 144] if branches == "raw" else [128, 256, 512, 1024])
    whole.double()
    with torch.no_grad():
        x = random(64, 96)
        stem = whole.act2(whole.bn2(whole.conv2(whole.act1(whole.bn1(whole.conv1(x))))))
        expected = whole.stages(stem)
        if branches == "increased":
            expected = [widen(x) for widen, x in zip(whole.incre_modules, expected, strict=True)]
        compare(ours(x), expected)


@pytest.mark.part("backbone/xception", "backbone/resnet", "backbone/mobilenetv2", "backbone/efficientnet")
@pytest.mark.parametrize(
    ("name", "model", "stride"),
    [
        ("xception", "xception41", 8),
        ("xception", "xception41", 16),
        ("resnet", "resnet18", 8),
        ("resnet", "resnet18", 16),
        ("mobilenetv2", "mobilenetv2_035", 16),
        ("efficientnet", "efficientnet_b0", 8),
    ],
)
def test_dilation_in_the_place_of_strides(name: str, model: str, stride: int, tmp_path: Path) -> None:
    """Levels keep their numbers; shapes say the output stride; features are timm's with the same output stride."""
    whole = theirs(model, output_stride=stride)
    path = saved(whole.state_dict(), tmp_path / "w.safetensors")
    args = dict(LIBRARY[name], levels=(2, 3, 4, 5), output_stride=stride, weights=path)
    ours, whole = BACKBONES[name](**args).eval().double(), whole.double()
    assert ours.strides == [min(2**level, stride) for level in (2, 3, 4, 5)]
    plain = BACKBONES[name](**dict(LIBRARY[name], levels=(2, 3, 4, 5), output_stride=32))
    assert ours.channels == plain.channels
    with torch.no_grad():
        for size in ((64, 64), (65, 97)):
            x = random(*size)
            found = ours(x)
            assert [f.shape[-2:] for f in found] == [tuple(-(-side // s) for side in size) for s in ours.strides]
            compare(found, whole.forward_intermediates(x, intermediates_only=True)[-4:])


def torchvision_model(name: str) -> Any:
    import torchvision

    torch.manual_seed(0)
    return scattered(torchvision.models.get_model(name, weights=None)).eval()


def whole_shufflenet(model: Any, x: Tensor) -> list[Tensor]:
    features = []
    for layer in (model.conv1, model.maxpool, model.stage2, model.stage3, model.stage4, model.conv5):
        x = layer(x)
        features.append(x)
    return [*features[:4], features[5]]


def alexnet_rounding_up(model: Any, x: Tensor) -> list[Tensor]:
    """torchvision's layers on the picture with a border of 3 px, poolings rounding up."""
    x = functional.pad(x, (3, 3, 3, 3))
    features = []
    for place, layer in enumerate(model.features):
        x = functional.max_pool2d(x, 3, 2, ceil_mode=True) if isinstance(layer, nn.MaxPool2d) else layer(x)
        if place in (1, 4, 11, 12):
            features.append(x)
    return features


def squeezenet_with_border(border: int, ends: tuple[int, ...]) -> Callable[[Any, Tensor], list[Tensor]]:
    def run(model: Any, x: Tensor) -> list[Tensor]:
        x = functional.pad(x, (border,) * 4)
        features = []
        for place, layer in enumerate(model.features):
            x = layer(x)
            if place in ends:
                features.append(x)
        return features

    return run


TORCHVISION: list[tuple[str, dict[str, Any], str, Callable[[Any, Tensor], list[Tensor]]]] = [
    (
        "shufflenet_v2",
        {"width": 50, "levels": (1, 2, 3, 4, 5), "top_conv": True},
        "shufflenet_v2_x0_5",
        whole_shufflenet,
    ),
    ("alexnet", {"levels": (2, 3, 4, 5)}, "alexnet", alexnet_rounding_up),
    (
        "squeezenet",
        {"version": "1_0", "levels": (1, 2, 3, 4)},
        "squeezenet1_0",
        squeezenet_with_border(3, (1, 5, 10, 12)),
    ),
    (
        "squeezenet",
        {"version": "1_1", "levels": (1, 2, 3, 4)},
        "squeezenet1_1",
        squeezenet_with_border(1, (1, 4, 7, 12)),
    ),
]


@pytest.mark.part("backbone/shufflenet_v2", "backbone/alexnet", "backbone/squeezenet")
@pytest.mark.parametrize(("name", "args", "model", "run"), TORCHVISION, ids=[case[2] for case in TORCHVISION])
def test_features_are_torchvisions_layers(
    name: str, args: dict[str, Any], model: str, run: Any, tmp_path: Path
) -> None:
    whole = torchvision_model(model)
    state = {key: x for key, x in whole.state_dict().items() if "classifier" not in key}
    ours = BACKBONES[name](**args, weights=saved(state, tmp_path / "w.pth")).eval().double()
    with torch.no_grad():
        x = random(64, 96)
        found = ours(x)
        compare(found, run(whole.double(), x))
        assert [f.shape[1] for f in found] == ours.channels
        assert [96 // f.shape[-1] for f in found] == ours.strides


@pytest.mark.part("backbone/alexnet", "head/classify")
def test_alexnet_whole_is_torchvisions(tmp_path: Path) -> None:
    """Its first shapes and its logits; with the head `classify` it is the classifier itself."""
    from torso.heads import Classify

    whole = torchvision_model("alexnet")
    path = saved(whole.state_dict(), tmp_path / "w.safetensors")
    ours = BACKBONES["alexnet"](fully_connected=True, weights=path).eval()
    head = Classify(ours.channels, 1000).eval()
    head.linear.load_state_dict(whole.classifier[6].state_dict())
    ours, head, whole = ours.double(), head.double(), whole.double()
    with torch.no_grad():
        x = random(224, 224)
        compare([head(ours(x))], [whole(x)])
        shapes, now = [], x
        for layer in ours.body["features"][:5]:
            now = layer(now)
            shapes.append(list(now.shape[1:]))
    assert [shapes[0], shapes[2], shapes[3]] == [[64, 55, 55], [64, 27, 27], [192, 27, 27]]


@pytest.mark.part("backbone/vit")
@pytest.mark.parametrize("side", [224, 384])
def test_vits_trunk_is_timms(side: int, tmp_path: Path) -> None:
    """A whole weight file, also of another picture size: the grid of the file is the grid that is resampled from."""
    whole = theirs("vit_tiny_patch16_224", img_size=side)
    path = saved(whole.state_dict(), tmp_path / "w.safetensors")
    ours = BACKBONES["vit"]("tiny", weights=path).eval().double()
    assert ours.body.pos_embed.shape[1] == (side // 16) ** 2 + 1
    whole = whole.double()
    with torch.no_grad():
        x = random(side, side)
        compare([ours.trunk(x)], whole.forward_intermediates(x, indices=[11], intermediates_only=True))


@pytest.mark.part("backbone/vit", "backbone/timm")
def test_the_adapter_loads_a_whole_vit_and_keeps_the_stride(tmp_path: Path) -> None:
    whole = theirs("vit_tiny_patch16_224")
    path = saved(whole.state_dict(), tmp_path / "w.safetensors")
    ours = BACKBONES["timm"]("vit_tiny_patch16_224", (4,), weights=path).eval().double()
    with torch.no_grad():
        x = random(224, 224)
        compare(ours(x), whole.double().forward_intermediates(x, indices=[11], intermediates_only=True))


@pytest.mark.part("backbone/vit")
def test_vits_positions_are_resampled_to_the_picture(tmp_path: Path) -> None:
    from timm.layers import resample_abs_pos_embed

    whole = theirs("vit_tiny_patch16_224")
    path = saved(whole.state_dict(), tmp_path / "w.safetensors")
    ours = BACKBONES["vit"]("tiny", weights=path).eval()
    # timm's model for 96 x 64 px, with the position embeddings of the file resampled by hand.
    other = theirs("vit_tiny_patch16_224", img_size=(96, 64))
    moved = resample_abs_pos_embed(whole.pos_embed, (6, 4), (14, 14))
    other.load_state_dict({**whole.state_dict(), "pos_embed": moved})
    with torch.no_grad():
        x = random(96, 64).float()
        (expected,) = other.forward_intermediates(x, indices=[11], intermediates_only=True)
        torch.testing.assert_close(ours.trunk(x), expected, rtol=1e-5, atol=1e-5)
