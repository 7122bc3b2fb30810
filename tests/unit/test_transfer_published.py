"""torchvision's names for weights: the file of that name in its cache, or one sentence; never a download."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from torso.backbones import TimmTrunk, resnet
from torso.config import ModelError
from torso.weights import located, safe_load

pytestmark = pytest.mark.part("transfer/weights")

URL = "https://download.pytorch.org/models/resnet18-f37072fd.pth"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def names() -> list[object]:
    from torchvision.models import ResNet18_Weights

    member = ResNet18_Weights.IMAGENET1K_V1
    assert member.url == URL
    return [member, ResNet18_Weights.DEFAULT, "ResNet18_Weights.IMAGENET1K_V1", "ResNet18_Weights.DEFAULT"]


def test_a_name_says_which_file_to_fetch_and_that_torso_does_not(cache: Path) -> None:
    for name in names():
        with pytest.raises(ModelError) as caught:
            safe_load(name)  # type: ignore[arg-type]
        message = str(caught.value)
        assert message == (
            f"ResNet18_Weights.IMAGENET1K_V1 is torchvision's name for {URL}, and torso downloads nothing: fetch that "
            f"file where there is a network and give its path, or lay it into torchvision's cache ({cache})"
        )
    with pytest.raises(ModelError, match="torso downloads nothing"):
        resnet(18, weights="IMAGENET1K_V1")
    with pytest.raises(ModelError, match="torso downloads nothing"):
        TimmTrunk("mobilenetv2_100", weights="DEFAULT")
    assert not list(cache.iterdir())


def test_the_file_in_torchvisions_cache_is_taken(cache: Path) -> None:
    import torchvision

    torch.manual_seed(0)
    theirs = torchvision.models.resnet18(weights=None)
    torch.save(theirs.state_dict(), cache / "resnet18-f37072fd.pth")
    for name in names():
        assert located(name) == cache / "resnet18-f37072fd.pth"
    for name in ("IMAGENET1K_V1", "DEFAULT", "ResNet18_Weights.IMAGENET1K_V1"):
        ours = resnet(18, weights=name)
        assert torch.equal(ours.body.layer4[1].conv2.weight, theirs.layer4[1].conv2.weight)


def test_a_file_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_file({"x": torch.ones(1)}, "DEFAULT")
    assert list(safe_load("DEFAULT")) == ["x"]


@pytest.mark.parametrize(
    ("name", "model", "words"),
    [
        ("IMAGENET1K_V1", None, r"says not of which model: write ResNet50_Weights\.IMAGENET1K_V1, or the path of a"),
        ("IMAGENET1K_V9", "resnet18", "torchvision publishes no weights 'IMAGENET1K_V9' of resnet18: give the path"),
        ("IMAGENET1K_V1", "cspdarknet53", "torchvision publishes no weights 'IMAGENET1K_V1' of cspdarknet53"),
        ("ResNet18_Weights.IMAGENET1K_V7", None, r"publishes no weights 'ResNet18_Weights\.IMAGENET1K_V7': give"),
        ("NoNet_Weights.DEFAULT", None, r"publishes no weights 'NoNet_Weights\.DEFAULT'"),
    ],
)
def test_names_that_mean_nothing(name: str, model: str | None, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        located(name, model)
