"""The kinds of things that can be excited, each a part of an aim."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from streamdream.governor import Scalar
from streamdream.objectives.aims import BIT

CELLS = 1.0  # of the layer's grid: how far from its place a neuron is still looked at
CHUNK = 2**22  # similarities that are computed at a time
NOTHING = 1e-12


@dataclass(frozen=True)
class Summed:
    """Channels of a layer, everywhere or at a place, summed up in one of these ways.

    energy: the logarithm of the mean square, as of whole layers; squares: the mean square, as
    Google's notebook; mean: the mean response; log: the mean of log(1 + square).

    It is given a weight for each channel (c), or none where all count; with `placed` then where
    (y, x), and how many times the picture goes into the whole either way (see `near`).
    """

    layer: str
    how: str = "energy"
    masked: bool = False
    placed: bool = False

    @property
    def steady(self) -> bool:
        """Not where weights of places are summed too."""
        return not self.placed

    def sums(self, found: Tensor, given: Sequence[Tensor], places: int) -> Tensor:
        """The sum of what is summed up, for means also of squares, and how many were summed."""
        responses = found.float()
        squares = responses.square()
        values = {"energy": squares, "squares": squares, "mean": responses}.get(self.how)
        values = torch.log1p(squares) if values is None else values
        _, channels, height, width = found.shape
        mask = given[0] if self.masked else torch.ones(channels, device=found.device)
        if self.placed:
            window = near(given[-1], height, width)
            values, squares = values * window, squares * window
            count = window.sum() * mask.sum()
        else:
            count = mask.sum() * (height * width)
        added = (values, squares) if self.how == "mean" else (values,)
        summed = [(each.sum((0, 2, 3)) * mask).sum() for each in added]
        return torch.stack([*summed, count])

    def score(self, sums: Tensor) -> Scalar:
        """The logarithm of the mean, or the mean."""
        mean = sums[0] / sums[-1].clamp_min(NOTHING)
        return torch.log(mean + NOTHING) if self.how == "energy" else mean

    def unit(self, sums: Tensor) -> Scalar:
        """A bit of the root mean square; of means, what the picture itself gives."""
        if self.how in ("energy", "log"):
            return torch.full_like(sums[0], BIT)
        mean = (sums[1] if self.how == "mean" else sums[0]) / sums[-1].clamp_min(NOTHING)
        return (mean.sqrt() if self.how == "mean" else mean).clamp_min(1e-6)


@dataclass(frozen=True)
class Neuron:
    """One unit, or some, at a place: how far above what is usual they respond.

    It is given what `Summed` is with a mask and a place.
    """

    layer: str
    steady = False
    placed = True

    def sums(self, found: Tensor, given: Sequence[Tensor], places: int) -> Tensor:
        """Responses near the place and their weight, all squares and their number."""
        mask, place = given
        responses = found.float()
        window = near(place, found.shape[-2], found.shape[-1])
        there = ((responses * window).sum((0, 2, 3)) * mask).sum()
        squares = (responses.detach().square().sum((0, 2, 3)) * mask).sum()
        count = mask.sum()
        return torch.stack([there, window.sum() * count, squares, count * window.numel()])

    def score(self, sums: Tensor) -> Scalar:
        """The mean response near the place, in what is usual for these units."""
        usual = (sums[2] / sums[3]).sqrt().clamp_min(1e-6)
        return sums[0] / sums[1].clamp_min(NOTHING) / usual

    def unit(self, sums: Tensor) -> Scalar:
        """Once what is usual."""
        return torch.ones_like(sums[0])


def near(place: Tensor, height: int, width: int) -> Tensor:
    """How near each cell of a grid (height, width) is to a place, from 0 to 1.

    `place` (4) is y and x in heights and widths of what is seen, and in how many of these the
    picture repeats: it is rolled, so its edges meet.
    """
    found = []
    for side, i in ((height, 0), (width, 1)):
        at = (torch.arange(side, device=place.device) + 0.5) / side
        away = at - place[i]
        away = away - place[i + 2] * torch.round(away / place[i + 2])
        found.append(torch.exp(-0.5 * (away * side / CELLS).square()))
    return found[0][:, None] * found[1]


@dataclass(frozen=True)
class Classes:
    """Classes by their logits: how far these are above those of all others.

    For one class that is the logarithm of its odds, whose gradient points where that of its
    probability does, and does not vanish when it is sure. It is given a weight for each class,
    of which the absolute ones sum up to 1.
    """

    layer: str
    steady = False
    placed = False

    def sums(self, found: Tensor, given: Sequence[Tensor], places: int) -> Tensor:
        """Logits, times pixels: pieces of a picture have a say by their size; and the weights."""
        logits = found.float().mean((0, 2, 3))
        return torch.cat([logits * places, given[0] * places, logits.new_full((1,), places)])

    def score(self, sums: Tensor) -> Scalar:
        """The logarithm of the odds."""
        logits, weights = (sums[:-1] / sums[-1]).chunk(2)
        others = torch.logsumexp(logits.masked_fill(weights != 0, -math.inf), 0)
        return (logits * weights).sum() - others * weights.sum()

    def unit(self, sums: Tensor) -> Scalar:
        """A bit."""
        return torch.full_like(sums[0], math.log(2))


@dataclass(frozen=True)
class Guided:
    """What a guide shows: each place is drawn to that of the guide's features it is most like.

    Source: the notebook of Mordvintsev, Olah and Tyka (2015), "controlling dreams". It is given
    the features (n, c) and a mask (c) of the channels that count.
    """

    layer: str
    steady = True
    placed = False

    def sums(self, found: Tensor, given: Sequence[Tensor], places: int) -> Tensor:
        """The sum of the largest dot products, in the guide's own mean square, and their number."""
        guide, mask = given
        seen = found.float()[0].flatten(1).T  # (places, c)
        best = matched(seen.detach(), guide * mask)
        usual = ((guide * mask).square().sum() / len(guide)).clamp_min(1e-6)
        total = (seen * best).sum() / usual
        return torch.stack([total, torch.full_like(total, len(seen))])

    def score(self, sums: Tensor) -> Scalar:
        """The mean dot product."""
        return sums[0] / sums[1]

    def unit(self, sums: Tensor) -> Scalar:
        """What the picture itself gives."""
        return (sums[0] / sums[1]).abs().clamp_min(1e-3)


def matched(seen: Tensor, guide: Tensor) -> Tensor:
    """Of a guide's features (n, c) the one with the largest dot product, for each seen (m, c)."""
    step = max(1, CHUNK // len(guide))
    best = [(part @ guide.T).argmax(1) for part in seen.split(step)]
    return guide[torch.cat(best)]
