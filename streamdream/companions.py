"""What travels with the pictures: sound, subtitles, chapters and tags, copied as they are."""

from __future__ import annotations

from collections import deque
from fractions import Fraction
from math import ceil
from threading import Lock
from typing import TYPE_CHECKING, Any

from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream

from streamdream.mending import Clock

if TYPE_CHECKING:
    from streamdream.song import Song

MOST_EARLY = 500  # packets that wait for a picture of their part


class Companions:
    """The streams beside the pictures, for a sink that copies them packet for packet.

    `streams` are those on offer, `left_out` says which are not; `metadata` is the file's,
    `picture_metadata` the video stream's; `chapters` as libav's bindings give them. Packets
    wait here until a sink takes them. If none has asked for them when the frames begin, they
    are not kept.
    """

    def __init__(self) -> None:
        """Offer nothing."""
        self.streams: list[Stream] = []
        self.left_out: list[str] = []
        self.metadata: dict[str, str] = {}
        self.picture_metadata: dict[str, str] = {}
        self.chapters: list[Any] = []
        self.wanted = False
        self._keeping = True
        self._waiting: dict[int, deque[Packet]] = {}
        self._song: Song | None = None
        self._lock = Lock()  # frames are read and written by different threads

    def offer(
        self, container: InputContainer, picture: Stream, shift: Fraction, until: Fraction | None
    ) -> None:
        """Offer what `container` has beside the `picture` stream.

        Chapters are moved by `shift` seconds towards 0 and end at `until` (before the shift).
        """
        chapters = container.chapters()
        for stream in container.streams:
            if stream is picture:
                continue
            if stream.type in ("audio", "subtitle"):
                self.streams.append(stream)
            elif stream.type == "data" and chapters:
                continue  # QuickTime's way to keep the chapters
            else:
                kind = "cover picture" if is_cover(stream) else f"{stream.type} stream"
                self.left_out.append(f"{kind} {stream.index}")
        self.metadata = dict(container.metadata)
        self.picture_metadata = dict(picture.metadata)
        for chapter in chapters:
            base = chapter["time_base"] or Fraction(1)
            moved = round(shift / base)
            chapter["start"] = max(0, chapter["start"] - moved)
            chapter["end"] -= moved
            if until is not None:
                chapter["end"] = min(chapter["end"], round((until - shift) / base))
            if chapter["start"] < chapter["end"]:
                self.chapters.append(chapter)

    def sing(self, song: Song) -> None:
        """Let a song take the place of the sound there is; it ends where the pictures do."""
        self.streams = [song.stream, *(s for s in self.streams if s.type != "audio")]
        self._song = song

    def apart(self) -> tuple[Companions, list[str]]:
        """Only what is not played along with the pictures, and the names of what is."""
        rest = Companions()
        rest.metadata, rest.picture_metadata = self.metadata, self.picture_metadata
        rest.left_out = self.left_out
        played = [f"{s.type} stream {s.index}" for s in self.streams]
        return rest, played + ["chapters"] * bool(self.chapters)

    def forget(self) -> None:
        """Drop what is waiting."""
        self._waiting.clear()

    def begin(self) -> None:
        """The frames begin: what nobody wants by now is not kept."""
        if not self.wanted:
            self._keeping = False
            self._waiting.clear()

    def add(self, packet: Packet, shift: Fraction) -> None:
        """Let a packet wait, its times moved by `shift` seconds towards 0."""
        if not self._keeping:
            return
        moved = round(shift / packet.time_base) if packet.time_base else 0
        if moved and packet.pts is not None:
            packet.pts -= moved
        if moved and packet.dts is not None:
            packet.dts -= moved
        with self._lock:
            self._waiting.setdefault(packet.stream.index, deque()).append(packet)

    def take(self, until: Fraction | None = None) -> list[Packet]:
        """Hand over what is waiting, or only what is played before `until`."""
        found: list[Packet] = []
        with self._lock:
            for packets in self._waiting.values():
                while packets and (until is None or _begins_before(packets[0], until)):
                    found.append(packets.popleft())
        if self._song is not None and until is not None:
            found += self._song.take(until)
        return found

    def drop_from(self, time: Fraction) -> None:
        """Forget what is played at `time` or later."""
        with self._lock:
            for index, packets in self._waiting.items():
                kept = [packet for packet in packets if _begins_before(packet, time)]
                self._waiting[index] = deque(kept)


class Feed:
    """Hands packets of the other streams to the companions, as far as they are wanted.

    Where recordings were put one behind the other, a packet waits until the pictures have told
    when its part begins.
    """

    def __init__(
        self,
        companions: Companions,
        clock: Clock,
        shift: Fraction,
        begin: Fraction | None,
        end: Fraction | None,
    ) -> None:
        """Hand on what is played from `begin` to `end` (None: all), moved by `shift` seconds."""
        self.end = self.probable_end = end
        self._companions, self._clock, self._shift, self._begin = companions, clock, shift, begin
        self._early: deque[tuple[Packet, int]] = deque()
        self._given: dict[int, int] = {}

    def take(self, packet: Packet) -> None:
        """Take the next packet that was read."""
        if packet.pts is None:
            self._offer(packet)
            return
        part = self._clock.part(packet.stream.index, packet.pts * packet.time_base)
        self._early.append((packet, part))
        self.release(last=len(self._early) > MOST_EARLY)

    def release(self, last: bool = False) -> None:
        """Hand on the packets whose part of the recording has begun; in the end all."""
        while self._early:
            packet, part = self._early[0]
            offset = self._clock.offset(part)
            if offset is None and not last:
                return
            self._early.popleft()
            joined = part > 0 and offset is not None
            if offset is None:  # the sound leapt and the pictures did not
                offset = self._clock.newest
            if offset:
                moved = round(offset / packet.time_base)
                packet.pts = (packet.pts or 0) + moved
                packet.dts = None if packet.dts is None else packet.dts + moved
            pts, latest = packet.pts or 0, self._given.get(packet.stream.index)
            overlaps = latest is not None and pts - latest < (packet.duration or 0) / 2
            if joined and overlaps and packet.stream.type == "audio":
                continue  # a recording's sound often lasts a little longer than its pictures
            self._given[packet.stream.index] = pts
            self._offer(packet)

    def _offer(self, packet: Packet) -> None:
        when = None if packet.pts is None else packet.pts * packet.time_base
        if not packet.size or (when is not None and self.end is not None and when >= self.end):
            return
        if when is not None and self._begin is not None and when < self._begin:
            until = when + (packet.duration or 0) * packet.time_base
            if packet.stream.type != "subtitle" or until <= self._begin:
                return
            begun = ceil(self._begin / packet.time_base)  # words already to be read
            packet.duration = (packet.duration or 0) + (packet.pts or 0) - begun
            packet.pts = packet.dts = begun
            when = begun * packet.time_base
        words = packet.stream.type == "subtitle"
        if words and when is not None and self.probable_end is not None and packet.duration:
            most = int((self.probable_end - when) / packet.time_base)
            packet.duration = max(1, min(packet.duration, most))
        self._companions.add(packet, self._shift)


def is_cover(stream: Stream) -> bool:
    """Whether a video stream is only a picture that goes with the file."""
    return bool(stream.disposition & Disposition.attached_pic)


def _begins_before(packet: Packet, time: Fraction) -> bool:
    return packet.pts is None or packet.pts * packet.time_base < time
