"""auto is bf16 only where the hardware has it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torso.train import precision


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("processor : 0\nflags\t\t: fpu avx512f avx512_bf16 amx_tile\n", "bf16"),
        ("flags : fpu amx_bf16\n", "bf16"),
        ("Features : fp asimd bf16\n", "bf16"),
        ("flags : fpu avx2 avx512f\n", "fp32"),
        ("", "fp32"),
    ],
)
def test_auto(monkeypatch: pytest.MonkeyPatch, text: str, name: str) -> None:
    flags = precision._processor_flags(lambda: text)
    monkeypatch.setattr(precision, "_processor_flags", lambda: flags)
    assert precision.choose("auto").name == name
    assert precision.choose("fp32").name == "fp32"
    assert precision.choose("bf16").name == "bf16"


def test_no_cpuinfo_is_fp32() -> None:
    def missing() -> str:
        raise FileNotFoundError

    assert precision._processor_flags(missing) == set()


def test_another_name() -> None:
    with pytest.raises(ValueError, match="one of auto, fp32, bf16, not 'fp16'"):
        precision.choose("fp16")  # type: ignore[arg-type]


def test_autocast_and_layout() -> None:
    model = nn.Conv2d(3, 4, 3)
    picture = torch.rand(1, 3, 8, 8)
    for name, kind in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        numbers = precision.choose(name)  # type: ignore[arg-type]
        assert numbers.prepare(model).weight.is_contiguous(memory_format=torch.channels_last)
        with numbers.autocast():
            assert model(picture).dtype == kind
        assert model.weight.dtype == torch.float32


def test_matmul_is_only_changed_on_request() -> None:
    assert torch.get_float32_matmul_precision() == "highest"
    try:
        precision.set_matmul("medium")
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        precision.set_matmul("highest")
