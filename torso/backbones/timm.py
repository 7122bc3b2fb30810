"""timm's models as backbones: their feature pyramid, or the whole body up to the classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from torso.backbones.padding import cut, multiple_of, padded
from torso.backbones.weights import body_weights
from torso.config import ModelError, nearest
from torso.structures import Features


class Timm(nn.Module):
    """The feature pyramid of any timm model with ``features_only``.

    Pictures of any size: where the model would drop the last rows or columns of a picture (poolings of 2 in VGG,
    patches in Swin), it is padded with zeros at the right and the bottom, and the features are cut to that size again.

    Args:
        model: a name of ``timm.list_models()``.
        levels: levels to return; level ``l`` has stride ``2 ** l``. (3, 4, 5) is what most detectors use. Stages above
            the highest level are not built.
        weights: ``None`` for random ones, ``"imagenet"`` for what an installed package holds (extra ``weights``), or
            the path of a ``.safetensors`` or ``.pth`` file with the weights of the whole timm (or torchvision) model.
        frozen_stages: 0 trains everything; ``n`` freezes everything up to the level of stride ``2 ** (n + 1)``, norms
            included: the stem and the first ``n`` stages of a ResNet.
        frozen_norm: keep the statistics and weights of every batch norm as they were loaded.
        drop_path: rate of stochastic depth, where the model has it.
        output_stride: 8 or 16 replaces strides by dilation from there on, where the model can: level ``l`` then has
            stride ``min(2 ** l, output_stride)``.
        options: more arguments of ``timm.create_model`` for this model, by name.

    Raises:
        ModelError: an unknown model, a level or an option it does not have, stages that cannot be frozen, weights that
            do not fit.

    Source: timm (pytorch-image-models) ``features_only``.
    """

    def __init__(
        self,
        model: str = "resnet50",
        levels: Sequence[int] = (3, 4, 5),
        weights: str | None = None,
        frozen_stages: int = 0,
        frozen_norm: bool = False,
        drop_path: float = 0.0,
        output_stride: Literal[8, 16, 32] = 32,
        options: dict[str, bool | int | float | str] | None = None,
    ):
        super().__init__()
        more: dict[str, Any] = dict(options or {})
        if output_stride != 32:
            more["output_stride"] = output_stride
        self.body, places = pyramid(model, levels, drop_path, more)
        info = self.body.feature_info
        wanted = sorted(set(levels))
        self.places = [places[level] for level in wanted]
        self.channels = [info.channels()[place] for place in self.places]
        self.strides = [info.reduction()[place] for place in self.places]
        self.multiple = multiple_of(self.body, max(info.reduction()))
        config: dict[str, Any] = getattr(self.body, "pretrained_cfg", None) or {}
        self.mean, self.std = config.get("mean", (0.485, 0.456, 0.406)), config.get("std", (0.229, 0.224, 0.225))
        self.channels_last = str(getattr(self.body, "output_fmt", None)).endswith("NHWC")
        if weights is not None:
            # What timm calls through forward_intermediates (ViT, Xception) is the whole model, one floor down.
            whole = self.body.model if type(self.body).__name__ == "FeatureGetterNet" else self.body
            whole.load_state_dict(body_weights(weights, model, whole.state_dict()))
        last = self._last(model, frozen_stages, places) if frozen_stages else None
        self.frozen = freeze(self.body, last, frozen_norm)

    def _last(self, model: str, frozen_stages: int, places: dict[int, int]) -> str:
        """The name of the module that the frozen part of the body ends with."""
        modules = dict(self.body.named_modules())
        place, stages = places.get(frozen_stages + 1), self.body.feature_info.module_name()
        if place is not None and place < len(stages):
            name: str = stages[place]
            # timm joins nested names in some families, and calls the first stage of an HRNet a layer.
            for known in (name, name.replace(".", "_"), name.replace("stage1", "layer1"), f"model.{name}"):
                if known in modules:
                    return known
        raise ModelError(
            f"frozen_stages={frozen_stages} ends at stride {2 ** (frozen_stages + 1)}, but in timm's {model} no "
            f"stage ends there; its strides are {sorted(2**level for level in places)}: choose less, or 0 to train "
            "everything"
        )

    def forward(self, images: Tensor) -> Features:
        """Normalised pictures ``[B, 3, H, W]`` to the chosen levels."""
        features: Features = self.body(images if self.multiple == 1 else padded(images, self.multiple))
        features = [features[place] for place in self.places]
        if self.channels_last:
            features = [x.permute(0, 3, 1, 2) for x in features]
        return features if self.multiple == 1 else cut(features, self.strides, *images.shape[-2:])

    def train(self, mode: bool = True) -> Timm:
        """As in torch, except that frozen norms stay in evaluation mode."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self


