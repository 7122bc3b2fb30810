"""Overrides that make a shipped recipe of a dense detector small: a tiny backbone, few channels, the parts its own."""

from __future__ import annotations

TINY = "model.backbone={name: tiny, widths: [8, 16, 24, 32], levels: [2, 3]}"

SIZES = "model.prior.sizes=[[12, 20], [19, 30], [15, 50], [29, 49]]"  # of digits, two a level

SMALL: dict[str, list[str]] = {
    "fcos": [TINY, "model.neck={name: fpn, channels: 16, extra: 1}", "model.head.depth=1"],
    "ssd": [
        TINY,
        "model.neck={name: ssd_extra, widths: [24, 24]}",
        "model.prior={name: default_boxes, sizes: [12, 24, 48, 80, 120], ratios: [[2], [2, 3], [2, 3], [2]]}",
    ],
    "centernet": [
        "model.backbone={name: tiny, widths: [16, 24, 32, 48], levels: [2, 3, 4]}",
        "model.head.channels=32",
    ],
    "deformable_detr": [
        "model.backbone={name: tiny, widths: [16, 24, 32, 48], levels: [3, 4]}",
        "model.head={name: deformable_detr, channels: 64, extra: 1, queries: 30, encoder_layers: 2, decoder_layers: 2, "
        "heads: 4, hidden: 128, dropout: 0.0}",
    ],
    "centernet_triplets": [
        # A 1x1 of stride 2 on fewer than 16 channels, channels-last, breaks torch 2.15's memory on its way back.
        "model.backbone={name: hourglass, widths: [32, 32, 32], repeats: [1, 1, 1], channels: 16, returned: all}",
        "model.head.channels=16",
        "model.head.pooled=16",
        "model.topk=30",
        "model.pairs=100",
    ],
    "cornernet": [
        "model.backbone={name: hourglass, widths: [32, 32, 32], repeats: [1, 1, 1], channels: 16, returned: all}",
        "model.head.channels=16",
        "model.head.pooled=16",
        "model.topk=30",
        "model.pairs=100",
    ],
    "demo": [TINY, "model.neck.channels=16", "model.head.depth=1"],
    "detr": [
        "model.backbone={name: tiny, widths: [8, 16, 24, 32], levels: [3]}",
        "model.head={name: detr, channels: 64, queries: 20, encoder_layers: 1, decoder_layers: 2, heads: 4, "
        "hidden: 128, dropout: 0}",
    ],
    "efficientdet": [
        TINY,
        "model.neck.channels=16",
        "model.neck.extra=1",
        "model.neck.repeats=1",
        "model.neck.norm={name: batch, momentum: 0.1}",  # few steps
        "model.head.depth=1",
        "model.head.norm=batch",
    ],
    "rpn": [
        TINY,
        "model.neck={name: fpn, channels: 16, extra: 1}",
        "model.prior.scale=4",
        # Between its two thresholds a proposal is not learned: well for recall, not for the precision that is judged.
        "model.assigner.positive=0.5",
        "model.assigner.negative=0.5",
        "model.suppress.overlap=0.4",
    ],
    "mask_rcnn": [
        TINY,
        "model.neck={name: fpn, channels: 16, extra: 1}",
        "model.propose.prior.scale=4",
        "model.propose.suppress.max_detections=64",
        "model.propose.topk=100",
        "model.sample.count=64",
        "model.roi={name: align, size: 5, canonical: 56}",
        "model.head.channels=64",
        "model.mask_roi={name: align, size: 10, canonical: 56}",
        "model.mask_head={name: roi_mask, channels: 24, depth: 2}",
    ],
    "faster_rcnn": [
        TINY,
        "model.neck={name: fpn, channels: 16, extra: 1}",
        "model.propose.prior.scale=4",
        "model.propose.suppress.max_detections=64",
        "model.propose.topk=100",
        "model.sample.count=64",
        "model.roi={name: align, size: 5, canonical: 56}",
        "model.head.channels=64",
    ],
    "faster_rcnn_c4": [
        "model.backbone={name: tiny, widths: [16, 32, 64], levels: [3]}",
        "model.propose.prior.sizes=[[16, 24, 36, 48]]",
        "model.propose.suppress.max_detections=64",
        "model.propose.topk=100",
        "model.sample.count=64",
        "model.roi.size=8",
        "model.head={name: roi_stage, channels: 96, blocks: 1, norm: group}",  # nothing was loaded to be frozen
    ],
    "fast_rcnn": [
        "model.backbone={name: tiny, widths: [16, 32, 64], levels: [3]}",
        "model.propose={name: windows, scales: [0.4, 0.28, 0.2, 0.14, 0.1], ratios: [1, 2], step: 0.5}",
        "model.roi.size=7",
        "model.head.channels=128",
        "model.sample.count=128",
        "model.sample.positive=0.5",
        "model.suppress.overlap=0.4",
    ],
    "cascade_rcnn": [
        TINY,
        "model.neck={name: fpn, channels: 16, extra: 1}",
        "model.propose.prior.scale=4",
        "model.propose.suppress.max_detections=64",
        "model.propose.topk=100",
        "model.sample.count=64",
        "model.roi={name: align, size: 5, canonical: 56}",
        "model.head.channels=64",
    ],
    "rfcn": [
        # What is voted is seen on the whole picture: a cell must see a digit.
        "model.backbone={name: tiny, widths: [16, 32, 48], levels: [3], depth: 2}",
        "model.neck.channels=64",
        "model.propose.prior.sizes=[[16, 24, 36, 48]]",
        "model.propose.suppress.max_detections=64",
        "model.propose.topk=100",
        "model.roi.size=3",
        "model.sample.count=32",
    ],
    "rcnn": [
        "model.propose={name: windows, scales: [0.36, 0.26, 0.18, 0.13, 0.09], ratios: [1.8]}",  # of digits
        "model.sample.count=40",
        "model.roi.size=24",
        "model.head.backbone={name: tiny, widths: [16, 32, 64], levels: [3], depth: 2}",
    ],
    "retinanet": [TINY, "model.neck={name: fpn, channels: 16, extra: 1}", "model.head.depth=1"],
    "atss": [TINY, "model.neck={name: fpn, channels: 16, extra: 1}", "model.head.depth=1"],
    "autoassign": [TINY, "model.neck={name: fpn, channels: 16, extra: 1}", "model.head.depth=1"],
    "densebox": [
        "model.backbone={name: tiny, widths: [16, 32, 48, 64], levels: [2, 3, 4]}",  # its map must see a whole digit
        "model.head.channels=64",
        "model.head.dropout=0.1",
    ],
    "freeanchor": [TINY, "model.neck={name: fpn, channels: 16, extra: 1}", "model.head.depth=1"],
    "gfl": [TINY, "model.neck={name: fpn, channels: 16, extra: 1}", "model.head.depth=1"],
    "hog_svm": [
        "model.cell=4",
        "model.shapes=[[5, 8], [8, 8], [4, 12]]",  # of digits
        "model.scales=[2.0, 1.5, 1.25, 1.0, 0.75, 0.625]",
    ],
    "iqdet": [TINY, "model.neck={name: fpn, channels: 16, extra: 1}", "model.head.depth=1"],
    "matrixnet": [
        TINY,
        "model.neck={name: matrix, channels: 16, extra: 1}",
        "model.head.depth=1",
        "model.assigner={name: fcos, by: sides, reach: [3.0, 6.0], relax: [0.8, 1.3]}",
    ],
    "ota": [TINY, "model.neck={name: fpn, channels: 16, extra: 1}", "model.head.depth=1"],
    "paa": [TINY, "model.neck={name: fpn, channels: 16, extra: 1}", "model.head.depth=1"],
    "reppoints": [TINY, "model.neck={name: fpn, channels: 24, extra: 1}", "model.head.depth=2"],
    "retinanet_lite": [TINY, "model.neck.channels=16", "model.head.depth=1"],
    "yolov1": [
        "model.backbone={name: tiny, widths: [8, 16, 32], levels: [3]}",
        "model.head.grid=[16, 16]",
        "model.head.hidden=128",
        "model.head.dropout=0.1",
        "model.coder.unit=16",
    ],
    "yolov2": [TINY, "model.neck={name: yolov2, channels: 24, passed: 8}", SIZES],
    "yolov3": [TINY, "model.neck.channels=16", "model.head.widen=1", SIZES],
    "yolov4": [TINY, "model.neck.channels=12", "model.head.widen=1", SIZES],
    "yolov5": [TINY, "model.neck.channels=16", SIZES],
    "yolox": [TINY, "model.neck.channels=16", "model.head.channels=16"],
    "pp_yolo": [TINY, "model.neck.channels=16", "model.head.widen=1", SIZES],
}

