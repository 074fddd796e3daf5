"""READ FIRST: the journey of one live picture, from the camera to what is shown.

    camera's newest picture ─ image at work size ─ movement since the last one
                                                       │
          what the dreamer has ready ─ laid on ─ every layer carried along it      `_carry_on`
                                                       │
                          idle dreamer: a job, from here and now, on               `_hand_over`
                                                       │
          full-size picture + blended layers, masked ─ gate, fade, flash limit     `_drawn`

Showing never waits for dreaming. A dream that took ten pictures' time is laid where its things
are by then: the flow from every picture to the next is composed into a `Trail`. So is a painting,
which takes the picture's place; where nobody knows where its things are, the camera is seen.
"""

from __future__ import annotations

import time
from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np

from streamdream.cuts import LiveShots, Turn
from streamdream.frame import (
    Bytes,
    Frame,
    Image,
    Size,
    resize,
    to_image,
    to_pixels,
    to_small,
    work_size,
)
from streamdream.live.controls import Controls
from streamdream.live.dreamer import Dreamer, Job, Past, Ready
from streamdream.live.flashes import FlashLimiter
from streamdream.live.layers import Layer, blended, laid_on, resized
from streamdream.live.options import LiveOptions
from streamdream.live.outputs import Shown
from streamdream.live.pacing import Pacing
from streamdream.live.presence import Attraction, Gate, Presence
from streamdream.live.trail import Trail
from streamdream.masks.masking import Masks, Measured
from streamdream.motion import Movement, OpticalFlow, Vectors
from streamdream.views import arranged

BLEND = 0.08, 0.5  # seconds, at least and at most, in which a new layer takes over from the last
NEAR = 6  # pictures over which movements add up to one that is good enough to paint on from


