"""What can go wrong through no fault of the program, and the exit code each kind gives.

    Error                 a person can mend it: one line, no traceback
      OptionError      2  an option, a preset or a configuration file is wrong
      SourceError      3  the input cannot be read
      SinkError        4  the output cannot be written
      ModelError       5  a network, a layer, weights or a device is missing or wrong

Exit 0 is success, 1 a bug (with a traceback), 130 an interruption by Ctrl-C.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

INTERRUPTED = 130


class Error(Exception):
    """A fault that a person can mend, told as `subject: reason; cure`."""

    exit_code = 1

    def __init__(self, subject: object, reason: str, cure: str = "") -> None:
        """Say what is concerned, what is wrong with it and (if known) what mends it."""
        self.subject, self.reason, self.cure = str(subject), reason, cure
        line = f"{self.subject}: {reason}" + (f"; {cure}" if cure else "")
        super().__init__(" ".join(line.split()))


class OptionError(Error):
    """An option, a preset or a configuration file is wrong."""

    exit_code = 2


class SourceError(Error):
    """The input cannot be read."""

    exit_code = 3


class SinkError(Error):
    """The output cannot be written."""

    exit_code = 4


class ModelError(Error):
    """A network, a layer, weights or a device is missing or wrong."""

    exit_code = 5


def near(word: str, known: Sequence[str], kind: str) -> str:
    """A cure that names what was probably meant, or all there is if that is few."""
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    if not known:
        return f"there are no {kind}"
    if close:
        return "did you mean " + " or ".join(close) + "?"
    shown = ", ".join(known if len(known) <= 12 else (*known[:5], "...", *known[-3:]))
    return f"{kind}: {shown}"


def words(fault: BaseException) -> str:
    """What a system or library says of its fault, as the reason in our line."""
    text = getattr(fault, "strerror", None) or str(fault) or type(fault).__name__
    return text[:1].lower() + text[1:]
