"""Backbones against torchvision and timm, with their weights in a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from torso.backbones import Timm, resnet
from torso.testing import check_backbone


def scattered(model: nn.Module) -> nn.Module:
    """Running statistics and norms as if the model had learned: fresh ones hide a mistake."""
    generator = torch.Generator().manual_seed(0)
    for name, x in [*model.named_parameters(), *model.named_buffers()]:
        if "running_var" in name or (x.ndim == 1 and name.endswith("weight")):
            x.data.copy_(torch.rand(x.shape, generator=generator) + 0.5)
        elif "running_mean" in name or name.endswith("bias"):
            x.data.copy_(torch.randn(x.shape, generator=generator) * 0.1)
    return model


def saved(state: dict[str, Tensor], path: Path) -> str:
    torch.save(state, path) if path.suffix == ".pth" else save_file(state, path)
    return str(path)


def levels(model: nn.Module, x: Tensor) -> list[Tensor]:
    """The four stages of torchvision's ResNet."""
    x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
    features = []
    for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
        x = stage(x)
        features.append(x)
    return features


@pytest.mark.part("backbone/resnet")
@pytest.mark.parametrize(("depth", "suffix"), [(18, ".pth"), (50, ".safetensors")])
def test_resnet_is_torchvisions(depth, suffix, tmp_path):
    import torchvision

    torch.manual_seed(0)
    theirs = scattered(getattr(torchvision.models, f"resnet{depth}")(weights=None))
    path = saved(theirs.state_dict(), tmp_path / f"weights{suffix}")
    ours, theirs = resnet(depth, levels=(2, 3, 4, 5), weights=path).double(), theirs.double()
    for training in (False, True):
        ours.train(training), theirs.train(training)
        ours.zero_grad(), theirs.zero_grad()
        x = torch.randn(2, 3, 43, 37, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        mine, other = ours(x), levels(theirs, x)
        assert [f.shape[1] for f in other] == ours.channels
        for a, b in zip(mine, other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
        sum(a.square().mean() for a in mine).backward()
        sum(b.square().mean() for b in other).backward()
        gradients = {name: p.grad for name, p in theirs.named_parameters()}
        for name, p in ours.body.named_parameters():
            scale = float(gradients[name].abs().max())
            torch.testing.assert_close(p.grad, gradients[name], rtol=1e-8, atol=1e-8 * scale)
    for name, x in ours.body.named_buffers():
        torch.testing.assert_close(x, dict(theirs.named_buffers())[name])  # training moved both alike


@pytest.mark.part("backbone/resnet")
@pytest.mark.parametrize("model", ["resnet18", "mobilenetv3_small_100", "convnext_atto", "tf_efficientnet_lite0"])
def test_weights_of_a_whole_timm_model_fit(model, tmp_path):
    """The file has a classifier and other names than the pyramid; the pyramid's features are the model's own."""
    import timm

    torch.manual_seed(0)
    theirs = scattered(timm.create_model(model, pretrained=False)).eval()
    ours = Timm(model, (4, 5), weights=saved(theirs.state_dict(), tmp_path / "w.safetensors")).eval()
    assert not ours.frozen
    with torch.no_grad():
        x = torch.randn(1, 3, 64, 96)
        expected = theirs.forward_intermediates(x, intermediates_only=True)
        by_stride = {x.shape[-1] // f.shape[-1]: f for f in expected}
        for stride, found in zip(ours.strides, ours(x), strict=True):
            torch.testing.assert_close(found, by_stride[stride], rtol=1e-5, atol=1e-5 * float(found.abs().max()))


@pytest.mark.parametrize("model", ["mobilenetv3_small_100", "convnext_atto", "tf_efficientnet_lite0"])
def test_families_keep_the_contract(model):
    check_backbone(Timm(model), size=32)


@pytest.mark.part("backbone/resnet")
@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_depth_is_the_number_of_layers(depth):
    """Convolutions on the main path, and the classifier that a backbone leaves out."""
    with torch.device("meta"):
        body = resnet(depth).body
    layers = [name for name, m in body.named_modules() if isinstance(m, nn.Conv2d) and "downsample" not in name]
    assert len(layers) + 1 == depth
