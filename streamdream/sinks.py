"""Where frames go: what every sink does, and picture files.

Nothing appears under the final name before it is complete: a sink writes to `name.part.ext`
and renames it at the end. An interrupted run finishes that file; of a killed one it holds all
but the last few seconds.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from streamdream.errors import SinkError
from streamdream.files import FIRST, PICTURE_FORMATS, numbered, part_of
from streamdream.frame import Frame, eight_bits
from streamdream.pipeline import Picture


class Stopped(Exception):
    """Somebody asked the run to stop; what was done so far is kept."""


class Sink(Protocol):
    """Takes frames; a context manager that completes the result when all went well."""

    @property
    def notices(self) -> Sequence[str]:
        """What a person should know."""
        ...

    @property
    def part(self) -> Path | None:
        """Where an unfinished result lies, None if nowhere."""
        ...

    def watch(self, frame: Frame, picture: Picture) -> None:
        """See an unfinished picture, after every step; may raise Stopped."""
        ...

    def write(self, frame: Frame) -> None:
        """Take one frame."""
        ...

    def __enter__(self) -> Self:
        """The sink itself."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Complete the result, or leave what there is if a fault is on its way."""
        ...


class PartFile:
    """A file that gets its name when it is complete."""

    def __init__(self, path: Path) -> None:
        """A file for this path; `part` is where it is until then."""
        self.path = path.absolute()
        self.part = part_of(self.path)

    def complete(self) -> None:
        """Give the file its name, once it is safely on the disk."""
        with open(self.part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(self.part, self.path)

    def fault(self, fault: BaseException, playable: bool) -> SinkError:
        """What to tell of a fault, and of the part if it is `playable`."""
        reason = str(getattr(fault, "strerror", None) or fault or type(fault).__name__)
        kept = f"{self.part} holds what was done" if playable and self.part.exists() else ""
        if isinstance(fault, OSError) and fault.errno == errno.ENOSPC:
            reason = "the disk is full"
        return SinkError(self.path, f"cannot be written ({reason})", kept)


class FileSink:
    """What all sinks that write files do: nothing is shown, and at the end they are closed."""

    def close(self, complete: bool = True) -> None:
        """Finish; what is written gets its name if it is `complete`. Raises SinkError."""

    def watch(self, frame: Frame, picture: Picture) -> None:
        """A file shows nothing unfinished."""

    def __enter__(self) -> Self:
        """The sink itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Complete the result, or leave a part of it if a fault is on its way."""
        self.close(complete=fault is None)


class PictureSink(FileSink):
    """A picture file, PNG or JPEG, for one frame."""

    def __init__(self, path: str | Path, comment: str = "") -> None:
        """Prepare to write one picture, with `comment` in its metadata."""
        self._file = PartFile(Path(path))
        self._comment = comment
        self._format = PICTURE_FORMATS[self._file.path.suffix.lower()]
        self._frame: Frame | None = None
        self.notices: list[str] = []
        self.part = None

    def write(self, frame: Frame) -> None:
        """Take the one frame; a second one is an error of the caller."""
        if self._frame is not None:
            raise ValueError("a picture file holds one frame")
        self._frame = frame

    def close(self, complete: bool = True) -> None:
        """Write the picture if all is `complete`; raises SinkError."""
        if complete and self._frame is not None:
            save_picture(self._file, self._format, self._frame, self._comment)


class RowSink(FileSink):
    """Pictures in a row, one a frame: `frames/%05d.png`, counted from 1."""

    def __init__(self, pattern: Path, companions: Sequence[str] = (), comment: str = "") -> None:
        """Write by this pattern, with `comment` in every picture.

        `companions` names what else the source has, to say that it is left out.
        """
        self.part = self._pattern = pattern
        self._format = PICTURE_FORMATS[pattern.suffix.lower()]
        self._comment = comment
        self._count = 0
        self.notices = [f"{what} is left out: pictures hold none" for what in companions]

    def write(self, frame: Frame) -> None:
        """Write one picture; raises SinkError."""
        file = PartFile(numbered(self._pattern, FIRST + self._count))
        save_picture(file, self._format, frame, self._comment)
        self._count += 1


def save_picture(file: PartFile, kind: str, frame: Frame, comment: str) -> None:
    """Write a frame as a PNG or JPEG (Pillow's name is `kind`); raises SinkError."""
    try:
        image = Image.fromarray(eight_bits(frame.pixels))
        if kind == "PNG":
            text = PngInfo()
            text.add_itxt("Comment", comment)
            image.save(file.part, "PNG", pnginfo=text)
        else:
            image.save(file.part, "JPEG", quality=95, subsampling=0, comment=comment)
        file.complete()
    except OSError as fault:
        file.part.unlink(missing_ok=True)
        raise file.fault(fault, playable=False) from None
