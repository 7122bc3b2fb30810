"""VGG-16 as SSD takes it."""

from __future__ import annotations

from torch import Tensor, nn

from torso.backbones.weights import body_weights
from torso.config import ModelError
from torso.nn.init import init_weights
from torso.structures import Features

# Channels of the convolutions, "M" a max pooling; the fifth is another one.
LAYERS = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512)


class SSDVGG(nn.Module):
    """VGG-16 whose fully connected layers are convolutions: conv4_3 (stride 8) and fc7 (stride 16).

    The fifth pooling is 3x3 without a stride, fc6 a 3x3 convolution of dilation 6, so that fc7 keeps stride 16.
    Poolings round up: a picture of 300 px has 38 and 19 cells.

    Args:
        scale: factor of all channels; 1 is VGG-16.
        weights: path of a weight file of torchvision's ``vgg16``, or ``None``: up to conv5_3; fc6 and fc7 begin anew.
        frozen_stages: how many of the first stages, which end with the poolings, stay as they are: 0 to 4
            (torchvision's SSD: 1).

    Raises:
        ModelError: stages it does not have, weights that do not fit.

    Source: SSD: Single Shot MultiBox Detector, 2015, arXiv:1512.02325; VGG-16, arXiv:1409.1556 (weights of Caffe, as
        torchvision's ``IMAGENET1K_FEATURES``)
    """

    mean = (0.48235, 0.45882, 0.40784)
    std = (1 / 255, 1 / 255, 1 / 255)  # Caffe's networks see pixels of 0 to 255 less a mean

    def __init__(self, scale: float = 1.0, weights: str | None = None, frozen_stages: int = 0):
        super().__init__()
        features, before = nn.Sequential(), 3
        for width in LAYERS:
            if width == "M":
                features.append(nn.MaxPool2d(2, ceil_mode=True))
                continue
            channels = round(int(width) * scale)
            features.extend([nn.Conv2d(before, channels, 3, padding=1), nn.ReLU()])
            before = channels
        top = round(1024 * scale)
        self.channels, self.strides = [before, top], [8, 16]
        self.body = nn.ModuleDict({"features": features})  # names as torchvision's
        self.full = nn.Sequential(
            nn.MaxPool2d(3, 1, padding=1),
            nn.Conv2d(before, top, 3, padding=6, dilation=6),
            nn.ReLU(),
            nn.Conv2d(top, top, 1),
            nn.ReLU(),
        )
        init_weights(features, "kaiming")
        init_weights(self.full, "xavier")
        if weights is not None:
            self.body.load_state_dict(body_weights(weights, "vgg16", self.body.state_dict()))
        pools = [place for place, layer in enumerate(features) if isinstance(layer, nn.MaxPool2d)]
        if not 0 <= frozen_stages <= len(pools):
            raise ModelError(f"ssd_vgg can freeze 0 to {len(pools)} stages, got frozen_stages={frozen_stages}")
        for layer in features[: ([0, *pools])[frozen_stages]]:
            layer.requires_grad_(False)
        self.cut = pools[-1]

    def forward(self, images: Tensor) -> Features:
        """Normalised pictures ``[B, 3, H, W]`` to conv4_3 and fc7."""
        features = self.body["features"]
        assert isinstance(features, nn.Sequential)
        x = features[: self.cut](images)
        return [x, self.full(features[self.cut :](x))]
