"""A sound file beside the pictures: its packets in time with them, its length."""

from __future__ import annotations

from contextlib import closing
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import av
from av.container import InputContainer
from av.packet import Packet

from streamdream.companions import Companions
from streamdream.errors import SourceError
from streamdream.hearing import decoded, sound_of
from streamdream.inputs import Input, check_file, locate
from streamdream.reader import BROKEN


class Song:
    """The sound of a file, packet for packet, for a result whose pictures begin at a time.

    `stream` is libav's, `input` what is read, `zero` the file's time (seconds) that is 0 in the
    result.
    """

    def __init__(self, path: Path, begins: Fraction = Fraction(0)) -> None:
        """Open a file, so that its sound begins at `begins` seconds of the result.

        Raises SourceError if there is none that can be played.
        """
        check_file(path)
        with closing(decoded(path)) as found:
            next(found)
        self.input: Input = locate(path)
        self._container = cast(InputContainer, av.open(self.input.name, metadata_errors="replace"))
        stream = sound_of(self._container)
        assert stream is not None
        self.stream = stream
        start = Fraction(self._container.start_time or 0, av.time_base)
        self.zero = max(Fraction(0), start) - begins
        self._packets = self._container.demux(stream)
        self._next: Packet | None = None

    def take(self, until: Fraction) -> list[Packet]:
        """The packets, from where the last call ended, that are played before `until`."""
        found: list[Packet] = []
        while (packet := self._following()) is not None:
            if packet.pts is not None and packet.pts * packet.time_base - self.zero >= until:
                break
            self._next = None
            moved = round(self.zero / packet.time_base)
            packet.pts = None if packet.pts is None else packet.pts - moved
            packet.dts = None if packet.dts is None else packet.dts - moved
            found.append(packet)
        return found

    def end(self) -> Fraction:
        """The time of the result at which the sound ends; no packet is left then."""
        end = Fraction(0)
        while (packet := self._following()) is not None:
            self._next = None
            if packet.pts is not None:
                end = max(end, (packet.pts + (packet.duration or 0)) * packet.time_base - self.zero)
        return end

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def __enter__(self) -> Self:
        """The song itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self.close()

    def _following(self) -> Packet | None:
        """The packet that is next, None where the sound ends or nothing more can be read."""
        while self._next is None:
            try:
                packet = next(self._packets, None)
            except BROKEN:
                return None
            if packet is None:
                return None
            self._next = packet if packet.size else None
        return self._next


def companions_of(song: Song) -> Companions:
    """What a sink takes along where there is nothing but a song beside the pictures."""
    companions = Companions()
    companions.sing(song)
    return companions


def duration_of(path: Path) -> Fraction:
    """How long the sound of a file is, in seconds; raises SourceError.

    By its packets: what headers tell of MP3 is often a guess.
    """
    with Song(path) as song:
        end = song.end()
    if end <= 0:
        raise SourceError(path, "does not tell how long its sound is", "convert it to another kind")
    return end
