"""What became of the files of a batch: a report that is kept up to date while it runs."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

from streamdream import __version__
from streamdream.batch.plan import Item
from streamdream.errors import Error

OFTEN = 1.0  # seconds between two writings, at least, while it runs


@dataclass
class Entry:
    """What became of one file.

    `status` is waiting, running, done, skipped, failed or interrupted; `frames` and `seconds` are
    what it took; `error` one line, `exit_code` that of its kind; `notices` what a person should
    know.
    """

    item: Item
    status: str = "waiting"
    frames: int = 0
    seconds: float = 0.0
    error: str = ""
    exit_code: int = 0
    notices: list[str] = field(default_factory=list)

    def fail(self, fault: Exception) -> None:
        """It failed; what is no fault of the files is said to be a bug."""
        self.status = "failed"
        known = isinstance(fault, Error)
        self.error = str(fault) if known else f"{self.item.source}: {type(fault).__name__}: {fault}"
        self.exit_code = fault.exit_code if known else 1

    def told(self) -> dict[str, object]:
        """As it stands in the report."""
        found: dict[str, object] = {
            "input": str(self.item.source),
            "output": str(self.item.target),
            "status": self.status,
            "frames": self.frames,
            "seconds": round(self.seconds, 3),
        }
        if self.error:
            found |= {"error": self.error, "exit_code": self.exit_code}
        if self.notices:
            found["notices"] = self.notices
        return found


class Report:
    """All entries, and the file they are written to; without a `path` to none."""

    def __init__(self, items: list[Item], path: Path | None, look: dict[str, object]) -> None:
        """Begin with every file waiting; `look` are the options that were given."""
        self.entries = [Entry(item) for item in items]
        self._path, self._look = path, look
        self._written = -OFTEN

    def count(self, status: str) -> int:
        """How many files have a status."""
        return sum(entry.status == status for entry in self.entries)

    def write(self, last: bool = False) -> None:
        """Write the report, whole or not at all; now and then, and the `last` time for sure.

        Raises OSError.
        """
        now = time.monotonic()
        if self._path is None or (not last and now - self._written < OFTEN):
            return
        self._written = now
        states = ("done", "skipped", "failed", "interrupted", "running", "waiting")
        counts = {state: self.count(state) for state in states}
        text = json.dumps(
            {
                "streamdream": __version__,
                "options": self._look,
                "finished": last,
                "files": {**counts, "all": len(self.entries)},
                "batch": [entry.told() for entry in self.entries],
            },
            indent=1,
            ensure_ascii=False,
        )
        part = self._path.with_name(self._path.name + ".part")
        part.write_text(text + "\n", "utf-8")
        part.replace(self._path)
