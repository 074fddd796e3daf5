"""DeepDream: gradient ascent on what a network sees in a picture.

Source: Mordvintsev, Olah and Tyka, "Inceptionism" (2015) and the notebook that came with it:
octaves that re-inject the downscaled picture and carry only the detail, jitter, and a
Laplacian pyramid that brings every band of the gradient to the same strength.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial

import numpy as np
import torch
from torch import Tensor

from streamdream.backbone import Backbone
from streamdream.frame import Delta, Image, Mask, Pixels, Resized, resize
from streamdream.governor import Scalar
from streamdream.graphs import Replayed, Slope
from streamdream.objectives.aimer import Aimer
from streamdream.objectives.aims import Aim, response
from streamdream.objectives.slopes import slope_of
from streamdream.options import SMALLEST, Look
from streamdream.pipeline import GROWN_UP, Carried, Picture
from streamdream.polish.fourier import Spectrum
from streamdream.polish.gradient import BANDS, PLAIN, Polish, normalised, polished
from streamdream.polish.shown import dreamed_onto
from streamdream.polish.start import grainy
from streamdream.polish.terms import drawn_back

WARM_JITTER = 12  # px; more of it boils once a dream is carried, less lets the grid show
SETTLED = 0.75  # of a step at the smaller octaves, where a dream has been for a while
FOURIER_STEPS = 2  # times as many as an octave gets, for a picture that has only one
FILL_STEPS = 8  # per octave where a dream is young, if all of the picture is newly uncovered
LOCAL = 1.25  # mean of the square over that of the absolute value, of normal numbers
FILL_FROM = 0.05  # share of it from which that is worth it


@dataclass(frozen=True)
class Recipe:
    """How one frame is dreamed: made from the options and what was carried, frame by frame.

    `steps` are gradient steps per octave, `finest_steps` those at full size, which cost
    more than all the others together. `young` (1, h, w) says where no dream was carried (1:
    nothing there yet), None that all is equally new: elsewhere steps are SETTLED as large,
    at full size `effort` as large; on the young places `fill_steps` more are spent, at full
    size half as many (rounded down).
    `step_size` is the mean absolute change of a step in grey levels of 255, `jitter` the
    largest shift in pixels, `tile` the largest piece seen at once. `seed` decides the jitter,
    for one frame. `aim` is what is excited, `polish` how gradients are treated.
    """

    aim: Aim
    octaves: int
    octave_scale: float
    steps: int
    finest_steps: int
    step_size: float
    jitter: int
    seed: tuple[int, ...]
    tile: int = 1024
    fill_steps: int = 0
    young: Mask | None = None
    effort: Scalar | float = 1.0
    polish: Polish = PLAIN


def dream(
    backbone: Backbone,
    image: Image,
    carried: Delta,
    recipe: Recipe,
    slope: Slope | None = None,
) -> Iterator[Picture]:
    """Dream `image` (3, h, w) on from the `carried` change (3, h, w); yields after every step.

    The last picture is the result. What was carried is never rebuilt from a small octave:
    the octaves start from image + carried, and `detail` holds only what this frame adds.
    `slope` is `steepest` or something that gives the same.
    """
    rng = np.random.default_rng(recipe.seed)
    start = (image + carried).clamp(0, 1)
    full = (image.shape[-2], image.shape[-1])
    detail = torch.zeros_like(image)
    for size in octave_sizes(full, recipe.octaves, recipe.octave_scale):
        base = resize(start, size)
        spectrum = Spectrum(base) if recipe.polish.fourier else None
        # What was carried is drawn back at full size alone: once a frame, or it would boil.
        source = image if size == full else base
        x = (base + resize(detail, size)).clamp(0, 1)
        everywhere: list[Tensor | None] = [None] * recipe.steps
        if size == full:
            everywhere = [None] * recipe.finest_steps
        if recipe.young is not None:
            young = resize(recipe.young, size)
            settled = recipe.effort if size == full else SETTLED
            everywhere = [settled + (1 - settled) * young] * len(everywhere)
            everywhere += [young] * (recipe.fill_steps if size != full else recipe.fill_steps // 2)
        for where in everywhere:
            shift = rng.integers(-recipe.jitter, recipe.jitter + 1, size=2)
            move = int(shift[0]), int(shift[1])
            how = recipe.tile, slope or steepest, recipe.polish, spectrum
            push = ascent(backbone, x, recipe.aim.at(size, move), move, *how)
            push = push * (recipe.step_size / 255)
            if recipe.polish.draws_back:
                push = push - drawn_back(x - source, recipe.polish, recipe.step_size / 255)
            x = (x + (push if where is None else push * where)).clamp(0, 1)
            yield partial(_enlarged, start, base, x)
        detail = x - base


def _enlarged(start: Tensor, base: Tensor, x: Tensor) -> Tensor:
    if x.shape == start.shape:
        return x
    return (start + resize(x - base, (start.shape[-2], start.shape[-1]))).clamp(0, 1)


def octave_sizes(size: tuple[int, int], octaves: int, scale: float) -> list[tuple[int, int]]:
    """The sizes (h, w) dreamed at, smallest first, the last being `size` itself.

    Octaves smaller than the network can read are left out.
    """
    h, w = size
    sizes = [(round(h / scale**i), round(w / scale**i)) for i in range(octaves)]
    return [s for s in reversed(sizes) if min(s) >= SMALLEST or s == (h, w)]


def ascent(
    backbone: Backbone,
    x: Image,
    aim: Aim,
    shift: tuple[int, int],
    tile: int,
    slope: Slope,
    polish: Polish = PLAIN,
    spectrum: Spectrum | None = None,
) -> Delta:
    """The direction (3, h, w) that excites an aim most, with a mean absolute value of 1.

    If all of that is at some place, with about that mean there.

    The picture is rolled by `shift` (dy, dx) under the network's grid and the answer rolled
    back, so that the grid leaves no trace. A `spectrum` goes its own way.
    """
    bands = polish.levels if spectrum is None else 1
    gradient = slope(backbone, torch.roll(x, shift, (-2, -1)), aim, tile, bands)
    gradient = torch.roll(gradient, (-shift[0], -shift[1]), (-2, -1))
    gradient = polished(gradient if spectrum is None else spectrum(gradient), polish)
    strength = gradient.abs().mean()
    if aim.local:  # the mean where it acts, or all that a picture's step may be would go there
        strength = gradient.square().sum() / gradient.abs().sum().clamp_min(1e-12) / LOCAL
    return gradient / strength.clamp_min(1e-12)


def steepest(backbone: Backbone, x: Image, aim: Aim, tile: int, levels: int = BANDS) -> Delta:
    """The normalised gradient (3, h, w) of what an aim excites.

    What is larger than `tile` pixels either way is seen in pieces. `levels` are the bands that
    are made equally strong.
    """
    return normalised(slope_of(backbone, x, aim, tile), levels)


class Dream:
    """The effect: DeepDream with one network, going on from what was carried."""

    replaces = False

    def __init__(self, backbone: Backbone, mixed: bool = False) -> None:
        """Dream with this network; `mixed` into a painting, as much as `dream_mix` says."""
        self.backbone = backbone
        self._mixed = mixed
        self._aimer = Aimer(backbone)
        self._slope = Replayed(steepest)

    def takes_part(self, options: Look) -> bool:
        """Whether there is something to dream."""
        return not self._mixed or options.dream_mix > 0

    def laid_on(self, pixels: Pixels, image: Resized, delta: Resized, options: Look) -> Pixels:
        """Full-size pixels (H, W, 3) with the dream `delta` of their `image` added."""
        share = options.dream_mix if self._mixed else 1.0
        return dreamed_onto(pixels, image, delta, options, options.strength * share)

    def __call__(
        self, image: Image, carried: Carried, options: Look, index: int
    ) -> Iterator[Picture]:
        """Yield the dream after every gradient step; the last one is the result.

        A frame that starts a scene gets `steps` per octave. One that carries a dream gets
        `warm_steps`, half of them (rounded up) at the finest octave unless that is a draft's;
        smaller ones where the dream has settled, and a few more where much of the picture was
        newly uncovered.
        """
        warm = carried.governor is not None
        count = options.warm_steps if warm else options.steps
        fill = warm and options.warm_steps > 0 and carried.uncovered > FILL_FROM
        fills = max(1, round(FILL_STEPS * carried.uncovered)) if fill else 0
        octaves = options.octaves_at((image.shape[-2], image.shape[-1]))
        finest = -(-count // 2) if warm and options.finer >= 0 else count
        if options.fourier:
            finest = count * FOURIER_STEPS
        recipe = Recipe(
            aim=self._aimer.aim(image, options, carried.chosen, carried.time),
            octaves=1 if options.fourier else octaves,
            octave_scale=options.octave_scale,
            steps=count,
            finest_steps=finest,
            step_size=options.step_size,
            jitter=min(options.jitter, WARM_JITTER) if warm else options.jitter,
            seed=(options.seed, index),
            tile=options.tile,
            fill_steps=fills,
            effort=1.0 if carried.governor is None else carried.governor.effort,
            young=(1 - carried.age / GROWN_UP).clamp(0, 1) if warm else None,
            polish=Polish.of(options),
        )
        start = carried.delta
        if options.noise > 0:
            start = start + grainy(image, carried, options, index)
        return dream(self.backbone, image, start, recipe, self._slope)

    def prepared(self, image: Image, carried: Carried, options: Look) -> Carried:
        """What was carried, with the channels that the scene's dream excites."""
        return replace(carried, chosen=self._aimer.chosen(image, carried.chosen, options))

    def response(
        self, image: Image, result: Image, options: Look, carried: Carried | None = None
    ) -> Scalar:
        """How many bits more the network responds to the result than to the image.

        The mean over what is excited by weight. Pictures larger than a tile are looked at no
        larger than that.
        """
        height, width = image.shape[-2:]
        scale = min(1.0, options.tile / max(height, width))
        size = max(SMALLEST, round(height * scale)), max(SMALLEST, round(width * scale))
        chosen, time = ({}, Fraction(0)) if carried is None else (carried.chosen, carried.time)
        aim = self._aimer.aim(image, options, chosen, time)
        return response(self.backbone, resize(image, size), resize(result, size), aim)
