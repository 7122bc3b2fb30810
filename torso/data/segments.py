"""Maps of classes: the number of a class for each pixel of the canvas."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from torso.data.bitmaps import layer_patch
from torso.data.index import Index
from torso.data.palette import IGNORED
from torso.data.scene import Layer, Scene
from torso.data.views import shifting

Classes = NDArray[np.uint8]


def segments(scene: Scene, index: Index, classes_of: Callable[[Layer], Classes | None]) -> Classes:
    """The class of each pixel of a drawn scene ``[H, W]``, nearest neighbour; 255 where no picture is.

    Of pictures that shine through each other the stronger one counts.

    Args:
        scene: as it was drawn.
        index: the data.
        classes_of: the map of a layer's picture; nothing is known of one without.
    """
    width, height = scene.size
    plane = np.full((height, width), IGNORED, np.uint8)
    for number, layer in enumerate(scene.layers):
        if number and layer.opacity <= 0.5:
            continue
        _lay(classes_of(layer), layer, plane, index)
    for one in scene.canvas.filters:
        if one.moves:
            plane = one.plane(plane)
    return plane


def _lay(classes: Classes | None, layer: Layer, plane: Classes, index: Index) -> None:
    """Puts the part of a map that shows where its layer's view says."""
    import cv2

    patch = layer_patch(layer, index)
    height, width = patch.pixels.shape
    place = plane[patch.place]
    if classes is None or not patch.pixels.size:
        place[patch.pixels] = IGNORED
        return
    # A PNG of another size than its picture is stretched over it.
    x, y = layer.view.source[0] / classes.shape[1], layer.view.source[1] / classes.shape[0]
    matrix = layer.view.matrix @ np.diag([x, y, 1.0])
    centred = shifting(-patch.left - 0.5, -patch.top - 0.5) @ matrix @ shifting(0.5, 0.5)
    drawn = cv2.warpPerspective(
        classes, centred, (width, height), flags=cv2.INTER_NEAREST, borderValue=(IGNORED, IGNORED, IGNORED)
    )
    place[patch.pixels] = np.asarray(drawn)[patch.pixels]
