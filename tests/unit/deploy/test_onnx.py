"""Export: the file is complete, quiet, movable, and never half written."""

from __future__ import annotations

import re
import sys

import pytest
import torch
from torch import nn

import torso
from tests.unit.deploy.conftest import CLASSES, SIZE
from torso.config import ExportError, ModelError
from torso.deploy import onnx
from torso.deploy.exported import Exported
from torso.deploy.padding import same_padding_settled
from torso.deploy.verify import random_pictures


@pytest.mark.part("deploy/onnx")
@pytest.mark.parametrize(("batch", "height", "width"), [(1, 96, 96), (3, 96, 96), (2, 64, 112), (1, 8, 16)])
def test_the_file_answers_as_the_model_for_any_batch_and_size(detector, detector_file, batch, height, width):
    images = random_pictures(batch, height, width)
    found, expected = Exported(detector_file).predict(images), detector.predict(images)
    assert found.valid.any() or height < 16
    assert found.boxes.shape == (batch, 40, 4)
    torch.testing.assert_close(tuple(found), tuple(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.part("deploy/onnx")
def test_a_file_says_what_it_is(detector_file):
    file = Exported(detector_file)
    assert (file.task, file.num_classes, file.stride, file.size) == ("detect", 3, 8, (SIZE, SIZE))
    assert file.classes == tuple(CLASSES)
    assert file.class_ids == (7, 8, 21)
    assert file.metadata["torso"] == torso.__version__
    assert file.metadata["recipe"] == {"model": {"name": "detector"}}
    assert file.metadata["thresholds"] == {"score": 0.05, "overlap": 0.5, "max_detections": 40}
    assert file.metadata["preprocessing"]["resize"] == {"name": "letterbox", "fill": 114}
    assert file.metadata["preprocessing"]["size"] == [SIZE, SIZE]
    assert [(i.name, i.shape) for i in file.session.get_inputs()] == [("images", ["batch", 3, "8*h", "8*w"])]
    assert {o.name: o.shape for o in file.session.get_outputs()} == {
        "boxes": ["batch", 40, 4],
        "scores": ["batch", 40],
        "labels": ["batch", 40],
        "valid": ["batch", 40],
    }


@pytest.mark.part("deploy/onnx")
def test_a_file_holds_no_trace_of_the_machine_that_made_it(detector_file, root):
    content = detector_file.read_bytes()
    assert str(root).encode() not in content
    assert b".py" not in content
    assert str(detector_file.parent).encode() not in content


@pytest.mark.part("deploy/onnx")
def test_a_classifier_is_exported_and_nothing_is_printed(classifier, tmp_path, capfd):
    said: list[str] = []
    path = onnx.export(classifier, tmp_path / "new" / "c.onnx", size=64, metadata={"classes": CLASSES}, say=said.append)
    assert capfd.readouterr() == ("", "")
    assert "probabilities" in said[-1]
    file, images = Exported(path), random_pictures(2, 96, 64)
    torch.testing.assert_close(file.predict(images), classifier.predict(images), rtol=1e-4, atol=1e-6)
    assert file.task == "classify"
    assert list(path.parent.iterdir()) == [path]


class OneSize(nn.Module):
    """A classifier that only knows pictures of 32x32."""

    task, num_classes, stride = "classify", 3, 1

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(3 * 32 * 32, 3)

    def predict(self, images):
        return self.last(images.float().flatten(1) / 255).softmax(dim=1)


@pytest.mark.part("deploy/onnx")
def test_a_model_of_one_size_is_exported_for_that_size(tmp_path):
    said: list[str] = []
    path = onnx.export(OneSize(), tmp_path / "one.onnx", size=32, metadata={"classes": CLASSES}, say=said.append)
    assert said[0].startswith("the file takes pictures of 32x32 only, because torch refuses other sizes")
    assert "3x32x32" in said[1]
    file = Exported(path)
    assert file.metadata["dynamic"] == {"batch": True, "size": False}
    with pytest.raises(ModelError, match=re.escape("takes pictures ['batch', 3, 32, 32], got [1, 3, 64, 32]")):
        file.predict(random_pictures(1, 64, 32))


@pytest.mark.part("deploy/onnx")
def test_a_size_that_is_no_multiple_of_the_stride_is_the_only_one(classifier, tmp_path):
    said: list[str] = []
    options = {"metadata": {"classes": CLASSES}, "batch_dynamic": False, "say": said.append}
    file = Exported(onnx.export(classifier, tmp_path / "c.onnx", size=(50, 40), **options))
    assert said[0] == "the file takes pictures of 50x40 only, because that is no multiple of 32"
    assert file.metadata["dynamic"] == {"batch": False, "size": False}
    images = random_pictures(1, 40, 50)
    torch.testing.assert_close(file.predict(images), classifier.predict(images), rtol=1e-4, atol=1e-6)


@pytest.mark.part("deploy/onnx")
def test_a_model_that_cannot_be_exported_leaves_the_old_file(tmp_path):
    class Counting(OneSize):
        def predict(self, images):
            return torch.zeros(int(images.sum()), 3)

    path = tmp_path / "model.onnx"
    path.write_text("the old one")
    with pytest.raises(ExportError, match="torch cannot export this model"):
        onnx.export(Counting(), path, size=32, metadata={"classes": CLASSES})
    assert path.read_text() == "the old one"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.part("deploy/verify")
def test_a_file_that_answers_otherwise_is_not_written(classifier, tmp_path, monkeypatch):
    def refuse(*arguments):
        raise ExportError("not the same")

    monkeypatch.setattr(onnx, "verify", refuse)
    path = tmp_path / "model.onnx"
    with pytest.raises(ExportError, match="not the same"):
        onnx.export(classifier, path, size=64, metadata={"classes": CLASSES})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.part("deploy/onnx")
@pytest.mark.parametrize("metadata", [{}, {"classes": ["a"]}, {"classes": CLASSES, "class_ids": [1]}])
def test_metadata_has_to_name_every_class(classifier, tmp_path, metadata):
    with pytest.raises(ExportError, match="the model has 3 classes, but class"):
        onnx.export(classifier, tmp_path / "model.onnx", size=64, metadata=metadata)


@pytest.mark.part("deploy/onnx")
@pytest.mark.parametrize("module", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_extra_is_one_line(classifier, tmp_path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ExportError) as caught:
        onnx.export(classifier, tmp_path / "model.onnx", size=64, metadata={"classes": CLASSES})
    assert str(caught.value) == f"'export onnx' needs {module}: pip install \"torso[onnx]\""


@pytest.mark.part("deploy/onnx")
def test_exporting_changes_nothing_of_the_model(classifier, tmp_path):
    classifier.train().to(memory_format=torch.channels_last)
    before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    onnx.export(classifier, tmp_path / "model.onnx", size=64, metadata={"classes": CLASSES})
    assert classifier.training
    assert all(parameter.requires_grad for parameter in classifier.parameters())
    for name, tensor in classifier.state_dict().items():
        assert torch.equal(tensor, before[name]), name
        assert tensor.stride() == before[name].stride(), name


@pytest.mark.parametrize("kernel", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("dilation", [1, 2])
def test_same_padding_of_multiples_is_a_constant(kernel, stride, dilation):
    from timm.layers import padding

    sizes = [stride * steps for steps in (1, 3, 8)]
    expected = {padding.get_same_padding(size, kernel, stride, dilation) for size in sizes}
    with same_padding_settled():
        assert {padding.get_same_padding(object(), kernel, stride, dilation)} == expected
        assert padding.get_same_padding(5, 3, 2, 1) == 2, "a size that is known is no multiple"
    assert padding.get_same_padding.__name__ == "get_same_padding"
