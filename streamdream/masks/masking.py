"""Where a frame is redrawn: the parts of a mask, measured, held still, and put together.

A mask decides what is shown, not what is dreamed: effects redraw the whole picture, carry the whole
of it along, and hold its strength by the whole of it. So inside the mask every pixel is the same
as without one, what moves in has long been dreamed and does not pop up, and nothing is cut off from
what it grew out of; a mask can move, fade and turn round at any moment. What is outside costs time
and is thrown away: that is the price.

What the frame itself tells (keys, motion, background) is measured at work size and averaged along
the motion; what is drawn or typed is as sharp as the frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import numpy as np
from jaxtyping import Float

from streamdream.errors import OptionError
from streamdream.frame import Flow, Image, Mask, Pixels, Size, interleaved, resize
from streamdream.masks.background import Background
from streamdream.masks.camera import camera_flow, moving
from streamdream.masks.keys import keyed, ramp
from streamdream.masks.options import Masked
from streamdream.masks.parts import Part
from streamdream.masks.places import Place, feathered, placed, softened
from streamdream.motion import Movement, warp

Map = Float[np.ndarray, "h w"]
Opacity = Float[np.ndarray, "H W 1"]  # of the full size, beside images of the work size

USUAL = 1 / 25  # s between frames whose times do not tell
SOME = 0.04  # of a mask that was measured; less is nothing, and as near to 1 is all


@dataclass(frozen=True)
class Measured:
    """What one frame hands to the next, found at `time`: a value, to be kept and gone on from.

    `masks` (1, h, w), one for each part that is measured, at work size; `background` where one is
    learned.
    """

    time: Fraction
    masks: tuple[Mask, ...]
    background: Background | None = None

    def resized(self, size: Size) -> Measured:
        """The same at another work size (h, w)."""
        masks = tuple(resize(mask, size).clamp(0, 1) for mask in self.masks)
        background = self.background and self.background.resized(size)
        return replace(self, masks=masks, background=background)


class Masks:
    """A mask's parts, opened. To be used by one thread, and closed."""

    def __init__(self, options: Masked, since: Fraction = Fraction(0), moves: bool = True) -> None:
        """Open the files that the options name; masks in them began `since` seconds before 0.

        Raises SourceError for one that cannot be read, and OptionError for a video where they may
        not be one that `moves`.
        """
        parts = options.mask_parts
        self._measured = [part for part in parts if not part.placed]
        self._places: list[tuple[Place, bool]] = []
        self._since = since
        self._kept: dict[tuple[Size, float, bool], Map] = {}
        try:
            for part in parts:
                if part.placed:
                    self._places.append((placed(part), part.inverted))
                    if not moves and not self._places[-1][0].stays:
                        cure = "name a picture"
                        raise OptionError(
                            f"--mask {part.text}", "is a video, live takes none", cure
                        )
            self._persons = {
                part.path: _person(part.path) for part in parts if part.kind == "person"
            }
        except BaseException:
            self.close()
            raise

    @staticmethod
    def of(options: Masked, since: Fraction = Fraction(0), moves: bool = True) -> Masks | None:
        """Those that the options ask for, None for none; see `Masks`."""
        return Masks(options, since, moves) if options.mask else None

    @property
    def follows(self) -> bool:
        """Whether the movement between frames has to be known."""
        return bool(self._measured)

    def measured(
        self,
        image: Image,
        movement: Movement | None,
        time: Fraction,
        before: Measured | None,
        options: Masked,
    ) -> Measured:
        """What an image (3, h, w) says at a time; `movement` leads back to what was `before`."""
        if before is None or movement is None or movement.cut:
            before, movement = None, None
        else:
            before = before.resized((image.shape[-2], image.shape[-1]))
        seen = _Seen(image, movement, _elapsed(time, before))
        background, front = None, image[:1] * 0
        if any(part.kind == "foreground" for part in self._measured):
            background = Background.begin(image)
            if before is not None and before.background is not None and seen.camera is not None:
                known = before.background.moved(seen.camera, image)
                front = known.front(image)
                background = known.after(image, front, seen.elapsed)
        found = []
        for number, part in enumerate(self._measured):
            mask = front if part.kind == "foreground" else self._raw(part, seen)
            if before is not None and movement is not None and options.mask_smooth > 0:
                share = movement.trust * math.exp(-seen.elapsed / options.mask_smooth)
                carried = warp(before.masks[number], movement.flow, sharp=False)
                mask = mask + (carried - mask) * share
            found.append(mask.clamp(0, 1))
        return Measured(time, tuple(found), background)

    def _raw(self, part: Part, seen: _Seen) -> Mask:
        """What a part says of one frame alone."""
        if part.kind == "person":
            return self._persons[part.path](seen.image)
        if part.kind != "motion":
            return keyed(seen.image, part)
        if seen.movement is None or seen.camera is None:
            return seen.image[:1] * 0
        return moving(seen.image, seen.movement, seen.camera, seen.elapsed, part.numbers[0])

    def opacity(
        self, measured: Measured | None, time: Fraction, size: Size, options: Masked
    ) -> Opacity:
        """How much (h, w, 1), 0 to 1, a frame of `size` (h, w) is redrawn at a time."""
        inverted = options.mask_invert
        found = self._of_places(time, size, options)
        if measured is not None and measured.masks:
            pairs = zip(measured.masks, self._measured, strict=True)
            maps = [_settled(mask, part) for mask, part in pairs]
            small = softened(together(maps, inverted), _feather(maps[0].shape, options))
            if small.shape != size:
                small = cv2.resize(small, size[::-1], interpolation=cv2.INTER_LINEAR)
            small = np.asarray(small, np.float32)
            join = np.maximum if inverted else np.minimum
            found = small if found is None else join(found, small)
        assert found is not None
        taken = np.float32(options.mask_strength)
        return (1 - taken * (1 - found))[..., None]

    def _of_places(self, time: Fraction, size: Size, options: Masked) -> Map | None:
        """What is drawn or typed, of all of it together; None if nothing is."""
        if not self._places:
            return None
        key = size, options.mask_feather, options.mask_invert
        stays = all(place.stays for place, _ in self._places)
        if stays and key in self._kept:
            return self._kept[key]
        maps = []
        for place, inverted in self._places:
            mask = place.at(time + self._since, size)
            maps.append(1 - mask if inverted else mask)
        found = feathered(together(maps, options.mask_invert), _feather(size, options))
        if stays:
            self._kept = {key: found}
        return found

    def __enter__(self) -> Self:
        """The masks themselves."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close them."""
        self.close()

    def close(self) -> None:
        """Let the files go."""
        for place, _ in self._places:
            place.close()


