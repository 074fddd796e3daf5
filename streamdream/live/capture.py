"""Reading a camera: a thread that keeps the newest picture, and never gives up.

Whatever ends a live source (its end, a fault, silence, a picture that never changes) is a lost
connection: it is opened again, with growing pauses, for ever.
"""

from __future__ import annotations

import time
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from threading import Event, Thread
from typing import cast

import av
import numpy as np
from av.container import InputContainer
from av.error import BlockingIOError as NotYet
from av.video.stream import VideoStream

from streamdream.colour import Colour, ToRGB
from streamdream.errors import SourceError, words
from streamdream.frame import Bytes, Size
from streamdream.live.camera import Camera, pace_of
from streamdream.reader import BROKEN
from streamdream.threads import Newest

OPENS, READS = 5.0, 3.0  # seconds that opening and one reading may take
STALL = 8.0  # seconds without a picture until a reader is given up
SAME = 10.0  # seconds of the same picture, from a camera that has noise, until it hangs
SHORTEST, LONGEST = 0.25, 5.0  # seconds between two tries
LEAP = 60  # seconds; a longer pause in a clip is a fault of its clock
LATE = 0.5  # seconds that a clip may fall behind its own pace before it goes on from now
MOST_STUCK = 8  # readers given up that have not come back; each keeps its device
LARGEST = 8192 * 8192  # pixels

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Captured:
    """A picture as it came: `arrived` in monotonic seconds; `frame` not yet in RGB."""

    frame: av.VideoFrame
    arrived: float
    index: int


class Capture:
    """The newest picture of a camera, which may come and go."""

    def __init__(self, camera: Camera, tell: Tell) -> None:
        """Begin to read; what happens is told, from the reading thread."""
        self.camera = camera
        self.state = "opening"
        self.connected = False
        self.arrived = self.reconnects = self.broken = 0
        self.rate: Fraction | None = None
        self._tell = tell
        self._slot: Newest[Captured] = Newest()
        self._beat = time.monotonic()
        self._stuck: list[Thread] = []
        self._despaired = False
        self._times: deque[float] = deque(maxlen=60)
        self._reader: _Reader | None = None
        self._begin()

    def newest(self, seconds: float) -> Captured | None:
        """The newest picture that was not yet taken; None if none came in so many seconds."""
        self._look_after()
        return self._slot.take(seconds)

    @property
    def dropped(self) -> int:
        """Pictures that nobody took before a newer one came."""
        return self._slot.dropped

    def close(self) -> None:
        """Let the camera go; a reader that hangs is left alone."""
        if self._reader is not None:
            self._reader.stopping.set()
            self._reader.thread.join(0.2)
            if self._reader.thread.is_alive():
                self._reader.thread.join(READS * 2 + 1)
        self._reader = None
        self.connected = False

    def pause(self) -> None:
        """Let the camera go until `resume`."""
        self.close()
        self.state = "closed"

    def resume(self) -> None:
        """Take the camera again."""
        if self._reader is None:
            self._begin()

    @property
    def captured_rate(self) -> float:
        """Pictures a second that came lately."""
        times = list(self._times)
        if len(times) < 2 or time.monotonic() - times[-1] > 2:
            return 0.0
        return (len(times) - 1) / max(times[-1] - times[0], 1e-6)

    @property
    def hopeless(self) -> bool:
        """Whether so many readers hang that only a new process helps."""
        return len(self._stuck) >= MOST_STUCK

    def _begin(self) -> None:
        self._beat = time.monotonic()
        self._reader = _Reader(self)

    def _look_after(self) -> None:
        """Give a reader up that hangs, and begin another."""
        if self._reader is None or time.monotonic() - self._beat < STALL:
            return
        self._stuck = [thread for thread in self._stuck if thread.is_alive()]
        if self.hopeless:
            if not self._despaired:
                self._tell(f"{self.camera.label}: the system does not let it go")
            self._despaired = True
            return
        self._reader.stopping.set()
        if self._reader.thread.is_alive():
            self._stuck.append(self._reader.thread)
        self.connected = False
        self._tell(f"{self.camera.label}: no picture for {STALL:g} s; opened again")
        self.reconnects += 1
        self._begin()

    def reads(self, reader: _Reader) -> bool:
        """Whether this is the reader that counts."""
        return reader is self._reader and not reader.stopping.is_set()

    def take(self, frame: av.VideoFrame) -> None:
        """A picture came; for the reader alone."""
        now = time.monotonic()
        self._beat = now
        self.arrived += 1
        self._times.append(now)
        self._slot.put(Captured(frame, now, self.arrived))

    def alive(self) -> None:
        """The reader does something, though no picture came; for the reader alone."""
        self._beat = time.monotonic()

    def tell(self, text: str) -> None:
        """Say what happened; for the reader alone."""
        self._tell(f"{self.camera.label}: {text}")