class Stage:
    """Draws the camera's pictures with the dream on them; single-threaded."""

    def __init__(
        self,
        controls: Controls,
        dreamer: Dreamer,
        pacing: Pacing,
        attract: float | None = None,
        limit: bool = True,
        masks: Masks | None = None,
    ) -> None:
        """Draw by these `controls`, with what this dreamer dreams.

        `attract`: seconds of stillness until old movement is shown; `limit` damps flashes;
        `masks` say where.
        """
        self.presence, self.gate = Presence(), Gate()
        self.limiter = FlashLimiter() if limit else None
        self.let_through = 1.0
        self.lines = 0
        self.black = False
        self._controls, self._dreamer, self._pacing = controls, dreamer, pacing
        self._attraction = None if attract is None else Attraction(attract)
        self._began = self._then = time.monotonic()
        self._light = 1.0
        self._index = self._jobs = 0
        self._last = Fraction(-1)
        self._flow: tuple[str, OpticalFlow] | None = None
        self._shots, self._flash = LiveShots(), False
        self._pixels: Bytes | None = None
        self._drawing: Bytes | None = None  # what was drawn last, before any fade
        self._before: Image | None = None
        self._masks = masks
        self._measured: Measured | None = None
        self._layer: Layer | None = None
        self._older: Layer | None = None
        self._since = self._interval = 0.0
        self._past: Past | None = None
        self._past_trail: Trail | None = None
        self._job: Job | None = None
        self._job_trail: Trail | None = None
        self._next: Job | None = None  # that is lined up behind it
        self._next_trail: Trail | None = None
        self._growth, self._bold = 0, 1.0
        self._fades = False
        self._look: tuple[object, ...] = ()

    def show(
        self, pixels: Bytes | None, now: float | None = None, arrived: float | None = None
    ) -> Shown | None:
        """The next picture to show, from the camera's `pixels` (h, w, 3).

        None for `pixels` is the last picture again: the dream on it goes on. Without any
        there is nothing to show yet. `now`, and when it `arrived`, in monotonic seconds.
        """
        now = time.monotonic() if now is None else now
        options = self._controls.at(now)
        fresh = pixels is not None
        if pixels is not None:
            pixels = self._watch(pixels, now, options)
            self._pixels = pixels
        if self._pixels is None:
            return None
        self.lines = self._pacing.lines(options.work_size, self._dreamer.ceiling)
        size = work_size(self._pixels.shape[:2], self.lines)
        image = to_image(self._pixels, size) if fresh or self._before is None else self._before
        self._fit(size)
        if image.shape[-2:] != size:
            image = resize(image, size)
        movement = self._carry_on(image, fresh, options)
        looks = (fresh and not self._flash) or self._measured is None
        if self._masks is not None and looks:
            moment = Fraction(now - self._began).limit_denominator(1_000_000)
            before = self._measured
            self._measured = self._masks.measured(image, movement, moment, before, options)
        idle = self._dreamer.idle  # before what is ready is taken, or a dream could slip between
        self._take_ready(now)
        if not self._flash:
            if idle:
                self._hand_over(image, now, options)
            else:
                self._line_up(image, now, options)
            self._before = image
        return replace(self._drawn(self._pixels, now, options), arrived=arrived)

    def again(self, now: float | None = None) -> Shown | None:
        """The last picture as it was, at this moment; it can still fade to black."""
        if self._drawing is None:
            return None
        now = time.monotonic() if now is None else now
        return self._finished(self._drawing, now, self._controls.at(now))

    def nothing(self, size: Size, now: float | None = None) -> Shown:
        """A black picture of `size` (h, w), as long as none has come."""
        now = time.monotonic() if now is None else now
        self._index += 1
        return Shown(np.zeros((*size, 3), np.uint8), self._moment(now), self._index)

    def reset(self) -> None:
        """Forget the dream; the next one begins from nothing."""
        self._dreamer.drop()
        self._layer = self._older = self._past = self._job = self._next = None
        self._job_trail = self._past_trail = self._next_trail = None
        self._growth, self._fades = 0, False

    def _watch(self, pixels: Bytes, now: float, options: LiveOptions) -> Bytes:
        """See who moves, and let the gate and the attract loop answer."""
        self.presence.look(pixels, now - self._began, options.sensitivity)
        opened = self.let_through
        self.let_through = self.gate(options.gate, self.presence.still_for < 1.0 / 3, now)
        if opened > 0 >= self.let_through:
            self.reset()  # the world is back; a dream grows anew
        if self._attraction is None:
            return pixels
        return self._attraction(pixels, self.presence.still_for, now)

    def _trails(self) -> list[Trail]:
        """All trails in use, each once."""
        layers = [layer.trail for layer in (self._layer, self._older) if layer is not None]
        found = [*layers, self._past_trail, self._job_trail, self._next_trail]
        return list({id(t): t for t in found if t is not None}.values())

    def _fit(self, size: Size) -> None:
        """Bring what is kept to the work size (h, w), if that changed."""
        if self._before is None or self._before.shape[-2:] == size:
            return
        self._before = resize(self._before, size)
        known = {id(trail): trail.resized(size) for trail in self._trails()}

        def fitted(trail: Trail | None) -> Trail | None:
            return None if trail is None else known[id(trail)]

        for name in ("_layer", "_older"):
            layer: Layer | None = getattr(self, name)
            if layer is not None:
                setattr(self, name, Layer(resized(layer.pixels, size), known[id(layer.trail)]))
        self._past_trail, self._job_trail = fitted(self._past_trail), fitted(self._job_trail)
        self._next_trail = fitted(self._next_trail)

    def _carry_on(self, image: Image, fresh: bool, options: LiveOptions) -> Movement | None:
        """Let every trail follow the movement since the last picture that was no flash.

        It is given back, if the shot goes on.
        """
        if not fresh:
            return None
        turn = self._shots(to_small(to_pixels(image)))
        self._flash = turn is Turn.FLASH and self._before is not None
        if self._flash or self._before is None:
            return None
        if turn is Turn.BEGINS:
            self.reset()
            return None
        if self._flow is None or self._flow[0] != options.flow:
            self._flow = options.flow, OpticalFlow(options.flow)
        movement: Movement = self._flow[1].between(image, self._before)
        for trail in self._trails():
            trail.follow(movement)
        return movement

    def _take_ready(self, now: float) -> None:
        """Lay on what the dreamer has ready, blended in from what is there."""
        for ready in self._dreamer.ready():
            if self._next is not None and ready.job.index == self._next.index:
                self._begin_next()
            if self._job is None or ready.job.index != self._job.index:
                continue
            if ready.layer.size == 0:  # it came to nothing
                self._past = self._job = self._next = None
                self._growth, self._fades = 0, False
                continue
            self._lay_on(ready, now)
            if ready.past is not None:
                self._past, self._past_trail = ready.past, self._job_trail
                self._job = None
                self._growth = ready.past.growth

    def _lay_on(self, ready: Ready, now: float) -> None:
        assert self._job_trail is not None
        layer, size = ready.layer, self._job_trail.size
        if layer.shape[:2] != size:
            layer = resized(layer, size)
        there = self._blended(now)
        self._older = Layer(np.zeros_like(layer) if there is None else there, Trail(size))
        self._layer = Layer(layer, self._job_trail)
        self._interval = now - self._since if self._since else BLEND[0]
        self._since = now

    def _hand_over(self, image: Image, now: float, options: LiveOptions) -> None:
        """Give the dreamer, which has nothing to do, the picture that is shown now."""
        if not self._wanted(options):
            return
        look = self._controls.look(now)
        if look != self._look:
            # Another look has a strength of its own: it grows while the old one fades.
            self._look, self._growth, self._fades = look, 0, self._past is not None
        if self._growth == 0:
            self._bold = self._dreamer.bold(options.steps)
        job = self._made(image, now, options, self._past_trail)
        job = replace(job, past=self._past, growth=self._growth)
        if self._dreamer.offer(job):
            self._job, self._job_trail = job, Trail((image.shape[-2], image.shape[-1]))
            self._next = self._next_trail = None

    def _line_up(self, image: Image, now: float, options: LiveOptions) -> None:
        """Give the dreamer the picture to go on with, so that it need not wait for the next one.

        That is worth it for paintings, many of which are made a second.
        """
        if not options.style or not self._wanted(options) or self._controls.look(now) != self._look:
            return
        if self._next is not None and self._dreamer.doing == self._next.index:
            self._begin_next()
        if self._job is None or self._job_trail is None:
            return
        job = self._made(image, now, options, self._job_trail)
        if self._dreamer.line_up(replace(job, follows=self._job.index)):
            self._next, self._next_trail = job, Trail((image.shape[-2], image.shape[-1]))

    def _begin_next(self) -> None:
        """The dreamer went on with what was lined up."""
        self._job, self._job_trail = self._next, self._next_trail
        self._next = self._next_trail = None

    def _wanted(self, options: LiveOptions) -> bool:
        """Whether what is made now will be seen."""
        dark = self.black and self._light <= 0
        return not dark and (self.let_through > 0 or options.gate == "off")

    def _made(self, image: Image, now: float, options: LiveOptions, trail: Trail | None) -> Job:
        """A job for a picture, on from what is at the beginning of a trail."""
        self._jobs += 1
        steps = self._pacing.steps(options.warm_steps, self._dreamer.each)
        return Job(
            image,
            Fraction(now - self._began).limit_denominator(1_000_000),
            self._jobs,
            options.model_copy(update={"warm_steps": steps, "work_size": self.lines}),
            moved=None if trail is None else trail.movement,
            near=trail is not None and trail.steps <= NEAR,
            bold=self._bold,
            fades=self._fades,
        )

    def _blended(self, now: float) -> Vectors | None:
        """The layer (h, w, c) as it is seen at this moment."""
        if self._layer is None:
            return None
        new = self._layer.now()
        length = min(max(self._interval, BLEND[0]), BLEND[1])
        part = (now - self._since) / length
        if self._older is None or part >= 1:
            self._older = None
            return new
        return blended(self._older.now(), new, part)

    def _drawn(self, pixels: Bytes, now: float, options: LiveOptions) -> Shown:
        layer = self._blended(now)
        strength = options.strength * self.let_through
        if layer is not None and self._masks is not None:
            size = layer.shape[0], layer.shape[1]
            layer = layer * self._masks.opacity(self._measured, Fraction(0), size, options)
        dreamed = pixels if layer is None else laid_on(pixels, layer, strength)
        if options.view != "dream":
            whole = Frame(pixels, Fraction(0), self._index)
            seen = pixels if options.view == "source" else arranged(whole, dreamed, "split").pixels
        else:
            seen = dreamed
        self._drawing = np.asarray(seen, np.uint8)
        return self._finished(self._drawing, now, options)

    def _finished(self, pixels: Bytes, now: float, options: LiveOptions) -> Shown:
        seen = self._lit(pixels, now, options.fade)
        if self.limiter is not None:
            seen = self.limiter(seen, now)
        self._index += 1
        return Shown(seen, self._moment(now), self._index)

    def _moment(self, now: float) -> Fraction:
        """Seconds since the run began, later than the last picture's."""
        passed = Fraction(now - self._began).limit_denominator(1_000_000)
        self._last = max(passed, self._last + Fraction(1, 1_000_000))
        return self._last

    def _lit(self, pixels: Bytes, now: float, fade: float) -> Bytes:
        """Faded towards black or back."""
        goal = 0.0 if self.black else 1.0
        move = (now - self._then) / max(fade, 1e-3)
        self._then = now
        self._light += min(move, max(-move, goal - self._light))
        if self._light >= 1:
            return pixels
        return np.asarray(cv2.convertScaleAbs(pixels, alpha=self._light), np.uint8)
