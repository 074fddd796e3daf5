"""What guides show, at every time, and what a network sees in it."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from streamdream.backbone import Backbone
from streamdream.frame import Frame, Image, Size, eight_bits, on_black, to_image
from streamdream.sources import VideoSource
from streamdream.stills import painting
from streamdream.style.paintings import fitted

KEPT = 24  # features of a guide at a size; each at most MOST numbers for every channel
MOST = 1024  # features of a guide that are compared; more see no more in it
LINES = 512  # px; of a guide video's larger side


class Guides:
    """Gives the features of guides; for one thread, reading videos as their time goes on."""

    def __init__(self, backbone: Backbone) -> None:
        """See guides with this network."""
        self._backbone = backbone
        self._films: dict[str, Film | None] = {}
        self._kept: OrderedDict[object, dict[str, Tensor]] = OrderedDict()

    def features(
        self,
        path: str,
        layers: tuple[str, ...],
        size: Size,
        time: Fraction,
        held: bool,
        device: torch.device,
    ) -> dict[str, Tensor]:
        """What the layers see in a guide at a time: by layer features (n, c), n up to MOST.

        The guide has about the area of a picture of `size` (h, w). A video is `held` behind its
        end, or begins anew. Raises SourceError for one that cannot be read.
        """
        if path not in self._films:
            self._films[path] = Film.of(Path(path))
        film = self._films[path]
        number, image = (0, None) if film is None else film.at(time, held)
        key = path, number, layers, size
        if key not in self._kept:
            image = painting(Path(path)) if image is None else image
            seen = fitted(image, size, 1.0).clamp(0, 1).to(device)
            with torch.no_grad():
                found = self._backbone(seen, layers)
            self._kept[key] = {layer: _some(each) for layer, each in found.items()}
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]


def _some(found: Tensor) -> Tensor:
    """Features (n, c) of activations (1, c, h, w), evenly from everywhere."""
    height, width = found.shape[-2:]
    every = max(1, math.ceil(math.sqrt(height * width / MOST)))
    begin = (every - 1) // 2
    return found.float()[0, :, begin::every, begin::every].flatten(1).T.contiguous()


class Film:
    """A guide video, of which one picture is kept at a time."""

    def __init__(self, path: Path) -> None:
        """The video at a path."""
        self._path = path
        self._frames: Iterator[Frame] = iter(())
        self._shown: tuple[Fraction, int, Image] | None = None
        self._next: Frame | None = None
        self._begin = Fraction(0)

    @staticmethod
    def of(path: Path) -> Film | None:
        """The video, None for a picture; raises SourceError where there is neither."""
        with VideoSource(path) as source:
            return None if source.info.still else Film(path)

    def at(self, time: Fraction, held: bool) -> tuple[int, Image]:
        """The number and picture (3, h, w) shown at a time; at its end `held`, or anew."""
        place = max(time, Fraction(0)) if held else time % self._length
        if self._shown is None or place < self._shown[0]:
            self._open()
        last = None
        while self._next is not None and self._next.time - self._begin <= place:
            last, self._next = self._next, next(self._frames, None)
        if last is not None:
            self._show(last)
        assert self._shown is not None
        return self._shown[1:]

    @cached_property
    def _length(self) -> Fraction:
        """How long it is, in seconds: files often say something else."""
        with VideoSource(self._path) as source:
            times = [glimpse.time for glimpse in source.skim()]
        whole = times[-1] - times[0]
        return max(whole + whole / max(1, len(times) - 1), Fraction(1, 1000))

    def _open(self) -> None:
        self._frames = _read(self._path)
        first = next(self._frames)
        self._begin = first.time
        self._show(first)
        self._next = next(self._frames, None)

    def _show(self, frame: Frame) -> None:
        pixels = eight_bits(on_black(frame))
        high, wide = pixels.shape[:2]
        scale = min(1.0, LINES / max(high, wide))
        size = max(32, round(high * scale)), max(32, round(wide * scale))
        self._shown = frame.time - self._begin, frame.index, to_image(pixels, size)


def _read(path: Path) -> Iterator[Frame]:
    with VideoSource(path) as source:
        yield from source
