"""Boxes as shares of the picture: the form in which queries say them, and in which they are compared."""

from __future__ import annotations

import torch
from torch import Tensor

from torso.boxes.convert import xyxy_to_cxcywh
from torso.structures import DenseOutput, as_priors


def shares(boxes: Tensor, output: DenseOutput) -> Tensor:
    """``xyxy`` pixels ``[B, N, 4]`` as centre, width and height in 0..1 of the picture that an output is about.

    Args:
        boxes: of the pictures of the output.
        output: knows where the picture lies in the network's input (``frame``), and how large that is.

    Source: End-to-End Object Detection with Transformers, 2020, arXiv:2005.12872, section 3.1
    """
    whole = as_priors(output.logits, boxes[:, :1], output.size, frame=output.frame).priors  # [B, 0 or 1, 4]
    corner, scale = whole[..., :2], whole[..., 2:] - whole[..., :2]
    found = xyxy_to_cxcywh(boxes)
    return torch.cat([(found[..., :2] - corner) / scale, found[..., 2:] / scale], dim=-1)
