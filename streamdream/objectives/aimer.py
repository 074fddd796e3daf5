"""From options to what a frame's dream excites."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from torch import Tensor

from streamdream import models
from streamdream.backbone import Backbone
from streamdream.frame import Image, Size
from streamdream.models import parted, weighed
from streamdream.objectives.aims import Aim, Energy, Part
from streamdream.objectives.classes import class_of
from streamdream.objectives.guides import Guides
from streamdream.objectives.parts import Classes, Guided, Neuron, Summed
from streamdream.objectives.slopes import pieces_of
from streamdream.objectives.units import Units, check_channels, read_units
from streamdream.options import Look

LOGITS = "logits"
CLASS = 0.1  # of a class, whose slope is about ten times as steep as that of a layer
ALIVE = 1e-6  # of the most excited channel's mean square; what is below cannot be woken

Chosen = Mapping[str, Tensor]
"""Channels that were picked: by what they were picked by, a mask (c) of 0 and 1."""


@dataclass(frozen=True)
class Sought:
    """A term of an aim: a part, its weight, what it is given, and the guide of it if it has one."""

    part: Part
    weight: float
    given: tuple[Tensor, ...] = ()
    guide: str = ""


class Aimer:
    """Makes aims for one network; for one thread."""

    def __init__(self, backbone: Backbone) -> None:
        """Aim at what this network sees."""
        self._backbone = backbone
        self._counts: dict[str, int] = {}
        self._guides = Guides(backbone)

    def chosen(self, image: Image, kept: Chosen, options: Look) -> Chosen:
        """The channels that the options pick for a picture (3, h, w); what was `kept` stays.

        Raises ModelError where a layer has fewer.
        """
        found: dict[str, Tensor] = {}
        wanted: dict[str, Units] = {}
        for name, _ in _terms(options):
            units = _picking(name, options)
            if units.pick:
                key = f"{units.layer}[{units.pick}:{units.count}]"
                if key in kept and options.channels_per == "scene":
                    found[key] = kept[key]
                else:
                    wanted[key] = units
        if wanted:
            layers = tuple(dict.fromkeys(units.layer for units in wanted.values()))
            squares = self._squares(image, layers, options.tile)
            for key, units in wanted.items():
                found[key] = _picked(squares[units.layer], units)
        return found

    def aim(self, image: Image, options: Look, chosen: Chosen, time: Fraction = Fraction(0)) -> Aim:
        """What a picture (3, h, w) is to excite, at a time of the stream.

        Raises ModelError where a layer has no such channel, SourceError where a guide is gone.
        """
        terms = list(self._sought(image, options, chosen))
        weights = torch.tensor([term.weight for term in terms], device=image.device)
        found = Aim(
            tuple(term.part for term in terms), weights, tuple(term.given for term in terms)
        )
        if not any(term.guide or term.part.placed for term in terms):
            return found
        held = options.guide_end == "hold"
        guided = {
            path: tuple(dict.fromkeys(t.part.layer for t in terms if t.guide == path))
            for path in {term.guide for term in terms}
        }

        def follow(size: Size, shift: Size) -> Aim:
            given = []
            for term in terms:
                each = term.given
                if term.guide:
                    where = size, time, held, image.device
                    features = self._guides.features(term.guide, guided[term.guide], *where)
                    each = (features[term.part.layer], *each)
                if term.part.placed:
                    moved = each[-1].new_tensor([shift[0] / size[0], shift[1] / size[1], 0, 0])
                    each = (*each[:-1], each[-1] + moved)
                given.append(each)
            return replace(found, given=tuple(given))

        return replace(found, follow=follow)

    def _sought(self, image: Image, options: Look, chosen: Chosen) -> list[Sought]:
        guides, shares = weighed(options.guide)
        shares = shares or (1.0,) * len(guides)
        whole = sum(abs(share) for share in shares)
        mix = options.guide_weight if guides else 0.0
        found = []
        for name, weight in _terms(options):
            units = _picking(name, options)
            mask = self._mask(image, units, chosen)
            # A guide is drawn to everywhere: what is asked for at a place it leaves alone.
            free = 1.0 if units.place is not None else 1 - mix
            if free > 0:
                found.append(_term(units, mask, options.objective, weight * free, image.device))
            if mix > 0 and units.place is None:
                every = mask
                if every is None:
                    every = torch.ones(self._count(units.layer, image), device=image.device)
                for guide, share in zip(guides, shares, strict=True):
                    of = Guided(units.layer)
                    found.append(Sought(of, weight * mix * share / whole, (every,), guide))
        names, odds = _weighed(options.classes, alone=not _terms(options))
        if names:
            total = sum(abs(each) for each in odds)
            weights = torch.zeros(self._count(LOGITS, image))
            for name, each in zip(names, odds, strict=True):
                weights[class_of(name, options.model, len(weights))] = each / total
            weights = weights.to(image.device)
            found.append(Sought(Classes(LOGITS), CLASS * total, (weights,)))
        return found

    def _mask(self, image: Image, units: Units, chosen: Chosen) -> Tensor | None:
        if units.pick:
            key = f"{units.layer}[{units.pick}:{units.count}]"
            return chosen[key] if key in chosen else self._fresh(image, units)
        if not units.channels:
            return None
        count = self._count(units.layer, image)
        check_channels(units, count, f"--layers {units.layer}")
        mask = torch.zeros(count)
        for first, last in units.channels:
            mask[first : last + 1] = 1
        return mask.to(image.device)

    def _fresh(self, image: Image, units: Units) -> Tensor:
        return _picked(
            self._squares(image, (units.layer,), max(image.shape[-2:]))[units.layer], units
        )

    def _count(self, layer: str, image: Image) -> int:
        """How many channels a layer has."""
        if layer not in self._counts:
            with torch.no_grad():
                seen = image[:, :224, :224]
                self._counts[layer] = self._backbone(seen, (layer,))[layer].shape[1]
        return self._counts[layer]

    def _squares(self, image: Image, layers: tuple[str, ...], tile: int) -> dict[str, Tensor]:
        """The mean squares (c) of the layers' channels over all of a picture (3, h, w)."""
        found = {layer: torch.zeros((), device=image.device) for layer in layers}
        counts = dict.fromkeys(layers, 0)
        with torch.no_grad():
            for rows, columns in pieces_of((image.shape[-2], image.shape[-1]), tile):
                for layer, each in self._backbone(image[:, rows, columns], layers).items():
                    found[layer] = found[layer] + each.float().square().sum((0, 2, 3))
                    counts[layer] += each.shape[-2] * each.shape[-1]
        return {layer: each / counts[layer] for layer, each in found.items()}