class _Reader:
    """One thread that reads until it is told to stop."""

    def __init__(self, capture: Capture) -> None:
        self._capture, self._camera = capture, capture.camera
        self._last: av.VideoFrame | None = None
        self.stopping = Event()
        self.thread = Thread(target=self._work, name="streamdream-capture", daemon=True)
        self.thread.start()

    def _work(self) -> None:
        pause, told = SHORTEST, ""
        while not self.stopping.is_set():
            before = self._capture.arrived
            try:
                why = self._read()
            except (*BROKEN, SourceError, StopIteration) as fault:
                why = fault.reason if isinstance(fault, SourceError) else words(fault)
            if self.stopping.is_set():
                return
            self._capture.connected = False
            came = self._capture.arrived - before
            if came > 30:
                pause, told = SHORTEST, ""
            self._capture.state = f"lost ({why}), tried again"
            if why != told:
                self._capture.tell(f"{why}; tried again for ever")
                told = why
            self._capture.alive()
            self._capture.reconnects += 1
            self.stopping.wait(pause)
            self._capture.alive()
            pause = min(LONGEST, pause * 2)

    def _read(self) -> str:
        """Read until the camera ends or hangs; returns why."""
        with self._opened() as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_type = "SLICE"  # others deliver late
            if stream.width * stream.height > LARGEST:
                raise SourceError(self._camera.label, "its pictures are too large")
            self._capture.rate = pace_of(stream)
            if self._camera.repeats:
                return self._play(container, stream)
            return self._follow(container, stream)

    def _opened(self) -> InputContainer:
        fault: BaseException | None = None
        for given in self._camera.tries:
            if self.stopping.is_set():
                break
            self._capture.alive()
            try:
                container = av.open(
                    self._camera.name, format=self._camera.format, options=dict(given),
                    timeout=None if self._camera.repeats else (OPENS, READS),
                    metadata_errors="replace",
                )  # fmt: skip
            except BROKEN as refused:
                fault = refused
                continue
            opened = cast(InputContainer, container)
            if opened.streams.video:
                return opened
            opened.close()
            fault = SourceError(self._camera.label, "has no picture")
        raise fault or SourceError(self._camera.label, "cannot be opened")

    def _follow(self, container: InputContainer, stream: VideoStream) -> str:
        seen, since = 0, time.monotonic()
        packets = container.demux(stream)
        while not self.stopping.is_set():
            try:
                packet = next(packets)
            except StopIteration:
                return "it ended"
            except NotYet:  # a camera that has only begun
                self.stopping.wait(0.005)
                packets = container.demux(stream)  # what raised is finished
                continue
            try:
                frames = packet.decode()
            except BROKEN:
                self._capture.broken += 1
                continue
            for frame in frames:
                self._show(cast(av.VideoFrame, frame))
            if self._camera.noisy and frames:
                looks, now = _looks(cast(av.VideoFrame, frames[-1])), time.monotonic()
                if looks != seen:
                    seen, since = looks, now
                elif now - since > SAME:
                    return f"the same picture for {SAME:g} s"
        return ""

    def _play(self, container: InputContainer, stream: VideoStream) -> str:
        """Show a file at its own pace, again and again; a photo as often as a film."""
        rate = pace_of(stream)
        due = time.monotonic()
        while not self.stopping.is_set():
            last: Fraction | None = None
            count = 0
            for packet in container.demux(stream):
                try:
                    frames = packet.decode()
                except BROKEN:
                    self._capture.broken += 1
                    continue
                for decoded in frames:
                    frame = cast(av.VideoFrame, decoded)
                    place = _time_of(frame)
                    if place is None or (last is not None and not 0 < place - last < LEAP):
                        due += float(1 / rate)  # its clock makes no sense, or leaps
                    else:
                        due += 0.0 if last is None else float(place - last)
                    last = place
                    due = max(due, time.monotonic() - LATE)
                    self._wait_until(due)
                    if self.stopping.is_set():
                        return ""
                    self._show(frame)
                    count += 1
            if not count:
                return "no picture in it can be decoded"
            if count == 1:
                self._hold(rate)
                return ""
            due += float(1 / rate)
            container.seek(0)
        return ""

    def _hold(self, rate: Fraction) -> None:
        """Show a single picture for ever, as if it were filmed."""
        due = time.monotonic()
        while not self.stopping.is_set() and self._last is not None:
            due += float(1 / rate)
            self._wait_until(due)
            self._show(self._last)

    def _wait_until(self, due: float) -> None:
        while not self.stopping.is_set() and (left := due - time.monotonic()) > 0:
            self.stopping.wait(min(left, 1.0))
            self._capture.alive()

    def _show(self, frame: av.VideoFrame) -> None:
        if not self._capture.reads(self):
            return
        if not self._capture.connected:
            self._capture.connected = True
            h, w = frame.height, frame.width
            self._capture.state = f"{self._camera.label} {w}x{h}"
            if self._capture.reconnects:
                self._capture.tell(f"there again, {w}x{h}")
        self._last = frame
        self._capture.take(frame)


