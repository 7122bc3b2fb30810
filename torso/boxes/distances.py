"""Boxes as distances from a point."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

# A raw number above this, through exp, is no distance in any picture: e^10 is 22,026. A wild one must not overflow.
MAX_LOG = 10.0


class LTRB:
    """Distances from the centre of the prior to the left, top, right and bottom of the box: ``[..., 4]`` each way.

    ``decode(encode(box))`` is the box where the centre lies in it; with ``activation: none`` it is so everywhere.

    Args:
        unit: of a distance: the ``"stride"`` of the cell, the side of the ``"prior"``, or a ``"pixel"``.
        activation: what makes a distance of a raw number, and `encode` undoes: ``"exp"`` (the paper), ``"relu"``
            (its later code and torchvision), ``"softplus"``, or ``"none"``.

    Raises:
        ValueError: an unknown unit or activation; a unit of strides, and no strides.

    Source: FCOS: Fully Convolutional One-Stage Object Detection, 2019, arXiv:1904.01355
        (torchvision's BoxLinearCoder: unit prior)
    """

    size = 4

    def __init__(
        self,
        unit: Literal["stride", "prior", "pixel"] = "stride",
        activation: Literal["exp", "relu", "softplus", "none"] = "exp",
    ):
        if unit not in ("stride", "prior", "pixel") or activation not in ("exp", "relu", "softplus", "none"):
            raise ValueError(
                "ltrb takes a unit stride, prior or pixel and an activation exp, relu, softplus or none, "
                f"got {unit!r} and {activation!r}"
            )
        self.unit, self.activation = unit, activation

    def encode(self, boxes: Tensor, priors: Tensor, strides: Tensor | None = None) -> Tensor:
        """``xyxy`` boxes to raw numbers ``[..., 4]``; finite where the centre lies outside of its box too."""
        centre = (priors[..., :2] + priors[..., 2:]) / 2
        distances = torch.cat([centre - boxes[..., :2], boxes[..., 2:] - centre], dim=-1)
        unit = self._unit(priors, strides)
        if unit is not None:
            distances = distances / unit.clamp(min=torch.finfo(unit.dtype).tiny)
        if self.activation == "none":
            return distances
        if self.activation == "relu":
            return distances.clamp(min=0)
        distances = distances.clamp(min=torch.finfo(distances.dtype).eps)
        if self.activation == "exp":
            return distances.log()
        return distances + (-torch.expm1(-distances)).log()

    def decode(self, deltas: Tensor, priors: Tensor, strides: Tensor | None = None) -> Tensor:
        """Raw numbers ``[..., 4]`` to ``xyxy`` boxes."""
        distances = self._distances(deltas)
        unit = self._unit(priors, strides)
        if unit is not None:
            distances = distances * unit
        centre = (priors[..., :2] + priors[..., 2:]) / 2
        return torch.cat([centre - distances[..., :2], centre + distances[..., 2:]], dim=-1)

    def _distances(self, deltas: Tensor) -> Tensor:
        if self.activation == "exp":
            return deltas.clamp(max=MAX_LOG).exp()
        if self.activation == "relu":
            return deltas.relu()
        return functional.softplus(deltas) if self.activation == "softplus" else deltas

    def _unit(self, priors: Tensor, strides: Tensor | None) -> Tensor | None:
        """Pixels of a unit for each of the four sides; None for pixels."""
        if self.unit == "pixel":
            return None
        if self.unit == "stride" and strides is None:
            raise ValueError("ltrb measures in strides: give them, or choose unit=prior or unit=pixel")
        sides = strides if self.unit == "stride" else priors[..., 2:] - priors[..., :2]
        assert sides is not None
        return torch.cat([sides, sides], dim=-1)
