"""The command line: arguments to options to a run, faults to one line and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import (
    App,
    CoercionError,
    CycloptsError,
    Group,
    MissingArgumentError,
    Parameter,
    UnusedCliTokensError,
)
from pydantic import ValidationError

from streamdream import options as opts
from streamdream import settings
from streamdream.atlas.commands import atlas, presets
from streamdream.batch.commands import batch
from streamdream.codecs import STDOUT, check_codec
from streamdream.display import Display, report, say, span
from streamdream.errors import INTERRUPTED, Error, OptionError
from streamdream.files import check_size, check_target
from streamdream.inputs import PIPE, check_file, locate
from streamdream.jobs.commands import jobs
from streamdream.jobs.options import check_lasting
from streamdream.keys import is_schedule
from streamdream.live.commands import cameras, doctor, live
from streamdream.masks.options import check_mask, mask_files
from streamdream.objectives.named import check_guides, guide_files
from streamdream.scenes.commands import scenes
from streamdream.style.named import check_styles, files_of
from streamdream.train.commands import train
from streamdream.zoo.commands import models, provide
from streamdream.zoom.commands import zoom

app = App(
    name="streamdream",
    help="Redraw a video as a dream that sticks to the world instead of flickering.\n\n"
    "Examples:\n\nstreamdream video.mp4 -o out.mp4 --layers block9\n\nstreamdream live",
    help_format="plaintext",
    help_on_error=False,
    suppress_keyboard_interrupt=False,
)
app.command(zoom)
app.command(train)
app.command(atlas)
app.command(presets)
app.command(live)
app.command(batch)
app.command(scenes)
app.command(models)
app.command(cameras)
app.command(doctor)
app.command(jobs)
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
    preset: settings.Preset = None,
    config: settings.Config = None,
    like: settings.Like = None,
    flags: Annotated[settings.Flags | None, Parameter(name="*")] = None,
) -> int:
    """Dream a video or picture."""
    # What can be wrong is looked at from the cheapest to the dearest: names, options, the
    # input, the model.
    given_source = locate(source)
    chosen = settings.chosen(opts.Options, flags, preset, config)
    songs = () if chosen.audio is None else (chosen.audio,)
    for song in songs:
        check_file(song)
    check_styles(chosen)
    check_guides(chosen)
    check_mask(chosen)
    if output is not None:
        output = STDOUT if str(output) == PIPE else output
    check_lasting(chosen, given_source, output)
    if output is not None:
        named = (*files_of(chosen), *guide_files(chosen), *mask_files(chosen))
        read = (*given_source.all_files, *songs, *named)
        # What lies where a job's result goes may be that result: it is looked into there.
        check_target(output, read, chosen.overwrite or chosen.lasts)
        check_codec(output, chosen.codec, chosen.crf)
        check_size(output, chosen.most_bytes)
    if like is not None:
        from streamdream.run import read_settings

        recorded = settings.recorded(read_settings(like), f"--like {like}")
        place = f"with --like {like}:"
        chosen = settings.chosen(opts.Options, flags, preset, config, recorded, place)
    if chosen.dreams:
        provide(chosen)
    from streamdream.run import dream_file

    with Display(writes_a_file=output is not None) as display:
        outcome = dream_file(source, output, chosen, display)
    return report(outcome, output, display)


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
    flags: Annotated[settings.Flags | None, Parameter(name="*")] = None,
) -> int:
    """Tell what is in a file, what becomes of it, and how long a dream of it takes here."""
    locate(source)
    chosen = settings.chosen(opts.Options, flags)
    from streamdream.probe import describe, pace

    found = describe(source, chosen)
    print("\n".join(found.lines), flush=True)
    if not quick and source != PIPE:  # what is piped in comes only once
        if chosen.dreams:
            provide(chosen)
        took = pace(source, chosen)
        whole = "" if found.frames is None else took.first + took.each * (found.frames - 1)
        about = f"; about {span(whole)} for all" if isinstance(whole, float) else ""
        print(f"time here: {took.first:.2f} s to begin, {took.each:.2f} s a frame{about}")
    return 0


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
        say(f"error: {fault}")
        return fault.exit_code
    except CycloptsError as fault:
        say(f"error: {_argument_error(fault)}")
        return OptionError.exit_code
    except KeyboardInterrupt:
        say("interrupted: nothing was written")
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


MISSING = {  # arguments that are not options
    "input": "no video or picture is named; see streamdream",
    "inputs": "no file or folder is named; see streamdream batch",
    "start": "no picture or noise is named; see streamdream zoom",
}


def _argument_error(fault: CycloptsError) -> str:
    cause: BaseException | None = fault
    while cause is not None:
        if isinstance(cause, ValidationError):
            return str(settings.one_line(cause))
        cause = cause.__cause__ or cause.__context__
    if isinstance(fault, CoercionError) and fault.token and is_schedule(fault.token.value):
        name = fault.argument.name if fault.argument else fault.token.keyword
        return f"{name} {fault.token.value}: holds for a whole run, it cannot move"
    if isinstance(fault, UnusedCliTokensError):
        return (
            f"{' '.join(fault.unused_tokens or [])}: only one input is taken; write to it with -o"
        )
    if isinstance(fault, MissingArgumentError) and fault.argument:
        for name, told in MISSING.items():
            if name in fault.argument.names:
                return f"{name}: {told} --help"
    text = " ".join(str(fault).split())
    return f"{text[:1].lower()}{text[1:].rstrip('.')}; see streamdream --help"
