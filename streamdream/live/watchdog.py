"""A live run in a process of its own, started again whenever it fails or hangs.

The supervisor listens on a loopback port and the run holds a connection to it: what comes along
it is a heartbeat, and its end tells the run that the supervisor is gone. That is the same on
every system, and no file or descriptor has to be handed on.
"""

from __future__ import annotations

import math
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from types import FrameType

from streamdream.errors import OptionError, words

TOKEN = "STREAMDREAM_TOKEN"  # one that stays the same from start to start
HEARTBEAT = "STREAMDREAM_HEARTBEAT"  # port:word
SYSTEMD = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
OURS = {2, 3, 4, 5}  # exit codes of errors that a person can mend, see `errors`

SHORTEST, LONGEST = 1.0, 60.0  # seconds between two starts
STEADY = 300.0  # seconds of good work after which a failure counts as a new one
QUIET = 60.0  # seconds between two lines on failures
MERCY = 5.0  # seconds from asking what hangs to end to killing it, and from there to leaving it
GOODBYE = 15.0  # seconds that a run has for its end
LOOK = 0.2  # seconds between two looks at the run
CALLERS = 8  # connections at once; one is used

Tell = Callable[[str], None]
Clock = Callable[[], float]


class Heart:
    """The heartbeat of a run: to its supervisor if it has one, to systemd if that asks for it.

    For one thread. Nothing here raises or blocks. `orphaned` is True once the supervisor is
    gone: the run should end.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        """Find out who listens."""
        self.orphaned = False
        self._last = self._status_sent = -100.0
        self._ready = False
        self._systemd: socket.socket | None = None
        address = environment.get(SYSTEMD[0], "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        if address.startswith(("/", "@")) and sys.platform != "win32":
            self._systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._systemd.setblocking(False)
        self._line: socket.socket | None = None
        port, _, word = environment.get(HEARTBEAT, "").partition(":")
        self._word = word.encode()
        if word:
            try:
                self._line = socket.create_connection(("127.0.0.1", int(port)), 2)
                self._line.setblocking(False)
            except (OSError, ValueError, OverflowError):
                self.orphaned = True

    def beat(self, status: str = "") -> None:
        """Say that all is well: for every frame, and also while nothing is shown.

        More than one a second are not sent. `status` is a line for `systemctl status`.
        """
        now = time.monotonic()
        if now - self._last < 1:
            return
        self._last = now
        lines = ["WATCHDOG=1" if self._ready else "READY=1"]
        if status and now - self._status_sent >= 10:
            self._status_sent = now
            lines.append("STATUS=" + " ".join(status.split()))
        self._ready = self._notify(lines) or self._ready
        if self._line is None:
            return
        try:
            with suppress(BlockingIOError):
                self._line.send(self._word)
        except OSError:
            self.orphaned = True

    def close(self) -> None:
        """Tell that the end has come; what hangs after this is killed all the same."""
        self._notify(["STOPPING=1"])
        for line in (self._systemd, self._line):
            if line is not None:
                line.close()
        self._systemd = self._line = None

    def _notify(self, lines: list[str]) -> bool:
        if self._systemd is None:
            return False
        with suppress(OSError):
            self._systemd.sendto("\n".join(lines).encode(errors="replace"), self._address)
            return True
        return False


def supervise(
    command: Sequence[str],
    tell: Tell,
    stall: float = 30,
    begin: float = 180,
    environment: Mapping[str, str] | None = None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Clock = time.monotonic,
) -> int:
    """Run `command`, and again whenever it fails; returns the exit code of its last run.

    It has to make a `Heart` that beats within `begin` seconds of its start and every `stall`
    seconds from then on, or it is killed with all that it started. The end is exit code 0, one
    of our errors right at the first start, or a signal to this process, which is handed on.
    Failures are told at most once a minute. For the main thread alone.
    Raises OptionError if the command cannot be started at all.
    """
    given = dict(os.environ if environment is None else environment)
    # To systemd this process answers for itself: the run may take its time to start again.
    heart = Heart({name: given[name] for name in SYSTEMD[:1] if name in given})
    for name in SYSTEMD:
        given.pop(name, None)
    given.setdefault("PYTHONFAULTHANDLER", "1")  # a crash in a library tells where it was
    report, pause, starts = _Report(tell, clock), SHORTEST, 0
    with _kept_signals() as asked, closing(_Listener()) as listener, closing(heart):
        while True:
            starts += 1
            given[HEARTBEAT] = listener.renewed()
            try:
                process = _started(command, given)
            except OSError as fault:
                if starts == 1:
                    raise OptionError(command[0], words(fault)) from None
                end = _End(1, 0, f"cannot be started ({words(fault)})")
            else:
                end = _watch(process, listener, stall, begin, clock, asked, heart, report)
            if asked or (not end.hung and _final(end.code, report.alive, starts)):
                return end.code
            pause = SHORTEST if end.good >= STEADY else pause
            report.failed(end.why, pause)
            until = clock() + pause
            while (left := until - clock()) > 0 and not asked:
                if report.alive:
                    heart.beat("waiting to start again")
                sleep(min(LOOK, left))
            if asked:
                return 128 + asked[0]
            pause = min(LONGEST, pause * 2)


def _final(code: int, alive: bool, starts: int) -> bool:
    """Whether a run that ended with this code is not to be started again."""
    wrong = code == OptionError.exit_code or (code in OURS and starts == 1)
    return code == 0 or (wrong and not alive)


@dataclass(frozen=True)
class _End:
    """How a run ended: `good` seconds from its first to its last beat."""

    code: int
    good: float
    why: str
    hung: bool = False


def _watch(
    process: subprocess.Popen[bytes],
    listener: _Listener,
    stall: float,
    begin: float,
    clock: Clock,
    asked: list[int],
    heart: Heart,
    report: _Report,
) -> _End:
    """Wait for the end of a run, and bring it about when it is time."""
    heard = looked = clock()
    first: float | None = None
    patience, ends, handed, silent = begin, math.inf, 0, False
    try:
        while process.poll() is None:
            beats = listener.heard(LOOK)
            now = clock()
            if beats or now - looked > stall:  # the machine itself may have slept
                heard = now
            looked = now
            if beats and first is None:
                first, patience = now, stall
                report.works()
            if report.alive:
                heart.beat()
            if len(asked) > handed:
                _send(process, asked[handed])
                handed += 1
                ends = min(ends, now + GOODBYE)
            elif not handed and not silent and now - heard > patience:
                silent = True
                _send(process, signal.SIGTERM, everyone=True)
                ends = now + MERCY
            if now > ends:
                _kill(process)
            if now > ends + MERCY:
                break  # nothing ends what hangs in a driver
    finally:
        _kill(process)
    code = process.poll()
    code = -9 if code is None else code
    why = f"gave no sign of life for {patience:g} s" if silent else _ending(code)
    return _End(
        code if code >= 0 else 128 - code, 0 if first is None else heard - first, why, silent
    )


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    with suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"


def _started(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start it in a group of its own: Ctrl-C reaches us alone, and what it starts ends with it."""
    if sys.platform == "win32":
        flags = subprocess.CREATE_NEW_PROCESS_GROUP
        return subprocess.Popen(command, env=environment, creationflags=flags)
    return subprocess.Popen(command, env=environment, start_new_session=True)


