"""Moving pictures for the web: GIF, animated WebP and PNG, below a size if one is asked for.

A GIF's palette is known only when every frame has been seen, and how large a file gets only
when it is made: the frames wait in a lossless file on the disk, `name.gif.part.mkv`, which is
also what an interrupted run leaves.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.container import OutputContainer
from av.error import FFmpegError
from av.filter import Graph
from av.packet import Packet
from av.video.format import VideoFormat
from av.video.frame import PictureType
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream

from streamdream.chunks import clear_after, note_gif, note_png, note_webp, unblend
from streamdream.errors import SinkError
from streamdream.files import spool_of
from streamdream.frame import Frame, Size, eight_bits
from streamdream.info import VideoInfo
from streamdream.pictures import check_side, shortcomings
from streamdream.profiles import ToSRGB
from streamdream.sinks import FileSink, PartFile, Stopped
from streamdream.views import square, squared

MOST_RATE = 50  # pictures a second; browsers slow down what is faster
CALM = 30  # pictures a second that an animation falls back to first
SMALLEST = 64  # px; below this fewer pictures are the lesser evil
PALETTE_SIDE, PALETTE_FRAMES = 180, 100  # what more there is to see has few other colours
SLOWEST = 5  # pictures a second
TRIES = 10
FULL = 0.85  # share of the allowed size from which nothing more is tried
TICK = Fraction(1, 1000)

Shown = Generator[tuple[int, int, av.VideoFrame], None, None]
"""Time and duration in the animation's units, and the picture."""


@dataclass(frozen=True)
class Kind:
    """A kind of animation: libav's `name` and `encoder`, its `unit` of time in seconds.

    `forever` are the options that let it loop, `least` is the shortest time in units that a
    picture is shown, `note` puts a text into a finished file; `qualities` are what looks
    good, and what is still good where the size is limited.
    """

    name: str
    title: str
    encoder: str
    pixels: str
    unit: Fraction
    forever: dict[str, str]
    note: Callable[[Path, str, Size], None]
    least: int = 1
    qualities: tuple[int | None, int | None] = (None, None)
    options: Mapping[str, str] = field(default_factory=dict)


