from __future__ import annotations

import io
import multiprocessing
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.unit.data.pictures import encoded, noise, save, smooth
from torso.data.decode import DecodeError, decode, probe

pytestmark = pytest.mark.part("transform/decode")


def test_a_lossless_picture_comes_back_as_it_was(tmp_path: Path) -> None:
    pixels = noise(31, 17)
    path = save(pixels, tmp_path / "数据 集" / "图é (1).png")
    assert np.array_equal(decode(path), pixels)
    assert probe(path).size == (31, 17)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"optimize": True}])
def test_jpeg_equals_pillow(options: dict[str, object]) -> None:
    data = encoded(smooth(67, 45), "JPEG", quality=90, **options)
    theirs = np.asarray(Image.open(io.BytesIO(data))).astype(int)
    assert np.abs(decode(data).astype(int) - theirs).max() <= 3  # libjpeg-turbo of another build
    assert np.array_equal(decode(data, pillow=True), theirs)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_undone_once(orientation: int, kind: str) -> None:
    pixels = smooth(40, 24)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(pixels, kind, exif=exif.tobytes(), **({"lossless": True} if kind == "WEBP" else {}))
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    for pillow in (False, True):
        ours = decode(data, pillow=pillow)
        assert np.abs(ours.astype(int) - np.asarray(expected)).max() <= 3
    assert probe(data).size == expected.size


def test_scaled_decoding_keeps_the_proportions() -> None:
    data = encoded(smooth(641, 483), "JPEG", quality=95)
    full = decode(data)
    for asked, factor in ((1, 1), (1.9, 1), (2, 2), (3.9, 2), (4, 4), (100, 8)):
        pixels = decode(data, asked)
        assert pixels.shape[:2] == (-(-483 // factor), -(-641 // factor))
        near = full[factor // 2 :: factor, factor // 2 :: factor][: len(pixels), : pixels.shape[1]]
        assert np.abs(near.astype(int) - pixels[: len(near), : near.shape[1]]).mean() < 3


def modes() -> dict[str, tuple[Image.Image, np.ndarray]]:
    """A picture of each mode, and the RGB it stands for."""
    grey = smooth(20, 10)[..., 0]
    rgb = smooth(20, 10)
    three = np.repeat(grey[..., None], 3, 2)
    bits = Image.fromarray(grey).convert("1")
    palette = Image.fromarray(rgb).quantize(16)
    alpha = np.dstack([rgb, np.tile(np.arange(0, 200, 10, dtype=np.uint8), (10, 1))])
    return {
        "L": (Image.fromarray(grey), three),
        "1": (bits, np.repeat(np.asarray(bits)[..., None] * np.uint8(255), 3, 2)),
        "P": (palette, np.asarray(palette.convert("RGB"))),
        "RGBA": (Image.fromarray(alpha), rgb),
        "LA": (Image.fromarray(np.dstack([grey, alpha[..., 3]])), three),
        "I;16": (Image.fromarray(grey.astype(np.uint16) * 257), three),
    }


@pytest.mark.parametrize("mode", modes())
def test_every_mode_has_one_meaning(mode: str) -> None:
    image, expected = modes()[mode]
    assert image.mode == mode
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    assert np.array_equal(decode(buffer.getvalue()), expected)


def test_floating_point_needs_a_range(tmp_path: Path) -> None:
    ramp = np.linspace(0, 1, 60, dtype=np.float32).reshape(6, 10)
    Image.fromarray(ramp).save(tmp_path / "unit.tiff")
    assert np.array_equal(decode(tmp_path / "unit.tiff")[..., 0], np.rint(ramp * 255))
    Image.fromarray(ramp * 1000).save(tmp_path / "wide.tiff")
    with pytest.raises(DecodeError, match=r"wide\.tiff.*scale it to 0\.\.1"):
        decode(tmp_path / "wide.tiff")


def test_only_the_missing_end_marker_is_forgiven() -> None:
    data = encoded(smooth(64, 48), "JPEG", quality=90)
    assert data.endswith(b"\xff\xd9")
    assert np.array_equal(decode(data[:-2]), decode(data))
    for cut in (20, len(data) // 2):
        with pytest.raises(DecodeError, match="damaged"):
            decode(data[:-cut])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"<html><body>404", "starts with '<html"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "no readable header"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR\x00", "no readable header"),
    ],
)
def test_what_is_no_picture_says_why(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "fake.jpg"
    path.write_bytes(content)
    for read in (decode, probe):
        with pytest.raises(DecodeError, match=r"fake\.jpg") as caught:
            read(path)
        assert reason in caught.value.reason
        assert caught.value.path == str(path)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DecodeError, match=r"nothing\.png: no such file"):
        decode(tmp_path / "nothing.png")
    with pytest.raises(DecodeError, match="cannot be read"):
        decode(tmp_path)


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 20000, 20000, 1, 0, 0, 0, 0)
    png = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )
    for read in (decode, probe):
        with pytest.raises(DecodeError, match="tile it"):
            read(png)


def test_frames_are_counted_and_the_first_one_counts() -> None:
    pages = [Image.fromarray(noise(9, 7, seed)) for seed in (1, 2, 3)]
    buffer = io.BytesIO()
    pages[0].save(buffer, "TIFF", save_all=True, append_images=pages[1:])
    assert probe(buffer.getvalue()).frames == 3
    assert np.array_equal(decode(buffer.getvalue()), np.asarray(pages[0]))


def test_the_error_travels_between_processes() -> None:
    error = pickle.loads(pickle.dumps(DecodeError("a.jpg", "is empty")))
    assert (str(error), error.reason) == ("a.jpg: is empty", "is empty")


def _fuzz(kind: str) -> None:
    rng = np.random.default_rng(0)
    good = np.frombuffer(encoded(smooth(40, 30), kind), np.uint8)
    for _ in range(60):
        data = good.copy()
        data[rng.integers(0, len(data), rng.integers(1, 12))] = rng.integers(0, 256)
        text = data[: rng.integers(1, len(data))].tobytes() if rng.random() < 0.3 else data.tobytes()
        for read in (decode, probe):
            try:
                read(text)
            except DecodeError:
                continue


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_no_damaged_file_kills_the_process(kind: str) -> None:
    child = multiprocessing.get_context("fork").Process(target=_fuzz, args=(kind,))
    child.start()
    child.join(60)
    assert child.exitcode == 0
