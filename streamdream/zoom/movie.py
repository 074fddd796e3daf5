"""One movie: a picture or noise in, a zoom movie out, by the options."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import overload

import numpy as np
import torch

from streamdream import backbone
from streamdream.codecs import STDOUT, check_codec
from streamdream.colour import BT709, Colour
from streamdream.companions import Companions
from streamdream.dream import Dream
from streamdream.errors import OptionError
from streamdream.files import check_size, check_target
from streamdream.frame import Frame, Image, Size, planes
from streamdream.info import Counts, VideoInfo
from streamdream.masks.masking import Masks
from streamdream.models import card
from streamdream.noises import noise
from streamdream.objectives.named import check_guides
from streamdream.ping_pong import there_and_back
from streamdream.pipeline import Picture
from streamdream.reactions import driven
from streamdream.run import (
    BACKWARDS,
    Listener,
    Outcome,
    Silent,
    choose_device,
    open_sink,
    song_notices,
    song_of,
    write_all,
)
from streamdream.schedule import Clock, Moment
from streamdream.settings import made
from streamdream.song import Song, companions_of, duration_of
from streamdream.soundtrack import Soundtrack
from streamdream.values import sides
from streamdream.zoom.arrivals import Arrival
from streamdream.zoom.camera import Matrix, Rates, similarity, step
from streamdream.zoom.fall import Plan, fall
from streamdream.zoom.named import NAMES, files_read
from streamdream.zoom.options import ZoomOptions
from streamdream.zoom.starts import picture

MOST = 540, 960  # lines and columns, unless a size is given
LENGTH = Fraction(20)  # s
BLEND, PART = Fraction(4), Fraction(3, 4)  # s, and of the way there: in which a picture shows
KEPT = 4096  # steps of a camera that are not found anew
SETTLING = Fraction(6)  # s after which noise has become a dream
BEGUN = Fraction(1, 2)  # s after which a step changes a picture no more than any other


@dataclass(frozen=True)
class Start:
    """What a movie starts from: an image (3, h, w), called `name`, and those it dives into."""

    image: Image
    through: list[Image]
    name: str
    noisy: bool


def zoom_file(
    source: str | Path,
    target: str | Path | None,
    options: ZoomOptions | None = None,
    listener: Listener | None = None,
) -> Outcome:
    """Make a zoom movie of a picture, or of noise by name, or show it in a window without target.

    Raises errors.Error before the model is loaded if input or output are unfit. A listener
    that raises Stopped ends the run early with a playable `name.part.ext`.
    """
    options, listener = options or ZoomOptions(), listener or Silent()
    source = str(source)
    target = STDOUT if str(target) == "-" else None if target is None else Path(target)
    if target is not None:
        check_target(target, files_read(source, options), options.overwrite)
        check_codec(target, options.codec, options.crf)
        check_size(target, options.most_bytes)
    check_guides(options)
    start = begun(source, options)
    with song_of(options, Fraction(0)) as song:
        return _made(start, target, options, listener, song)


def _made(
    start: Start, target: Path | None, options: ZoomOptions, listener: Listener, song: Song | None
) -> Outcome:
    size: Size = start.image.shape[-2], start.image.shape[-1]
    device = choose_device(options.device)
    precision = backbone.choose_precision(options.precision, options.model, device)
    # What is recorded in the result is what was used: other precisions give other bits.
    options = options.model_copy(update={"precision": precision})
    plan = planned(start, walking(options), device, song)
    count = max(plan.count, 2 * plan.count - 2) if options.ping_pong else plan.count
    info = VideoInfo(
        size, options.exact_rate, plan.interval, count, Fraction(1),
        Colour(BT709, BT709, BT709), still=False,
    )  # fmt: skip
    companions = Companions() if song is None else companions_of(song)
    opened = open_sink(target, info, companions, options, start.name, count == 1, listener.finish)
    if options.ping_pong and options.react:
        listener.notice(BACKWARDS)
    for notice in song_notices(options.audio, target, info):
        listener.notice(notice)
    masks = Masks.of(options)
    how = backbone.PRECISIONS[precision], options.weights, options.store
    network = backbone.load(options.model, device, *how)
    outcome = Outcome(0, 0.0, target, True, Counts())
    listener.begin(replace(info, frames=plan.lead + count))
    sink = opened()

    def watch(frame: Frame, shown: Picture) -> None:
        outcome.led = plan.lead + min(0, frame.index)
        sink.watch(frame, shown)
        listener.step(outcome.led + outcome.frames, outcome.counts)

    frames = fall(start.image.to(device), plan, Dream(network), watch, masks)
    if options.ping_pong:
        folder = None if target in (None, STDOUT) else target.absolute().parent
        frames = there_and_back(frames, plan.interval, folder)
    return write_all(frames, sink, outcome, listener, device)


def begun(source: str, options: ZoomOptions) -> Start:
    """Make or read the pictures of a movie; raises SourceError."""
    size = sides(options.size)
    noisy = source in NAMES
    drawn = planes(noise(source, size or MOST, [options.seed])) if noisy else None
    image = _image(source, size) if drawn is None else drawn
    size = image.shape[-2], image.shape[-1]
    through = [_image(path, size) for path in options.through]
    return Start(image, through, source if noisy else Path(source).name, noisy)


def _image(path: str, size: Size | None) -> Image:
    return planes(picture(path, size, MOST).astype(np.float32) / np.float32(255))


def planned(
    start: Start,
    options: ZoomOptions,
    device: torch.device | str = "cpu",
    song: Song | None = None,
) -> Plan:
    """When what happens; the `song` is what is reacted to.

    Raises OptionError where there is too little time, or no song to follow.
    """
    rate = options.exact_rate
    length = options.duration
    subject = "" if length is None else f"--duration {float(length):g}"
    if length is None and options.audio is not None:
        length, subject = duration_of(options.audio), f"--audio {options.audio}"
        length /= 2 if options.ping_pong else 1
    length = LENGTH if length is None else length
    count = round(length * rate)
    if count < 1 or (options.loop and count < 2):
        raise OptionError(subject, f"is too short, a frame lasts {float(1 / rate):g} s")
    # A loop's next frame would be its first again; any other movie has come to its end with its
    # last one. So it ends at the same place at any rate.
    total = count if options.loop else max(count - 1, 1)
    seconds = length / total
    heard, reactions = None, options.reactions
    if reactions and song is None:
        cure = 'give it with --audio, or --react "" to go without'
        raise OptionError("--react", "there is no sound to follow", cure)
    if reactions and song is not None:
        heard = Soundtrack.of(song.input, song.zero)

    options = options.clocked(Clock(rate, count))

    def at(moment: float, index: int) -> ZoomOptions:
        place = Fraction(moment).limit_denominator(1000)
        now = options.at(Moment(place * seconds, place))
        return now if heard is None else driven(now, reactions, heard.at(index / rate, 1 / rate))

    def ways(index: int) -> Matrix:
        """The camera's step from a frame to the next."""
        return step(lambda place: rates(at(place, index)), index, float(seconds), size)

    size: Size = start.image.shape[-2], start.image.shape[-1]
    lead = options.lead_in
    if lead is None:
        lead = (SETTLING if start.noisy else BEGUN) if options.loop else Fraction(0)
    parts = len(start.through) + 1
    reached = [round(Fraction(count * (i + 1), parts)) for i in range(parts)]
    if len({0, *reached}) <= parts:
        reason = f"{parts - 1} pictures need more than {count} frames"
        raise OptionError("--through", reason, "give a longer --duration")
    begins = [_begin(a, b, options, rate) for a, b in pairwise([0, *reached])]
    arrivals = [
        Arrival(image.to(device), begin, at)
        for image, begin, at in zip(start.through, begins, reached, strict=False)
    ]
    return Plan(
        count if options.frames is None else min(count, options.frames),
        round(lead * rate),
        1 / rate,
        Way(count, ways),
        similarity(rates(at(0, 0)), float(seconds), size),
        lambda index: at(index, index),
        arrivals,
        (begins[-1], count) if options.loop else None,
    )


