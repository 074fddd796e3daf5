"""Which way a picture has to change for a network to respond more strongly to it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from streamdream.backbone import Backbone
from streamdream.frame import Delta, Image, Size
from streamdream.objectives.aims import Aim, excited, excitement, sums_of

OVERLAP = 128  # px that pieces of a large picture share at least
MARGIN = 32  # px at a piece's edge that are not used
GRID = 32  # px; pieces start on the network's grid, or it would show


def slope_of(backbone: Backbone, x: Image, aim: Aim, tile: int) -> Delta:
    """The gradient (3, h, w) of what an aim excites.

    What is larger than `tile` pixels either way is seen in pieces.
    """
    if max(x.shape[-2:]) > tile:
        return tiled_slope(backbone, x, aim, tile)
    return whole_slope(backbone, x, aim)


def whole_slope(backbone: Backbone, x: Image, aim: Aim) -> Delta:
    """The gradient (3, h, w) of what an aim excites."""
    seen = x.detach().requires_grad_(True)
    with torch.enable_grad():
        objective = excited(backbone, seen, aim)
    return torch.autograd.grad(objective, seen)[0]


def tiled_slope(backbone: Backbone, x: Image, aim: Aim, tile: int) -> Delta:
    """The same gradient, from pieces of at most `tile` pixels either way, one after another.

    Pieces overlap, and where they do one fades into the other, leaving out what lies so near
    a piece's edge that the network could see the edge. Scores are those of the whole picture,
    or each piece would weigh the parts in its own way.
    """
    size = x.shape[-2], x.shape[-1]
    pieces = pieces_of(size, tile)
    aims = [aim.within(rows, columns, size) for rows, columns in pieces]
    rates: list[Tensor] | None = None
    if len(aim.parts) > 1 or not all(part.steady for part in aim.parts):
        with torch.no_grad():
            found = [
                sums_of(backbone, x[:, rows, columns], each)
                for (rows, columns), each in zip(pieces, aims, strict=True)
            ]
        rates = _rates(aim, [torch.stack(each).sum(0) for each in zip(*found, strict=True)])
    gradient, weight = torch.zeros_like(x), torch.zeros_like(x[:1])
    for (rows, columns), each in zip(pieces, aims, strict=True):
        seen = x[:, rows, columns].detach().requires_grad_(True)
        with torch.enable_grad():
            sums = sums_of(backbone, seen, each)
            rates = rates or _rates(aim, sums)
            parts = [(rate * part).sum() for rate, part in zip(rates, sums, strict=True)]
            objective = torch.stack(parts).sum()
        (slope,) = torch.autograd.grad(objective, seen)
        window = _window(rows, x.shape[-2], x)[:, None] * _window(columns, x.shape[-1], x)
        gradient[:, rows, columns] += slope * window
        weight[:, rows, columns] += window
    return gradient / weight


def _rates(aim: Aim, sums: Sequence[Tensor]) -> list[Tensor]:
    """How much the excitement grows with each of the sums."""
    totals = [each.detach().requires_grad_(True) for each in sums]
    with torch.enable_grad():
        objective = excitement(aim, totals)
    return list(torch.autograd.grad(objective, totals))


def pieces_of(size: Size, tile: int) -> list[tuple[slice, slice]]:
    """The rows and columns of the pieces in which a picture of a size (h, w) is seen."""
    return [
        (slice(top, top + h), slice(left, left + w))
        for top, h in _spans(size[0], tile)
        for left, w in _spans(size[1], tile)
    ]


def _spans(length: int, tile: int) -> list[tuple[int, int]]:
    """Where pieces of a side of `length` start, and how long they are.

    As few as there can be, all of about one length, on the network's grid.
    """
    if length <= tile:
        return [(0, length)]
    stride = tile - OVERLAP - GRID
    count = 1 + -(-(length - tile) // stride)
    starts = [-(-i * (length - tile) // (count - 1) // GRID) * GRID for i in range(count)]
    return [(start, min(tile, length - start)) for start in starts]


def _window(span: slice, length: int, like: Tensor) -> Tensor:
    """The weight of a piece along one side: 1 inside, fading out where another one takes over.

    It is never 0, so that the weights can be divided by their sum.
    """
    place = torch.arange(span.start, span.stop, device=like.device)
    fade = torch.ones_like(place, dtype=like.dtype)
    if span.start > 0:
        fade = torch.minimum(fade, (place - span.start - MARGIN) / (OVERLAP - 2 * MARGIN))
    if span.stop < length:
        fade = torch.minimum(fade, (span.stop - 1 - place - MARGIN) / (OVERLAP - 2 * MARGIN))
    return fade.clamp(1e-6, 1)
