"""What a painting has in common with a picture, as losses to descend.

Content and style: Gatys, Ecker and Bethge, "Image style transfer using convolutional neural
networks" (CVPR 2016). The temporal loss: Ruder, Dosovitskiy and Brox, "Artistic style transfer for
videos" (arXiv:1604.08610). Style and content are in proportion to what they are compared with,
so that they weigh alike whatever the network and the picture: 0 is alike, about 1 has nothing in
common.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from streamdream.frame import Image, Mask
from streamdream.governor import Scalar

Features = Float[Tensor, "1 c h w"]
Gram = Float[Tensor, "c c"]
Grams = Mapping[str, Tensor]
"""Gram matrices (c, c), by the layer they are of."""

STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
CONTENT_LAYERS = ("relu4_2",)


def gram(features: Features, mask: Mask | None = None) -> Gram:
    """How often two channels respond at one place: (c, c), the mean over places.

    A `mask` (1, H, W) of any size says how much places count.
    """
    found = features[0].float().flatten(1)
    if mask is None:
        return found @ found.T / found.shape[1]
    weight = F.interpolate(mask[None], features.shape[-2:], mode="area")[0].flatten(1)
    return (found * weight) @ found.T / weight.sum().clamp_min(1e-6)


def style_loss(
    activations: Mapping[str, Tensor], wanted: Grams, mask: Mask | None = None
) -> Scalar:
    """How far the Gram matrices of layers are from those wanted, the mean over layers."""
    losses = [
        (gram(activations[layer], mask) - goal).square().sum() / goal.square().sum()
        for layer, goal in wanted.items()
    ]
    return torch.stack(losses).mean()


def content_loss(activations: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Scalar:
    """How far the responses of layers are from those wanted, the mean over layers."""
    losses = [
        (activations[layer].float() - goal.float()).square().mean()
        / goal.float().square().mean().clamp_min(1e-6)
        for layer, goal in wanted.items()
    ]
    return torch.stack(losses).mean()


def total_variation(image: Image) -> Scalar:
    """The mean square of the differences between neighbours."""
    down = (image[..., 1:, :] - image[..., :-1, :]).square().mean()
    return down + (image[..., 1:] - image[..., :-1]).square().mean()


def temporal_loss(image: Image, carried: Image, trust: Mask) -> Scalar:
    """The mean square of the difference to what was carried along, where that is trusted."""
    return (trust * (image - carried).square()).mean()
