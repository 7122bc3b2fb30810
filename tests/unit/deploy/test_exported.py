"""Files that are not what they should be."""

from __future__ import annotations

import onnx
import pytest
import torch

from torso.config import ModelError
from torso.deploy.exported import Exported
from torso.deploy.metadata import decode, encode


@pytest.mark.part("deploy/onnx")
def test_a_file_that_is_missing(tmp_path):
    with pytest.raises(ModelError, match=r"gone\.onnx: no such file; `torso export"):
        Exported(tmp_path / "gone.onnx")


@pytest.mark.part("deploy/onnx")
@pytest.mark.parametrize("share", [0.0, 0.5], ids=["empty", "half"])
def test_a_file_that_is_damaged(detector_file, tmp_path, share, capfd):
    content = detector_file.read_bytes()
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelError, match=r"broken\.onnx"):
        Exported(broken)
    assert capfd.readouterr() == ("", "")


@pytest.mark.part("deploy/onnx")
def test_a_file_of_others(detector_file, tmp_path):
    proto = onnx.load(detector_file)
    del proto.metadata_props[:]
    onnx.save(proto, tmp_path / "foreign.onnx")
    with pytest.raises(ModelError, match="was not exported by torso"):
        Exported(tmp_path / "foreign.onnx")


@pytest.mark.part("deploy/onnx")
def test_pictures_that_do_not_fit(detector_file, capfd):
    file = Exported(detector_file)
    with pytest.raises(ModelError, match="uint8 pictures"):
        file.predict(torch.zeros(1, 3, 96, 96))
    with pytest.raises(ModelError, match=r"got \[1, 1, 96, 96\]"):
        file.predict(torch.zeros(1, 1, 96, 96, dtype=torch.uint8))
    assert capfd.readouterr() == ("", "")


@pytest.mark.part("deploy/onnx")
def test_pictures_in_any_order_of_memory(detector_file):
    file = Exported(detector_file)
    images = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8)
    found, again = file.predict(images), file.predict(images.to(memory_format=torch.channels_last))
    assert found.masks is again.masks is None
    for one, other in zip(found[:4], again[:4], strict=True):
        assert torch.equal(one, other)


@pytest.mark.part("deploy/onnx")
def test_metadata_comes_back():
    metadata = {"classes": ["a", "Würfel", '"'], "class_ids": [1, 90], "recipe": {"x": [1e-3, None, True]}, "n": 3}
    properties = encode(metadata)
    assert all(isinstance(value, str) for value in properties.values())
    assert decode({**properties, "author": "somebody else"}) == metadata
