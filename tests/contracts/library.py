"""The smallest member of each backbone that comes from a library, so that the walks are quick."""

from __future__ import annotations

from typing import Any

LIBRARY: dict[str, dict[str, Any]] = {
    "alexnet": {},
    "cspdarknet53": {},
    "cspresnext50": {},
    "darknet53": {},
    "densenet": {"depth": 121},
    "efficientnet": {"size": "b0"},
    "efficientnetv2": {"size": "s"},
    "hrnet": {"width": 18, "branches": "raw"},
    "mobilenetv1": {"width": 100},
    "mobilenetv2": {"width": 35},
    "resnet": {"depth": 18},
    "resnext": {"variant": "50_32x4d"},
    "senet": {"depth": 18},
    "shufflenet_v2": {"width": 50},
    "sknet": {"variant": "18"},
    "squeezenet": {},
    "swin": {"size": "tiny"},
    "timm": {"model": "resnet18"},
    "vgg": {"depth": 11},
    "vit": {"size": "tiny", "channels": 64},
    "xception": {"depth": 41},
}
QUICK = ("resnet", "squeezenet", "vit")
"""Compiled in every run; the others with ``TORSO_SLOW=1``: a deep network takes 3 to 20 s."""