def _begin(last: int, at: int, options: ZoomOptions, rate: Fraction) -> int:
    """The frame from which a picture begins to show that is arrived at, after the `last` one."""
    blend = BLEND if options.blend is None else options.blend
    way = at - last
    return at - max(1, min(round(blend * rate), math.floor(way * PART)))


class Way(Sequence[Matrix]):
    """The steps of a camera, [i] leading to frame i, found when they are asked for.

    A movie may be hours long, and only its beginning be wanted.
    """

    def __init__(self, count: int, following: Callable[[int], Matrix]) -> None:
        """Of `count` frames; `following` gives the step from a frame to the next."""
        self._count = count
        self._following = lru_cache(KEPT)(following)

    def __len__(self) -> int:
        return self._count + 1

    @overload
    def __getitem__(self, index: int) -> Matrix: ...
    @overload
    def __getitem__(self, index: slice) -> list[Matrix]: ...
    def __getitem__(self, index: int | slice) -> Matrix | list[Matrix]:
        """The step to a frame, or to several."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._following(index - 1) if index else np.eye(3)


def walking(options: ZoomOptions) -> ZoomOptions:
    """The options with layers that move from edges to objects, if that is asked for."""
    if not options.layers_walk:
        return options
    walk = card(options.model).walk
    if options.loop:
        walk += walk[-2::-1]
    places = (f"{100 * i / (len(walk) - 1):g}%: {layer}" for i, layer in enumerate(walk))
    given = options.given(all_fields=True)
    return made(ZoomOptions, given, {"layers": ", ".join(places), "layers_walk": False})


def rates(options: ZoomOptions) -> Rates:
    """How the camera moves by the options of a moment."""
    pan, centre = (options.pan_x, options.pan_y), (options.centre_x, options.centre_y)
    return Rates(options.zoom, options.rotate, pan, centre)
