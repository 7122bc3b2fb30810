"""A training sample of detection at 640, on one core: decode, letterbox, affine, colour, flip; boxes follow.

torso's loader against the same steps in torchvision v2 (decode_jpeg, tv_tensors), and against decoding alone, which is
the floor. Pictures are noisy photos of 800x600, about 150 KiB each, from memory-cached files.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from measure import ratio, rounds, write
from torch import Tensor

from torso.data import open_index
from torso.data.decode import decode
from torso.data.loader import Loader
from torso.data.transforms import TRANSFORMS
from torso.structures import Batch

ROUNDS, PICTURES, SIDE, OBJECTS = 7, 32, 640, 8
NAMES = ["torso", "torso, rotated 10 degrees", "torchvision v2", "decode alone"]


def pictures(folder: Path) -> list[Path]:
    """Noisy photos with boxes, as a YOLO folder."""
    import cv2
    import simplejpeg
    from sklearn.datasets import load_sample_images

    generator = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (folder / kind / "train").mkdir(parents=True)
    (folder / "data.yaml").write_text("train: images/train\nval: images/train\nnames: [a, b, c]\n")
    photos = [cv2.resize(photo, (800, 600), interpolation=cv2.INTER_CUBIC) for photo in load_sample_images().images]
    for number in range(PICTURES):
        noisy = photos[number % len(photos)] + generator.normal(0, 6, (600, 800, 3))
        data = simplejpeg.encode_jpeg(np.clip(noisy, 0, 255).astype(np.uint8), quality=90)
        (folder / "images" / "train" / f"{number}.jpg").write_bytes(data)
        rows = [
            f"{generator.integers(3)} {generator.uniform(0.2, 0.8):.4f} {generator.uniform(0.2, 0.8):.4f} 0.2 0.25"
            for _ in range(OBJECTS)
        ]
        (folder / "labels" / "train" / f"{number}.txt").write_text("\n".join(rows) + "\n")
    return sorted((folder / "images" / "train").glob("*.jpg"))


def torsos(folder: Path, rotation: float) -> Callable[[], list[Batch]]:
    """One epoch of torso's loader in this process."""
    transforms = [
        TRANSFORMS["letterbox"](),
        TRANSFORMS["affine"](scale=[0.75, 1.35], shift=0.1, rotation=rotation),
        TRANSFORMS["color"](brightness=0.2, contrast=0.2, saturation=0.2),
        TRANSFORMS["horizontal_flip"](),
    ]
    index = open_index(folder, "train")
    loader = Loader(index, transforms, size=(SIDE, SIDE), batch=16, workers=0, seed=0, shuffle=True)
    epochs = itertools.count()
    return lambda: list(loader.epoch(next(epochs)))


def torchvisions(files: list[Path]) -> Callable[[], list[Tensor]]:
    """The same steps in torchvision v2."""
    from torchvision import tv_tensors
    from torchvision.io import decode_jpeg, read_file
    from torchvision.transforms import v2

    border = (SIDE - SIDE * 3 // 4) // 2
    steps = v2.Compose(
        [
            v2.Resize((SIDE * 3 // 4, SIDE)),
            v2.Pad([0, border], fill=114),
            v2.RandomAffine(0, translate=(0.1, 0.1), scale=(0.75, 1.35), fill=114),
            v2.ColorJitter(0.2, 0.2, 0.2),
            v2.RandomHorizontalFlip(),
            v2.SanitizeBoundingBoxes(),
        ]
    )
    corner = torch.rand(OBJECTS, 2, generator=torch.Generator().manual_seed(0)) * 400

    def samples() -> Iterator[Tensor]:
        for file in files:
            image = tv_tensors.Image(decode_jpeg(read_file(str(file))))
            xyxy = torch.cat([corner, corner + 150], dim=1)
            boxes = tv_tensors.BoundingBoxes(xyxy, format="XYXY", canvas_size=image.shape[-2:])
            sample = steps({"image": image, "boxes": boxes, "labels": torch.zeros(OBJECTS, dtype=torch.int64)})
            assert sample["image"].shape == (3, SIDE, SIDE)
            yield sample["image"]

    return lambda: [torch.stack(list(itertools.islice(images, 16))) for images in [samples()] for _ in range(2)]


def main() -> None:
    import cv2

    cv2.setNumThreads(1)  # a core is a core
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "photos"
        files = pictures(folder)
        size = sum(file.stat().st_size for file in files) / len(files)
        tasks: list[Callable[[], object]] = [
            torsos(folder, 0),
            torsos(folder, 10),
            torchvisions(files),
            lambda: [decode(file) for file in files],
        ]
        seconds = rounds(dict(zip(NAMES, tasks, strict=True)), ROUNDS)
    write(
        "loader",
        rounds=ROUNDS,
        kilobytes_a_picture=round(size / 1024),
        images_a_second_a_core={name: round(PICTURES / sorted(each)[len(each) // 2]) for name, each in seconds.items()},
        ratios={f"torso / {name} (time)": ratio(seconds, "torso", name) for name in NAMES[1:]},
    )


if __name__ == "__main__":
    main()
