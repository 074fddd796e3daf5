"""What is in a file, what becomes of it, and how long a dream of it takes here."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction

from av.audio.stream import AudioStream

from streamdream.effects import effects_of
from streamdream.frame import work_size
from streamdream.masks.options import check_mask
from streamdream.motion import OpticalFlow
from streamdream.objectives.named import check_guides
from streamdream.options import Options
from streamdream.pipeline import redraw
from streamdream.run import choose_device, reading_of
from streamdream.schedule import Clock
from streamdream.sources import VideoSource
from streamdream.style.named import check_styles
from streamdream.video_sink import NOT_CONTENT

TIMED = 4  # warm frames; the first of a scene takes many more steps

MATRICES = {1: "BT.709", 5: "BT.601", 6: "BT.601", 9: "BT.2020"}
CURVES = {16: ", HDR (PQ)", 18: ", HDR (HLG)"}


@dataclass(frozen=True)
class Report:
    """What `probe` found: `lines` for people; `frames` about, None if unknown."""

    lines: list[str]
    frames: int | None


@dataclass(frozen=True)
class Pace:
    """Measured seconds: of a scene's `first` frame, and of `each` after it."""

    first: float
    each: float


def describe(text: str, options: Options) -> Report:
    """Tell what is in an input; raises SourceError."""
    reading = replace(reading_of(options), profiled=True)
    with VideoSource(text, options.start, options.end, reading=reading) as source:
        options = options.clocked(Clock(source.info.rate, source.info.frames))
        return Report(list(_lines(source, options)), source.info.frames)


def _lines(source: VideoSource, options: Options) -> Iterator[str]:
    info, also = source.info, source.companions
    (h, w), dreamed = info.size, work_size(info.size, options.lines)
    kind = "one picture" if info.still else f"{float(info.rate or 0):.5g} frames a second"
    depth = "more than 8 bits" if info.deep else "8 bits"
    colour = MATRICES.get(info.colour.matrix, f"matrix {info.colour.matrix}")
    curve = CURVES.get(info.colour.transfer, "")
    yield f"picture: {w}x{h} {source.codec}, {kind}, {depth}, {colour}{curve}"
    if info.alpha:
        yield "picture: can be transparent; kept in mov, webm, mkv, png, webp, gif, apng"
    if info.light is not None:
        yield "picture: tells what its HDR was mastered for; kept in HEVC and AV1"
    if info.profile is not None:
        yield "picture: has a colour profile; kept in png, jpg and webp, else brought to sRGB"
    if info.sample_aspect != 1:
        yield f"picture: pixels are {info.sample_aspect} as wide as high; kept"
    if info.frames is not None and not info.still:
        seconds = info.frames / (info.rate or Fraction(25))
        yield f"length: about {info.frames} frames, {float(seconds):.2f} s"
    yield f"dreamed at: {dreamed[1]}x{dreamed[0]}, added to the full-size picture"
    for stream in also.streams:
        codec = stream.codec_context.name if stream.codec_context else "unknown codec"
        sound = ""
        if isinstance(stream, AudioStream):
            sound = f", {stream.codec_context.sample_rate} Hz {stream.codec_context.layout.name}"
        language = stream.metadata.get("language", "")
        spoken = f" ({language})" if language else ""
        yield f"{stream.type} {stream.index}: {codec}{sound}{spoken}; goes along"
    for what in also.left_out:
        yield f"{what}: is left out"
    if also.chapters:
        yield f"chapters: {len(also.chapters)}; kept"
    tags = sorted(tag for tag in also.metadata if tag.lower() not in NOT_CONTENT)
    if tags:
        yield f"tags: {', '.join(tags)}; kept"
    for notice in source.notices:
        yield f"notice: {notice}"


def pace(text: str, options: Options) -> Pace:
    """Dream the first frames, to see how long they take here."""
    device = choose_device(options.device)
    check_styles(options)
    check_guides(options)
    check_mask(options)
    effects = effects_of(options, device)
    count = 2 + TIMED
    with VideoSource(
        text, options.start, options.end, count, options.fitted_size, reading_of(options)
    ) as source:
        options = options.clocked(Clock(source.info.rate, source.info.frames))
        done = [time.perf_counter()]
        motion = OpticalFlow(options.flow)
        with closing(redraw(source, options, effects, motion, device)) as frames:
            done += [time.perf_counter() for _ in frames]
    first = done[1] - done[0]
    # The second frame still prepares kernels for the shapes that only warm frames have.
    warm = done[2:] if len(done) > 3 else done[1:]
    return Pace(first, (warm[-1] - warm[0]) / max(1, len(warm) - 1))
