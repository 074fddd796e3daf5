"""What a person sees of a run on a terminal: progress, notices, how it ended."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import deque
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from streamdream.codecs import STDOUT
from streamdream.files import is_row

if TYPE_CHECKING:
    from streamdream.info import Counts, VideoInfo
    from streamdream.run import Outcome

# The terminal closing is SIGHUP, which Windows does not have.
ENDING = {signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}

ESTIMATE_AFTER = 6  # frames
LONG = 60  # seconds from which a person wants to know


class Display:
    """Progress on a terminal, and Ctrl-C turned into an orderly end between two steps.

    Without a terminal only notices are printed.
    """

    def __init__(self, writes_a_file: bool, unit: str = "frame") -> None:
        """Look whether a person is watching; only a file needs an orderly end.

        A `unit` is what is counted.
        """
        self._unit = unit
        self._orderly = writes_a_file
        self._handlers: dict[int, Any] = {}
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.terminal = self._console.is_terminal
        self.signal: int | None = None
        self._total: int | None = None
        self._next = 1  # the frame whose end is waited for
        self._times: deque[float] = deque(maxlen=30)  # when the last frames were finished
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeElapsedColumn(),  # runs while a first frame takes minutes
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[skipped]}", style="yellow"),
            console=self._console,
            disable=not self.terminal,
            transient=True,
        )
        self._task = self._progress.add_task("loading", total=None, speed="", skipped="")

    def __enter__(self) -> Self:
        """Show the progress and listen for signals."""
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Put everything back."""
        self._progress.stop()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def notice(self, text: str) -> None:
        """Print something a person should know."""
        self._progress.console.print(f"streamdream: {text}", markup=False)

    def begin(self, info: VideoInfo) -> None:
        """Frames begin: from here on Ctrl-C ends the run in good order."""
        self._total = info.frames
        self._progress.update(
            self._task, total=info.frames, description="dreaming", speed=f"first {self._unit}"
        )
        if not self._orderly:
            return
        self._handlers = {n: signal.signal(n, self._stop) for n in ENDING}

    def step(self, frames: int, counts: Counts) -> None:
        """Show how far it is, and stop here if that was asked for."""
        if self.signal is not None:
            from streamdream.sinks import Stopped

            raise Stopped
        if not self.terminal or frames < self._next:
            return
        self._next = frames + 1
        self._times.append(time.monotonic())
        each = (self._times[-1] - self._times[0]) / max(len(self._times) - 1, 1)
        speed = ""
        if each > 0:
            often = f"{1 / each:.1f} " + ("fps" if self._unit == "frame" else "a second")
            speed = often if each < 2 else f"{each:.1f} s a {self._unit}"
        self._progress.update(self._task, completed=frames, speed=speed, skipped=_troubles(counts))
        # The first frame takes many more steps than the others, so it does not count.
        if frames == ESTIMATE_AFTER and self._total is not None:
            left = each * (self._total - frames)
            if left > LONG:
                self.notice(
                    f"{self._total} {self._unit}s, {each:.2f} s each: about {span(left)}; "
                    "Ctrl-C keeps what is done"
                )

    def finish(self, what: str) -> None:
        """Show what goes on after the frames, and stop here if that was asked for."""
        if self.signal is not None:
            from streamdream.sinks import Stopped

            raise Stopped
        self._progress.update(self._task, description=what, speed="")

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is not None:
            os.write(2, b"streamdream: finishing the file\n")
            return
        self.signal = number


def report(outcome: Outcome, output: Path | None, display: Display) -> int:
    """Tell how a run into `output` ended; the exit code."""
    if output is None:
        return 0
    if not outcome.complete and outcome.again:
        done = "1 frame is" if outcome.frames == 1 else f"{outcome.frames} frames are"
        say(f"interrupted: {done} done; go on with: {outcome.again}")
        return 128 + (display.signal or signal.SIGINT)
    if not outcome.complete:
        left = outcome.path and output.with_name(outcome.path.name)  # as it was typed
        kept = f"{left} holds {outcome.frames} frames"
        kept += "" if is_row(output) else " and can be played"
        if outcome.frames == 0 or outcome.path is None:
            kept = "nothing was written"
        if output == STDOUT:
            kept = f"{outcome.frames} frames were written"
        say(f"interrupted: {kept}")
        return 128 + (display.signal or signal.SIGINT)
    if display.terminal:
        say(_summary(outcome))
    elif _troubles(outcome.counts):
        say(f"{output}: {_troubles(outcome.counts)}")
    return 0


def _summary(outcome: Outcome) -> str:
    speed = outcome.frames / max(outcome.seconds, 1e-9)
    text = f"{outcome.path}: {outcome.frames} frames in {span(outcome.seconds)}"
    text += f" ({speed:.2f} a second)"
    troubles = _troubles(outcome.counts)
    return f"{text}, {troubles}" if troubles else text


def _troubles(counts: Counts) -> str:
    found = (
        (counts.skipped, "packet", "not decodable, skipped"),
        (counts.damaged, "picture", "damaged"),
        (counts.mended, "time stamp", "mended"),
        (counts.missing, "picture", "missing at the end"),
        (counts.blackened, "picture", "transparent, drawn on black"),
    )
    return ", ".join(f"{n} {what}{'s' * (n > 1)} {how}" for n, what, how in found if n)


def span(seconds: float) -> str:
    """A duration as people say it."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def say(text: str) -> None:
    """Print one line for people."""
    print(f"streamdream: {text}", file=sys.stderr)
