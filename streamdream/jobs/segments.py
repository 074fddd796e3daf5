"""Segments: encoded frames on the disk, each with a record of what it is.

A segment is the packets of some frames one behind the other, from an encoder that was opened for
them alone, so none needs another one; then its record as JSON, then a digest of all that. It has
its name only when it is whole and safely on the disk. Packets keep the times that they left the
encoder with, which no container would promise; `joining` makes a file of them.

Segments end after so many frames, and where a shot does. So they are the same whoever makes
them: one run, one that was killed again and again, or many processes that have a scene each.
"""

from __future__ import annotations

import json
import os
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from fractions import Fraction
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, Self, cast

from av.packet import Packet, PacketSideData, packet_sidedata_type_from_literal

from streamdream.frame import Frame
from streamdream.jobs.folder import PART, JobFolder, digest_of_bytes, sync, whole
from streamdream.jobs.points import packed
from streamdream.pipeline import Picture, Point, Step
from streamdream.places import Place
from streamdream.sinks import write_error
from streamdream.sources import VideoSource

MAGIC = b"streamdream segment 1\n"
HEAD = struct.Struct("<qqI?B")  # of a packet: pts, duration, bytes, key frame, pieces of side data
SIDE = struct.Struct("<BI")  # of side data: bytes of its name, bytes
FOOT = struct.Struct("<I16s")  # bytes of the record, digest of all before this
SHARE = 0.03  # of the time that points may take; where they are large, some are left out
SPARE = 16  # of so many points one is kept for good, in case that a segment is damaged


class BrokenSegment(Exception):
    """A segment is not what was written: it has to be made again."""

    def __init__(self, path: Path) -> None:
        """Say which."""
        super().__init__(f"{path} is damaged")
        self.path = path


@dataclass(frozen=True)
class Stored:
    """A packet as it is kept: its time and duration in the encoder's units, its data."""

    pts: int
    duration: int
    key: bool
    data: bytes
    sides: tuple[tuple[str, bytes], ...] = ()

    @staticmethod
    def of(packet: Packet) -> Stored:
        """From an encoder's packet."""
        sides = tuple(
            (side.data_type, bytes(side))
            for side in packet.iter_sidedata()
            if side.data_type != "quality_stats"
        )
        assert packet.pts is not None
        return Stored(packet.pts, packet.duration or 0, packet.is_keyframe, bytes(packet), sides)

    def packet(self, base: Fraction, dts: int) -> Packet:
        """As a packet again, with times in units of `base`."""
        packet = Packet(self.data)
        packet.time_base, packet.pts, packet.dts = base, self.pts, dts
        packet.duration, packet.is_keyframe = self.duration, self.key
        for name, data in self.sides:
            kind = packet_sidedata_type_from_literal(cast(Any, name))
            side = cast(Any, PacketSideData)(kind, len(data))  # its stub tells of no arguments
            side.update(data)
            packet.set_sidedata(side)
        return packet


@dataclass(frozen=True)
class Record:
    """What a segment is: frames `begin` to `end`, shown until the time `until`.

    `place` is where the source goes on behind it, `latest` the last packet's time in the
    encoder's units, `reorder` by how many packets one may come before those shown sooner.
    `point` is the digest of the point at `end`; None where it was left out, "" where none is
    needed, because a scene begins there. `last`: the source ends with it; `counts` what went
    wrong up to there, as Counts has it.
    """

    begin: int
    end: int
    until: Fraction
    place: Place
    latest: int
    reorder: int
    point: str | None
    last: bool
    counts: dict[str, int]

    def told(self) -> dict[str, Any]:
        """For JSON."""
        place = {**asdict(self.place), "time": str(self.place.time)}
        return {**asdict(self), "until": str(self.until), "place": place}

    @staticmethod
    def read(told: dict[str, Any]) -> Record:
        """From what `told` gave."""
        place = Place(**{**told["place"], "time": Fraction(told["place"]["time"])})
        return Record(**{**told, "until": Fraction(told["until"]), "place": place})


