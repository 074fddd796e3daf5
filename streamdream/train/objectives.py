"""What makes a result good: it has a painting's style, or it is a dream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from streamdream.backbone import Backbone
from streamdream.dream import octave_sizes
from streamdream.frame import Image, resize
from streamdream.governor import Scalar
from streamdream.models import weighed
from streamdream.objectives.aims import BIT, Aim, aim_at, excited
from streamdream.style.losses import content_loss, gram, total_variation
from streamdream.style.network import PLACE
from streamdream.train.options import TrainOptions

PAINTING_LINES = 256  # px; of the painting at --style-scale 1
STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")  # relu5_1 sees no more in a crop
CONTENT_LAYERS = ("relu3_1",)
OCTAVES = 3  # sizes that a dream is looked at
EXCITED = 20.0  # weight of a bit more of excitement
DREAM_SMOOTH = 0.05  # weight of the total variation of what a dream changes
STRICT = 2.0  # weight of a dream's being too strong
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
    """A dream of the same picture: layers respond more strongly to it, at several sizes.

    The network itself keeps this from becoming the hash that raw gradients make of single
    pictures: what it adds has to work in every picture and at every place.
    """

    def __init__(self, backbone: Backbone, options: TrainOptions) -> None:
        """Excite the layers that the options ask for, and change as much as they ask for."""
        self._backbone = backbone
        layers, weights = weighed(options.layers)
        self._aim = aim_at(*layers, weights=weights)
        self._strength = options.dream_strength / 255

    def __call__(
        self, result: Image, image: Image, rng: np.random.Generator
    ) -> Mapping[str, Scalar]:
        gains: list[Scalar] = []
        for size in octave_sizes((image.shape[-2], image.shape[-1]), OCTAVES, 1.4):
            shift = rng.integers(-32, 33, size=2)
            move = int(shift[0]), int(shift[1])
            dreamed, plain = (torch.roll(resize(x, size), move, (-2, -1)) for x in (result, image))
            with torch.no_grad():
                usual = self._excited(plain)
            gains.append(self._excited(dreamed) - usual)
        change = (result - image) / self._strength
        # Looked at place by place, or the easiest places would get all of it.
        power = F.avg_pool2d(change.square().mean(0, keepdim=True), PLACE, ceil_mode=True)
        return {
            "dream": -EXCITED * torch.stack(gains).mean(),
            "strength": STRICT * (power.clamp_min(1).sqrt() - 1).square().mean(),
            "smooth": DREAM_SMOOTH * total_variation(change),
        }

    def _excited(self, image: Image) -> Scalar:
        """How strongly the layers respond, in bits of their mean square."""
        aim = self._aim
        if aim.weights.device != image.device:
            aim = self._aim = Aim(aim.parts, aim.weights.to(image.device), aim.given)
        return excited(self._backbone, image, aim) / (BIT * aim.weights.abs().sum())
