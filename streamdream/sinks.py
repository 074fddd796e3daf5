"""Where frames go: what every sink does.

Nothing appears under the final name before it is complete: a sink writes to `name.part.ext`
and renames it at the end. An interrupted run finishes that file; of a killed one it holds all
but the last few seconds.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self, cast

from streamdream.errors import SinkError, words
from streamdream.files import part_of
from streamdream.frame import Frame
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
        self._named = path
        self.path = path.absolute()
        self.part = part_of(self.path)

    @property
    def target(self) -> str | BinaryIO:
        """What libav is to write to."""
        return str(self.part)

    def complete(self) -> None:
        """Give the file its name, once it is safely on the disk."""
        with open(self.part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(self.part, self.path)

    def forget(self) -> None:
        """Leave nothing."""
        self.part.unlink(missing_ok=True)

    def fault(self, fault: BaseException, kept: Path | None) -> SinkError:
        """What to tell of a fault, and of a file that holds what was done."""
        cure = ""
        if kept is not None and kept.exists():
            cure = f"{self._named.with_name(kept.name)} holds what was done"
        return write_error(self._named, fault, cure)


class StdoutFile:
    """Standard output, which has no part and gets no name."""

    part = None

    def __init__(self) -> None:
        """Take it over, apart from Python's own: that would complain of a reader that left."""
        try:
            self.target: str | BinaryIO = open(os.dup(1), "wb")  # noqa: SIM115 - closed at the end
        except OSError as fault:
            raise self.fault(fault, None) from None

    def complete(self) -> None:
        """See that all is on its way."""
        cast(BinaryIO, self.target).close()

    def forget(self) -> None:
        """What is written is gone."""
        with suppress(OSError):
            cast(BinaryIO, self.target).close()

    def fault(self, fault: BaseException, kept: Path | None) -> SinkError:
        """What to tell of a fault."""
        return write_error("standard output", fault)


def write_error(subject: str | Path, fault: BaseException, cure: str = "") -> SinkError:
    """A fault of the system or of libav, as ours."""
    reason = words(fault)
    if isinstance(fault, OSError) and fault.errno == errno.ENOSPC:
        reason = "the disk is full"
    if isinstance(fault, BrokenPipeError):
        reason = "nobody reads it any more"
    return SinkError(subject, f"cannot be written ({reason})", cure)


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
