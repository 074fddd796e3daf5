"""Where frames come from: whatever libav reads."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import av
import numpy as np

from streamdream.colour import BT709, Colour, Light, ToRGB, ToSmall, has_alpha, is_deep, siting
from streamdream.companions import Companions, Feed
from streamdream.frame import Frame, Levels, Size, Small, on_black, white
from streamdream.info import Counts, Reading, VideoInfo
from streamdream.mending import LATE, Clock, in_order, is_mirrored
from streamdream.places import Place, digest_of
from streamdream.profiles import ToSRGB, icc_of
from streamdream.reader import BROKEN, Reader

NO_END = ("asf",)  # formats whose pictures are said to last as long as the sound
WIDEST = Fraction(8)  # shape of a pixel; what is said beyond is wrong
LOOKED_AT = 4  # pictures of a row, to see whether they are transparent
ENDS_EARLY = 2  # pictures; less is rounding in the file's header

Timed = tuple[av.VideoFrame, Fraction]


@dataclass(frozen=True)
class Glimpse:
    """A frame that is decoded and not yet converted: its `time` and `index`, as Frame's.

    `duration` and `small` are as well, but the second is made when it is asked for.
    """

    time: Fraction
    index: int
    frame: Callable[[], Frame]
    small: Callable[[], Small]
    duration: Fraction | None = None


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
        self._reader = Reader(path, self._reading)
        self.input = self._reader.input
        self.notices = self._reader.notices
        self.companions = Companions()
        self._wanted = frames
        self._reading_now: Generator[Glimpse, None, None] | None = None
        try:
            self._origin = self._reader.origin
            self._from = None if start is None else self._origin + start
            self._until = None if end is None else self._origin + end
            self._shift = self._shift_of_times()
            self._last: Fraction | None = None
            self._begin()
            self._first = self._first_picture()
            self._turns = round((self._first[0].rotation or 0) / 90) % 4
            photo = self.input.path if self._reader.still else None
            self._mirrored = photo is not None and is_mirrored(photo)
            self._coded_size = self._scaled(size)
            self.info = self._describe()
            reader = self._reader
            self.companions.offer(reader.container, reader.stream, self._shift, self._last_wanted())
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Generator[Frame, None, None]:
        """Frames in order, with increasing times."""
        return (glimpse.frame() for glimpse in self.skim())

    def skim(self, place: Place | None = None) -> Generator[Glimpse, None, None]:
        """The same, each converted only when its frame is asked for; all, or from a place on.

        Raises SourceError where that place is not in it.
        """
        self._reading_now = self._glimpses(place)
        return self._reading_now

    def place_behind(self, frame: Frame) -> Place:
        """Where it can be read on behind a frame of it."""
        plain = self.counts == Counts() and self.clock_is_whole
        return Place(frame.index + 1, frame.time, digest_of(frame), plain, self.clock_is_whole)

    @property
    def clock_is_whole(self) -> bool:
        """Whether the clock of the file has not leapt so far."""
        return self._clock.newest == 0

    def undecoded(self, until: Fraction | None = None) -> Generator[Fraction, None, None]:
        """Read on without decoding, only for the companions; yields how far it is, in seconds.

        Frames end at the time `until` (None: with the file). Only for files whose clock is whole.
        """
        self.companions.begin()
        if until is not None:
            self._until = self._feed.end = until + self._shift
        for packet in self._reader.packets():
            if packet.stream is not self._reader.stream:
                self._feed.take(packet)
                continue
            if packet.pts is None:
                continue
            when = packet.pts * packet.time_base
            if self._until is not None and when >= self._until:
                break
            yield when - self._shift
        else:
            self._feed.release(last=True)
        self._drain()

    def _from_place(self, place: Place) -> Iterator[Timed]:
        """The pictures behind a place; it is sought, and if that is not exact, all are read."""
        if place.plain and not self.input.piped:
            before = place.time + self._shift
            for earlier in (0, 2, 10):
                with suppress(*BROKEN, OverflowError):
                    self._reader.seek(max(before - earlier, self._origin))
                    self._begin()
                    for picture, time in self._pictures:
                        if time > place.time:
                            break
                        if time < place.time:
                            continue
                        if place.is_behind(self._frame(picture, time, 0, None)):
                            return self._pictures
                        break
        self._start_again()
        pictures = chain([self._first], self._pictures)
        found = next(islice(pictures, place.index - 1, None), None)
        if found is None or not place.is_behind(self._frame(*found, 0, None)):
            reason = f"frame {place.index - 1} is another one than before"
            raise self._reader.fault(reason, "has it changed?")
        return pictures

    def _start_again(self) -> None:
        self._reader.reopen()
        self._begin()
        first = self._sought_picture()
        if first is None or first[1] != self._first[1]:
            raise self._reader.fault("begins at another time than before", "has it changed?")
        self._first = first

    def _glimpses(self, place: Place | None) -> Generator[Glimpse, None, None]:
        self.companions.begin()
        pictures = chain([self._first], self._pictures)
        start = 0
        if place is not None:
            pictures, start = self._from_place(place), place.index
        end = self._origin
        for index, (picture, time) in enumerate(pictures, start):
            duration = _duration(picture)
            final = index + 1 == self._wanted
            following = next(pictures, None) if final else None
            if following is not None:  # the last one is shown until the next would have been
                duration = following[1] - time
            end = time + self._shift + (duration or self._reader.usual)
            if final:
                self._until = self._feed.end = end
            made = partial(self._frame, picture, time, index, duration)
            yield Glimpse(time, index, made, partial(self._to_small, picture), duration)
            if final:
                break
        else:
            self._compare(end)
        self._drain()

    def _frame(
        self, picture: av.VideoFrame, time: Fraction, index: int, duration: Fraction | None
    ) -> Frame:
        pixels, alpha = self._to_rgb(picture)
        seen = self._upright(pixels if self._profile is None else self._profile(pixels))
        clear = None if alpha is None else self._upright(alpha)
        frame = Frame(seen, time, index, duration, clear, self._to_small(picture))
        if clear is None or self.info.alpha:
            return frame
        if clear.min() < white(seen):
            self.counts.blackened += 1
            frame = replace(frame, pixels=on_black(frame))
        return replace(frame, alpha=None)

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
        """Close the file; one that another thread waits for, maybe for ever, is left open."""
        frames = self._reading_now
        if frames is None or inspect.getgeneratorstate(frames) != inspect.GEN_RUNNING:
            self._reader.close()

    @property
    def counts(self) -> Counts:
        """What went wrong so far."""
        return self._reader.counts

    @property
    def codec(self) -> str:
        """The name of what decodes the pictures."""
        return self._reader.codec

    @property
    def shift(self) -> Fraction:
        """The time of the file, in seconds, that is 0 of the frames' times."""
        return self._shift

    def position(self, time: Fraction) -> Fraction:
        """A frame's time as `start` and `end` count it: from the beginning of the file."""
        return time + self._shift - self._origin

    @property
    def begins(self) -> Fraction:
        """The time of the first frame."""
        return self._first[1]

    def _shift_of_times(self) -> Fraction:
        if self._from is not None:
            # A whole number of ticks, so that every moved time is one too.
            return self._from // self._reader.tick * self._reader.tick
        if self._origin > LATE and self._reader.clock_runs:
            self.notices.append(f"times began at {float(self._origin):.3f} s; they now begin at 0")
            return self._origin
        return Fraction(0)

    def _first_picture(self) -> Timed:
        first = self._sought_picture()
        if first is None:
            if self._until is not None:
                begin = (self._from or self._origin) - self._origin
                end = float(self._until - self._origin)
                reason = f"no picture from {float(begin):g} s to {end:g} s"
                raise self._reader.fault(reason, "give another --start or --end")
            if self._from is not None:
                reason = f"no picture at or after {float(self._from - self._origin):g} s"
                raise self._reader.fault(reason, "give an earlier --start")
            raise self._reader.fault("no picture in it can be decoded", self._reader.cure)
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
                self._reader.seek(max(self._from - earlier, self._origin))
                self._begin()
                first = next(self._pictures, None)
                if self._begun is not None and self._begun <= self._from:
                    return first
        self._reader.reopen()
        self._begin()
        return next(self._pictures, None)

    def _begin(self) -> None:
        """Begin with what the reader reads from here on."""
        self.companions.forget()
        self._clock = Clock(self._reader.stream.index, self._reader.usual)
        self._feed = Feed(self.companions, self._clock, self._shift, self._from, self._until)
        self._feed.probable_end = self._last_wanted()
        self._begun: Fraction | None = None  # the first time read, if pictures have times
        self._pictures = self._wanted_part()

    def _scaled(self, fitted: Size | None) -> Size:
        coded = self._first[0].height, self._first[0].width
        if fitted is None:
            return coded
        h, w = fitted if self._turns % 2 == 0 else fitted[::-1]
        scale = min(h / coded[0], w / coded[1])
        return max(2, int(coded[0] * scale / 2) * 2), max(2, int(coded[1] * scale / 2) * 2)

    def _describe(self) -> VideoInfo:
        first, stream = self._first[0], self._reader.stream
        aspect = stream.sample_aspect_ratio or Fraction(1)
        aspect = Fraction(aspect.numerator, aspect.denominator) if aspect else Fraction(1)
        if not 1 / WIDEST <= aspect <= WIDEST:
            aspect = Fraction(1)
        h, w = self._coded_size
        colour, deep, alpha = Colour.of(first), is_deep(first), self._is_clear(first)
        tone_map = self._reading.tone_map and colour.hdr
        photo = self._reader.still or bool(self.input.files) or "png" in self.codec
        if tone_map:
            told = "HDR becomes ordinary video (BT.709) by tone-mapping: highlights are compressed"
            self.notices.append(told)
        elif self._reading.tone_map:
            self.notices.append("--tone-map changes nothing: this is not HDR")
        deep = deep and not tone_map
        chroma = siting(self.codec, colour, first)
        self._to_small = ToSmall(colour)
        self._to_rgb = ToRGB(colour, (h, w), deep, has_alpha(first), tone_map, chroma)
        if self._turns % 2:
            h, w, aspect = w, h, 1 / aspect
        return VideoInfo(
            size=(h, w),
            rate=self._reader.rate,
            time_base=self._reader.tick,
            frames=1 if self._reader.still else self._expected_frames(),
            sample_aspect=aspect,
            colour=Colour(BT709, BT709, BT709) if tone_map else colour,
            still=self._reader.still,
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
        short = self._reader.container.format.name in ("gif", "apng") or self._reader.unpacked
        if short and not self.input.piped:
            return self._reader.any_picture(_is_seen_through)
        rows = bool(self.input.files)
        if self._reader.still or rows or first.format.has_palette:
            return _is_seen_through(first) or (rows and any(map(_is_clear_file, self._some())))
        return True

    def _some(self) -> list[Path]:
        """A few pictures of a row, from its beginning to its end."""
        files = self.input.files
        return [files[i * (len(files) - 1) // LOOKED_AT] for i in range(LOOKED_AT + 1)]

    def _look_at_profile(self) -> bytes | None:
        """The ICC profile of photos if they stay in it; else they are brought to sRGB."""
        self._profile: ToSRGB | None = None
        photos = self.input.all_files if self._reader.still or self.input.files else ()
        found = icc_of(photos[0]) if photos else None
        if found is None or self._reading.profiled:
            return found
        self._profile = ToSRGB.by(found)
        if self._profile is not None:
            bits = ", in 8 bits" if is_deep(self._first[0]) else ""
            self.notices.append(f"colours are brought from {self._profile.name} to sRGB{bits}")
        return None

    def _expected_frames(self) -> int | None:
        stream, rate = self._reader.stream, self._reader.rate
        duration = None
        if stream.duration is not None and stream.time_base is not None:
            duration = stream.duration * stream.time_base
        elif self._reader.container.duration is not None:
            duration = Fraction(self._reader.container.duration, av.time_base)
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
            ends.append((self._from or self._origin) + self._wanted * self._reader.usual)
        return min(ends, default=None)

    def _wanted_part(self) -> Iterator[Timed]:
        for picture, when in self._in_order():
            if self._until is not None and when >= self._until:
                return
            if self._from is None or when >= self._from:
                self._last = when
                yield picture, when - self._shift

    def _in_order(self) -> Iterator[Timed]:
        """Pictures with increasing times."""
        for picture, when, own in in_order(self._decoded(), self._reader.tick):
            self.counts.mended += when != own
            yield picture, when

    def _decoded(self) -> Iterator[Timed]:
        """Pictures with the times they came with; other packets go to `companions`."""
        latest: Fraction | None = None
        reader = self._reader
        for packet in reader.packets():
            if packet.stream is not reader.stream:
                self._feed.take(packet)
                continue
            for picture in reader.pictures(packet):
                base = picture.time_base or reader.tick
                if picture.pts is not None:
                    own = picture.pts * Fraction(base.numerator, base.denominator)
                    offset = self._clock.offset(self._clock.part(reader.stream.index, own))
                    latest = own + (offset or 0)
                    self._feed.release()
                else:
                    self.counts.mended += 1
                    latest = self._origin if latest is None else latest + reader.usual
                if self._begun is None and picture.pts is not None:
                    self._begun = latest
                yield picture, latest
        self._feed.release(last=True)

    def _drain(self) -> None:
        """Read on for the companions' packets that belong to the pictures already read."""
        if self._until is None:
            return
        self.companions.drop_from(self._until - self._shift)
        running = {s.index for s in self._reader.container.streams.audio}
        limit = self._until + LATE
        for packet in self._reader.packets():
            when = None if packet.pts is None else packet.pts * packet.time_base
            if packet.stream is self._reader.stream:
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
        stream, usual = self._reader.stream, self._reader.usual
        told = stream.duration is not None and self._reader.container.format.name not in NO_END
        if self._until is not None or stream.duration is None or not told or self._reader.still:
            return
        gap = ((stream.start_time or 0) + stream.duration) * self._reader.tick - end
        if gap > ENDS_EARLY * usual:
            self.counts.missing = round(gap / usual)
            if self._reading.strict:
                raise self._reader.fault(f"ends {self.counts.missing} pictures too early")


def _duration(picture: av.VideoFrame) -> Fraction | None:
    base = picture.time_base
    if not picture.duration or not base:
        return None
    return picture.duration * Fraction(base.numerator, base.denominator)


def _is_seen_through(picture: av.VideoFrame) -> bool:
    return bool((picture.to_ndarray(format="rgba")[..., 3] < 255).any())


def _is_clear_file(path: Path) -> bool:
    try:
        with av.open(str(path.absolute())) as photo:
            return any(_is_seen_through(picture) for picture in photo.decode(video=0))
    except BROKEN:
        return False
