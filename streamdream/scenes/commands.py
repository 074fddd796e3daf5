"""The command `scenes`: arguments to options to a list, in the terminal and in files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from streamdream import options as opts
from streamdream.display import say
from streamdream.errors import OptionError, SinkError
from streamdream.files import check_folder, part_of
from streamdream.inputs import locate
from streamdream.piece import Piece

if TYPE_CHECKING:
    from streamdream.scenes.listing import Scene
    from streamdream.sources import VideoSource

ENDINGS = (".html", ".csv", ".json", ".edl")
LIST = Group("The list", sort_key=0)


def scenes(
    source: Annotated[
        str, Parameter(name="input", group=opts.INPUT, help="Anything that can be dreamed.")
    ],
    /,
    *,
    output: Annotated[
        tuple[Path, ...],
        Parameter(
            alias="-o",
            group=opts.INPUT,
            negative=(),
            show_default=False,
            help="File to write it to: html (a page of pictures), csv (as PySceneDetect's), "
            "json or edl; several times for several.",
        ),
    ] = (),
    csv: Annotated[bool, Parameter(group=LIST, negative=(), help="Print the list as CSV.")] = False,
    json: Annotated[
        bool, Parameter(group=LIST, negative=(), help="Print the list as JSON.")
    ] = False,
    overwrite: Annotated[
        bool, Parameter(group=opts.OUTPUT, negative=(), help="Replace files that exist.")
    ] = False,
    flags: Annotated[Piece | None, Parameter(name="*")] = None,
) -> int:
    """List the scenes of a film: the parts between cuts, where a dream starts anew."""
    if csv and json:
        raise OptionError("--csv", "cannot be printed beside --json", "give one, the other with -o")
    given = locate(source)
    for path in output:
        _check(path, given.all_files, overwrite)
    from streamdream.scenes.listing import opened

    with opened(source, flags or Piece()) as film:
        for notice in film.notices:
            say(notice)
        console = Console(highlight=False)
        drawn = console.is_terminal and console.color_system is not None and not (csv or json)
        page = any(path.suffix.lower() == ".html" for path in output)
        found = _found(film, drawn or page)
        for path in output:
            _write(path, _listed(path.suffix.lower(), found, film))
        if csv or json:
            print(_listed(".csv" if csv else ".json", found, film), end="", flush=True)
        elif drawn and not output:
            from streamdream.scenes.table import show

            show(found, console)
        elif not output:
            from streamdream.scenes.table import as_text

            print(as_text(found), end="", flush=True)
    if sys.stderr.isatty():
        flashes, frames = sum(len(scene.flashes) for scene in found), found[-1].end
        also = f", {flashes} frames that only flash" if flashes else ""
        also = ", 1 frame that only flashes" if flashes == 1 else also
        told = f"{len(found)} scene{'s' * (len(found) > 1)} in {frames} frame{'s' * (frames > 1)}"
        say(told + also)
    return 0


def _check(path: Path, sources: tuple[Path, ...], overwrite: bool) -> None:
    if path.suffix.lower() not in ENDINGS:
        kind = f"of kind {path.suffix}" if path.suffix else "without an ending"
        raise SinkError(path, f"lists {kind} are unknown", f"use one of {' '.join(ENDINGS)}")
    check_folder(path)
    if path.resolve() in {s.resolve() for s in sources}:
        raise SinkError(path, "is the input itself", "give the output another name")
    if path.exists() and not overwrite:
        raise SinkError(path, "exists already", "give another name or --overwrite")


def _found(film: VideoSource, pictures: bool) -> list[Scene]:
    """All scenes, with progress on a terminal."""
    from streamdream.scenes.listing import scenes_in

    console = Console(stderr=True, highlight=False)
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("left"),
        TimeRemainingColumn(compact=True),
        console=console, disable=not console.is_terminal, transient=True,
    ) as progress:  # fmt: skip
        task = progress.add_task("looking", total=film.info.frames)

        def watch(frames: int, number: int) -> None:
            told = f"{number} scene{'s' * (number > 1)}"
            progress.update(task, completed=frames, description=told)

        return list(scenes_in(film, pictures, watch if console.is_terminal else None))


def _listed(ending: str, found: list[Scene], film: VideoSource) -> str:
    from streamdream.scenes import formats

    name = Path(film.input.label).name
    if ending == ".csv":
        return formats.as_csv(found)
    if ending == ".json":
        return formats.as_json(found, film.input.label, film.info.rate)
    if ending == ".edl":
        return formats.as_edl(found, name, film.info.rate)
    from streamdream.scenes.page import as_page

    return as_page(found, name, film.info.rate)


def _write(path: Path, text: str) -> None:
    part = part_of(path)
    try:
        part.write_text(text, "utf-8")
        part.replace(path)
    except OSError as fault:
        from streamdream.sinks import write_error

        raise write_error(path, fault) from None
