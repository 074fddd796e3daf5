"""Where frames come from: whatever libav reads."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from heapq import heappop, heappush
from itertools import chain, repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self, cast

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from streamdream.colour import BT709, Colour, Light, ToRGB, has_alpha, is_deep, siting
from streamdream.companions import Companions, Feed, is_cover
from streamdream.errors import SourceError, words
from streamdream.frame import Frame, Levels, Size
from streamdream.info import Counts, Reading, VideoInfo
from streamdream.inputs import Input, locate
from streamdream.mending import LATE, Clock, Deinterlacer, is_mirrored
from streamdream.profiles import ToSRGB, icc_of
from streamdream.unpacking import is_moving_webp, unpack

# What libav's bindings raise on broken files, found by feeding them broken files.
BROKEN = (FFmpegError, OSError, ValueError, EOFError, IndexError, MemoryError)
RUNNING_CLOCK = ("mpegts", "mpeg", "rtsp")  # formats whose times start anywhere
NO_END = ("asf",)  # formats whose pictures are said to last as long as the sound
ENDS_EARLY = 2  # pictures; less is rounding in the file's header
SEEING_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # libav's own decoders drop it
SLOWEST, FASTEST = Fraction(1, 1000), 1000  # pictures a second; what is said beyond is wrong
PHOTOS = ("heic", "heix", "mif1", "avif")  # brands of files that hold one picture
SORTED_OVER = 5  # pictures; the widest disorder seen in a real file is 4

Timed = tuple[av.VideoFrame, Fraction]


class VideoSource:
    """A video, pictures in a row or one picture as a stream of frames, upright, in RGB.

        with VideoSource("clip.mp4") as source:
            for frame in source: ...

    Times are the file's own. With `start` they are counted from there; where a broadcast
    stream's clock began late, from its first picture. The first frame is decoded on opening,
    so a file without a picture is refused at once.
    """

    def __init__(
        self,
        path: str | Path,
        start: Fraction | None = None,
        end: Fraction | None = None,
        frames: int | None = None,
        size: Size | None = None,
        reading: Reading | None = None,
    ) -> None:
        """Open what `path` names (see inputs.locate), from `start` to `end` (seconds).

        At most so many `frames` are read. `size` (h, w) is what the picture is fitted into;
        its shape stays. Raises SourceError if there is nothing to read.
        """
        self._reading = reading or Reading()
        self.input: Input = locate(path, self._reading.rate)
        self.counts = Counts()
        self.notices: list[str] = list(self.input.notices)
        self.companions = Companions()
        self._wanted = frames
        self._folder: TemporaryDirectory[str] | None = None
        self._container = self._open()
        try:
            self._stream = self._choose()
            self._origin = self._begin()
            self._from = None if start is None else self._origin + start
            self._until = None if end is None else self._origin + end
            self._shift = self._shift_of_times()
            self._clock = Clock(self._stream.index, self._usual_duration())
            self._feed = self._new_feed()
            self._weave: Deinterlacer | None = None
            self._last: Fraction | None = None
            self._begun: Fraction | None = None  # the first time read since seeking, if it has one
            self._pictures = self._wanted_part()
            self._first = self._first_picture()
            self._turns = round((self._first[0].rotation or 0) / 90) % 4
            self._mirrored = (
                self.input.path is not None and self._still and is_mirrored(self.input.path)
            )
            self._coded_size = self._scaled(size)
            self.info = self._describe()
            self.companions.offer(self._container, self._stream, self._shift, self._last_wanted())
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[Frame]:
        """Frames in order, with increasing times."""
        self.companions.begin()
        picture = self._first[0]
        for index, (picture, time) in enumerate(chain([self._first], self._pictures)):
            pixels, alpha = self._to_rgb(picture)
            seen = self._upright(pixels if self._profile is None else self._profile(pixels))
            clear = None if alpha is None else self._upright(alpha)
            yield Frame(seen, time, index, _duration(picture), clear)
            if index + 1 == self._wanted:
                self._until = self._feed.end = self._shown_until(picture)
                break
        else:
            self._compare(self._shown_until(picture))
        self._drain()

    def _upright(self, coded: Levels) -> Levels:
        seen = np.flipud(coded) if self._mirrored else coded
        return cast(Levels, np.ascontiguousarray(np.rot90(seen, self._turns)))

    def __enter__(self) -> Self:
        """The source itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._container.close()
        if self._folder is not None:
            self._folder.cleanup()

    def _fault(self, reason: str, cure: str = "") -> SourceError:
        return SourceError(self.input.label, reason, cure)

    @property
    def _cure(self) -> str:
        if self.input.path is not None:
            return "it may be cut off or damaged"
        if self.input.piped:
            return "pipe a format that can be read from front to end, as mkv or ts"
        return "" if self.input.files else "if it plays elsewhere, download it first"

    def _open(self) -> InputContainer:
        given = self.input
        if self._folder is None and given.path is not None and is_moving_webp(given.path):
            self._folder = TemporaryDirectory(prefix="streamdream-")
            self._unpacked(self._folder)
            given = self.input
        try:
            opened = av.open(
                given.name, format=given.kind, options=dict(given.options),
                metadata_errors="replace",
            )  # fmt: skip
        except BROKEN as fault:
            raise self._fault(f"not a video or picture ({words(fault)})", self._cure) from None
        return cast(InputContainer, opened)

    def _unpacked(self, folder: TemporaryDirectory[str]) -> None:
        assert self.input.path is not None
        try:
            unpacked = unpack(self.input.path, Path(folder.name), self._reading.most)
        except SourceError:
            folder.cleanup()
            raise
        self.input = replace(self.input, name=str(unpacked))

    def _choose(self) -> VideoStream:
        pictures = [s for s in self._container.streams.video if not is_cover(s)]
        videos = [s for s in pictures if getattr(s, "codec_context", None) is not None]
        if pictures and not videos:
            raise self._fault("nothing here can decode its video")
        if not videos:
            sound = "it holds only sound" if self._container.streams.audio else ""
            raise self._fault("has no video stream", sound)
        if self._container.metadata.get("major_brand") in PHOTOS and len(videos) > 2:
            raise self._fault("a photo in tiles, which are not joined here", "make it a JPEG")
        stream = max(videos, key=lambda s: s.width * s.height)
        if self._reading.stream is not None:
            wanted = [s for s in videos if s.index == self._reading.stream]
            if not wanted:
                there = ", ".join(f"{s.index} ({s.width}x{s.height})" for s in videos)
                raise self._fault(
                    f"stream {self._reading.stream} is no video", f"there are: {there}"
                )
            stream = wanted[0]
        self._check_pixels(stream.width, stream.height)
        self._number = self._container.streams.video.index(stream)
        if len(videos) > 1 and self._reading.stream is None:
            self.notices.append(
                f"{len(videos)} video streams; dreaming stream {stream.index} "
                f"({stream.width}x{stream.height}); --video-stream takes another"
            )
        return self._prepared(stream)

    def _prepared(self, stream: VideoStream) -> VideoStream:
        self._decoder: VideoCodecContext = stream.codec_context
        seeing = SEEING_ALPHA.get(self._decoder.name)
        if seeing is not None and stream.metadata.get("alpha_mode") == "1":
            self._decoder = cast(VideoCodecContext, VideoCodecContext.create(seeing, "r"))
        self._decoder.thread_type = "AUTO"
        if self._reading.strict:
            self._decoder.options = {"err_detect": "explode"}
        return stream

    def _check_pixels(self, width: int, height: int) -> None:
        if width * height > self._reading.most:
            raise self._fault(
                f"{width}x{height} are more than {self._reading.most} pixels",
                "allow it with --max-pixels",
            )

    def _begin(self) -> Fraction:
        start = self._container.start_time
        return Fraction(0) if start is None else max(Fraction(0), Fraction(start, av.time_base))

    def _shift_of_times(self) -> Fraction:
        if self._from is not None:
            # A whole number of ticks, so that every moved time is one too.
            return self._from // self.tick * self.tick
        if self._origin > LATE and self._runs():
            self.notices.append(f"times began at {float(self._origin):.3f} s; they now begin at 0")
            return self._origin
        return Fraction(0)

    def _runs(self) -> bool:
        """Whether the format's clock runs on from one recording to the next."""
        return any(n in RUNNING_CLOCK for n in self._container.format.name.split(","))

    def _first_picture(self) -> Timed:
        first = self._sought_picture()
        if first is None:
            if self._until is not None:
                begin = (self._from or self._origin) - self._origin
                end = float(self._until - self._origin)
                reason = f"no picture from {float(begin):g} s to {end:g} s"
                raise self._fault(reason, "give another --start or --end")
            if self._from is not None:
                reason = f"no picture at or after {float(self._from - self._origin):g} s"
                raise self._fault(reason, "give an earlier --start")
            raise self._fault("no picture in it can be decoded", self._cure)
        return first

    def _sought_picture(self) -> Timed | None:
        """The first picture wanted, found by seeking where that is exact.

        Seeking lands too late in many broadcast streams and some AVI files, and means nothing
        where pictures carry no times: then an earlier place is tried, and at last everything
        before is read and dropped.
        """
        if self._from is None or self._from <= self._origin or self.input.piped:
            return next(self._pictures, None)
        for earlier in (0, 2, 10):
            with suppress(*BROKEN, OverflowError):
                place = max(self._from - earlier, self._origin)
                self._container.seek(int(place / self.tick), stream=self._stream)
                self._read_anew()
                first = next(self._pictures, None)
                if self._begun is not None and self._begun <= self._from:
                    return first
        self._container.close()
        self._container = self._open()
        self._stream = self._prepared(self._container.streams.video[self._number])
        self._read_anew()
        return next(self._pictures, None)

    def _read_anew(self) -> None:
        self.companions.forget()
        self.counts = Counts()
        self._clock = Clock(self._stream.index, self._usual_duration())
        self._feed = self._new_feed()
        self._weave = None
        self._begun = None
        self._pictures = self._wanted_part()

    def _new_feed(self) -> Feed:
        return Feed(self.companions, self._clock, self._shift, self._from, self._until)

    def _scaled(self, fitted: Size | None) -> Size:
        coded = self._first[0].height, self._first[0].width
        if fitted is None:
            return coded
        h, w = fitted if self._turns % 2 == 0 else fitted[::-1]
        scale = min(h / coded[0], w / coded[1])
        return max(2, int(coded[0] * scale / 2) * 2), max(2, int(coded[1] * scale / 2) * 2)

    def _describe(self) -> VideoInfo:
        first, stream = self._first[0], self._stream
        aspect = stream.sample_aspect_ratio or Fraction(1)
        aspect = Fraction(aspect.numerator, aspect.denominator) if aspect else Fraction(1)
        h, w = self._coded_size
        colour, deep, alpha = Colour.of(first), is_deep(first), self._is_clear(first)
        tone_map = self._reading.tone_map and colour.hdr
        photo = self._still or bool(self.input.files) or "png" in self.codec
        if tone_map:
            told = "HDR becomes ordinary video (BT.709) by tone-mapping: highlights are compressed"
            self.notices.append(told)
        deep = deep and not tone_map
        chroma = siting(self.codec, colour, first)
        self._to_rgb = ToRGB(colour, (h, w), deep, alpha, tone_map, chroma)
        if self._turns % 2:
            h, w, aspect = w, h, 1 / aspect
        return VideoInfo(
            size=(h, w),
            rate=self._usual_rate(),
            time_base=self.tick,
            frames=1 if self._still else self._expected_frames(),
            sample_aspect=aspect,
            colour=Colour(BT709, BT709, BT709) if tone_map else colour,
            still=self._still,
            deep=deep,
            alpha=alpha,
            # Never asked of photos: libav's bindings free an ICC profile's name twice.
            light=Light.of(first) if colour.hdr and not photo and not tone_map else None,
            profile=self._look_at_profile(),
        )

    def _is_clear(self, first: av.VideoFrame) -> bool:
        """Whether pictures are transparent; that photos and GIFs could be means little."""
        if not has_alpha(first):
            return False
        seldom = self._still or self._container.format.name in ("gif", "apng")
        if seldom or self._folder is not None:
            return bool((first.to_ndarray(format="rgba")[..., 3] < 255).any())
        return True

    def _look_at_profile(self) -> bytes | None:
        """The ICC profile of photos if they stay in it; else they are brought to sRGB."""
        self._profile: ToSRGB | None = None
        photos = self.input.all_files if self._still or self.input.files else ()
        found = icc_of(photos[0]) if photos else None
        if found is None or self._reading.profiled:
            return found
        self._profile = ToSRGB.by(found)
        if self._profile is not None:
            self.notices.append(f"colours are brought from {self._profile.name} to sRGB")
        return None

    @property
    def _still(self) -> bool:
        name = self._container.format.name
        photo = "image2" in name or "_pipe" in name
        if "mov" in name:  # HEIC and AVIF are kinds of it
            brand = self._container.metadata.get("major_brand", "").strip()
            photo = brand in PHOTOS and self._stream.frames <= 1
        return self.input.count is None and photo

    def _expected_frames(self) -> int | None:
        stream, rate = self._stream, self._usual_rate()
        duration = None
        if stream.duration is not None and stream.time_base is not None:
            duration = stream.duration * stream.time_base
        elif self._container.duration is not None:
            duration = Fraction(self._container.duration, av.time_base)
        count = stream.frames or (round(duration * rate) if duration and rate else None)
        if rate and (self._from is not None or self._until is not None) and duration:
            begin = max(self._from or self._origin, self._origin)
            until = min(self._until or self._origin + duration, self._origin + duration)
            count = max(0, round((until - begin) * rate))
        if self._wanted is not None:
            count = self._wanted if count is None else min(count, self._wanted)
        return count

    def _last_wanted(self) -> Fraction | None:
        """About when the wanted part ends; None: where the file does."""
        ends = [] if self._until is None else [self._until]
        if self._wanted is not None:
            ends.append((self._from or self._origin) + self._wanted * self._usual_duration())
        return min(ends, default=None)

    def _wanted_part(self) -> Iterator[Timed]:
        for picture, when in self._in_order():
            if self._until is not None and when >= self._until:
                return
            if self._from is None or when >= self._from:
                self._last = when
                yield picture, when - self._shift

    def _in_order(self) -> Iterator[Timed]:
        """Pictures with increasing times.

        Decoders deliver pictures in the right order, but some files number them in another
        (B-frames in AVI, webcams): the times are sorted over a few pictures, and one that
        still does not increase is moved by the least that makes it.
        """
        held: deque[tuple[av.VideoFrame, Fraction]] = deque()
        times: list[Fraction] = []
        before: Fraction | None = None
        for timed in chain(self._decoded(), repeat(None, SORTED_OVER)):
            if timed is not None:
                held.append(timed)
                if self._begun is None and timed[0].pts is not None:
                    self._begun = timed[1]
                heappush(times, timed[1])
            if held and (timed is None or len(held) > SORTED_OVER):
                picture, own = held.popleft()
                when = heappop(times)
                if before is not None and when <= before:
                    when = before + self.tick
                self.counts.mended += when != own
                before = when
                yield picture, when

    def _decoded(self) -> Iterator[Timed]:
        """Pictures with the times they came with; other packets go to `companions`.

        One broken packet is skipped and counted, the next one may be whole.
        """
        latest: Fraction | None = None
        for packet in self._packets():
            if packet.stream is not self._stream:
                self._feed.take(packet)
                continue
            try:
                pictures = self._decoder.decode(packet)
            except BROKEN as fault:
                self._skip(fault)
                continue
            for picture in self._whole(pictures, last=not packet.size):
                self._check_pixels(picture.width, picture.height)
                if picture.is_corrupt:
                    self._damaged()
                base = picture.time_base or self.tick
                if picture.pts is not None:
                    own = picture.pts * Fraction(base.numerator, base.denominator)
                    offset = self._clock.offset(self._clock.part(self._stream.index, own))
                    latest = own + (offset or 0)
                    self._feed.release()
                else:
                    self.counts.mended += 1
                    latest = self._origin if latest is None else latest + self._usual_duration()
                yield picture, latest

        self._feed.release(last=True)

    def _skip(self, fault: BaseException) -> None:
        if self._reading.strict:
            raise self._fault(f"damaged ({words(fault)})", "without --strict it would be skipped")
        self.counts.skipped += 1

    def _damaged(self) -> None:
        if self._reading.strict:
            raise self._fault("a picture is damaged", "without --strict it would be shown")
        self.counts.damaged += 1

    def _whole(self, pictures: list[av.VideoFrame], last: bool) -> Iterator[av.VideoFrame]:
        """The pictures, those of interlaced video made whole from their two halves."""
        if self._weave is None and self._reading.deinterlace:
            if not any(picture.interlaced_frame for picture in pictures):
                yield from pictures
                return
            self._weave = Deinterlacer(self._stream)
            told = "interlaced: made whole by bwdif; --no-deinterlace leaves it"
            if told not in self.notices:  # seeking begins anew
                self.notices.append(told)
        elif self._weave is None:
            yield from pictures
            return
        for picture in pictures:
            yield from self._weave(picture)
        if last:
            yield from self._weave(None)

    def _packets(self) -> Iterator[Packet]:
        wanted = [self._stream, *self._container.streams.audio]
        wanted += self._container.streams.subtitles
        packets = self._container.demux(wanted)
        while True:
            try:
                yield next(packets)
            except StopIteration:
                return
            except BROKEN as fault:
                self._skip(fault)
                return

    @property
    def codec(self) -> str:
        """The name of what decodes the pictures."""
        return self._stream.codec_context.name

    @property
    def tick(self) -> Fraction:
        """The unit of the stream's times, in seconds."""
        base = self._stream.time_base
        return Fraction(base.numerator, base.denominator) if base else Fraction(1, 90000)

    def _usual_rate(self) -> Fraction | None:
        """Pictures a second, None if the file tells none that makes sense."""
        told = self._stream.average_rate or self._stream.guessed_rate
        rate = Fraction(told.numerator, told.denominator) if told else Fraction(0)
        return rate if SLOWEST <= rate <= FASTEST else None

    def _usual_duration(self) -> Fraction:
        return 1 / (self._usual_rate() or Fraction(25))

    def _shown_until(self, picture: av.VideoFrame) -> Fraction:
        assert self._last is not None
        return self._last + (_duration(picture) or self._usual_duration())

    def _drain(self) -> None:
        """Read on for the companions' packets that belong to the pictures already read."""
        if self._until is None:
            return
        self.companions.drop_from(self._until - self._shift)
        running = {s.index for s in self._container.streams.audio}
        limit = self._until + LATE
        for packet in self._packets():
            when = None if packet.pts is None else packet.pts * packet.time_base
            if packet.stream is self._stream:
                if when is not None and when > limit:
                    return
                continue
            if when is not None and when >= self._until:
                running.discard(packet.stream.index)
            self._feed.take(packet)
            if not running:
                return

    def _compare(self, end: Fraction) -> None:
        """Say about how many pictures are missing of a file that ends before it should.

        By the time, not by the number of pictures: AVI counts those that are only repeated.
        """
        stream, usual = self._stream, self._usual_duration()
        told = stream.duration is not None and self._container.format.name not in NO_END
        if self._until is not None or stream.duration is None or not told or self._still:
            return
        gap = ((stream.start_time or 0) + stream.duration) * self.tick - end
        if gap > ENDS_EARLY * usual:
            self.counts.missing = round(gap / usual)
            if self._reading.strict:
                raise self._fault(f"ends {self.counts.missing} pictures too early")


def _duration(picture: av.VideoFrame) -> Fraction | None:
    base = picture.time_base
    if not picture.duration or not base:
        return None
    return picture.duration * Fraction(base.numerator, base.denominator)
