"""Stacks on the disk: what was laid down last is taken up first.

They lie in a file that has no name: the system removes it, whatever happens. Memory stays the
same however much there is, and what was taken up takes no room on the disk any more.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile

from streamdream.sinks import write_error

LENGTH = struct.Struct("<Q")  # behind each record, so that they can be read from the last


class Stack:
    """Records of bytes on the disk."""

    def __init__(self, what: str, folder: Path | None = None) -> None:
        """An empty one in this folder (None: the system's for such), of `what` faults tell.

        Raises SinkError if nothing can be written there.
        """
        self._what, self._count = what, 0
        try:
            self._file = TemporaryFile(dir=folder)  # noqa: SIM115 - closed at the end
        except OSError as fault:
            raise write_error(what, fault) from None

    def __len__(self) -> int:
        """How many records lie there."""
        return self._count

    def close(self) -> None:
        """Remove the file."""
        with suppress(OSError):  # a full disk was told of before
            self._file.close()

    def push(self, record: bytes) -> None:
        """Lay a record on top; raises SinkError."""
        try:
            self._file.write(record)
            self._file.write(LENGTH.pack(len(record)))
            self._file.flush()
        except OSError as fault:
            raise write_error(self._what, fault) from None
        self._count += 1

    def pop(self) -> bytes:
        """Take the topmost record away; raises SinkError."""
        try:
            self._file.seek(-LENGTH.size, os.SEEK_CUR)
            (length,) = LENGTH.unpack(self._file.read(LENGTH.size))
            self._file.seek(-LENGTH.size - length, os.SEEK_CUR)
            record = self._file.read(length)
            self._file.seek(-length, os.SEEK_CUR)
            self._file.truncate()
        except OSError as fault:
            raise write_error(self._what, fault) from None
        self._count -= 1
        return record
