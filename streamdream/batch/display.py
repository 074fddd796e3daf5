"""What a person sees of a batch on a terminal: progress over all files, and how each ended."""

from __future__ import annotations

import os
import signal
import time
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from streamdream.display import ENDING, span

if TYPE_CHECKING:
    from streamdream.batch.report import Entry

WIDEST = 32  # characters of a file's name


class Display:
    """Progress on a terminal, and Ctrl-C turned into an orderly end between two steps.

    Without a terminal nothing is shown.
    """

    def __init__(self, files: int) -> None:
        """Look whether a person is watching a batch of so many files."""
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.terminal = self._console.is_terminal
        self.signal: int | None = None
        self._handlers: dict[int, Any] = {}
        self._next, self._began = 0.0, 0.0
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[told]}"),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self.terminal,
            transient=True,
        )
        self._all = self._progress.add_task("files", total=files, told="")
        self._one = self._progress.add_task("", total=None, told="")

    def __enter__(self) -> Self:
        """Show the progress and listen for signals."""
        self._handlers = {n: signal.signal(n, self._stop) for n in ENDING}
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

    def file(self, number: int, entry: Entry) -> None:
        """The next file begins; stops here if that was asked for."""
        self._stop_if_asked()
        name = entry.item.source.name
        shown = name if len(name) <= WIDEST else f"{name[: WIDEST - 1]}…"
        self._progress.reset(self._one, total=None, description=shown, told="loading")

    def begin(self, frames: int | None) -> None:
        """Its frames begin."""
        self._began = time.monotonic()
        self._progress.update(self._one, total=frames, told="first frame")

    def step(self, frames: int) -> None:
        """Show how far it is, and stop here if that was asked for."""
        self._stop_if_asked()
        now = time.monotonic()
        if not self.terminal or now < self._next:
            return
        self._next = now + 0.1
        each = (now - self._began) / frames if frames else 0.0
        told = f"{1 / each:.1f} fps" if 0 < each < 2 else f"{each:.1f} s a frame" if each else ""
        self._progress.update(self._one, completed=frames, told=told or "first frame")

    def over(self, entry: Entry) -> None:
        """The file is done with."""
        self._progress.advance(self._all)
        if not self.terminal or entry.status == "skipped":
            return
        name = entry.item.target
        text = f"{name}: {entry.frames} frames in {span(entry.seconds)}"
        if entry.status == "failed":
            text = f"failed: {entry.error}"
        if entry.status != "interrupted":
            self._progress.console.print(f"streamdream: {text}", markup=False)

    def _stop_if_asked(self) -> None:
        if self.signal is not None:
            from streamdream.sinks import Stopped

            raise Stopped

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is not None:
            os.write(2, b"streamdream: finishing the file\n")
            return
        self.signal = number