def _terms(options: Look) -> list[tuple[str, float]]:
    """The names of what is excited of layers, with their weights."""
    classes = weighed(options.classes)[0]
    only = bool(classes) and not options.guide
    names, weights = _weighed(options.layers if only else options.chosen_layers, not classes)
    return list(zip(names, weights, strict=True))


def _weighed(texts: tuple[str, ...], alone: bool) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Names and their weights; where they are excited `alone`, alike ones are 1."""
    names, weights = weighed(texts)
    if weights is None and not alone:
        weights = tuple(weight for _, weight in map(parted, texts) if weight != 0)
    return names, weights or (1.0,) * len(names)


def _picking(name: str, options: Look) -> Units:
    """What a name means: where it names no channels, those that the options pick."""
    units = read_units(name)
    if units.channels or units.pick or units.place is not None or options.channels == "all":
        return units
    count = options.channel_count
    known = models.card(options.model)
    if known.channels:
        count = min(count, known.channels[known.layers.index(units.layer)])
    return replace(units, pick=options.channels, count=count)


def _picked(squares: Tensor, units: Units) -> Tensor:
    """A mask (c) of the channels meant, of those with such mean squares (c)."""
    check_channels(units, len(squares), f"--layers {units.layer}[{units.pick}:{units.count}]")
    alive = squares > ALIVE * squares.max()
    logs = torch.log(squares.clamp_min(1e-30))
    usual = (logs * alive).sum() / alive.sum().clamp_min(1)
    rank = {"strongest": logs, "weakest": -logs, "average": -(logs - usual).abs()}[units.pick]
    rank = torch.where(alive, rank, torch.full_like(rank, -1e9))
    return torch.zeros_like(squares).index_fill(0, rank.topk(units.count).indices, 1.0)


def _term(
    units: Units, mask: Tensor | None, how: str, weight: float, device: torch.device
) -> Sought:
    given = () if mask is None else (mask,)
    if units.place is not None:
        x, y = units.place
        place = torch.tensor([y, x, 1.0, 1.0], device=device)
        if mask is not None:
            return Sought(Neuron(units.layer), weight, (mask, place))
        return Sought(Summed(units.layer, how, placed=True), weight, (place,))
    if mask is None and how == "energy":
        return Sought(Energy(units.layer), weight)
    return Sought(Summed(units.layer, how, masked=mask is not None), weight, given)
