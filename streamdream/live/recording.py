"""Recordings and snapshots of live pictures: files named after the time, never overwritten."""

from __future__ import annotations

import os
from datetime import datetime
from fractions import Fraction
from pathlib import Path

from streamdream.codecs import CONTAINERS
from streamdream.errors import OptionError, words
from streamdream.files import part_of
from streamdream.frame import Frame, Size
from streamdream.info import VideoInfo
from streamdream.live.outputs import Opening, Shown, Tell
from streamdream.live.streams import TICK, check_room, usual_colour
from streamdream.pictures import PictureSink
from streamdream.sinks import write_error
from streamdream.video_sink import VideoSink

LEAST = 200_000_000  # bytes that stay free on the disk
LOOK = 60  # seconds between two looks at the disk


class Recording:
    """A Target: pictures as they were shown, in a row of video files.

    A file lies at its name with `.part` in it until it is complete; if the program is killed,
    that part plays up to the last second or so. Nothing is lost between two files.
    """

    def __init__(
        self, named: Path, minutes: float, comment: str, tell: Tell, size: Size, rate: float
    ) -> None:
        """Write files of so many `minutes` named after `named`, with `comment` in each.

        `tell` hears of every file that is complete, and of what is unusual about the first.
        """
        self._named, self._length = named, Fraction(minutes * 60)
        self._comment, self._tell = comment, tell
        about = Fraction(max(rate, 1.0)).limit_denominator(1001)
        self._info = VideoInfo(
            size, about, TICK, None, Fraction(1), usual_colour(size), still=False
        )
        self._sink: VideoSink | None = None
        self._path = named
        self._begun = self._looked = Fraction(0)
        self._noticed = False

    def write(self, picture: Shown) -> None:
        """Record a picture, in a new file if it is time for one; raises SinkError.

        Less than 200 MB left on the disk are a SinkError too, before anything is spoiled.
        """
        if self._sink is not None and picture.time - self._begun >= self._length:
            self.close()
        if self._sink is None:
            self._begin(picture.time)
        elif picture.time - self._looked >= LOOK:
            self._look(picture.time)
        assert self._sink is not None
        self._sink.write(Frame(picture.pixels, picture.time - self._begun, picture.index))

    def close(self) -> None:
        """Complete the file; raises SinkError."""
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.close()
            if self._path.exists():
                self._tell(f"recorded {self._path}")

    def _begin(self, now: Fraction) -> None:
        self._look(now)
        self._path = _free(self._named)
        try:
            sink = VideoSink(self._path, self._info, preset="veryfast", comment=self._comment)
        except BaseException:
            part_of(self._path).unlink(missing_ok=True)
            raise
        self._sink, self._begun = sink, now
        if not self._noticed:
            self._noticed = True
            for notice in sink.notices:
                self._tell(f"recording: {notice}")

    def _look(self, now: Fraction) -> None:
        self._looked = now
        check_room(self._named.absolute().parent, self._named, LEAST)


def recording(named: Path, minutes: float, comment: str, tell: Tell) -> Opening:
    """Opens recordings: out.mp4 gives out-20260131-180000.mp4, the next after so many `minutes`."""
    return lambda size, rate: Recording(named, minutes, comment, tell, size, rate)


def snapshot(picture: Shown, folder: Path, comment: str) -> Path:
    """Save a picture as PNG with `comment` in it, and say where; raises SinkError."""
    path = _free(folder / "streamdream.png")
    info = VideoInfo(
        picture.size, None, TICK, 1, Fraction(1), usual_colour(picture.size), still=True
    )
    try:
        with PictureSink(path, info, comment) as sink:
            sink.write(Frame(picture.pixels, Fraction(0), 0))
    except BaseException:
        part_of(path).unlink(missing_ok=True)
        raise
    return path


def _free(named: Path) -> Path:
    """A name after `named` and the local time that nothing has yet; its part is taken at once."""
    stem = f"{named.stem}-{datetime.now():%Y%m%d-%H%M%S}"
    number = 1
    while True:
        path = named.with_name(stem + (f"-{number}" if number > 1 else "") + named.suffix)
        number += 1
        try:
            if not os.path.lexists(path):
                part_of(path).touch(exist_ok=False)
                return path
        except FileExistsError:
            continue
        except OSError as fault:
            raise write_error(path, fault) from None


def check_recording(path: Path) -> None:
    """Raise OptionError if no files can be recorded under such a name."""
    subject, folder = f"--record {path}", path.absolute().parent
    if path.suffix.lower() not in CONTAINERS:
        kind = f"files of kind {path.suffix}" if path.suffix else "files without an ending"
        cure = "use one of " + " ".join(CONTAINERS)
        raise OptionError(subject, f"{kind} cannot be recorded", cure)
    _check_place(subject, folder)


def check_folder(path: Path) -> None:
    """Raise OptionError if snapshots and recordings cannot be put into a folder."""
    _check_place(f"--folder {path}", path.absolute())


def _check_place(subject: str, folder: Path) -> None:
    try:
        there, right = folder.exists(), folder.is_dir()
    except OSError as fault:
        raise OptionError(subject, words(fault)) from None
    if not there:
        raise OptionError(subject, f"there is no folder {folder}", "make it first")
    if not right:
        raise OptionError(subject, f"{folder} is not a folder")
    if not os.access(folder, os.W_OK):
        raise OptionError(subject, f"the folder {folder} may not be written to")
