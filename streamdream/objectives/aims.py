"""What a dream excites, and how strongly a network responds to it.

An aim is a weighted sum of parts that are all read from one forward pass. Of each part only sums
over places are taken from a picture, and its score is a function of these: so a picture seen in
pieces, whose sums add up, has the same direction as a whole one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from streamdream.backbone import Backbone
from streamdream.frame import Image, Size
from streamdream.governor import Scalar

BIT = 2 * math.log(2)  # of a mean square, in its logarithm


class Part(Protocol):
    """One thing that is excited, found in one layer; a value that tells recordings apart.

    `steady` says that the direction it gives does not depend on the sums, `placed` that the last
    tensor it is given is a place: y and x in heights and widths of what is seen, and in how many
    of these the picture repeats.
    """

    @property
    def layer(self) -> str:
        """The layer."""
        ...

    @property
    def steady(self) -> bool:
        """Whether sums are not needed to know the direction."""
        ...

    @property
    def placed(self) -> bool:
        """Whether it is somewhere."""
        ...

    def sums(self, found: Tensor, given: Sequence[Tensor], places: int) -> Tensor:
        """Sums (n) over the places of activations (1, c, h, w), and how many were summed.

        `given` is what the aim holds for this part, `places` how many pixels were seen.
        """
        ...

    def score(self, sums: Tensor) -> Scalar:
        """How strong the response is."""
        ...

    def unit(self, sums: Tensor) -> Scalar:
        """What a score is measured in, by the sums of a picture that is not dreamed yet."""
        ...


@dataclass(frozen=True)
class Energy:
    """A whole layer: the logarithm of its mean square.

    For one layer its gradient points where that of the mean square does; with several layers
    none is drowned by another's scale.
    """

    layer: str
    steady = True
    placed = False

    def sums(self, found: Tensor, given: Sequence[Tensor], places: int) -> Tensor:
        """The sum of squares."""
        squares = found.float().square().sum()
        return torch.stack([squares, torch.full_like(squares, found.numel())])

    def score(self, sums: Tensor) -> Scalar:
        """The logarithm of the mean square."""
        return torch.log(sums[0] / sums[1] + 1e-12)

    def unit(self, sums: Tensor) -> Scalar:
        """A bit of the root mean square."""
        return torch.full_like(sums[0], BIT)


@dataclass(frozen=True, eq=False)
class Aim:
    """What one frame's dream excites.

    `parts`, their `weights` (n), and for each of them what it is `given`: tensors that change
    from frame to frame. `parts` alone decide what is computed, the rest is what it works on.
    `follow` makes it for another size of the picture (h, w), rolled by a shift (dy, dx).
    """

    parts: tuple[Part, ...]
    weights: Tensor
    given: tuple[tuple[Tensor, ...], ...]
    follow: Callable[[Size, Size], Aim] | None = None

    def at(self, size: Size, shift: Size = (0, 0)) -> Aim:
        """The same for the picture at a size (h, w), rolled by a shift (dy, dx)."""
        return self if self.follow is None else self.follow(size, shift)

    def within(self, rows: slice, columns: slice, size: Size) -> Aim:
        """The same for a piece of the picture of a size (h, w)."""
        if not any(part.placed for part in self.parts):
            return self
        high, wide = rows.stop - rows.start, columns.stop - columns.start
        begin = self.weights.new_tensor([rows.start / high, columns.start / wide, 0, 0])
        larger = self.weights.new_tensor([size[0] / high, size[1] / wide] * 2)
        given = tuple(
            (*each[:-1], each[-1] * larger - begin) if part.placed else each
            for part, each in zip(self.parts, self.given, strict=True)
        )
        return replace(self, given=given)

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that it needs, each once."""
        return tuple(dict.fromkeys(part.layer for part in self.parts))

    @property
    def local(self) -> bool:
        """Whether all of it is somewhere, and nothing everywhere."""
        return all(part.placed for part in self.parts)

    @property
    def kind(self) -> object:
        """What tells aims apart that need other computations."""
        return self.parts, tuple(tuple(t.shape for t in each) for each in self.given)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that may change between two aims of one kind."""
        return (self.weights, *(tensor for each in self.given for tensor in each))

    def held(self) -> Aim:
        """A copy whose tensors nobody else has."""
        given = tuple(tuple(tensor.clone() for tensor in each) for each in self.given)
        return Aim(self.parts, self.weights.clone(), given)


def aim_at(
    *layers: str, weights: Sequence[float] | None = None, device: torch.device | str = "cpu"
) -> Aim:
    """The aim of exciting whole layers."""
    given = torch.tensor(weights or (1.0,) * len(layers), device=device)
    return Aim(tuple(map(Energy, layers)), given, ((),) * len(layers))


def sums_of(backbone: Backbone, x: Image, aim: Aim) -> list[Tensor]:
    """The sums of all parts of an aim for a picture (3, h, w): one forward pass."""
    found = backbone(x, aim.layers)
    places = x.shape[-2] * x.shape[-1]
    return [
        part.sums(found[part.layer], given, places)
        for part, given in zip(aim.parts, aim.given, strict=True)
    ]


def excitement(aim: Aim, sums: Sequence[Tensor]) -> Scalar:
    """How strongly a network responds, by the sums of all parts."""
    scores = [part.score(each) for part, each in zip(aim.parts, sums, strict=True)]
    return (torch.stack(scores) * aim.weights).sum()


def excited(backbone: Backbone, x: Image, aim: Aim) -> Scalar:
    """How strongly a network responds to a picture (3, h, w) in what it aims at."""
    return excitement(aim, sums_of(backbone, x, aim))


def response(backbone: Backbone, image: Image, result: Image, aim: Aim) -> Scalar:
    """How much more a network responds to a result than to its image (3, h, w), in bits.

    The mean over parts by weight, each in its own unit.
    """
    aim = aim.at((image.shape[-2], image.shape[-1]))
    with torch.no_grad():
        after, before = (sums_of(backbone, x, aim) for x in (result, image))
        units = [part.unit(each) for part, each in zip(aim.parts, before, strict=True)]
        even = Aim(aim.parts, aim.weights * (BIT / torch.stack(units)), aim.given)
        gained = excitement(even, after) - excitement(even, before)
        return gained / (BIT * aim.weights.abs().sum())
