from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from torso.data.headers import DecodeError
from torso.data.palette import Legend, check_all, read_pixels, voc_colormap, write_numbers

NUMBERS = hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)))
# The first colours as the development kit lists them, and the border.
KNOWN = {
    0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 4: (0, 0, 128), 5: (128, 0, 128), 8: (64, 0, 0),
    15: (192, 128, 128), 16: (0, 64, 0), 19: (128, 192, 0), 20: (0, 64, 128), 255: (224, 224, 192),
}  # fmt: skip


def test_the_colours_are_those_of_voc() -> None:
    colors = voc_colormap()
    assert {number: colors[number] for number in KNOWN} == KNOWN
    assert len(set(colors)) == 256


def test_the_colours_are_those_of_real_files(shared_data: Path) -> None:
    file = next((shared_data / "dsb2018" / "semantic" / "val").glob("*.png"))
    with Image.open(file) as image:
        palette = np.array(image.getpalette()).reshape(-1, 3)
    assert [tuple(color) for color in palette.tolist()] == list(voc_colormap())[: len(palette)]


@pytest.mark.part("format/masks")
@given(NUMBERS)
def test_numbers_come_back_and_pillow_reads_them(tmp_path_factory: pytest.TempPathFactory, numbers: np.ndarray) -> None:
    file = tmp_path_factory.getbasetemp() / "numbers.png"
    write_numbers(numbers, file)
    with Image.open(file) as image:
        assert image.mode == "P"
        assert np.array_equal(np.asarray(image), numbers)
        seen = np.asarray(image.convert("RGB"))
    assert np.array_equal(seen, np.array(voc_colormap(), np.uint8)[numbers])
    assert np.array_equal(Legend().read(file), numbers)
    Image.fromarray(seen).save(file)  # the same in colours
    assert np.array_equal(Legend().read(file), numbers)
    Image.fromarray(numbers).save(file)  # and in grey
    assert np.array_equal(Legend().read(file.read_bytes()), numbers)


def test_more_objects_than_a_byte_holds(tmp_path: Path) -> None:
    numbers = np.arange(0, 3000).reshape(30, 100)
    write_numbers(numbers, tmp_path / "many.png")
    assert np.array_equal(read_pixels(tmp_path / "many.png"), numbers)
    with pytest.raises(DecodeError, match=r"many\.png: expected classes in 0\.\.254 or 255, came 256, 257"):
        Legend().read(tmp_path / "many.png")


def test_a_legend_says_what_numbers_and_colours_mean(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    write_numbers(np.array([[0, 1, 2, 255]]), file)
    assert Legend(labels=(255, 0, 1)).read(file).tolist() == [[255, 0, 1, 255]]
    with pytest.raises(DecodeError, match=r"expected classes in 0\.\.2 or 255, came 1"):
        Legend(labels=(0, -1, 1)).read(file)
    with pytest.raises(DecodeError, match=r"expected classes in 0\.\.1 or 255, came 2"):
        Legend(labels=(0, 1)).read(file)
    Image.fromarray(np.array([[[9, 9, 9], [1, 2, 3], [224, 224, 192]]], np.uint8)).save(file)
    legend = Legend(colors=((1, 2, 3), (9, 9, 9)), labels=(5, 6))
    assert legend.read(file).tolist() == [[6, 5, 255]]
    with pytest.raises(DecodeError, match=r"a\.png: has colours that stand for no class"):
        Legend().read(file)


def test_what_is_wrong_with_each_file_is_said(tmp_path: Path) -> None:
    write_numbers(np.full((3, 4), 2), tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"<html>")
    write_numbers(np.array([[0, 1, 255, 0]] * 3), tmp_path / "c.png")
    files = [(tmp_path / f"{name}.png", (4, 3)) for name in "abcd"]
    assert check_all(Legend(), files, 2) == [
        ("class out of range", "expected classes in 0..1 or 255, came 2"),
        ("damaged image", "is not a picture (starts with '<html>')"),
        ("class out of range", ""),
        ("missing label file", "no such file"),
    ]
    assert check_all(Legend(), [(tmp_path / "c.png", (3, 4))], 2) == [
        ("wrong size", "is 4x3, its picture 3x4; left out")
    ]


@pytest.mark.parametrize("mode", ["1", "LA", "RGBA", "CMYK"])
def test_other_kinds_of_png_are_read_or_refused(tmp_path: Path, mode: str) -> None:
    file = tmp_path / ("a.png" if mode != "CMYK" else "a.tif")
    Image.new(mode, (4, 3)).save(file)
    if mode == "CMYK":
        with pytest.raises(DecodeError, match="came mode CMYK"):
            read_pixels(file)
    else:
        assert not Legend().read(file).any()
