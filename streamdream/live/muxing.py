"""Finished H.264 into whatever libav can open: here, or in a process of its own.

While libav connects, or says good-bye, it holds up all of Python, and nothing can interrupt it.
So URLs are written to by this file, run as a program: it gets pictures by standard input, and
ends itself when libav takes too long. It imports little, to begin soon.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import struct
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from fractions import Fraction
from subprocess import DEVNULL, PIPE
from typing import Any, BinaryIO, cast

import av
from av.container import OutputContainer
from av.error import FFmpegError

TICKS = 90_000  # a second, as MPEG counts time
PATIENCE = 4.0  # seconds that libav may take for anything
HEAD = struct.Struct("<q?I")  # time in ticks, whether a key frame, bytes that follow


@dataclass(frozen=True)
class Goal:
    """Where pictures of `width` x `height` go, about `rate` a second.

    `kind` is libav's name of the muxer, empty where the ending tells it.
    """

    url: str
    kind: str
    options: dict[str, str]
    width: int
    height: int
    rate: float


class Muxer:
    """An open goal. All calls raise libav's errors, and OSError."""

    def __init__(self, goal: Goal) -> None:
        """Prepare; what has to be connected is so with the first picture."""
        opened = av.open(goal.url, "w", format=goal.kind or None, container_options=goal.options)
        self._container = cast(OutputContainer, opened)
        rate = Fraction(goal.rate).limit_denominator(1001)
        stream: Any = self._container.add_mux_stream(
            "libx264", rate=rate, width=goal.width, height=goal.height
        )
        stream.time_base = Fraction(1, TICKS)
        self._stream, self._duration = stream, round(TICKS / goal.rate)

    def mux(self, time: int, key: bool, data: bytes) -> None:
        """Write one encoded picture, shown at `time` in ticks."""
        packet = av.Packet(data)
        packet.stream, packet.time_base = self._stream, Fraction(1, TICKS)
        packet.pts = packet.dts = time
        packet.duration, packet.is_keyframe = self._duration, key
        self._container.mux(packet)

    def close(self) -> None:
        """Finish."""
        self._container.close()


class Process:
    """A goal that takes seconds at most, whatever the other side does.

    It is connected with the first picture.
    """

    def __init__(self, goal: Goal) -> None:
        program = [sys.executable, "-P", __file__]
        # Of its own session, or Ctrl-C would end it before the last picture.
        self._process = subprocess.Popen(
            program, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, start_new_session=True
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._answers = self._process.stdin, self._process.stdout
        self._goal: Goal | None = goal

    def mux(self, time: int, key: bool, data: bytes) -> None:
        """Send one encoded picture; with the first one wait until it is connected."""
        goal, self._goal = self._goal, None
        try:
            self._to.write((_told(goal) if goal else b"") + HEAD.pack(time, key, len(data)))
            self._to.write(data)
            self._to.flush()
            answer = self._answers.readline() if goal else b"ok\n"
        except OSError:
            answer = self._answers.readline()
        if answer != b"ok\n":
            raise OSError(0, answer.decode(errors="replace").strip() or "does not answer")

    def close(self) -> None:
        """End the program; raises OSError if it did not end well."""
        with suppress(OSError):
            self._to.close()
        try:
            self._process.wait(PATIENCE + 1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        answer = self._answers.read()
        self._answers.close()
        if self._process.returncode:
            raise OSError(0, answer.decode(errors="replace").strip() or "does not answer")


def _told(goal: Goal) -> bytes:
    """The first line for the program."""
    return json.dumps(asdict(goal)).encode() + b"\n"


def main(pictures: BinaryIO, answers: BinaryIO, nowhere: BinaryIO) -> None:
    """Write what comes until there is no more; answer `ok` when connected, or why not."""

    def hurry() -> None:
        faulthandler.dump_traceback_later(PATIENCE, exit=True, file=nowhere)

    try:
        muxer = Muxer(Goal(**json.loads(pictures.readline())))
        connected = False
        while len(head := pictures.read(HEAD.size)) == HEAD.size:
            time, key, size = HEAD.unpack(head)
            data = pictures.read(size)
            hurry()
            muxer.mux(time, key, data)
            faulthandler.cancel_dump_traceback_later()
            if not connected:
                answers.write(b"ok\n")
                answers.flush()
                connected = True
        hurry()
        muxer.close()
    except (FFmpegError, OSError, ValueError) as fault:
        answers.write((getattr(fault, "strerror", None) or type(fault).__name__).encode() + b"\n")
        answers.flush()
        os._exit(1)  # what is left of the connection must not take time


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with open(os.devnull, "wb") as away:
        main(sys.stdin.buffer, sys.stdout.buffer, away)
