"""DetNet-59 against torchvision's ResNet-50 where they are one, and against the paper where they part."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.unit.backbones.cost import multiply_adds, on_meta, parameters
from torso.backbones.detnet import DetNet59
from torso.nn.conv import ConvNormAct

CLASSIFIER = 1024 * 1000


def torchvision_stages(model: nn.Module, x: Tensor) -> list[Tensor]:
    x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
    features = []
    for stage in (model.layer1, model.layer2, model.layer3):
        x = stage(x)
        features.append(x)
    return features


@pytest.mark.part("backbone/detnet59")
def test_the_first_stages_are_torchvisions_resnet_50() -> None:
    """With its weights in order of registration: outputs of stages 2 to 4 in both modes, and gradients."""
    import torchvision

    torch.manual_seed(0)
    theirs = torchvision.models.resnet50(weights=None)
    for name, x in theirs.named_buffers():
        if "running" in name:
            x.copy_(torch.rand(x.shape) + 0.5)
    ours = DetNet59(levels=(2, 3, 4), stride_in_1x1=False)
    state = {key: x for key, x in theirs.state_dict().items() if not key.startswith(("layer4", "fc"))}
    ours.load_state_dict(dict(zip(ours.state_dict(), state.values(), strict=True)))
    ours, theirs = ours.double(), theirs.double()
    x = torch.randn(2, 3, 43, 37, dtype=torch.float64)
    for training in (False, True):
        mine, other = ours.train(training)(x), torchvision_stages(theirs.train(training), x)
        for a, b in zip(mine, other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    sum(a.square().mean() for a in mine).backward()
    sum(b.square().mean() for b in other).backward()
    gradients = [p.grad for name, p in theirs.named_parameters() if not name.startswith(("layer4", "fc"))]
    for p, gradient in zip(ours.parameters(), gradients, strict=True):
        torch.testing.assert_close(p.grad, gradient, rtol=1e-8, atol=1e-8 * float(gradient.abs().max()))


@pytest.mark.part("backbone/detnet59")
def test_it_costs_what_the_paper_says() -> None:
    """4.8 G multiply-adds (abstract) with strides in the first 1x1, where ResNet-50 costs the paper's 3.8 G."""
    adds = multiply_adds(lambda: DetNet59((6,)), 224) + CLASSIFIER
    assert adds / 1e9 == pytest.approx(4.8, abs=0.05)
    assert multiply_adds(lambda: DetNet59((6,), stride_in_1x1=False), 224) > adds
    # A block of the new stages: 1x1 1024 to 256, 3x3, 1x1 back, their norms; B has the 1x1 on the shortcut too.
    a = 1024 * 256 + 9 * 256 * 256 + 256 * 1024 + 2 * (256 + 256 + 1024)
    b = a + 1024 * 1024 + 2 * 1024
    below = parameters(on_meta(lambda: DetNet59((4,))))
    assert parameters(on_meta(lambda: DetNet59((5,)))) == below + b + 2 * a
    assert parameters(on_meta(lambda: DetNet59((6,)))) == below + 2 * (b + 2 * a) == 17_347_648


@pytest.mark.part("backbone/detnet59")
def test_it_has_59_layers_and_stays_at_stride_16() -> None:
    backbone = on_meta(DetNet59)
    assert backbone.strides == [4, 8, 16, 16, 16]
    assert backbone.channels == [256, 512, 1024, 1024, 1024]
    layers = [n for n, m in backbone.named_modules() if isinstance(m, nn.Conv2d) and "shortcut" not in n]
    assert len(layers) + 1 == 59  # and the classifier
    for stage in backbone.stages[-2:]:
        kinds = [type(block.shortcut) for block in stage]
        assert kinds == [ConvNormAct, nn.Identity, nn.Identity]  # B, A, A
        assert [layer.dilation for layer in stage.modules() if getattr(layer, "kernel_size", 0) == (3, 3)] == [
            (2, 2)
        ] * 3
    assert not [layer for layer in backbone.stages[:3].modules() if getattr(layer, "dilation", (1, 1)) != (1, 1)]


def test_dilation_widens_what_a_new_stage_sees() -> None:
    """Each of its three 3x3 convolutions reaches 2 cells to each side: 13 cells in all."""
    torch.manual_seed(0)
    stage = DetNet59().stages[3].double().eval()
    x = torch.randn(1, 1024, 21, 21, dtype=torch.float64, requires_grad=True)
    seen = torch.autograd.grad(stage(x)[0, :, 10, 10].sum(), x)[0].abs().sum((0, 1)) > 0
    rows = seen.any(1).nonzero().flatten()
    assert (int(rows.min()), int(rows.max())) == (4, 16)
