"""Necks: features to features.

Contract: constructed with the ``in_channels`` and ``strides`` of the backbone's levels (wired); called with
``Features``, returns ``Features``; ``channels`` and ``strides`` (a number of pixels, or a pair of height and width)
tell the truth about them. The cells of a level are no smaller than those of the one before.
`torso.testing.check_neck` checks it.
"""

from __future__ import annotations

from torch import nn

from torso.necks.asff import ASFF
from torso.necks.aspp import ASPP
from torso.necks.bifpn import BiFPN
from torso.necks.channel_mapper import ChannelMapper
from torso.necks.concat import Concat
from torso.necks.dla_up import DLAUp
from torso.necks.fpn import FPN
from torso.necks.full_fpn import FullFPN
from torso.necks.identity import Identity
from torso.necks.matrix import Matrix
from torso.necks.nasfpn import NASFPN
from torso.necks.pan import PAN
from torso.necks.rfb import RFB
from torso.necks.rfp import RFP
from torso.necks.sam import SAM
from torso.necks.sfam import SFAM
from torso.necks.spp import SPP
from torso.necks.ssd_extra import SSDExtra
from torso.necks.unet import UNet
from torso.necks.yolov2 import YOLOv2
from torso.necks.yolov3 import YOLOv3
from torso.necks.yolov4 import YOLOv4

NECKS: dict[str, type[nn.Module]] = {
    "asff": ASFF,
    "aspp": ASPP,
    "bifpn": BiFPN,
    "channel_mapper": ChannelMapper,
    "concat": Concat,
    "dla_up": DLAUp,
    "fpn": FPN,
    "full_fpn": FullFPN,
    "identity": Identity,
    "matrix": Matrix,
    "nasfpn": NASFPN,
    "pan": PAN,
    "rfb": RFB,
    "rfp": RFP,
    "sam": SAM,
    "sfam": SFAM,
    "spp": SPP,
    "ssd_extra": SSDExtra,
    "unet": UNet,
    "yolov2": YOLOv2,
    "yolov3": YOLOv3,
    "yolov4": YOLOv4,
}
