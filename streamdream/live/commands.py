"""The commands `live`, `cameras` and `doctor`: arguments to options to a session, and back."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console

from streamdream import __version__, settings
from streamdream import options as opts
from streamdream.errors import SinkError, words
from streamdream.live.options import LiveFlags, LiveOptions
from streamdream.masks.options import check_mask
from streamdream.objectives.named import check_guides
from streamdream.style.named import check_styles
from streamdream.zoo.commands import provide

if TYPE_CHECKING:
    from streamdream.live.session import Summary
    from streamdream.live.status import Status

LOG_SIZE, LOGS = 1_000_000, 4  # bytes of one log file; how many older ones
RESTART = 75  # exit code that asks a watchdog for a new process (EX_TEMPFAIL)


def live(
    source: Annotated[
        str | None,
        Parameter(
            name="source",
            group=opts.INPUT,
            help="A camera's number, device or name; screen; test; an rtsp, rtmp, http, udp or "
            "tcp URL; a video or picture file, looped. Default: the first camera.",
        ),
    ] = None,
    /,
    *,
    preset: settings.Preset = None,
    config: settings.Config = None,
    like: settings.Like = None,
    flags: Annotated[LiveFlags | None, Parameter(name="*")] = None,
) -> int:
    """Dream what a camera sees, live, in a window and elsewhere; key H shows the keys."""
    from streamdream.live.camera import find
    from streamdream.live.watchdog import HEARTBEAT, TOKEN, Heart, supervise

    recorded, place = None, ""
    chosen = settings.chosen(LiveOptions, flags, preset, config)
    if like is not None:
        from streamdream.run import read_settings

        recorded, place = settings.recorded(read_settings(like), f"--like {like}"), f"with {like}:"
        # Fineness is the machine's matter here, not the file's.
        recorded = {k: v for k, v in recorded.items() if k not in ("work_size", "flow", "quality")}
        chosen = settings.chosen(LiveOptions, flags, preset, config, recorded, place)
    chosen = chosen.clocked(chosen.clock)
    check_styles(chosen)
    check_guides(chosen)
    check_mask(chosen)
    supervised = chosen.watchdog or HEARTBEAT in os.environ
    camera = find(source, chosen, patient=supervised)  # at boot it may be plugged in late
    if chosen.window:
        from streamdream.live.window import check_display

        check_display()
    if chosen.dreams:
        provide(chosen)
    if chosen.watchdog and HEARTBEAT not in os.environ:
        _log_into(chosen.log and chosen.log.with_name(f"watchdog-{chosen.log.name}"))
        typed = sys.argv[1:]
        environment = {**os.environ}
        environment.setdefault(TOKEN, secrets.token_urlsafe(12))
        command = [sys.executable, "-m", "streamdream", *typed]
        return supervise(command, _say, environment=environment)
    _log_into(chosen.log)
    from streamdream.live.session import Session

    log = logging.getLogger("streamdream.live")
    log.info("streamdream %s: %s, %s", __version__, camera.label, chosen.as_comment())
    display = Display()
    heart = Heart()
    session = None
    try:
        with display:
            session = Session(camera, chosen, display.notice, preset, heart)
            summary = session.run(lambda: display.wants_end(session.status))
    finally:
        if session is not None:
            session.close()
        heart.close()
    display.notice(_summary(summary))
    log.info("ended: %s", _summary(summary))
    return RESTART if summary.wants_restart else 0


def cameras() -> int:
    """List the cameras, and what else can be a source."""
    from streamdream.live.camera import listed

    for line in listed():
        print(line, flush=True)
    return 0


def doctor(
    *,
    quick: Annotated[
        bool, Parameter(group=opts.SETTINGS, negative=(), help="Leave out how fast it is.")
    ] = False,
) -> int:
    """Tell what this machine can do: camera, display, networks, encoders, speed."""
    from streamdream.live.doctor import examine, verdict

    console = Console(highlight=False, soft_wrap=True)
    marks = {"good": "[green]good[/]", "note": "[yellow]note[/]", "bad": "[red]bad [/]"}
    found = []
    for finding in examine(quick=quick):
        found.append(finding)
        console.print(marks[finding.state], f"{finding.topic}:", end=" ")
        console.print(finding.text + (f"; {finding.cure}" if finding.cure else ""), markup=False)
    return verdict(found)


class Display:
    """Notices on stderr, one line on a terminal that tells how it goes, and Ctrl-C."""

    def __init__(self) -> None:
        """Look whether a person is watching."""
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._status = self._console.status("loading") if self._console.is_terminal else None
        self._asked = 0
        self._told: Status | None = None

    def __enter__(self) -> Display:
        """Listen for signals: the first one ends the run in good order, a second one at once."""
        names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # the last two are not everywhere
        for number in {getattr(signal, name) for name in names if hasattr(signal, name)}:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
                signal.signal(number, self._stop)
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_fault: object) -> None:
        """Put everything back but the signals: what is open is still being closed."""
        if self._status is not None:
            self._status.stop()

    def notice(self, text: str) -> None:
        """Say something a person should know."""
        self._console.print(f"streamdream: {text}", markup=False)

    def wants_end(self, status: Status) -> bool:
        """Show how it goes; whether somebody asked for the end."""
        if self._status is not None and status is not self._told:
            self._told = status
            self._status.update(
                f"{status.shown:.1f} pictures, {status.dreams:.1f} dreams a second, "
                f"{status.latency[1]:.0f} ms late, {status.lines} lines, {status.camera}"
            )
        return self._asked > 0

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        self._asked += 1
        if self._asked > 1:
            os.write(2, b"streamdream: ended at once\n")
            os._exit(128 + number)


def _log_into(path: Path | None) -> None:
    if path is None:
        return
    try:
        path.touch(mode=0o600)
        handler = RotatingFileHandler(path, maxBytes=LOG_SIZE, backupCount=LOGS, encoding="utf-8")
    except OSError as fault:
        raise SinkError(f"--log {path}", f"cannot be written ({words(fault)})") from None
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger = logging.getLogger("streamdream.live")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)


def _summary(found: Summary) -> str:
    text = f"{found.shown} pictures in {found.seconds:.0f} s, {found.dreams} dreams"
    text += f", camera lost or tried {found.reconnected} times" if found.reconnected else ""
    return text + (f", {found.faults} faults of outputs and dreams" if found.faults else "")


def _say(text: str) -> None:
    print(f"streamdream: {text}", file=sys.stderr, flush=True)
    logging.getLogger("streamdream.live").info(text)
