"""Overrides that make a shipped recipe of a dense detector small: a tiny backbone, few channels, the parts its own."""

from __future__ import annotations

TINY = "model.backbone={name: tiny, widths: [8, 16, 24, 32], levels: [2, 3]}"

SMALL: dict[str, list[str]] = {
    "demo": [TINY, "model.neck.channels=16", "model.head.depth=1"],
    "retinanet": [TINY, "model.neck={name: fpn, channels: 16, extra: 1}", "model.head.depth=1"],
    "retinanet_lite": [TINY, "model.neck.channels=16", "model.head.depth=1"],
}
