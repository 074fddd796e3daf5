"""READ FIRST of zoom movies: how each frame is made of the one before.

    the last picture ─ moved by the camera's exact step ─ what it uncovers comes from     `Canvas`
                                    │                     beyond the edges
              a picture that is arrived at, laid under it                                `Arrival`
                                    │
                 light and colour led back to where they were                           `balanced`
                                    │
                       effect: dreams on from there ─ the frame, and the next one's start

There is no source behind it and no optical flow: the picture feeds on itself, and what one
frame hands to the next is the `Canvas` alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property, partial

import cv2
import numpy as np
import torch
from torch import Tensor

from streamdream.errors import ModelError
from streamdream.frame import Frame, Image, Size, interleaved, planes, resize, to_pixels, work_size
from streamdream.masks.masking import Masks
from streamdream.noises import noise
from streamdream.pipeline import Carried, Effect, Picture, Watch
from streamdream.polish.shown import shown
from streamdream.zoom.arrivals import Arrival
from streamdream.zoom.balance import Tone, balanced
from streamdream.zoom.camera import Matrix, growth, inside, places, resampled
from streamdream.zoom.options import ZoomOptions

PACE = 25  # pictures a second that step sizes are meant for
FRESH = 0.45  # of the shapes beyond the edges that are noise
RENEWED = 1.5  # times larger or smaller, or of a side moved: then what lies beyond is renewed


@dataclass(frozen=True)
class Beyond:
    """What lies beyond the edges of a picture (3, h, w): it goes on mirrored, for ever.

    The mirrored colours go on, but of the shapes most are noise of the same strength, to be
    dreamed into something else: mirrored ones would end as tiles. `seed` decides the noise.
    """

    image: Image
    seed: tuple[int, int]

    @cached_property
    def picture(self) -> Image:
        """The picture (3, h, w) that goes on."""
        size: Size = self.image.shape[-2], self.image.shape[-1]
        seen = interleaved(self.image)
        colours = cv2.GaussianBlur(seen, (0, 0), min(size) / 16, borderType=cv2.BORDER_REFLECT_101)
        drawn = noise("pink", size, self.seed)
        drawn = (drawn - drawn.mean()) * ((seen - colours).std() / drawn.std())
        mixed = seen + FRESH * (colours + drawn - seen)
        return planes(mixed.clip(0, 1).astype(np.float32), self.image.device)


@dataclass(frozen=True)
class Canvas:
    """The picture (3, h, w), and what lies `beyond` its edges.

    That is made of the picture as it was a while ago; `way` leads from places now to then.
    `chosen` are the channels that the movie's dream excites, as in pipeline.State.
    """

    image: Image
    beyond: Beyond
    way: Matrix
    chosen: Mapping[str, Tensor] = field(default_factory=dict)

    @staticmethod
    def of(image: Image, seed: tuple[int, int]) -> Canvas:
        """A canvas that begins with a picture."""
        return Canvas(image, Beyond(image, seed), np.eye(3))

    def moved(self, step: Matrix, seed: tuple[int, int]) -> Canvas:
        """The canvas after a step of the camera.

        What is uncovered has been far away when what lies beyond was last renewed: to repeat
        the edge itself, step after step, would smear it. A renewal takes this `seed`.
        """
        size: Size = self.image.shape[-2], self.image.shape[-1]
        x, y = places(step, size)
        image = resampled(self.image, x, y)
        covered = inside(x, y, size)
        way = self.way @ step
        if covered is not None:
            far = resampled(self.beyond.picture, *places(way, size))
            covered = covered.to(image.device)
            image = image * covered + far * (1 - covered)
        if self._is_far(way, size):
            return replace(Canvas.of(image, seed), chosen=self.chosen)
        return replace(self, image=image, way=way)

    def _is_far(self, way: Matrix, size: Size) -> bool:
        h, w = size
        middle = np.array([w / 2, h / 2, 1.0])
        gone = np.abs((way @ middle - middle)[:2] / [w, h]).max()
        return gone > RENEWED / 2 or not 1 / RENEWED < growth(way) < RENEWED


@dataclass(frozen=True)
class Plan:
    """What happens when in a movie.

    Frames go from -`lead`, unseen before 0, to `count` - 1. `steps` (one more than frames that
    are seen) are the camera's, steps[i] leading to frame i and the last one from the end on;
    before 0 it moves by `before`. `looks` gives the options in force at a frame, `interval` are
    the seconds between two. `arrivals` come in order; `home` says from which frame on, and at
    which one, a loop arrives at its own frame 0.
    """

    count: int
    lead: int
    interval: Fraction
    steps: Sequence[Matrix]
    before: Matrix
    looks: Callable[[int], ZoomOptions]
    arrivals: Sequence[Arrival] = ()
    home: tuple[int, int] | None = None


def fall(
    start: Image,
    plan: Plan,
    effect: Effect,
    watch: Watch | None = None,
    masks: Masks | None = None,
) -> Generator[Frame, None, None]:
    """Fall from a picture (3, h, w) into its dream: the frames of a movie, one by one.

    `watch` is called with the frame (as it was before the dream) and the unfinished picture
    after every step. `masks` say where it dreams; elsewhere the camera only moves. They are closed
    in the end. Raises ModelError where a dream is not finite.
    """
    with closing(masks) if masks is not None else nullcontext():
        yield from _fallen(start, plan, effect, watch, masks)


def _fallen(
    start: Image, plan: Plan, effect: Effect, watch: Watch | None, masks: Masks | None
) -> Generator[Frame, None, None]:
    first = plan.looks(0)
    canvas = Canvas.of(start, (first.seed, seeded(-plan.lead)))
    arrivals, tone = list(plan.arrivals), Tone.of(start).lively()
    for index in range(-plan.lead, plan.count):
        look = first if index <= 0 else plan.looks(index)
        if index > -plan.lead:
            step = plan.steps[index] if index > 0 else plan.before
            canvas = canvas.moved(step, (look.seed, seeded(index)))
            image, goal = canvas.image, tone
            for arrival in arrivals:
                image = arrival.laid_under(image, index, plan.steps)
                goal = goal.towards(arrival.tone, arrival.share(index))
            image = balanced(image, goal, float(plan.interval))
            canvas = replace(canvas, image=image)
            canvas = _dreamed(canvas, look, effect, plan, index, watch, masks)
        if index == 0 and plan.home is not None:
            arrivals.append(Arrival(canvas.image, *plan.home))
        if index >= 0:
            yield _frame(canvas.image, index, plan)


def _dreamed(
    canvas: Canvas,
    look: ZoomOptions,
    effect: Effect,
    plan: Plan,
    index: int,
    watch: Watch | None,
    masks: Masks | None,
) -> Canvas:
    # What is done in a second is the same at any rate.
    size = look.step_size * look.strength * float(PACE * plan.interval)
    image = canvas.image
    if size == 0 or look.steps == 0:
        return canvas
    grain = look.noise * math.sqrt(plan.interval)
    now = look.model_copy(update={"step_size": size, "noise": grain})
    full: Size = image.shape[-2], image.shape[-1]
    small = resize(image, work_size(full, look.work_size)).clamp(0, 1)
    picture: Picture = small.clone
    before = None if watch is None else _frame(image, index, plan)
    carried = replace(_nothing(small), time=index * plan.interval, chosen=canvas.chosen)
    carried = effect.prepared(small, carried, now)
    for picture in effect(small, carried, now, seeded(index)):
        if watch is not None and before is not None:
            watch(before, partial(_enlarged, image, small, picture, look))
    dreamed = _enlarged(image, small, picture, look)
    if not torch.isfinite(dreamed).all():
        cure = "use --precision fp32 or a smaller --step-size"
        raise ModelError("dream", f"frame {index} came out as no numbers", cure)
    if masks is not None:
        time = max(index, 0) * plan.interval
        measured = masks.measured(small, None, time, None, look)
        opacity = planes(masks.opacity(measured, time, full, look), image.device)
        dreamed = image + (dreamed - image) * opacity
    return replace(canvas, image=dreamed, chosen=carried.chosen)


def seeded(index: int) -> int:
    """What a frame's randomness is seeded by: frames before the first have seeds of their own."""
    return index if index >= 0 else 2**40 - index


def _enlarged(image: Image, small: Image, picture: Picture, look: ZoomOptions) -> Image:
    """The dream of a `small` copy, as a change of the picture (3, h, w) itself, as it is shown."""
    result = picture()
    if small.shape == image.shape:
        return (small + shown(small, result - small, look)).clamp(0, 1) if look.alters else result
    change = shown(small, result - small, look)
    return (image + resize(change, (image.shape[-2], image.shape[-1]))).clamp(0, 1)


def _nothing(image: Image) -> Carried:
    return Carried(torch.zeros_like(image), torch.zeros_like(image[:1]))


def _frame(image: Image, index: int, plan: Plan) -> Frame:
    return Frame(to_pixels(image), index * plan.interval, index, plan.interval)
