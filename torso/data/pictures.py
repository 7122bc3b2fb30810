"""Decoded pictures: read when they are needed, kept where they are needed again."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch.utils.data import get_worker_info

from torso.data.decode import DecodeError, Pixels
from torso.data.index import Index
from torso.data.partners import LANES, POOL
from torso.data.scene import Layer
from torso.data.views import View, scaling


class Pictures:
    """The pictures of an index as pixels.

    A picture alone on its canvas is decoded as large as its view needs it. Where pictures are mixed (``shared``) each
    is decoded to fit the canvas and kept for a while, because it will be a partner of others.

    Args:
        index: the data.
        size: width and height of the network's input.
        cache_bytes: keep up to so many bytes for the whole run, shared by all workers.
        workers: processes that load.
        bits: of a channel, 8 or 16.
    """

    def __init__(
        self, index: Index, size: tuple[int, int], cache_bytes: int = 0, workers: int = 1, bits: int = 8
    ) -> None:
        self.index = index
        self.size = size
        self.bits = bits
        self.shared = False
        # What each worker reads right now, in shared memory: a dead or hung worker still tells.
        self.current = torch.full((workers,), -1).share_memory_()  # type: ignore[no-untyped-call]
        self._cache_bytes = cache_bytes
        self._cache: dict[int, Pixels] | None = None
        self._recent: OrderedDict[int, Pixels] = OrderedDict()
        self._most = LANES * POOL // workers

    def of(self, layer: Layer) -> Pixels:
        """The picture of a layer, ``[h, w, 3]``, not larger than its file's.

        Raises:
            DecodeError: it cannot be read.
        """
        if self._cache is None:
            self.fill()
        row = layer.row
        if self._cache and row in self._cache:
            return self._cache[row]
        if not self.shared:
            return self._read(row, layer.view)
        if row in self._recent:
            self._recent.move_to_end(row)
            return self._recent[row]
        pixels = self._fitted(row)
        self._recent[row] = pixels
        if len(self._recent) > self._most:
            self._recent.popitem(last=False)
        return pixels

    def fill(self) -> None:
        """Decodes pictures, shrunk to the canvas, until the budget is used; before a fork, so that workers share it."""
        self._cache = {}
        left = self._cache_bytes
        for row in range(len(self.index)):
            if left <= 0:
                return
            try:
                pixels = self._fitted(row)
            except DecodeError:
                continue  # met again, and named, when its turn comes
            left -= pixels.nbytes
            self._cache[row] = pixels

    def _fitted(self, row: int) -> Pixels:
        """A picture shrunk until it just covers the canvas."""
        from torso.data.render import shrunk

        width, height = self.index.sizes[row].tolist()
        scale = min(max(self.size[0] / width, self.size[1] / height), 1.0)
        view = View.of((width, height), self.size).then(scaling(scale, scale))
        return shrunk(self._read(row, view), view)

    def _read(self, row: int, view: View) -> Pixels:
        from torso.data.render import load

        info = get_worker_info()
        worker = info.id if info is not None else 0
        self.current[worker] = row
        pixels = load(self.index.picture(row), view, self.bits)
        self.current[worker] = -1
        return pixels
