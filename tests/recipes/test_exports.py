"""Every shipped detector at a small size: its export is verified."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.recipes.models import CLASSES, DETECTORS, SIZE, small
from torso.deploy import onnx


@pytest.mark.part("deploy/onnx")
@pytest.mark.parametrize("name", DETECTORS)
def test_the_export_is_verified(name: str, tmp_path: Path) -> None:
    path = onnx.export(small(name).eval(), tmp_path / "model.onnx", size=SIZE, metadata={"classes": CLASSES})
    assert path.is_file()  # written only when it answers as the model does, for several sizes and batches
