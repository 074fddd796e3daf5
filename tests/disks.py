"""Disks that are full."""

from __future__ import annotations

import errno
import io


class Full(io.BytesIO):
    """A file on a disk without room."""

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")
