"""Runs for tests: the command line in this process, and a listener that acts in the middle."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from streamdream import cli
from streamdream.run import Silent
from streamdream.sinks import Stopped

Command = Callable[..., tuple[int, str, str]]
"""Takes words; gives the exit code, and what was printed as result and beside it."""


def typing(capfd: pytest.CaptureFixture[str], *begin: str) -> Command:
    """Types commands that begin with these words."""

    def run(*words: object) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main([*begin, *map(str, words)])
        out, err = capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, str(out), str(err)

    return run


class Heard(Silent):
    """A listener that keeps what it hears, and acts once so many frames are done."""

    def __init__(self, act: Callable[[], object] | None = None, after: int = 0) -> None:
        self.notices: list[str] = []
        self.frames: list[int] = []
        self.acted = False
        self._act, self._after = act, after

    def notice(self, text: str) -> None:
        self.notices.append(text)

    def step(self, frames: int, counts: object) -> None:
        self.frames.append(frames)
        if self._act is not None and frames >= self._after and not self.acted:
            self.acted = True
            self._act()


def stop() -> None:
    """What a listener does to stop its run."""
    raise Stopped
