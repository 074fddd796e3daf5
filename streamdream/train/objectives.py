"""What makes a result good: it has a painting's style, or it is a dream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from streamdream.backbone import Backbone
from streamdream.dream import ascent, octave_sizes, steepest
from streamdream.frame import Image, resize
from streamdream.governor import Scalar
from streamdream.models import weighed
from streamdream.style.losses import content_loss, gram, total_variation
from streamdream.train.options import TrainOptions

PAINTING_LINES = 256  # px; of the painting at --style-scale 1
STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")  # relu5_1 sees no more in a crop
CONTENT_LAYERS = ("relu3_1",)
STRICT = 4.0  # weight of a dream's being too strong
COARSE = 24  # px; larger structures are not dreamed
SMOOTH = 2.0  # weight of the total variation


class Objective(Protocol):
    """Losses of a result, by name, each with its weight in it."""

    def __call__(
        self, result: Image, image: Image, rng: np.random.Generator
    ) -> Mapping[str, Scalar]:
        """How far a result (3, h, w) is from what an `image` (3, h, w) should become."""
        ...


class StyleObjective:
    """The style of a painting on what is in the picture, as VGG19 sees both."""

    def __init__(self, backbone: Backbone, painting: Image, options: TrainOptions) -> None:
        """Look at the painting at the size that the options ask for."""
        self._backbone, self._weight = backbone, options.style_weight
        h, w = painting.shape[-2:]
        scale = min(PAINTING_LINES * options.style_scale / min(h, w), 1024 / max(h, w))
        with torch.no_grad():
            seen = backbone(
                resize(painting, (round(h * scale), round(w * scale))).clamp(0, 1), STYLE_LAYERS
            )
            self._wanted = {layer: gram(features) for layer, features in seen.items()}

    def __call__(
        self, result: Image, image: Image, rng: np.random.Generator
    ) -> Mapping[str, Scalar]:
        with torch.no_grad():
            content = self._backbone(image, CONTENT_LAYERS)
        seen = self._backbone(result, {*STYLE_LAYERS, *CONTENT_LAYERS})
        return {
            "style": self._weight * self._style(seen),
            "content": content_loss(seen, content),
            "smooth": SMOOTH * total_variation(result),
        }

    def _style(self, seen: Mapping[str, Tensor]) -> Scalar:
        """The mean over layers of the relative distances of Gram matrices.

        Not squared as in `style_loss`: a piece that has nothing of the painting would drown all
        others, and layers that nearly fit would learn no more.
        """
        distances = [
            (gram(seen[layer]) - goal).norm() / goal.norm() for layer, goal in self._wanted.items()
        ]
        return torch.stack(distances).mean()


class DreamObjective:
    """A dream of the same picture, approached along the gradient that dreams climb.

    The gradient of every octave is brought to equal strength in all bands as in
    `streamdream.dream`, or the network would learn the hash that raw gradients are.
    """

    def __init__(self, backbone: Backbone, options: TrainOptions) -> None:
        """Dream the layers that the options ask for, as strongly as they do."""
        self._backbone = backbone
        self._layers, self._weights = weighed(options.layers)
        self._strength = options.dream_strength / 255

    def __call__(
        self, result: Image, image: Image, rng: np.random.Generator
    ) -> Mapping[str, Scalar]:
        shown = result.detach()
        size = (shown.shape[-2], shown.shape[-1])
        weights = None
        if self._weights is not None:
            weights = torch.tensor(self._weights, device=shown.device)
        push = torch.zeros_like(shown)
        for octave in octave_sizes(size, 3, 1.4):
            shift = rng.integers(-32, 33, size=2)
            move = int(shift[0]), int(shift[1])
            found = ascent(
                self._backbone, resize(shown, octave), self._layers, move, 1024, steepest, weights
            )
            push += resize(found, size)
        # Of the lowest frequencies it would learn first to give everything one colour.
        push -= resize(F.avg_pool2d(push, COARSE, ceil_mode=True), size)
        push /= push.square().mean().sqrt().clamp_min(1e-12)
        change = (result - image).square().mean().clamp_min(1e-8).sqrt() / self._strength
        return {
            "dream": -(push * (result - image)).mean() / self._strength,
            # Not held from below: a network that cannot dream yet would only learn to smear.
            "strength": STRICT * (change - 1).clamp_min(0).square(),
        }
