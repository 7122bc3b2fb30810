"""The tar reader alone: the same members as tarfile's, nothing unsafe, and 500 damaged archives."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from tests.unit.data.pictures import encoded, noise
from torso.config import DataError
from torso.data.decode import DecodeError
from torso.data.formats.shards import Shards
from torso.data.index import Index
from torso.data.tar_headers import Member, members
from torso.data.tars import Tars, remember, remembered, stamp

NAMES = [
    "a.jpg",
    "deep/folder/b.cls",
    "ä ö 图.txt",
    "x" * 99 + ".jpg",
    "long/" * 40 + "name.json",
    "mid/" * 30 + "c.png",
    "." * 3 + "odd",
]
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def entry(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(data), kind, link
    return info, data


def archive(path: Path, entries: list[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as tar:
        for info, data in entries:
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("form", list(FORMATS))
def test_members_are_tarfiles(tmp_path: Path, form: str) -> None:
    rng = np.random.default_rng(0)
    names = [name for name in NAMES if form != "ustar" or name.startswith(("a", "deep", "mid"))]
    entries = [entry(name, rng.bytes(int(rng.integers(0, 2000)))) for name in names]
    entries.insert(2, entry("deep/", kind=tarfile.DIRTYPE))
    path = archive(tmp_path / "a.tar", entries, FORMATS[form])
    found, faults = members(path)
    with tarfile.open(path) as tar:
        theirs = [Member(one.name, one.offset_data, one.size) for one in tar.getmembers() if one.isfile()]
        content = [tar.extractfile(one).read() for one in tar.getmembers() if one.isfile()]  # type: ignore[union-attr]
    assert found == theirs
    assert not faults
    store = Tars([path])
    assert [store.read(np.array([0, one.offset, one.size])) for one in found] == content


def test_a_size_that_does_not_fit_octal_digits_is_read(tmp_path: Path) -> None:
    """More than 8 GB in a sparse file: GNU writes the size in binary, POSIX in a header of its own."""
    size = 9 << 30
    for form in ("gnu", "pax"):
        path = tmp_path / f"{form}.tar"
        info = entry("huge.jpg")[0]
        info.size = size
        with path.open("wb") as file:
            file.write(info.tobuf(FORMATS[form]))
            start = file.tell()
            file.truncate(start + size + 1024)
        assert members(path) == ([Member("huge.jpg", start, size)], [])


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (entry("link.jpg", kind=tarfile.SYMTYPE, link="/etc/passwd"), "symbolic link"),
        (entry("same.jpg", kind=tarfile.LNKTYPE, link="good.jpg"), "hard link"),
        (entry("null.jpg", kind=tarfile.CHRTYPE), "a device"),
        (entry("disk.jpg", kind=tarfile.BLKTYPE), "a device"),
        (entry("pipe.jpg", kind=tarfile.FIFOTYPE), "a pipe"),
        (entry("hole.jpg", kind=tarfile.GNUTYPE_SPARSE), "sparse"),
        (entry("odd.jpg", kind=b"Z"), "unknown kind ('Z')"),
        (entry("/etc/cron.d/evil.jpg", b"1"), "leaves the archive"),
        (entry("../../evil.jpg", b"1"), "leaves the archive"),
        (entry("a/../../evil.jpg", b"1"), "leaves the archive"),
    ],
)
def test_what_is_no_plain_file_is_named_and_never_followed(tmp_path: Path, bad: tuple, says: str) -> None:
    path = archive(tmp_path / "a.tar", [entry("good.jpg", b"123"), bad, entry("after.jpg", b"45")], tarfile.GNU_FORMAT)
    found, faults = members(path)
    assert [one.name for one in found] == ["good.jpg", "after.jpg"]
    (fault,) = faults
    assert fault.name == bad[0].name
    assert fault.fatal
    assert says in fault.message


@pytest.mark.parametrize(("kind", "said"), [("gz", "gzip"), ("bz2", "bzip2"), ("xz", "xz")])
def test_compressed_tars_are_refused_with_a_sentence(tmp_path: Path, kind: str, said: str) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, f"w:{kind}") as tar:
        tar.addfile(entry("a.jpg")[0])
    with pytest.raises(DataError, match=rf"a\.tar: is compressed \({said}\).*decompress it once"):
        members(path)


@pytest.mark.parametrize(
    ("cut", "kept", "says", "fatal"),
    [
        (0, 0, "is empty", True),
        (100, 0, "within a header", True),
        (700, 0, "'a.jpg' has 600 bytes from 512 on, the file ends at 700", True),
        (1536, 1, "no mark of its end", False),
        (1800, 1, "within a header", True),
        (2100, 1, "'b.jpg' has 600 bytes", True),
    ],
)
def test_a_tar_that_was_cut_off_says_so(tmp_path: Path, cut: int, kept: int, says: str, fatal: bool) -> None:
    path = archive(tmp_path / "a.tar", [entry("a.jpg", b"x" * 600), entry("b.jpg", b"y" * 600)])
    path.write_bytes(path.read_bytes()[:cut])
    found, (fault,) = members(path)
    assert len(found) == kept
    assert says in fault.message
    assert fault.fatal is fatal


def test_a_wrong_checksum_ends_the_listing(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar", [entry("a.jpg", b"x"), entry("b.jpg", b"y")])
    data = bytearray(path.read_bytes())
    data[1024 + 5] ^= 1
    path.write_bytes(data)
    found, (fault,) = members(path)
    assert [one.name for one in found] == ["a.jpg"]
    assert "no header at byte 1024" in fault.message


def test_a_store_travels_and_opens_for_itself(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar", [entry("a.jpg", b"content")])
    ((_, offset, size),) = members(path)[0]
    store, place = Tars([path]), np.array([0, offset, size])
    assert store.read(place) == b"content"
    copy = pickle.loads(pickle.dumps(store))
    assert copy == store
    assert hash(copy) == hash(store)
    assert not copy._open
    assert copy.read(place) == b"content"
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, store.read(place))
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 100) == b"content"
    os.close(read)
    os.close(write)


def test_a_store_keeps_few_files_open(tmp_path: Path) -> None:
    paths = [archive(tmp_path / f"{number}.tar", [entry("a", str(number).encode())]) for number in range(150)]
    store = Tars(paths)
    held = Path("/proc/self/fd")
    before = len(list(held.iterdir())) if held.exists() else 0
    assert [store.read(np.array([n, 512, len(str(n))])) for n in range(150)] == [str(n).encode() for n in range(150)]
    after = len(list(held.iterdir())) if held.exists() else 0
    assert after - before <= 64
    assert store.read(np.array([0, 512, 1])) == b"0"


def test_a_file_that_changed_gone_or_short_is_an_error_with_its_name(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar", [entry("a.jpg", b"content")])
    store = Tars([path])
    with pytest.raises(DecodeError, match=r"a\.tar: ends before the 100000 bytes at 512"):
        store.part(0, 512, 100000)
    path.write_bytes(path.read_bytes() + b"\0" * 512)
    for one in (store, pickle.loads(pickle.dumps(store))):  # with the file open, and not yet
        with pytest.raises(DecodeError, match=r"a\.tar: changed since"):
            one.read(np.array([0, 512, 7]))
    path.unlink()
    with pytest.raises(DecodeError, match=r"a\.tar: cannot be read \(No such file"):
        Tars([path]).read(np.array([0, 512, 7]))
    with pytest.raises(DataError, match="cannot be read"):
        members(path)


def test_what_is_remembered_is_forgotten_when_the_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"1234")
    remember(path, {"numbers": np.arange(3)})
    known = remembered(path)
    assert known is not None
    assert known["numbers"].tolist() == [0, 1, 2]
    kept = path.stat()
    path.write_bytes(b"5678")  # as long, and its time put back
    os.utime(path, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    assert stamp(path)[:2] == (kept.st_size, kept.st_mtime_ns)
    assert remembered(path) is None


def test_a_cache_that_is_damaged_or_cannot_be_written_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"1234")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    remember(path, {"numbers": np.arange(3)})
    (note,) = (tmp_path / "cache").rglob("*.npz")
    note.write_bytes(b"PK no more")
    assert remembered(path) is None
    np.savez(note, stamp=np.array([object()], dtype=object))  # would have to be unpickled
    assert remembered(path) is None
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    remember(path, {"numbers": np.arange(3)})
    assert remembered(path) is None


def good(folder: Path) -> bytes:
    json = b'{"boxes": [[1, 2, 9, 8], [0, 0, 20, 15]], "labels": [0, "b"], "crowd": [0, true]}'
    coco = b'[{"bbox": [1, 2, 3, 4], "category_id": 0, "segmentation": [[1, 2, 3, 2, 3, 9]]}]'
    entries = [
        entry("0.jpg", encoded(noise(20, 15), "JPEG")), entry("0.json", json), entry("0.txt", b"a caption"),
        entry("1.png", encoded(noise(20, 15), "PNG")), entry("1.json", coco),
        entry("long/" * 30 + "2.webp", encoded(noise(20, 15), "WEBP")), entry("long/" * 30 + "2.cls", b"1"),
    ]  # fmt: skip
    return archive(folder / "good.tar", entries).read_bytes()


def test_five_hundred_damaged_tars_end_in_a_sentence_or_in_named_problems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Single bytes anywhere, header fields with the checksum put right, and pieces cut out or doubled."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data, rng = good(tmp_path), np.random.default_rng(1)
    path = tmp_path / "train-0.tar"
    (tmp_path / "classes.txt").write_text("a\nb\n")
    seen = {"index": 0, "error": 0, "problem": 0}
    for number in range(500):
        mutant = bytearray(data)
        at = int(rng.integers(0, len(data) // 512)) * 512
        if number % 5 == 0:
            mutant[at + int(rng.integers(0, 512))] = int(rng.integers(0, 256))
        elif number % 5 == 1:
            del mutant[int(rng.integers(0, len(data))) :]
        elif number % 5 == 2:
            mutant[at:at] = mutant[at : at + 512 * int(rng.integers(1, 4))]
        else:  # any field of any header
            first, last = [(0, 100), (124, 136), (156, 157), (257, 265), (345, 500)][int(rng.integers(0, 5))]
            heads = [at for at in range(0, len(data), 512) if data[at + 257 : at + 262] == b"ustar"]
            head = heads[int(rng.integers(0, len(heads)))]
            place = head + int(rng.integers(first, last))
            mutant[place] = int(rng.integers(0, 256)) if number % 2 else b"0123456789LxgKS12"[int(rng.integers(0, 17))]
            mutant[head + 148 : head + 156] = b" " * 8
            mutant[head + 148 : head + 156] = b"%06o\0 " % sum(mutant[head : head + 512])
        path.write_bytes(mutant)
        try:
            index = Shards.read(path, "train")
        except DataError as error:
            seen["error"] += str(error).startswith(str(tmp_path))
            continue
        seen["index"] += 1
        seen["problem"] += bool(index.problems)
        check_places(index, len(mutant))
    assert seen["index"] + seen["error"] == 500
    assert seen["error"] > 5
    assert seen["problem"] > 100


def check_places(index: Index, length: int) -> None:
    assert index.places is not None
    assert ((index.places[:, 1] >= 512) & (index.places[:, 1] + index.places[:, 2] <= length)).all()
    for row in range(len(index)):
        assert len(index.picture(row)) == index.places[row, 2]  # type: ignore[arg-type]


def test_reading_changes_no_byte_and_no_time(tmp_path: Path) -> None:
    good(tmp_path)
    path = tmp_path / "good.tar"
    tmp_path.chmod(0o555)
    try:
        before = hashlib.sha256(path.read_bytes()).hexdigest(), stamp(path), sorted(tmp_path.iterdir())
        Shards.read(path, "train")
        Shards.read(tmp_path, "all")
    finally:
        tmp_path.chmod(0o755)
    assert before == (hashlib.sha256(path.read_bytes()).hexdigest(), stamp(path), sorted(tmp_path.iterdir()))