_NINE = "[[9, 15], [18, 23], [38, 51], [10, 16], [19, 24], [34, 49], [12, 17], [20, 31], [33, 48]]"
# Hourglass-104 at full size takes most of a minute a step on one core; in a quarter of its width it has all its parts.
_GLASS = (
    "model.backbone={name: hourglass, stacks: 2, returned: all, channels: 64, repeats: [1, 1, 1, 1, 1, 1], "
    "widths: [64, 64, 96, 96, 96, 128]}"
)
FITTED: dict[str, list[str]] = {
    "centernet_triplets": [_GLASS],
    "cornernet": [_GLASS],
    "fast_rcnn": ["model.head.channels=32"],
    "faster_rcnn_c4": ["model.sample.count=4", "model.propose.suppress.max_detections=20"],
    "yolov1": ["model.head.grid=[2, 2]", "model.coder.unit=2"],
    "yolov2": ["model.prior.sizes=[[9, 15], [18, 23], [24, 37], [38, 51]]"],
    "yolov3": [f"model.prior.sizes={_NINE}", "train.optimizer.lr=0.02"],  # steps of 0.001 are lost in float32
    "yolov4": [f"model.prior.sizes={_NINE}"],
    "yolov5": [f"model.prior.sizes={_NINE}"],
    "pp_yolo": [f"model.prior.sizes={_NINE}"],
}
"""What else fits a recipe of full size to pictures of 128 px, so that every level has objects of its size."""
