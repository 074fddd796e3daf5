"""The methods that are compared: other tools' recipes, ours, and rows that must look silly.

All dream with the same network, layers, octaves, step size and step normalisation, at the same
work size, and add their change to the full-size source. What they differ in is how a frame
follows from the one before. The recipes of other tools were read in their sources; each gets
what its authors gave it or better (our flow, float precision instead of JPEG between frames),
and as many steps as it needs to be as strong as independent frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from judge import warp

from streamdream.backbone import Backbone
from streamdream.dream import Dream, Recipe, dream
from streamdream.frame import (
    Frame,
    Image,
    Size,
    composite,
    interleaved,
    planes,
    to_image,
    work_size,
)
from streamdream.motion import OpticalFlow
from streamdream.objectives.aims import aim_at
from streamdream.options import Options
from streamdream.pipeline import redraw
from streamdream.settings import build

GOOGLE = {"octaves": 4, "octave_scale": 1.4, "steps": 10, "jitter": 32, "memory": 0}
WEAK_STEPS = 2

Frames = Iterable[Frame]
Method = Callable[[Frames, Backbone, Options], Iterator[Frame]]


class Counted(Backbone):
    """A network that counts the pixels it has followed a gradient for."""

    def __init__(self, net: Backbone) -> None:
        """Count for this network."""
        self.__dict__.update(net.__dict__)
        self.pixels = 0

    def __call__(self, image: torch.Tensor, layers: Iterable[str]) -> dict[str, torch.Tensor]:
        """The activations of `layers`, counted if a gradient will be asked for."""
        if torch.is_grad_enabled():
            self.pixels += image.shape[-1] * image.shape[-2]
        return super().__call__(image, layers)


def ours(**changes: object) -> Method:
    """Streamdream with these options changed."""

    def method(frames: Frames, net: Backbone, options: Options) -> Iterator[Frame]:
        chosen = build(options.model_dump(exclude_unset=True), changes)
        with closing(redraw(frames, chosen, Dream(net), OpticalFlow(chosen.flow))) as results:
            yield from results

    return method


def recurrent(start: Callable[[Image, Image, Image], Image], mixes: bool, steps: int) -> Method:
    """A recipe that starts a frame from `start(now, before, dream before)`.

    With `mixes` the network dreams on the mixture itself, as tools do that know only pictures;
    else `start` gives source + carried change, and the octaves keep what was carried.
    """

    def method(frames: Frames, net: Backbone, options: Options) -> Iterator[Frame]:
        google = build(GOOGLE)
        before: Image | None = None
        dreamed: Image | None = None
        for frame in frames:
            image = to_image(frame.pixels, lines(frame, options))
            begin = image if before is None or dreamed is None else start(image, before, dreamed)
            count = steps if before is not None else google.steps
            recipe = Recipe(
                aim=aim_at(*options.chosen_layers),
                octaves=google.octaves,
                octave_scale=google.octave_scale,
                steps=count,
                finest_steps=count,
                step_size=options.step_size,
                jitter=google.jitter,
                seed=(options.seed, frame.index),
            )
            base = begin if mixes else image
            result = base
            for picture in dream(net, base, begin - base, recipe):
                result = picture()
            before, dreamed = image, result
            yield replace(frame, pixels=composite(frame.pixels, result - image, options.strength))

    return method


def lines(frame: Frame, options: Options) -> Size:
    """The work size for a frame."""
    return work_size(frame.pixels.shape[:2], options.work_size)


def blended(now: Image, before: Image, dreamed: Image) -> Image:
    """DeepDreamVideo: half the frame, half the dream before it, wherever things moved."""
    return 0.5 * now + 0.5 * dreamed


def delta_carried(now: Image, before: Image, dreamed: Image) -> Image:
    """DeepDreamAnim: the change of the frame before, all of it, by the negated forward flow."""
    flow = -_forward(before, now, fine=False)
    change = warp(interleaved(dreamed - before), flow, cv2.INTER_LINEAR)
    return (now + planes(change)).clamp(0, 1)


def dream_carried(now: Image, before: Image, dreamed: Image) -> Image:
    """deepdream-video-pytorch: the whole dream warped, where colours agree, half and half.

    Its optical flow is RAFT, which no package brings; dense inverse search at its finest scale
    stands in. The mask is its own: grey difference at most 30, opened, blurred.
    """
    flow = -_forward(before, now, fine=True)
    was = warp(_grey(before), flow, cv2.INTER_LINEAR)
    alike = (np.abs(_grey(now).astype(np.float32) - was) <= 30).astype(np.float32)
    diagonal = float(np.sqrt(alike.size))
    reach = max(3, round(0.003 * diagonal) | 1)
    alike = cv2.morphologyEx(alike, cv2.MORPH_OPEN, np.ones((reach, reach), np.uint8))
    trust = planes(cv2.GaussianBlur(alike, (0, 0), 0.009 * diagonal)[..., None])
    moved = planes(warp(interleaved(dreamed), flow, cv2.INTER_LINEAR))
    return (0.5 * now + 0.5 * (trust * moved + (1 - trust) * now)).clamp(0, 1)


def _forward(before: Image, now: Image, fine: bool) -> np.ndarray:
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    if fine:
        dis.setFinestScale(0)
    still = np.zeros((*before.shape[1:], 2), np.float32)
    return dis.calc(_grey(before), _grey(now), still).astype(np.float32)


def _grey(image: Image) -> np.ndarray:
    pixels = (interleaved(image) * 255 + 0.5).clip(0, 255).astype(np.uint8)
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)


def each(change: Callable[[np.ndarray], np.ndarray]) -> Method:
    """A change to every picture, without any dream."""

    def method(frames: Frames, net: Backbone, options: Options) -> Iterator[Frame]:
        for frame in frames:
            yield replace(frame, pixels=change(frame.pixels))

    return method


def blur(pixels: np.ndarray) -> np.ndarray:
    """Blurred by 1/180 of the height: calm, and no dream any more."""
    return cv2.GaussianBlur(pixels, (0, 0), pixels.shape[0] / 180)


def contrast(pixels: np.ndarray) -> np.ndarray:
    """Twice the contrast, sharpened: strong in every layer, and no dream at all."""
    sharp = cv2.addWeighted(pixels, 2.0, cv2.GaussianBlur(pixels, (0, 0), 1.5), -1.0, 0)
    return cv2.convertScaleAbs(sharp.astype(np.float32).clip(64, 191) * 2 - 128)


@dataclass(frozen=True)
class Row:
    """A row of the table: `make` gives the method for a number of steps an octave.

    Only `tuned` methods look at that number: they take as many as make them as strong as
    independent frames. `of` names a row whose result this one works on.
    """

    name: str
    make: Callable[[int], Method]
    tuned: bool = False
    of: str = ""


REFERENCE = "independent frames"
OURS = "streamdream"

ROWS = (
    Row(REFERENCE, lambda _: ours(**GOOGLE)),
    Row("blend 0.5", lambda n: recurrent(blended, True, n), tuned=True),
    Row("delta warped, kept", lambda n: recurrent(delta_carried, False, n), tuned=True),
    Row("dream warped, mixed", lambda n: recurrent(dream_carried, True, n), tuned=True),
    Row(OURS, lambda _: ours()),
    Row("--quality draft", lambda _: ours(quality="draft")),
    Row("--quality fine", lambda _: ours(quality="fine")),
    Row("(the source itself)", lambda _: each(lambda pixels: pixels)),
    Row("(independent, blurred)", lambda _: each(blur), of=REFERENCE),
    Row("(contrast, sharpened)", lambda _: each(contrast)),
    Row("(weak dream)", lambda _: ours(**{**GOOGLE, "steps": WEAK_STEPS})),
)
