"""A batch: one file after another, each as a run of its own, with networks loaded once."""

from __future__ import annotations

import time
import traceback
from contextlib import suppress
from typing import Protocol

from streamdream.batch.report import Entry, Report
from streamdream.effects import kept
from streamdream.info import Counts, VideoInfo
from streamdream.options import Options
from streamdream.run import dream_file
from streamdream.sinks import Stopped, write_error


class Watcher(Protocol):
    """Is told how a batch goes, and may stop it."""

    def file(self, number: int, entry: Entry) -> None:
        """The next file begins, with a `number` from 1; raise Stopped to stop before it."""
        ...

    def begin(self, frames: int | None) -> None:
        """Its frames begin: about so many, None if that is not known."""
        ...

    def step(self, frames: int) -> None:
        """A step was made, after so many finished frames; raise Stopped to stop."""
        ...

    def over(self, entry: Entry) -> None:
        """The file is done with, one way or another."""
        ...


class _Following:
    """A run's listener that keeps the report and tells the watcher."""

    def __init__(self, entry: Entry, report: Report, watcher: Watcher) -> None:
        self._entry, self._report, self._watcher = entry, report, watcher

    def notice(self, text: str) -> None:
        self._entry.notices.append(text)

    def begin(self, info: VideoInfo) -> None:
        self._watcher.begin(info.frames)

    def step(self, frames: int, counts: Counts) -> None:
        self._entry.frames = frames
        with suppress(OSError):  # it is told when the file is done
            self._report.write()
        self._watcher.step(frames)

    def finish(self, what: str) -> None:
        self._watcher.step(self._entry.frames)


def dream_all(report: Report, options: Options, skip_existing: bool, watcher: Watcher) -> bool:
    """Dream every file of a report; whether it came to the end.

    What fails is noted, and the next one follows. Each result is what `dream_file` makes of the
    file alone, bit for bit. Raises SinkError where the report cannot be written.
    """
    try:
        with kept():
            for number, entry in enumerate(report.entries, 1):
                watcher.file(number, entry)
                _dream(entry, report, options, skip_existing, watcher)
                watcher.over(entry)
                if entry.status == "interrupted":
                    return False
    except Stopped:
        return False
    finally:
        _write(report, last=True)
    return True


def _dream(
    entry: Entry, report: Report, options: Options, skip_existing: bool, watcher: Watcher
) -> None:
    source, target = entry.item.source, entry.item.target
    if skip_existing:
        if target.exists():
            entry.status = "skipped"
            return
        # What an interrupted batch left of it is no result; a job goes on.
        if not options.lasts:
            options = options.model_copy(update={"overwrite": True})
    entry.status = "running"
    _write(report)
    began = time.perf_counter()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        outcome = dream_file(source, target, options, _Following(entry, report, watcher))
        entry.frames = outcome.frames
        entry.status = "done" if outcome.complete else "interrupted"
    except KeyboardInterrupt:
        entry.status = "interrupted"
    except OSError as fault:
        entry.fail(write_error(target, fault))
    except Exception as fault:
        # One file that brings out a bug must not take the others with it.
        entry.fail(fault)
        if entry.exit_code == 1:
            traceback.print_exc()
    entry.seconds = time.perf_counter() - began


def _write(report: Report, last: bool = False) -> None:
    try:
        report.write(last)
    except OSError as fault:
        raise write_error("--json", fault) from None
