"""The command line: arguments to options to a run. The only file that prints or exits."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Self

from cyclopts import (
    App,
    CycloptsError,
    Group,
    MissingArgumentError,
    Parameter,
    UnusedCliTokensError,
)
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from streamdream import options as opts
from streamdream.codecs import STDOUT, check_codec
from streamdream.errors import INTERRUPTED, Error, OptionError
from streamdream.files import check_size, check_target, is_row
from streamdream.inputs import PIPE, locate
from streamdream.live.commands import cameras, doctor, live

if TYPE_CHECKING:
    from streamdream.info import Counts, VideoInfo
    from streamdream.run import Outcome

# The terminal closing is SIGHUP, which Windows does not have.
ENDING = {signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}

ESTIMATE_AFTER = 6  # frames
LONG = 60  # seconds from which a person wants to know

app = App(
    name="streamdream",
    help="Redraw a video as a dream that sticks to the world instead of flickering.\n\n"
    "Examples:\n\nstreamdream video.mp4 -o out.mp4 --layers block9\n\nstreamdream live",
    help_format="plaintext",
    help_on_error=False,
    suppress_keyboard_interrupt=False,
)
app.command(live)
app.command(cameras)
app.command(doctor)
app["--help"].group = app["--version"].group = Group("Help", sort_key=9)


@app.default
def dream(
    source: Annotated[
        str,
        Parameter(
            name="input",
            group=opts.INPUT,
            help="Video or picture to dream; pictures in a row as frames/%05d.png, frames/*.png or "
            "their folder; a URL; - for what is piped in.",
        ),
    ],
    /,
    *,
    output: Annotated[
        Path | None,
        Parameter(
            alias="-o",
            group=opts.INPUT,
            help="File to write: mp4, mov, mkv, webm, gif, webp, apng, png or jpg; - for piping it "
            "on (Matroska). Without it a window opens.",
        ),
    ] = None,
    preset: Annotated[
        str | None,
        Parameter(
            group=opts.SETTINGS,
            help=f"A look: {', '.join(opts.preset_names())}, or the path of a TOML file.",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        Parameter(
            group=opts.SETTINGS, help="TOML file with any of the options, as: work-size = 360."
        ),
    ] = None,
    like: Annotated[
        Path | None,
        Parameter(
            group=opts.SETTINGS, help="Use the settings of this file, which streamdream made."
        ),
    ] = None,
    flags: Annotated[opts.Flags | None, Parameter(name="*")] = None,
) -> int:
    """Dream a video or picture."""
    # What can be wrong is looked at from the cheapest to the dearest: names, options, the
    # input, the model.
    given_source = locate(source)
    chosen = opts.chosen(opts.Options, flags, preset, config)
    if output is not None:
        output = STDOUT if str(output) == PIPE else output
        check_target(output, given_source.all_files, chosen.overwrite)
        check_codec(output, chosen.codec, chosen.crf)
        check_size(output, chosen.most_bytes)
    if like is not None:
        from streamdream.run import read_settings

        recorded = opts.recorded(read_settings(like), f"--like {like}")
        place = f"with --like {like}:"
        chosen = opts.chosen(opts.Options, flags, preset, config, recorded, place)
    return _run(source, output, chosen)


@app.command
def probe(
    source: Annotated[
        str, Parameter(name="input", group=opts.INPUT, help="Anything that can be dreamed.")
    ],
    /,
    *,
    quick: Annotated[
        bool, Parameter(group=opts.SETTINGS, negative=(), help="Do not try how long it takes.")
    ] = False,
    flags: Annotated[opts.Flags | None, Parameter(name="*")] = None,
) -> int:
    """Tell what is in a file, what becomes of it, and how long a dream of it takes here."""
    locate(source)
    chosen = opts.chosen(opts.Options, flags)
    from streamdream.probe import describe, pace

    report = describe(source, chosen)
    print("\n".join(report.lines), flush=True)
    if not quick and source != PIPE:  # what is piped in comes only once
        found = pace(source, chosen)
        whole = "" if report.frames is None else found.first + found.each * (report.frames - 1)
        about = f"; about {span(whole)} for all" if isinstance(whole, float) else ""
        print(f"time here: {found.first:.2f} s to begin, {found.each:.2f} s a frame{about}")
    return 0


def _run(source: str, output: Path | None, options: opts.Options) -> int:
    from streamdream.run import dream_file

    with Display(writes_a_file=output is not None) as display:
        outcome = dream_file(source, output, options, display)
    if output is None:
        return 0
    if not outcome.complete:
        left = outcome.path and output.with_name(outcome.path.name)  # as it was typed
        kept = f"{left} holds {outcome.frames} frames"
        kept += "" if output is not None and is_row(output) else " and can be played"
        if outcome.frames == 0 or outcome.path is None:
            kept = "nothing was written"
        if output == STDOUT:
            kept = f"{outcome.frames} frames were written"
        _say(f"interrupted: {kept}")
        return 128 + (display.signal or signal.SIGINT)
    if display.terminal:
        _say(_summary(outcome))
    elif _troubles(outcome.counts):
        _say(f"{output}: {_troubles(outcome.counts)}")
    return 0


class Display:
    """Progress on a terminal, and Ctrl-C turned into an orderly end between two steps.

    Without a terminal only notices are printed.
    """

    def __init__(self, writes_a_file: bool) -> None:
        """Look whether a person is watching; only a file needs an orderly end."""
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
            self._task, total=info.frames, description="dreaming", speed="first frame"
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
            speed = f"{1 / each:.1f} fps" if each < 2 else f"{each:.1f} s a frame"
        self._progress.update(self._task, completed=frames, speed=speed, skipped=_troubles(counts))
        # The first frame takes many more steps than the others, so it does not count.
        if frames == ESTIMATE_AFTER and self._total is not None:
            left = each * (self._total - frames)
            if left > LONG:
                self.notice(
                    f"{self._total} frames, {each:.2f} s each: about {span(left)}; "
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


def _say(text: str) -> None:
    print(f"streamdream: {text}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code (see `errors`)."""
    sys.exit(_main(arguments))


def _main(arguments: Sequence[str] | None) -> int:
    try:
        typed = sys.argv[1:] if arguments is None else arguments
        result = app(
            # The parser would take a dash for an option without a name.
            [PIPE if word == "-" else word for word in typed],
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
        return result if isinstance(result, int) else 0
    except Error as fault:
        _say(f"error: {fault}")
        return fault.exit_code
    except CycloptsError as fault:
        _say(f"error: {_argument_error(fault)}")
        return OptionError.exit_code
    except KeyboardInterrupt:
        _say("interrupted: nothing was written")
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _argument_error(fault: CycloptsError) -> str:
    cause: BaseException | None = fault
    while cause is not None:
        if isinstance(cause, ValidationError):
            return str(opts.one_line(cause))
        cause = cause.__cause__ or cause.__context__
    if isinstance(fault, UnusedCliTokensError):
        return (
            f"{' '.join(fault.unused_tokens or [])}: only one input is taken; write to it with -o"
        )
    if (
        isinstance(fault, MissingArgumentError)
        and fault.argument
        and "input" in fault.argument.names
    ):
        return "input: no video or picture is named; see streamdream --help"
    text = " ".join(str(fault).split())
    return f"{text[:1].lower()}{text[1:].rstrip('.')}; see streamdream --help"
