"""A painting by optimisation: the picture itself is what descends.

Source: Gatys, Ecker and Bethge (2016), several sizes one after another as Gatys et al.,
"Controlling perceptual factors in neural style transfer" (2017); for video Ruder, Dosovitskiy and
Brox (2016): every frame starts from the last painting carried along, and is held to it where that
can be trusted. So it takes a fraction of the first frame's steps.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from streamdream.backbone import Backbone
from streamdream.frame import Image, Mask, Pixels, Resized, Size, resize
from streamdream.models import weighed
from streamdream.options import SMALLEST, Look
from streamdream.pipeline import Carried, Picture
from streamdream.stills import mask_of, painting
from streamdream.style.colours import painted_on
from streamdream.style.losses import (
    CONTENT_LAYERS,
    STYLE_LAYERS,
    Grams,
    content_loss,
    gram,
    style_loss,
    temporal_loss,
    total_variation,
)
from streamdream.style.named import named
from streamdream.style.paintings import fitted

STYLE, VARIATION, TEMPORAL = 20.0, 20.0, 200.0  # weights beside that of the content, which is 1
USUAL_MEMORY = 3.0  # s, at which the temporal loss has that weight
SIZES, SCALE = 3, 1.5  # at most so many, each that much larger than the one before
SMALLEST_SIZE = 64  # px
RATE = 0.03  # of 1: about the change of Adam's first steps where a scene starts
WARM = 0.17  # of that, where a painting was carried to
FILL_FROM = 0.02  # of the picture that is new, from which it is painted at half the size first
KEPT = 32  # sets of Gram matrices


@dataclass(frozen=True)
class Wanted:
    """A style to come near: its Gram matrices, its weight, and where it is (None: everywhere)."""

    grams: Grams
    weight: float
    mask: Mask | None = None


@dataclass(frozen=True)
class Goal:
    """What a picture is drawn to, all at its size.

    `image` (3, h, w) whose things it shows; `styles`; `carried` (3, h, w) and `trust` (1, h, w)
    what it was, None where a scene starts. `style` and `temporal` are the losses' weights.
    """

    image: Image
    styles: Sequence[Wanted]
    style: float
    carried: Image | None = None
    trust: Mask | None = None
    temporal: float = 0.0

    def loss(self, backbone: Backbone, x: Image, content: dict[str, Tensor]) -> Tensor:
        """How far a picture (3, h, w) is from it."""
        found = backbone(x, (*STYLE_LAYERS, *CONTENT_LAYERS))
        loss = content_loss(found, content) + VARIATION * total_variation(x)
        for wanted in self.styles:
            near = style_loss(found, wanted.grams, wanted.mask)
            loss = loss + self.style * wanted.weight * near
        if self.carried is not None and self.trust is not None:
            loss = loss + self.temporal * temporal_loss(x, self.carried, self.trust)
        return loss


def descend(
    backbone: Backbone,
    start: Image,
    goal: Goal,
    steps: int,
    reach: Mask | float = 1.0,
    optimiser: str = "adam",
) -> Iterator[Image]:
    """Descend from a picture (3, h, w) towards a goal; yields the picture after every step.

    `reach` (1, h, w) is how large steps are at a place, of those at a scene's start.
    """
    moved = torch.zeros_like(start).requires_grad_(True)
    with torch.no_grad():
        content = backbone(goal.image, CONTENT_LAYERS)
    if optimiser == "lbfgs":
        how: torch.optim.Optimizer = torch.optim.LBFGS([moved], max_iter=1, history_size=10)
    else:
        how = torch.optim.Adam([moved], betas=(0.9, 0.99))

    def closure() -> Tensor:
        how.zero_grad()
        with torch.enable_grad():
            loss = goal.loss(backbone, (start + moved * reach).clamp(0, 1), content)
        loss.backward()
        return loss

    for step in range(steps):
        if optimiser == "adam":  # the last steps are small, or what stands still would tremble
            how.param_groups[0]["lr"] = RATE * (1 - step / steps)
        how.step(closure)
        with torch.no_grad():
            result = (start + moved * reach).clamp(0, 1)
            moved.copy_((result - start) / reach)  # what is out of range would not come back
        yield result


class Optimised:
    """The effect: a painting by optimisation with one network, going on from what was carried."""

    replaces = True

    def __init__(self, backbone: Backbone) -> None:
        """Paint with this network, a VGG19."""
        self.backbone = backbone
        self._grams: OrderedDict[object, Grams] = OrderedDict()

    def takes_part(self, options: Look) -> bool:
        """Always."""
        return True

    def __call__(
        self, image: Image, carried: Carried, options: Look, index: int
    ) -> Iterator[Picture]:
        """Yield the painting after every step; the last one is the result.

        A frame that starts a scene gets `style_steps` at each of several sizes; one that carries
        a painting gets `style_warm_steps`, and twice as many at half the size where much of the
        picture is new.
        """
        full: Size = image.shape[-2], image.shape[-1]
        optimiser = options.style_optimiser
        if carried.trust is None:
            x = image
            for size in _sizes(full):
                x = resize(x, size).clamp(0, 1)
                goal = self._goal(resize(image, size), options)
                way = descend(self.backbone, x, goal, options.style_steps, 1.0, optimiser)
                for x in way:
                    yield partial(_enlarged, x, full)
            return
        start = begun = (image + carried.delta).clamp(0, 1)
        steps = options.style_warm_steps
        if carried.uncovered > FILL_FROM and min(full) >= 2 * SMALLEST_SIZE:
            # What is new is painted at half the size first: that takes a quarter of the time.
            small, half = resize(start, _half(full)), resize(carried.trust, _half(full))
            goal = self._goal(resize(image, _half(full)), options, small, half)
            for y in descend(self.backbone, small, goal, 2 * steps, 1.0, optimiser):
                begun = (start + resize(y - small, full) * (1 - carried.trust)).clamp(0, 1)
                yield begun.clone
        goal = self._goal(image, options, start, carried.trust)
        reach = 1 - (1 - WARM) * carried.trust
        for x in descend(self.backbone, begun, goal, steps, reach, optimiser):
            yield partial(_enlarged, x, full)

    def prepared(self, image: Image, carried: Carried, options: Look) -> Carried:
        """What was carried, as it is: nothing is chosen for a scene."""
        return carried

    def response(self, image: Image, result: Image, options: Look, carried: Carried) -> None:
        """None: a loss holds its strength, not a governor."""

    def laid_on(self, pixels: Pixels, image: Resized, delta: Resized, options: Look) -> Pixels:
        """Full-size pixels (H, W, 3) with the painting `image + delta` on them."""
        return painted_on(pixels, image, delta, options)

    def _goal(
        self,
        image: Image,
        options: Look,
        carried: Image | None = None,
        trust: Mask | None = None,
    ) -> Goal:
        styles = self._styles((image.shape[-2], image.shape[-1]), options, image.device)
        temporal = TEMPORAL * min(options.memory / USUAL_MEMORY, 10.0)
        return Goal(image, styles, STYLE * options.style_weight, carried, trust, temporal)

    def _styles(self, size: Size, options: Look, device: torch.device) -> list[Wanted]:
        names, weights = weighed(options.style)
        weights = weights or (1.0,) * len(names)
        masks: list[Mask | None] = [None] * len(names)
        if len(options.style_mask) == len(names) > 1:
            masks = [mask_of(Path(mask), size).to(device) for mask in options.style_mask]
        together = 1.0 if masks[0] is not None else sum(weights)
        return [
            Wanted(self._grams_of(name, size, options.style_scale, device), weight / together, mask)
            for name, weight, mask in zip(names, weights, masks, strict=True)
        ]

    def _grams_of(self, name: str, size: Size, scale: float, device: torch.device) -> Grams:
        key = name, size, scale
        if key not in self._grams:
            path = named(name).path
            assert path is not None
            image = fitted(painting(path), size, scale).to(device)
            with torch.no_grad():
                found = self.backbone(image, STYLE_LAYERS)
                self._grams[key] = {layer: gram(found[layer]) for layer in STYLE_LAYERS}
            if len(self._grams) > KEPT:
                self._grams.popitem(last=False)
        self._grams.move_to_end(key)
        return self._grams[key]


def _sizes(full: Size) -> list[Size]:
    found = [full]
    while len(found) < SIZES and min(found[0]) / SCALE >= max(SMALLEST, SMALLEST_SIZE):
        found.insert(0, (round(found[0][0] / SCALE), round(found[0][1] / SCALE)))
    return found


def _half(size: Size) -> Size:
    return round(size[0] / 2), round(size[1] / 2)


def _enlarged(x: Image, full: Size) -> Image:
    return resize(x, full).clamp(0, 1)