class TimmTrunk(nn.Module):
    """The whole of any timm model up to its classifier, pooling included: one level ``[B, channels[0], 1, 1]``.

    Args:
        model: a name of ``timm.list_models()``.
        weights: as for ``timm``; the classifier in the file is left to the head.
        frozen: train nothing of it (a linear probe).
        drop_path: rate of stochastic depth, where the model has it.

    Raises:
        ModelError: an unknown model, or weights that do not fit.

    Source: timm (pytorch-image-models) ``forward_head(pre_logits=True)``.
    """

    def __init__(
        self, model: str = "resnet50", weights: str | None = None, frozen: bool = False, drop_path: float = 0.0
    ):
        super().__init__()
        self.body = create(model, num_classes=0, drop_path_rate=drop_path)
        self.channels = [int(getattr(self.body, "head_hidden_size", None) or self.body.num_features)]
        config: dict[str, Any] = self.body.pretrained_cfg
        side = config["input_size"][-1]
        self.strides = [side]
        self.mean, self.std = config["mean"], config["std"]
        if weights is not None:
            self.body.load_state_dict(body_weights(weights, model, self.body.state_dict()))
        self.is_frozen = frozen
        if frozen:
            self.body.requires_grad_(False)

    def forward(self, images: Tensor) -> Features:
        """Normalised pictures ``[B, 3, H, W]`` to one vector each, as a 1x1 map."""
        features = self.body.forward_head(self.body.forward_features(images), pre_logits=True)  # [B, C]
        return [features[:, :, None, None]]

    def train(self, mode: bool = True) -> TimmTrunk:
        """As in torch, except that a frozen body stays in evaluation mode."""
        super().train(mode)
        if self.is_frozen:
            self.body.eval()
        return self


def create(model: str, *, drop_path_rate: float, **options: Any) -> Any:
    """``timm.create_model`` without pretrained weights; a rate of 0 is not passed on: some models know none."""
    import timm

    if not timm.is_model(model):
        near = nearest(model, timm.list_models())
        hint = f"did you mean {near!r}?" if near else "timm.list_models() has their names"
        raise ModelError(f"timm has no model {model!r}; {hint}")
    if drop_path_rate:
        options["drop_path_rate"] = drop_path_rate
    try:
        return timm.create_model(model, pretrained=False, **options)
    except (RuntimeError, TypeError, AssertionError) as error:
        raise ModelError(f"timm cannot build {model!r} with {options}: {error}") from error


def pyramid(model: str, levels: Sequence[int], drop_path: float, options: dict[str, Any]) -> tuple[Any, dict[int, int]]:
    """The body with ``features_only``, without stages that no level looks at, and the place of each level.

    Raises:
        ModelError: timm cannot build it, or it lacks a level.
    """
    body = create(model, features_only=True, drop_path_rate=drop_path, **options)
    places = places_of(body.feature_info.reduction(), int(options.get("output_stride", 32)))
    absent = [level for level in levels if level not in places]
    if absent or not levels:
        missing = f"has no level {absent[0]}" if absent else "was asked for no level"
        raise ModelError(
            f"timm's {model} {missing}; its strides are {sorted(2**level for level in places)}: choose levels among "
            "their logarithms"
        )
    top = places[max(levels)] + 1
    if top < len(body.feature_info.out_indices) and "out_indices" not in options:
        # Without the stages above: they would cost time, and never get a gradient.
        body = create(model, features_only=True, drop_path_rate=drop_path, out_indices=tuple(range(top)), **options)
        if type(body).__name__ == "EfficientNetFeatures":  # builds them nevertheless
            body.blocks = body.blocks[: body.feature_info.get("stage", top - 1)]
    return body, places


def places_of(strides: Sequence[int], output_stride: int) -> dict[int, int]:
    """Level to place among timm's features; the last of those with one stride, but dilated stages keep their levels."""
    places: dict[int, int] = {}
    level = -1
    for place, stride in enumerate(strides):
        dilated = output_stride < 32 and place > 0 and stride == strides[place - 1] == output_stride
        level = level + 1 if dilated else stride.bit_length() - 1
        places[level] = place
    return places


def freeze(body: nn.Module, last: str | None, norms: bool) -> list[nn.Module]:
    """Freeze everything up to the end of module ``last`` and, with ``norms``, every batch norm.

    "Up to" is the order of registration. Returns the modules that must stay in evaluation mode.
    """
    kept: list[nn.Module] = []
    if last is not None:
        names = [name for name, _ in body.named_parameters()]
        inside = [place for place, name in enumerate(names) if name.startswith(f"{last}.")]
        # A stage without parameters (an activation after the stem) ends where the parameters before it end.
        end = max(inside) if inside else _before(body, last, names)
        frozen = set(names[: end + 1])
        for name, parameter in body.named_parameters():
            if name in frozen:
                parameter.requires_grad_(False)
        kept += [
            module
            for name, module in body.named_modules()
            if (own := [f"{name}.{key}" for key, _ in module.named_parameters(recurse=False)]) and set(own) <= frozen
        ]
    if norms:
        for module in body.modules():
            if isinstance(module, nn.BatchNorm2d | torch.nn.SyncBatchNorm):
                module.requires_grad_(False)
                kept.append(module)
    return kept


def _before(body: nn.Module, last: str, names: list[str]) -> int:
    modules = [name for name, _ in body.named_modules()]
    earlier = set(modules[: modules.index(last)])
    return max((place for place, name in enumerate(names) if name.rpartition(".")[0] in earlier), default=-1)
