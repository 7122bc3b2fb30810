from __future__ import annotations

import configparser
from collections import Counter
from pathlib import Path

import pytest

from torso.config import DataError
from torso.data.formats.darknet import darknet


def convolution(filters: int, size: int = 3, stride: int = 1) -> str:
    return f"""[convolutional]
batch_normalize=1
filters={filters}
size={size}
stride={stride}
pad=1
activation=leaky
"""


def pool(stride: int) -> str:
    return f"[maxpool]\nsize=2\nstride={stride}\n"


def scale(mask: str) -> str:
    """The three layers of an output of 80 classes, and what it is made of."""
    return f"""[convolutional]
size=1
filters=255
activation=linear

[yolo]
mask = {mask}
anchors = 10,14,  23,27,  37,58,  81,82,  135,169,  344,319
classes=80
jitter=.3
ignore_thresh = .7
"""


TINY = (
    "[net]\n# Training\nbatch=64\nwidth=416\nheight=416\nmomentum=0.9\nlearning_rate=1e-3\npolicy=steps\n"
    "steps=400000,450000\nscales=.1,.1\n\n"
    + "".join(convolution(16 << n) + pool(2) for n in range(5))
    + convolution(512) + pool(1) + convolution(1024)
    + convolution(256, 1) + convolution(512) + scale("3,4,5")
    + "[route]\nlayers = -4\n\n" + convolution(128, 1) + "[upsample]\nstride=2\n\n[route]\nlayers = -1, 8\n\n"
    + convolution(256) + scale("0,1,2")
)  # fmt: skip
"""The layers of the small YOLOv3, as its paper's tables and figures have them."""


@pytest.mark.part("format/darknet")
def test_the_small_yolo_has_its_layers(tmp_path: Path) -> None:
    (tmp_path / "tiny.cfg").write_text(TINY)
    net, *layers = darknet(tmp_path / "tiny.cfg")
    assert net.name == "net"
    assert (net.options["batch"], net.options["learning_rate"], net.options["policy"]) == (64, 0.001, "steps")
    assert net.options["steps"] == [400000, 450000]
    assert net.options["scales"] == [0.1, 0.1]
    assert len(layers) == 24
    assert Counter(layer.name for layer in layers) == {
        "convolutional": 13, "maxpool": 6, "yolo": 2, "route": 2, "upsample": 1
    }  # fmt: skip
    assert [layers[n].options["filters"] for n in (0, 2, 4, 6, 8, 10, 12)] == [16, 32, 64, 128, 256, 512, 1024]
    assert [number for number, layer in enumerate(layers) if layer.name == "yolo"] == [16, 23]
    assert [layer.options["layers"] for layer in layers if layer.name == "route"] == [-4, [-1, 8]]
    assert layers[16].options["mask"] == [3, 4, 5]
    assert layers[16].options["anchors"] == [10, 14, 23, 27, 37, 58, 81, 82, 135, 169, 344, 319]
    # An output has (4 + 1 + 80) numbers for each of its three anchors.
    assert [layers[n - 1].options["filters"] for n in (16, 23)] == [3 * (4 + 1 + 80)] * 2


@pytest.mark.part("format/darknet")
def test_sections_are_those_that_configparser_finds(tmp_path: Path) -> None:
    """It knows no section twice, so each gets a number."""
    (tmp_path / "tiny.cfg").write_text(TINY)
    sections = darknet(tmp_path / "tiny.cfg")
    lines = TINY.splitlines()
    numbered = [f"[{n}]" if line.startswith("[") else line for n, line in enumerate(lines, 1)]
    parser = configparser.ConfigParser(delimiters=("=",))
    parser.read_string("\n".join(numbered))
    assert [str(section.line) for section in sections] == parser.sections()
    for section in sections:
        assert lines[section.line - 1] == f"[{section.name}]"
        expected = dict(parser[str(section.line)])
        assert section.options.keys() == expected.keys()
        for key, text in expected.items():
            value = section.options[key]
            assert lines[section.lines[key] - 1].partition("=")[0].strip() == key
            if isinstance(value, list):
                assert value == [float(part) for part in text.split(",")]
            else:
                assert value == (text if isinstance(value, str) else float(text))


@pytest.mark.part("format/darknet")
def test_spaces_and_comments_mean_nothing(tmp_path: Path) -> None:
    text = "\ufeff; made\r\n[ network ]  # the first\r\n  max batches = 500 200 ; many\r\nname=a b,c,\n\n#x\n[crop]"
    (tmp_path / "a.cfg").write_text(text, encoding="utf-8")
    net, crop = darknet(str(tmp_path / "a.cfg"))
    assert (net.name, net.line, crop.name, crop.line, crop.options) == ("network", 2, "crop", 7, {})
    assert net.options == {"maxbatches": 500200, "name": ["ab", "c"]}
    assert net.lines == {"maxbatches": 3, "name": 4}


@pytest.mark.part("format/darknet")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", r"a\.cfg: expected \[net\] as the first section, came none"),
        (
            b"[convolutional]\nsize=3",
            r"a\.cfg: expected \[net\] as the first section, came \[convolutional\] in line 1",
        ),
        (b"batch=1\n[net]", r"a\.cfg:1: batch stands before the first section"),
        (b"[net]\nbatch", r"a\.cfg:2: expected key=value or \[name\], came 'batch'"),
        (b"[net]\nbatch=", r"a\.cfg:2: expected key=value"),
        (b"[net]\n=3", r"a\.cfg:2: expected key=value"),
        (b"[net\nbatch=3", r"a\.cfg:1: expected \[name\], came '\[net'"),
        (b"[net]\n[]", r"a\.cfg:2: expected \[name\], came '\[\]'"),
        (b"[net]\nbatch=1\n\nbatch=2", r"a\.cfg:4: batch is set already in line 2; keep one of them"),
        (b"\x00\x00\xff\xfe", r"a\.cfg: is not UTF-8 text .*is this the \.cfg, not the \.weights\?"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "a.cfg").write_bytes(text)
    with pytest.raises(DataError, match=message):
        darknet(tmp_path / "a.cfg")


@pytest.mark.part("format/darknet")
def test_a_file_that_is_not_there_or_huge_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"b\.cfg: cannot be read \(No such file"):
        darknet(tmp_path / "b.cfg")
    monkeypatch.setattr("torso.data.formats.darknet.LARGEST", 10)
    (tmp_path / "a.cfg").write_text(TINY)
    with pytest.raises(DataError, match="has more than 10 bytes"):
        darknet(tmp_path / "a.cfg")