LOOP = {"loop": "0"}
KINDS = {
    ".gif": Kind("gif", "GIF", "gif", "pal8", Fraction(1, 100), LOOP, note_gif, least=2),
    # A little less effort than usual: half the time for 4% more bytes.
    ".webp": Kind(
        "webp", "WebP", "libwebp", "bgra", TICK, LOOP, note_webp,
        qualities=(82, 60), options={"compression_level": "2"},
    ),
    ".apng": Kind(
        "apng", "APNG", "apng", "rgba", TICK, {"plays": "0"}, note_png,
        options={"compression_level": "2", "pred": "paeth"},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Form:
    """How an animation is made: its `size` (h, w), and of how many frames one is taken."""

    size: Size
    every: int = 1

    def scaled(self, factor: float) -> Form:
        """The same at a multiple of the size."""
        h, w = self.size
        return replace(self, size=(max(2, round(h * factor)), max(2, round(w * factor))))


@dataclass
class _Search:
    """Looks for the largest multiple of a size, at least `least`, whose file is small enough."""

    most: int
    least: float
    factor: float = 1.0
    fits: float = 0.0
    fails: float = field(default=math.inf)

    def learn(self, size: int) -> bool:
        """Take in how large the file was at `factor`, and choose the next; True: it will do."""
        if size <= self.most:
            self.fits = self.factor
            if size >= FULL * self.most or self.factor == 1:
                return True
        else:
            self.fails = self.factor
        guess = self.factor * math.sqrt(0.93 * self.most / size)
        inside = self.fits < guess < self.fails
        self.factor = guess if inside else (self.fits + self.fails) / 2
        self.factor = min(1.0, max(self.least, self.factor))
        return False

    @property
    def hopeless(self) -> bool:
        """Whether even the least was too large."""
        return self.fails <= self.least


class AnimationSink(FileSink):
    """A GIF, animated WebP or animated PNG that loops for ever."""

    def __init__(
        self,
        path: str | Path,
        info: VideoInfo,
        companions: list[str] | None = None,
        most: int | None = None,
        comment: str = "",
        tell: Callable[[str], None] | None = None,
    ) -> None:
        """Begin an animation of frames as `info` tells, with `comment` in its metadata.

        With `most` it is made smaller and slower until it has no more bytes. `companions`
        names what else the source has, to say that it is left out. `tell` is called again
        and again, with what is going on, while the file is made; it may raise Stopped.
        Raises SinkError.
        """
        self._file = PartFile(Path(path))
        ending = self._file.path.suffix.lower()
        self._kind = KINDS[ending]
        self._info, self._most, self._comment = info, most, comment
        self._rate = info.rate or Fraction(25)
        self._form = Form(square(info), max(1, math.ceil(self._rate / MOST_RATE)))
        self.notices = [f"{what} is left out: {ending} holds none" for what in companions or []]
        self.notices += shortcomings(info, self._kind.title, deep=False, alpha=True, cure="")
        if self._form.every > 1:
            told = f"of {self._form.every} frames one is shown, browsers keep up with no more"
            self.notices.append(told)
        check_side(self._file.path, self._kind.title, self._form.size)
        self._profile = None if info.profile is None else ToSRGB.by(info.profile)
        if self._profile is not None:
            self.notices.append(f"colours are brought from {self._profile.name} to sRGB")
        self._times = array("q")  # in milliseconds, of what waits
        self._tell = tell or (lambda text: None)
        self._spool = spool_of(self._file.path)
        self._palette: av.VideoFrame | None = None
        self._begin: Fraction | None = None
        self._end = Fraction(0)
        self._closed = False
        try:
            self._open()
        except (FFmpegError, OSError) as fault:
            raise self._file.fault(fault, None) from None

    @property
    def part(self) -> Path | None:
        """Where the frames of an unfinished animation lie."""
        return self._spool

    def write(self, frame: Frame) -> None:
        """Let a frame wait; raises SinkError."""
        if frame.pixels.shape[:2] != self._info.size:
            raise ValueError(f"frame {frame.index} has another size than {self._info.size}")
        frame = squared(frame, self._form.size)
        pixels, alpha = frame.pixels, frame.alpha
        if self._profile is not None:
            pixels = self._profile(pixels)
        layers = [eight_bits(pixels)] + ([] if alpha is None else [eight_bits(alpha)])
        joined = np.ascontiguousarray(np.dstack(layers))
        picture = av.VideoFrame.from_ndarray(joined, format="rgb24" if alpha is None else "rgba")
        picture = picture.reformat(format=self._stream.pix_fmt)
        if self._begin is None:
            self._begin = frame.time  # an animation begins with its first picture
        time = frame.time - self._begin
        picture.pts, picture.time_base = round(time / TICK), TICK
        self._times.append(picture.pts)
        self._end = time + (frame.duration or 1 / self._rate)
        try:
            self._container.mux(self._stream.encode(picture))
        except (FFmpegError, OSError) as fault:
            raise self._abandoned(fault) from None

    def close(self, complete: bool = True) -> None:
        """Make the animation of the frames if they are `complete`; raises SinkError."""
        if self._closed:
            return
        self._closed = True
        try:
            self._container.mux(self._stream.encode(None))
            self._container.close()
            if complete and len(self._times):
                self._make()
                self._file.complete()
            if complete or not len(self._times):
                self._spool.unlink(missing_ok=True)
        except Stopped:
            self._file.forget()
            raise
        except (FFmpegError, OSError) as fault:
            raise self._abandoned(fault) from None

    def _abandoned(self, fault: BaseException) -> SinkError:
        self._closed = True
        with suppress(FFmpegError, OSError):  # the first fault is the one to tell
            self._container.close()
        self._file.forget()
        return self._file.fault(fault, self._spool)

    def _open(self) -> None:
        opened = av.open(str(self._spool), "w", format="matroska", options={"flush_packets": "1"})
        self._container = cast(OutputContainer, opened)
        self._stream = cast(VideoStream, self._container.add_stream("ffv1", rate=self._rate))
        self._stream.height, self._stream.width = self._form.size
        self._stream.pix_fmt = "bgra" if self._info.alpha else "bgr0"
        self._stream.options = {"level": "3", "slicecrc": "1", "g": "1"}
        self._stream.codec_context.time_base = TICK
        self._container.start_encoding()

    def _make(self) -> None:
        """Make the file, again and again until it has the size that is allowed."""
        form, (quality, poorer) = self._form, self._kind.qualities
        size = self._encode(form, quality, f"making the {self._kind.title}")
        if self._most is None or size <= self._most:
            return
        if self._rate / form.every > CALM:
            form = replace(form, every=math.ceil(self._rate / CALM))
        least = min(1.0, SMALLEST / min(form.size))
        search = _Search(self._most, least)
        if poorer is None and form == self._form:
            search.learn(size)
        made: Form | None = None  # what the part file is
        fitting: Form | None = None
        for count in range(TRIES):
            made = form.scaled(search.factor)
            size = self._encode(made, poorer, f"fitting {self._kind.title}, try {count + 1}")
            fitting = made if size <= self._most else fitting
            if search.learn(size):
                break
            if search.hopeless:
                if self._rate / (2 * form.every) < SLOWEST:
                    break
                form = replace(form, every=2 * form.every)
                factor = max(least, min(1.0, search.factor * math.sqrt(2)))
                search = _Search(self._most, least, factor)
        if fitting is None:
            told = f"no smaller than {size / 1e3:.0f} kB, allow that with --max-size or take less"
            raise OSError(told)
        if made != fitting:
            size = self._encode(fitting, poorer, f"making the {self._kind.title}")
        h, w = fitting.size
        every = "" if fitting.every == 1 else f", one of {fitting.every} frames"
        self.notices.append(f"{size / 1e6:.2f} MB at {w}x{h}{every}")

    def _encode(self, form: Form, quality: int | None, told: str) -> int:
        """Write the part file; returns its size in bytes, about what it would be if too large."""
        kind, (h, w), path = self._kind, form.size, self._file.part
        frames = self._shown(form)
        if kind.name == "gif":
            if self._palette is None:
                self._palette = _palette(
                    self._shown(self._small(), Interpolation.POINT), self._tell, told
                )
            frames = _paletted(frames, self._palette, form.size)
        durations: dict[int, int] = {}
        shown, written = 0, 0

        def mux(packets: list[Packet]) -> None:
            nonlocal written
            for packet in packets:
                packet.duration = durations.pop(packet.pts or 0, 0)
                written += packet.size
                if kind.name == "gif" and self._info.alpha:
                    clear_after(packet)
                out.mux(packet)

        with (
            closing(frames),
            av.open(str(path), "w", format=kind.name, options=self._forever(form)) as opened,
        ):
            out = cast(OutputContainer, opened)
            stream = cast(VideoStream, out.add_stream(kind.encoder, rate=round(1 / kind.unit)))
            stream.height, stream.width, stream.pix_fmt = h, w, kind.pixels
            stream.options = dict(kind.options)
            if kind.name == "gif" and self._info.alpha:
                stream.options = {"gifflags": "-offsetting-transdiff"}
            if quality is not None:
                stream.options = {**kind.options, "quality": str(quality)}
            stream.codec_context.time_base = kind.unit
            for pts, duration, picture in frames:
                self._tell(told)
                ready = picture.reformat(format=kind.pixels)
                ready.pts, ready.time_base = pts, kind.unit
                ready.pict_type = PictureType.NONE
                durations[pts] = duration
                mux(stream.encode(ready))
                shown += 1
                if self._most is not None and written > self._most:
                    break
            mux(stream.encode(None))
        if self._most is not None and written > self._most:
            return max(written, round(written / shown * len(self._times) / form.every))
        if kind.name == "webp" and self._info.alpha:
            unblend(path)
        if self._comment:
            kind.note(path, self._comment, form.size)
        return path.stat().st_size

    def _forever(self, form: Form) -> dict[str, str]:
        """Options of the container; APNG wants to know beforehand how long the last is shown."""
        if self._kind.name != "apng":
            return self._kind.forever
        last = self._times[(len(self._times) - 1) // form.every * form.every]
        return {
            **self._kind.forever,
            "final_delay": f"{max(1, round(self._end / TICK) - last)}/1000",
        }

    def _small(self) -> Form:
        """A form in which all colours are there, but looking for them is quick."""
        small = self._form.scaled(min(1.0, PALETTE_SIDE / min(self._form.size)))
        return replace(small, every=max(self._form.every, len(self._times) // PALETTE_FRAMES))

    def _shown(self, form: Form, how: Interpolation = Interpolation.BICUBIC) -> Shown:
        """The frames that waited, as an animation has them."""
        (h, w), unit, least = form.size, self._kind.unit, self._kind.least
        before: tuple[int, av.VideoFrame] | None = None
        with av.open(str(self._spool)) as spool:
            for index, picture in enumerate(spool.decode(video=0)):
                pts = round((picture.pts or 0) * Fraction(picture.time_base or TICK) / unit)
                if index % form.every or (before and pts - before[0] < least):
                    continue
                if before is not None:
                    yield before[0], pts - before[0], before[1]
                before = pts, picture.reformat(w, h, "bgra", interpolation=how)
        if before is not None:
            yield before[0], max(least, round(self._end / unit) - before[0]), before[1]


def _palette(frames: Shown, tell: Callable[[str], None], told: str) -> av.VideoFrame:
    """The 256 colours that suit all frames best, one of them for what is transparent."""
    graph: Graph | None = None
    for pts, _, picture in frames:
        tell(told)
        if graph is None:
            graph = Graph()
            source = graph.add_buffer(
                width=picture.width, height=picture.height, format=picture.format, time_base=TICK
            )
            best = graph.add("palettegen", "stats_mode=full:reserve_transparent=1")
            graph.link_nodes(source, best, graph.add("buffersink")).configure()
        picture.pts, picture.time_base = pts, TICK
        graph.push(picture)
    assert graph is not None
    graph.push(None)
    return cast(av.VideoFrame, graph.pull())


def _paletted(frames: Shown, palette: av.VideoFrame, size: Size) -> Shown:
    """The frames in the colours of a palette.

    With ordered dithering: error diffusion looks a little finer in one frame, but its grain
    dances from frame to frame (by 10.7 grey levels against 8.6, where the dream itself moved by
    8.2), and takes a third more bytes.
    """
    h, w = size
    graph = Graph()
    shape = VideoFormat("bgra", w, h)
    pictures = graph.add_buffer(width=w, height=h, format=shape, time_base=TICK)
    colours = graph.add_buffer(
        width=palette.width, height=palette.height, format=palette.format, time_base=TICK
    )
    using = graph.add("paletteuse", "dither=bayer:bayer_scale=4")
    sink = graph.add("buffersink")
    pictures.link_to(using, 0, 0)
    colours.link_to(using, 0, 1)
    using.link_to(sink)
    graph.configure()
    palette.pts, palette.time_base = 0, TICK
    colours.push(palette)
    colours.push(None)
    durations: dict[int, int] = {}

    def ready() -> Shown:
        while True:
            try:
                picture = cast(av.VideoFrame, graph.pull())
            except (BlockingIOError, EOFError):
                return
            pts = picture.pts or 0
            yield pts, durations.pop(pts), picture

    with closing(frames):
        for pts, duration, picture in frames:
            durations[pts] = duration
            picture.pts, picture.time_base = pts, TICK
            pictures.push(picture)
            yield from ready()
    pictures.push(None)
    yield from ready()
