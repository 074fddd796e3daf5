"""The commands `atlas` and `presets`: arguments to options to a page."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from streamdream import options as opts
from streamdream import settings
from streamdream.atlas.options import UNTYPED, AtlasOptions, PresetsOptions
from streamdream.display import Display, say, span
from streamdream.errors import OptionError, SinkError
from streamdream.files import PICTURE_FORMATS, check_target, is_row
from streamdream.inputs import locate
from streamdream.zoo.commands import provide

if TYPE_CHECKING:
    from streamdream.atlas.making import Made

PAGES = (".html", ".htm")
SHEETS = tuple(PICTURE_FORMATS)


class AtlasFlags(AtlasOptions):
    """Options from the command line alone; see `settings.Flags`."""

    def _check_together(self) -> None:
        """Nothing yet."""


def atlas(
    source: Annotated[
        str,
        Parameter(name="input", group=opts.INPUT, help="Picture, or video: its frame at --start."),
    ],
    /,
    *,
    output: Annotated[
        Path | None,
        Parameter(
            alias="-o",
            group=opts.INPUT,
            help="Page to write: html, one file that needs no other. With png, jpg or webp a "
            "contact sheet.",
        ),
    ] = None,
    preset: settings.Preset = None,
    config: settings.Config = None,
    flags: Annotated[AtlasFlags | None, Parameter(name="*")] = None,
) -> int:
    """Show what every layer dreams into a picture, each with the command that makes it."""
    given = locate(source)
    chosen = settings.chosen(AtlasOptions, flags, None, config, manner_of(preset))
    if output is None and chosen.sheet is None and chosen.features is None:
        raise OptionError("output", "nothing is to be written", "give -o atlas.html")
    check_outputs(output, chosen.sheet, given.all_files, chosen.overwrite)
    if chosen.features is not None:
        from streamdream.atlas.features import check_maps_folder

        check_maps_folder(chosen.features, chosen.overwrite)
    provide(chosen)
    from streamdream.atlas.making import make_atlas

    with Display(writes_a_file=True, unit="picture") as display:
        made = make_atlas(source, output, chosen, display)
    return report(made, display)


def manner_of(preset: str | None) -> dict[str, object]:
    """What a preset says of how layers are dreamed: of which ones, an atlas says itself."""
    values = {} if preset is None else settings.read_preset(preset)
    fields = AtlasOptions.model_fields
    taken = {name for name in fields if not settings.is_hidden(AtlasOptions, name)}
    return {name: value for name, value in values.items() if name in taken - {"layers", *UNTYPED}}


class PresetsFlags(PresetsOptions):
    """Options from the command line alone; see `settings.Flags`."""

    def _check_together(self) -> None:
        """Nothing yet."""


def presets(
    source: Annotated[
        str | None,
        Parameter(
            name="input",
            group=opts.INPUT,
            help="Picture, or video (its frame at --start), to show the presets on. Without one "
            "they are shown on a photograph that comes along.",
        ),
    ] = None,
    /,
    *,
    output: Annotated[
        Path | None,
        Parameter(
            alias="-o",
            group=opts.INPUT,
            help="Page to write: html; with png, jpg or webp a contact sheet. Without it the "
            "presets are listed here.",
        ),
    ] = None,
    flags: Annotated[PresetsFlags | None, Parameter(name="*")] = None,
) -> int:
    """Show the presets: in words and small pictures here, or on a page."""
    given = None if source is None else locate(source)
    chosen = settings.made(PresetsOptions, flags.given() if flags else {})
    check_outputs(output, chosen.sheet, () if given is None else given.all_files, chosen.overwrite)
    if output is None and chosen.sheet is None:
        if source is not None:
            raise OptionError("output", "nothing is to be written", "give -o presets.html")
        list_presets()
        return 0
    if source is None and (idle := chosen.model_fields_set - {"sheet", "overwrite"}):
        option = "--" + min(idle).replace("_", "-")
        raise OptionError(option, "changes nothing without a picture", "name one")
    from streamdream.atlas.presets import make_presets

    with Display(writes_a_file=True, unit="picture") as display:
        made = make_presets(source, output, chosen, display)
    return report(made, display)


def list_presets() -> None:
    """Print the presets: a line each, or small pictures on a terminal that has colours."""
    from rich.console import Console
    from rich.table import Table

    from streamdream.atlas import gallery

    console = Console(highlight=False)
    found = list(gallery.presets())
    if not console.is_terminal or console.color_system in (None, "standard", "windows"):
        for preset in found:
            words = f"{preset.use} --preset {preset.name}", preset.told, shlex.join(preset.flags)
            print("\t".join(words))
        return
    gap = 3
    columns = max(1, (console.width + gap) // (gallery.ACROSS + gap))
    for begin in range(0, len(found), columns):
        row = Table.grid(padding=(0, gap, 0, 0))
        for _ in range(columns):
            row.add_column(width=gallery.ACROSS)
        row.add_row(*map(gallery.drawn, found[begin : begin + columns]))
        console.print(row)
        console.print()


def check_outputs(
    output: Path | None, sheet: Path | None, sources: Sequence[Path], overwrite: bool
) -> None:
    """Raise SinkError if the page, or the sheet, cannot or should not be written."""
    for path, endings in ((output, PAGES + SHEETS), (sheet, SHEETS)):
        if path is None:
            continue
        if is_row(path):
            raise SinkError(path, "is for pictures in a row", "a contact sheet is one picture")
        check_target(path, sources, overwrite, endings)
    if output is not None and sheet is not None and output.resolve() == sheet.resolve():
        raise SinkError(sheet, "is the output already", "give the sheet another name")


def report(made: Made, display: Display) -> int:
    """Tell what became of an atlas; the exit code."""
    files = " and ".join(str(path) for path in made.paths)
    if not made.complete:
        kept = f"{files}: {made.pictures} pictures, and can be opened" if made.pictures else ""
        some = f"{files} holds the maps that were done" if made.paths else "nothing was written"
        say(f"interrupted: {kept or some}")
        return 128 + (display.signal or signal.SIGINT)
    if display.terminal:
        pictures = f"{made.pictures} pictures in " if made.pictures else ""
        say(f"{files}: {pictures}{span(made.seconds)}")
    return 0