@dataclass(frozen=True)
class _Seen:
    """A frame, how it moved in the `elapsed` seconds since the one before, if that is known."""

    image: Image
    movement: Movement | None
    elapsed: float

    @cached_property
    def camera(self) -> Flow | None:
        """What of the movement is the camera's."""
        return None if self.movement is None else camera_flow(self.movement)


def _elapsed(time: Fraction, before: Measured | None) -> float:
    """Seconds since the frame before; over the seam of a loop, where time goes back, the usual."""
    if before is None or before.time >= time:
        return USUAL
    return float(time - before.time)


def together(maps: Sequence[Map], inverted: bool) -> Map:
    """Where all masks (h, w) hold; `inverted`, where not all do."""
    found = np.minimum.reduce(list(maps))
    return 1 - found if inverted else found


def laid(source: Pixels, result: Pixels, opacity: Opacity) -> Pixels:
    """A result (h, w, 3) laid on its source as far as it is opaque (h, w, 1).

    Where that is 0, the source's own bytes; where it is 1, the result's.
    """
    mixed = source + (result.astype(np.float32) - source) * opacity
    return np.rint(mixed).astype(source.dtype)


def _person(path: str) -> Callable[[Image], Mask]:
    from streamdream.masks.person import Person  # which brings in a library of its own

    return Person(Path(path))


def _settled(mask: Mask, part: Part) -> Map:
    """A measured mask without what averaging leaves of it for ever."""
    found = ramp(interleaved(mask)[..., 0], SOME, 1 - SOME)
    return 1 - found if part.inverted else found


def _feather(size: Sequence[int], options: Masked) -> float:
    return options.mask_feather / 100 * min(size)