def _send(process: subprocess.Popen[bytes], number: int, everyone: bool = False) -> None:
    with suppress(OSError):
        if sys.platform == "win32":
            process.send_signal(signal.CTRL_BREAK_EVENT)
        elif everyone:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the run and what is left of all that it started."""
    with suppress(OSError, subprocess.SubprocessError):
        if sys.platform != "win32":
            os.killpg(process.pid, signal.SIGKILL)
        elif process.poll() is None:
            tree = ["taskkill", "/F", "/T", "/PID", str(process.pid)]
            subprocess.run(tree, capture_output=True, timeout=MERCY, check=False)


class _Report:
    """Tells of failures, but not of each one if there are many."""

    def __init__(self, tell: Tell, clock: Clock) -> None:
        self._tell, self._clock = tell, clock
        self.alive = False  # whether any run ever beat
        self._last, self._untold, self._down = -math.inf, 0, False

    def failed(self, why: str, pause: float) -> None:
        """A run ended, the next one starts after a pause."""
        now = self._clock()
        if now - self._last < QUIET:
            self._untold += 1
            return
        more = f" ({self._untold} more failures before it)" if self._untold else ""
        self._last, self._untold, self._down = now, 0, True
        self._say(f"the run {why}{more}; started again in {pause:g} s")

    def works(self) -> None:
        """A run gives its first sign of life."""
        if self._down:
            self._say("the run works again")
        self.alive, self._down = True, False

    def _say(self, text: str) -> None:
        with suppress(Exception):  # a log that cannot be written must not end the watch
            self._tell(f"watchdog: {text}")


@contextmanager
def _kept_signals() -> Iterator[list[int]]:
    """The signals that ask this process to end, kept in a list instead of obeyed."""
    asked: list[int] = []

    def keep(number: int, _frame: FrameType | None) -> None:
        asked.append(number)

    before = {}
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
        number = getattr(signal, name, None)
        # What nohup or a shell made us ignore stays so.
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, keep)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Listener:
    """The end of the line where heartbeats arrive."""

    def __init__(self) -> None:
        self._door = socket.create_server(("127.0.0.1", 0), backlog=CALLERS)
        self._door.setblocking(False)
        self._callers: list[socket.socket] = []
        self._word = b""

    def renewed(self) -> str:
        """What the next run has to know; those before are no longer listened to."""
        self._hang_up()
        self._word = secrets.token_hex(8).encode()
        return f"{self._door.getsockname()[1]}:{self._word.decode()}"

    def heard(self, seconds: float) -> bool:
        """Whether the run beats within so many seconds."""
        ready, _, _ = select.select([self._door, *self._callers], [], [], seconds)
        found = False
        for caller in ready:
            if caller is self._door:
                self._answer()
                continue
            said = b""
            with suppress(OSError):
                said = caller.recv(4096)
            if self._word in said:
                found = True
            else:  # it hung up, or is a stranger
                self._callers.remove(caller)
                caller.close()
        return found

    def close(self) -> None:
        """Let everything go."""
        self._hang_up()
        self._door.close()

    def _answer(self) -> None:
        with suppress(OSError):  # it hung up in the meantime
            caller, _ = self._door.accept()
            caller.setblocking(False)
            if len(self._callers) < CALLERS:
                self._callers.append(caller)
            else:
                caller.close()

    def _hang_up(self) -> None:
        while self._callers:
            self._callers.pop().close()