def _looks(frame: av.VideoFrame) -> int:
    """A number that is another one if the picture is."""
    return zlib.crc32(np.frombuffer(memoryview(frame.planes[0]), np.uint8)[::61].tobytes())


def _time_of(frame: av.VideoFrame) -> Fraction | None:
    if frame.pts is None or not frame.time_base:
        return None
    return frame.pts * Fraction(frame.time_base.numerator, frame.time_base.denominator)


class Upright:
    """Turns captured frames into RGB pixels: upright, mirrored if wanted, fitted into a size."""

    def __init__(self, rotate: int = 0, size: Size | None = None) -> None:
        """Rotate clockwise by so many degrees, and fit into `size` (h, w) if one is given."""
        self._turns, self._size = rotate // 90, size
        self._to_rgb: ToRGB | None = None
        self._given: tuple[object, ...] = ()

    def __call__(self, frame: av.VideoFrame, mirror: bool) -> Bytes:
        """Pixels (h, w, 3) uint8."""
        turns = (round((frame.rotation or 0) / 90) - self._turns) % 4
        colour = Colour.of(frame)
        given = frame.width, frame.height, turns, colour
        if self._to_rgb is None or given != self._given:
            coded = self._fitted(frame.height, frame.width, turns)
            self._to_rgb, self._given = ToRGB(colour, coded, deep=False, alpha=False), given
        pixels = np.rot90(self._to_rgb(frame)[0], turns)
        if mirror:
            pixels = np.fliplr(pixels)
        return np.ascontiguousarray(pixels)

    def _fitted(self, h: int, w: int, turns: int) -> Size:
        if self._size is None:
            return h, w
        high, wide = self._size if turns % 2 == 0 else self._size[::-1]
        scale = min(high / h, wide / w)
        return max(16, round(h * scale)), max(16, round(w * scale))