class Coder(Protocol):
    """Makes packets of frames, for one segment after another."""

    def begin(self, latest: int | None) -> None:
        """Begin a segment; its times are behind `latest`."""
        ...

    def packets(self, frame: Frame) -> Sequence[Stored]:
        """What is ready after one more frame."""
        ...

    def rest(self) -> Sequence[Stored]:
        """The rest of the segment."""
        ...

    def shown(self, frame: Frame) -> Fraction:
        """How long a frame is shown, in seconds."""
        ...


class SegmentWriter:
    """One segment in the making."""

    def __init__(self, path: Path) -> None:
        """Begin it; raises OSError."""
        self._path, self._part = path, path.with_name(path.name + PART)
        self._file: IO[bytes] = self._part.open("wb")
        self._digest = blake2b(digest_size=16)
        self._times: list[int] = []
        self._write(MAGIC)

    def write(self, packets: Sequence[Stored]) -> None:
        """Add packets; raises OSError."""
        for packet in packets:
            self._times.append(packet.pts)
            self._write(
                HEAD.pack(
                    packet.pts, packet.duration, len(packet.data), packet.key, len(packet.sides)
                )
            )
            self._write(packet.data)
            for name, data in packet.sides:
                self._write(SIDE.pack(len(name), len(data)) + name.encode() + data)

    @property
    def latest(self) -> int:
        """The latest time in it."""
        return max(self._times)

    @property
    def reorder(self) -> int:
        """By how many packets one comes before another that is shown sooner, at most."""
        ranks = {pts: rank for rank, pts in enumerate(sorted(self._times))}
        return max(place - ranks[pts] for place, pts in enumerate(self._times))

    def complete(self, record: Record) -> None:
        """Give it its record and its name; raises OSError."""
        text = json.dumps(record.told()).encode()
        self._write(text)
        with self._file as file:
            file.write(FOOT.pack(len(text), self._digest.digest()))
            file.flush()
            os.fsync(file.fileno())
        os.replace(self._part, self._path)
        sync(self._path.parent)

    def forget(self) -> None:
        """Leave nothing."""
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._part.unlink(missing_ok=True)

    def _write(self, data: bytes) -> None:
        self._digest.update(data)
        self._file.write(data)


def record_of(path: Path, whole: bool = True) -> Record | None:
    """The record of a segment; None if none is there, or it is damaged.

    Only with `whole` all of it is read to see that.
    """
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END) - FOOT.size
            file.seek(max(0, end))
            length, digest = FOOT.unpack(file.read(FOOT.size))
            if not 0 < length <= end - len(MAGIC):
                return None
            file.seek(end - length)
            text = file.read(length)
            if whole:
                file.seek(0)
                found, left = blake2b(digest_size=16), end
                while left > 0 and (data := file.read(min(left, 2**20))):
                    found.update(data)
                    left -= len(data)
                if found.digest() != digest:
                    return None
        record = Record.read(json.loads(text))
    except (OSError, ValueError, TypeError, KeyError, struct.error):
        return None
    return record if path.name == f"{record.begin:012d}" else None


def packets_of(path: Path) -> Iterator[Stored]:
    """The packets of a segment that `record_of` found whole."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END) - FOOT.size
        file.seek(end)
        length, _ = FOOT.unpack(file.read(FOOT.size))
        file.seek(len(MAGIC))
        while file.tell() < end - length:
            pts, duration, size, key, count = HEAD.unpack(file.read(HEAD.size))
            data = file.read(size)
            sides: list[tuple[str, bytes]] = []
            for _ in range(count):
                name, more = SIDE.unpack(file.read(SIDE.size))
                sides.append((file.read(name).decode(), file.read(more)))
            yield Stored(pts, duration, key, data, tuple(sides))


def times_of(path: Path) -> Iterator[int]:
    """When the packets of a segment are shown, in the encoder's units, as they are decoded."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END) - FOOT.size
        file.seek(end)
        length, _ = FOOT.unpack(file.read(FOOT.size))
        file.seek(len(MAGIC))
        while file.tell() < end - length:
            pts, _, size, _, count = HEAD.unpack(file.read(HEAD.size))
            file.seek(size, os.SEEK_CUR)
            for _ in range(count):
                name, more = SIDE.unpack(file.read(SIDE.size))
                file.seek(name + more, os.SEEK_CUR)
            yield pts


