"""A training sample of detection at 640 on one core: mosaic, affine, colour, flip, as a uint8 batch.

torso's loader against the floor (decoding one JPEG), Ultralytics' YOLODataset with its default augmentation, and the
same steps in torchvision v2; and a photo of 12 megapixels made fit for 640, against OpenCV. Pictures are noisy photos
of 640x480, about 100 KiB each, more of them than any buffer keeps, from memory-cached files.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import ratio, rounds, write
from torch import Tensor

from torso.data import open_index
from torso.data.decode import decode
from torso.data.draws import generator_of
from torso.data.loader import Loader
from torso.data.render import load, render
from torso.data.transforms import TRANSFORMS
from torso.data.transforms.geometry import Letterbox
from torso.data.views import View

ROUNDS, PICTURES, SIDE, OBJECTS, BATCH = 7, 320, 640, 8, 16
FEW = 8  # pictures of the slow ones
CACHE = 1 << 30
PAIRS = [
    ("torso", "ultralytics"),
    ("torso, rotated 10 degrees", "ultralytics"),
    ("torso, RAM cache", "ultralytics"),
    ("torso, RAM cache", "ultralytics, RAM cache"),
    ("torso", "torchvision v2"),
    ("torso", "decode alone"),
    ("torso, 12 megapixels", "opencv, 12 megapixels"),
]


def pictures(folder: Path) -> list[Path]:
    """Noisy photos with boxes, as a YOLO folder."""
    import cv2
    import simplejpeg
    from sklearn.datasets import load_sample_images

    generator = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (folder / kind / "train").mkdir(parents=True)
    (folder / "data.yaml").write_text("train: images/train\nval: images/train\nnames: [a, b, c]\n")
    photos = [cv2.resize(photo, (640, 480), interpolation=cv2.INTER_AREA) for photo in load_sample_images().images]
    for number in range(PICTURES):
        noisy = photos[number % len(photos)] + generator.normal(0, 5, (480, 640, 3))
        data = simplejpeg.encode_jpeg(np.clip(noisy, 0, 255).astype(np.uint8), quality=90, colorsubsampling="420")
        (folder / "images" / "train" / f"{number:03d}.jpg").write_bytes(data)
        rows = [
            f"{generator.integers(3)} {generator.uniform(0.2, 0.8):.4f} {generator.uniform(0.2, 0.8):.4f} 0.2 0.25"
            for _ in range(OBJECTS)
        ]
        (folder / "labels" / "train" / f"{number:03d}.txt").write_text("\n".join(rows) + "\n")
    return sorted((folder / "images" / "train").glob("*.jpg"))


def torsos(folder: Path, rotation: float = 0.0, cache_bytes: int = 0) -> Callable[[], int]:
    """One epoch of torso's loader in this process."""
    transforms = [
        TRANSFORMS["mosaic"](),
        TRANSFORMS["affine"](scale=(0.5, 1.5), shift=0.1, rotation=rotation),
        TRANSFORMS["color"](),
        TRANSFORMS["horizontal_flip"](),
    ]
    index = open_index(folder, "train")
    loader = Loader(index, transforms, size=(SIDE, SIDE), batch=BATCH, shuffle=True, cache_bytes=cache_bytes)
    epochs = itertools.count()
    return lambda: sum(len(batch) for batch in loader.epoch(next(epochs)))


def ultralytics(folder: Path, cache: str | bool = False) -> Callable[[], int]:
    """One epoch of its dataset and collation, as it comes (mosaic 1.0), through its public classes."""
    os.environ |= {"YOLO_OFFLINE": "true", "YOLO_CONFIG_DIR": str(folder.parent), "YOLO_VERBOSE": "false"}
    from ultralytics.cfg import get_cfg
    from ultralytics.data.dataset import YOLODataset

    dataset = YOLODataset(
        img_path=str(folder / "images" / "train"),
        data={"names": {0: "a", 1: "b", 2: "c"}, "nc": 3, "channels": 3},
        task="detect",
        imgsz=SIDE,
        augment=True,
        hyp=get_cfg(overrides={"mosaic": 1.0}),
        batch_size=BATCH,
        cache=cache,
    )

    def epoch() -> int:
        order = torch.randperm(len(dataset)).tolist()
        count = 0
        for first in range(0, len(order), BATCH):
            batch = dataset.collate_fn([dataset[row] for row in order[first : first + BATCH]])
            assert batch["img"].shape[1:] == (3, SIDE, SIDE)
            assert batch["img"].dtype == torch.uint8
            count += len(batch["img"])
        return count

    return epoch


