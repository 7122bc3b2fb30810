"""Verification: a wrong file is caught and the right output named."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from tests.unit.deploy.conftest import CLASSES, SIZE
from torso.config import ExportError
from torso.deploy import onnx as to_onnx
from torso.deploy.verify import ATOL, RTOL, Agreement, random_pictures, trials, verify


@pytest.fixture
def mutate(detector_file, tmp_path):
    """Writes a copy of the detector's file in which one constant is another: ``mutate(name or value, function)``."""

    def write(which, change):
        proto = onnx.load(detector_file)
        found = [
            tensor
            for tensor in proto.graph.initializer
            if tensor.name == which
            or (isinstance(which, float) and tensor.dims in ([], [1]) and numpy_helper.to_array(tensor) == which)
        ]
        assert found, f"nothing in the file is {which}"
        for tensor in found:
            changed = change(numpy_helper.to_array(tensor).copy())
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(changed), tensor.name))
        path = tmp_path / "mutant.onnx"
        onnx.save(proto, path)
        return path

    return write


@pytest.mark.part("deploy/verify")
def test_the_right_file_passes(detector, detector_file):
    table = verify(detector, detector_file, random_pictures(4, SIZE, SIZE).flip(1))
    assert list(table.outputs) == ["prior_scores", "prior_boxes", "boxes", "scores", "labels", "valid"]
    assert table.inputs == [
        f"{kind} {shape}" for kind in ("random", "real") for shape in ("1x96x96", "3x96x96", "3x96x80")
    ]
    assert table.detections > 100
    assert all(row.share < 1 and row.numbers for row in table.outputs.values())
    assert "detections compared" in str(table)
    assert "real 3x96x80" in str(table)


@pytest.mark.part("deploy/verify")
def test_swapped_colours_are_caught(detector, mutate):
    path = mutate("model.backbone.stages.0.0.0.weight", lambda weight: weight[:, ::-1])
    with pytest.raises(ExportError, match="does not give the model's prior_scores: on picture 0 of the input 'random"):
        verify(detector, path)


@pytest.mark.part("deploy/verify")
def test_a_weight_that_is_a_little_off_is_caught(detector, mutate):
    path = mutate("model.head.box_deltas.weight", lambda weight: weight * 1.02)
    with pytest.raises(ExportError, match="the model's prior_boxes"):
        verify(detector, path)


@pytest.mark.part("deploy/verify")
@pytest.mark.parametrize(("constant", "wrong"), [(0.05, 0.3), (0.5, 0.6)], ids=["score", "overlap"])
def test_another_choice_from_the_same_scores_is_caught(detector, mutate, constant, wrong):
    # Nothing before the choice differs here: only the comparison of what was chosen can see it.
    path = mutate(float(np.float32(constant)), lambda value: np.full_like(value, wrong))
    with pytest.raises(ExportError, match=r"the model's (boxes|scores)"):
        verify(detector, path)


@pytest.mark.part("deploy/verify")
def test_a_file_of_another_model_is_refused(detector, classifier, tmp_path):
    path = to_onnx.export(classifier, tmp_path / "c.onnx", size=64, metadata={"classes": CLASSES})
    with pytest.raises(ExportError, match="does not hold prior_scores"):
        verify(detector, path)


@pytest.mark.part("deploy/verify")
def test_a_model_without_numbers_is_not_exported(classifier, tmp_path):
    torch.nn.init.constant_(next(classifier.head.parameters()), torch.nan)
    with pytest.raises(ExportError, match="does not give the model's probabilities"):
        to_onnx.export(classifier, tmp_path / "c.onnx", size=64, metadata={"classes": CLASSES})


@pytest.mark.part("deploy/verify")
@pytest.mark.parametrize(
    ("file", "model", "agrees"),
    [
        (1.0, 1.0, True),
        (1.0 + 0.9 * RTOL, 1.0, True),
        (1.0 + 1.1 * RTOL, 1.0, False),
        (0.9 * ATOL, 0.0, True),
        (1.1 * ATOL, 0.0, False),
        (float("nan"), 1.0, False),
        (1.0, float("nan"), False),
        (float("inf"), 1.0, False),
        (4, 4, True),
        (4, 5, False),
        (True, False, False),
    ],
)
def test_tolerances(file, model, agrees):
    row = Agreement()
    share = row.add(torch.tensor([[file]]), torch.tensor([[model]]))
    assert (share <= 1) == agrees
    assert row.share == share
    assert row.numbers == 1


def test_nothing_to_compare_agrees():
    row = Agreement()
    assert row.add(torch.zeros(0, 4), torch.zeros(0, 4)) == 0
    assert row.numbers == 0


@pytest.mark.part("deploy/verify")
def test_trials_try_batches_and_an_unseen_size():
    metadata = {"preprocessing": {"size": [320, 320]}, "stride": 32, "dynamic": {"batch": True, "size": True}}
    shapes = [tuple(images.shape) for _, images in trials(metadata, None)]
    assert shapes == [(1, 3, 320, 320), (3, 3, 320, 320), (3, 3, 256, 320)]
    real = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 3, 320, 320)
    used = [images[:, 0, 0, 0].tolist() for name, images in trials(metadata, real) if name.startswith("real")]
    assert used == [[0], [1, 2, 3], [4, 0, 1]]
    metadata["dynamic"] = {"batch": False, "size": False}
    assert [tuple(images.shape) for _, images in trials(metadata, None)] == [(1, 3, 320, 320)]
    smallest = {"preprocessing": {"size": [32, 32]}, "stride": 32}
    assert [tuple(images.shape) for _, images in trials(smallest, None)][-1] == (3, 3, 64, 32)


@pytest.mark.part("deploy/verify")
def test_real_pictures(detector, detector_file, shared_data):
    from PIL import Image

    files = sorted(shared_data.rglob("*.jpg"))[:4]
    assert files
    pictures = [np.asarray(Image.open(file).convert("RGB").resize((SIZE, SIZE))) for file in files]
    table = verify(detector, detector_file, torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2))
    assert f"real 3x{SIZE}x{SIZE}" in table.inputs
