"""What makes a result good: it has a painting's style, or it is a dream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from streamdream.backbone import Backbone
from streamdream.dream import Recipe, dream
from streamdream.frame import Image, resize
from streamdream.governor import Scalar
from streamdream.models import weighed
from streamdream.style.losses import content_loss, gram, total_variation
from streamdream.train.options import TrainOptions

PAINTING_LINES = 256  # px; of the painting at --style-scale 1
STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")  # relu5_1 sees no more in a crop
CONTENT_LAYERS = ("relu3_1",)
STEPS_ON = 3  # an octave; one alone points hardly anywhere
STRICT = 2.0  # weight of a dream's being too strong
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
    """A dream of the same picture: what the network dreamed is dreamed on for a few steps.

    Where that leads is where its next result should be. Going on from its own results, not
    from the picture, it comes to the same forms again and again, where dreams of many seeds
    would be blurred into one.
    """

    def __init__(self, backbone: Backbone, options: TrainOptions) -> None:
        """Dream the layers that the options ask for, as strongly as they do."""
        self._backbone = backbone
        self._layers, self._weights = weighed(options.layers)
        self._strength = options.dream_strength / 255

    def __call__(
        self, result: Image, image: Image, rng: np.random.Generator
    ) -> Mapping[str, Scalar]:
        recipe = Recipe(
            self._layers,
            octaves=3,
            octave_scale=1.4,
            steps=STEPS_ON,
            finest_steps=STEPS_ON,
            step_size=1.5,
            jitter=32,
            seed=tuple(int(n) for n in rng.integers(2**31, size=2)),
            weights=self._weights,
        )
        start = result.detach()
        *_, dreamed = dream(self._backbone, start, torch.zeros_like(start), recipe)
        way = dreamed() - start
        # Of the lowest frequencies it would learn first to give everything one colour.
        way -= resize(F.avg_pool2d(way, COARSE, ceil_mode=True), (way.shape[-2], way.shape[-1]))
        way /= way.square().mean().sqrt().clamp_min(1e-12)
        change = (result - image) / self._strength
        # Looked at place by place, or the easiest places would get all of it.
        power = F.avg_pool2d(change.square().mean(0, keepdim=True), COARSE, ceil_mode=True)
        return {
            "dream": -(way * change).mean(),
            # Not held from below: a network that cannot dream yet would only learn to smear.
            "strength": STRICT * (power.clamp_min(1).sqrt() - 1).square().mean(),
        }