def torchvisions(files: list[Path]) -> Callable[[], int]:
    """The same steps in torchvision v2: it has no mosaic, so three more pictures come from a list that stands ready."""
    from torchvision import tv_tensors
    from torchvision.io import decode_jpeg, read_file
    from torchvision.transforms import v2

    corner = torch.rand(OBJECTS, 2, generator=generator_of(0)) * 300
    steps = v2.Compose(
        [
            v2.RandomAffine(0, translate=(0.05, 0.05), scale=(0.5, 1.5), fill=114),
            v2.CenterCrop(SIDE),
            v2.ColorJitter(0.4, 0.0, 0.7, 0.015),
            v2.RandomHorizontalFlip(),
            v2.SanitizeBoundingBoxes(),
        ]
    )

    def samples() -> Iterator[Tensor]:
        partners = [decode_jpeg(read_file(str(file))) for file in files[:3]]
        for file in files[:FEW]:
            tiles = [decode_jpeg(read_file(str(file))), *partners]
            x, y = (int(value) for value in torch.randint(SIDE // 2, SIDE * 3 // 2, (2,)))
            sheet = torch.full((3, 2 * SIDE, 2 * SIDE), 114, dtype=torch.uint8)
            boxes = []
            for tile, (left, top) in zip(tiles, [(x - 640, y - 480), (x, y - 480), (x - 640, y), (x, y)], strict=True):
                a, b = max(left, 0), max(top, 0)
                c, d = min(left + 640, 2 * SIDE), min(top + 480, 2 * SIDE)
                sheet[:, b:d, a:c] = tile[:, b - top : d - top, a - left : c - left]
                boxes.append(torch.cat([corner, corner + 120], dim=1) + torch.tensor([left, top, left, top]))
            image = tv_tensors.Image(sheet)
            boxed = tv_tensors.BoundingBoxes(torch.cat(boxes), format="XYXY", canvas_size=sheet.shape[-2:])
            sample = steps({"image": image, "boxes": boxed, "labels": torch.zeros(4 * OBJECTS, dtype=torch.int64)})
            assert sample["image"].shape == (3, SIDE, SIDE)
            yield sample["image"]

    return lambda: len(torch.stack(list(samples())))


def large(folder: Path) -> list[Path]:
    """Photos of 12 megapixels, about 2.5 MiB each."""
    import cv2
    import simplejpeg
    from sklearn.datasets import load_sample_images

    folder.mkdir()
    generator = np.random.default_rng(1)
    photos = [cv2.resize(photo, (4000, 3000), interpolation=cv2.INTER_CUBIC) for photo in load_sample_images().images]
    for number in range(FEW):
        grain = cv2.resize(generator.normal(0, 6, (1500, 2000, 3)), (4000, 3000))
        noisy = np.clip(photos[number % 2] + grain, 0, 255).astype(np.uint8)
        (folder / f"{number}.jpg").write_bytes(simplejpeg.encode_jpeg(noisy, quality=90))
    return sorted(folder.glob("*.jpg"))


def ours(files: list[Path]) -> int:
    """A large photo letterboxed into the canvas."""
    for file in files:
        view = Letterbox()(View.of((4000, 3000), (SIDE, SIDE)), torch.Generator())
        canvas, _ = render(load(file, view), view)
        assert canvas.shape == (SIDE, SIDE, 3)
    return len(files)


def opencvs(files: list[Path]) -> int:
    """The same photo decoded and made smaller by OpenCV."""
    import cv2

    for file in files:
        cv2.resize(cv2.imread(str(file)), (640, 480), interpolation=cv2.INTER_AREA)
    return len(files)


def decoded(files: list[Path]) -> int:
    """The floor."""
    for file in files:
        decode(file)
    return len(files)


def main() -> None:
    import cv2

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "photos"
        files, photos = pictures(folder), large(Path(name) / "large")
        tasks: dict[str, Callable[[], int]] = {
            "decode alone": lambda: decoded(files),
            "torso": torsos(folder),
            "torso, rotated 10 degrees": torsos(folder, rotation=10),
            "torso, RAM cache": torsos(folder, cache_bytes=CACHE),
            "ultralytics": ultralytics(folder),
            "ultralytics, RAM cache": ultralytics(folder, cache="ram"),
            "torchvision v2": torchvisions(files),
            "torso, 12 megapixels": lambda: ours(photos),
            "opencv, 12 megapixels": lambda: opencvs(photos),
        }
        cv2.setNumThreads(1)  # a core is a core; ultralytics' import sets it too
        counts = {each: task() for each, task in tasks.items()}
        seconds = rounds(tasks, ROUNDS)
        each: dict[str, Any] = {key: [second / counts[key] for second in row] for key, row in seconds.items()}
        size = sum(file.stat().st_size for file in files) / len(files)
        megabytes = sum(file.stat().st_size for file in photos) / len(photos) / 2**20
    write(
        "data",
        rounds=ROUNDS,
        pictures=PICTURES,
        kilobytes_a_picture=round(size / 1024),
        megabytes_a_large_picture=round(megabytes, 1),
        images_a_second_a_core={key: round(1 / sorted(row)[len(row) // 2], 1) for key, row in each.items()},
        peer={"ultralytics": version("ultralytics")},
        ratios={f"{one} / {other} (time)": ratio(each, one, other) for one, other in PAIRS},
    )


if __name__ == "__main__":
    main()