class SegmentsSink:
    """Writes steps of a run as segments, with the points between them.

    A sink for threads.Behind, of steps in place of frames.
    """

    part = None

    def __init__(
        self,
        folder: JobFolder,
        coder: Coder,
        source: VideoSource,
        most: int,
        latest: int | None = None,
        ended: Callable[[], bool] = lambda: True,
        seam: int | None = None,
        still_there: Callable[[], None] = lambda: None,
    ) -> None:
        """Write into `folder` segments of at most so many frames, behind the time `latest`.

        In the end, `ended` tells whether that is the end of the source. From frame `seam` on all
        are one segment, behind which no point is needed: nobody could go on within it.
        `still_there` raises an Error where what was read is not what it was.
        """
        self.notices: list[str] = []
        self._folder, self._coder, self._source = folder, coder, source
        self._most, self._latest, self._ended, self._seam = most, latest, ended, seam
        self._still_there = still_there
        self._open: SegmentWriter | None = None
        self._step: Step | None = None  # the last one in the open segment
        self._begin = self._count = self._made = 0
        self._points: list[Path] = []
        self._began, self._spent, self._looked = time.monotonic(), 0.0, 0.0

    def watch(self, frame: Frame, picture: Picture) -> None:
        """Nothing unfinished is shown."""

    def write(self, step: Step) -> None:
        """Take a frame; raises SinkError."""
        try:
            if self._open is not None and (step.begins or self._is_full(step.source.index)):
                self._close(step.begins, last=False)
            if self._open is None:
                self._begin, self._count = step.source.index, 0
                self._open = SegmentWriter(self._folder.segment(self._begin))
                self._coder.begin(self._latest)
            self._open.write(self._coder.packets(step.frame))
            self._step = step
            self._count += 1
        except OSError as fault:
            raise fault_of(self._folder, fault) from None

    def __enter__(self) -> Self:
        """The sink itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish the last segment if all went well; raises SinkError."""
        try:
            if fault is None and self._open is not None:
                self._close(cut=self._seam is not None, last=self._ended(), final=True)
        except OSError as late:
            raise fault_of(self._folder, late) from None
        finally:
            if self._open is not None:
                self._open.forget()

    def _is_full(self, index: int) -> bool:
        """Whether the segment ends before this frame.

        Not behind a flash nor within a seam, where nobody can go on.
        """
        there = self._step is not None and self._step.point is not None
        if self._seam is not None and index >= self._seam:
            return there and index == self._seam
        return there and self._count >= self._most

    def _close(self, cut: bool, last: bool, final: bool = False) -> None:
        assert self._open is not None
        assert self._step is not None
        self._look(final)
        step, segment = self._step, self._open
        segment.write(self._coder.rest())
        self._latest = max(segment.latest, self._latest or segment.latest)
        place = self._source.place_behind(step.source)
        point = "" if cut or last else self._keep(step.point, place.index)
        segment.complete(
            Record(
                self._begin,
                place.index,
                step.frame.time + self._coder.shown(step.frame),
                place,
                self._latest,
                segment.reorder,
                point,
                last,
                asdict(self._source.counts),
            )
        )
        self._open = None

    def _look(self, final: bool) -> None:
        """See that all frames so far were read from what is to be read.

        Of a row of very many pictures that takes long, so then it is done now and then only.
        """
        began = time.monotonic()
        if final or self._looked <= SHARE * (began - self._began):
            self._still_there()
            self._looked += time.monotonic() - began

    def _keep(self, point: Point | None, index: int) -> str | None:
        """Write a point; its digest, None if it was left out because that takes too long."""
        began = time.monotonic()
        if point is None or (self._made and self._spent > SHARE * (began - self._began)):
            return None
        data = packed(point)
        with whole(self._folder.point(index)) as file:
            file.write(data)
        # The one before is needed until the segment in between is safe.
        self._points.append(self._folder.point(index))
        for older in self._points[:-2]:
            older.unlink(missing_ok=True)
        self._points = self._points[-2:]
        self._made += 1
        if self._made % SPARE == 0:
            self._points.pop()  # it stays
        self._spent += time.monotonic() - began
        return digest_of_bytes(data)


def fault_of(folder: JobFolder, fault: OSError) -> Exception:
    """A fault of writing into a job's folder, as ours."""
    cure = "what is done is kept, the same command goes on"
    return write_error(folder.target, fault, cure)
