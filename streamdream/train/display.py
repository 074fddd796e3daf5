"""What a person sees of a training on a terminal: losses, how long it still takes."""

from __future__ import annotations

import os
import signal
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from streamdream.display import ENDING, span

if TYPE_CHECKING:
    from streamdream.train.options import TrainOptions
    from streamdream.train.trainer import Report

SHARE = 0.05  # of each step in the losses shown: single steps jump about
SHOW_CURSOR = b"\x1b[?25h"


class Display:
    """Progress on a terminal, and Ctrl-C turned into an orderly end between two steps.

    Without a terminal only notices are printed.
    """

    def __init__(self) -> None:
        """Look whether a person is watching."""
        self._handlers: dict[int, Any] = {}
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.terminal = self._console.is_terminal
        self.signal: int | None = None
        self._options: TrainOptions | None = None
        self._losses: dict[str, float] = {}
        self._first: Report | None = None
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[told]}"),
            console=self._console,
            disable=not self.terminal,
            transient=True,
        )
        self._task = self._progress.add_task("loading", total=None, told="")

    def __enter__(self) -> Self:
        """Show the progress."""
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

    def begin(self, options: TrainOptions) -> None:
        """Steps begin: from here on Ctrl-C ends the training in good order."""
        self._options = options
        self._progress.update(self._task, description="first step")
        self._handlers = {n: signal.signal(n, self._stop) for n in ENDING}

    def step(self, report: Report) -> None:
        """Show how far it is, and stop here if that was asked for."""
        if self.signal is not None:
            from streamdream.sinks import Stopped

            raise Stopped
        if not self.terminal or self._options is None:
            return
        for name, loss in report.losses.items():
            self._losses[name] = self._losses.get(name, loss) * (1 - SHARE) + SHARE * loss
        self._first = self._first or report
        done, left = _share(report, self._first, self._options)
        losses = ", ".join(f"{name} {loss:.3f}" for name, loss in self._losses.items())
        self._progress.update(
            self._task,
            description=f"step {report.step}",
            total=1.0,
            completed=done,
            told=f"{losses}, {span(left)} left",
        )

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is not None:
            if self.terminal:
                os.write(2, SHOW_CURSOR)
            os.write(2, b"streamdream: ended at once: the last checkpoint is what is left\n")
            os._exit(128 + number)
        self.signal = number


def _share(report: Report, first: Report, options: TrainOptions) -> tuple[float, float]:
    """How much of a training is done, and how many seconds are left."""
    steps = max(1, report.step - first.step)
    each = (report.seconds - first.seconds) / steps if steps > 1 else report.seconds / report.step
    ends: list[float] = []
    if options.last_step is not None:
        ends.append((options.last_step - report.step) * each)
    if options.minutes is not None:
        ends.append(60 * options.minutes - report.seconds)
    left = max(0.0, min(ends))
    return report.seconds / max(report.seconds + left, 1e-9), left
