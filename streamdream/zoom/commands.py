"""The command `zoom`: arguments to options to a movie."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from streamdream import options as opts
from streamdream import settings
from streamdream.codecs import STDOUT, check_codec
from streamdream.display import Display, report
from streamdream.files import check_size, check_target
from streamdream.inputs import PIPE
from streamdream.zoo.commands import provide
from streamdream.zoom.named import NAMES, files_read
from streamdream.zoom.options import ZoomOptions


class ZoomFlags(ZoomOptions):
    """Options from the command line alone; see `settings.Flags`."""

    def _check_together(self) -> None:
        """Nothing yet."""


def zoom(
    source: Annotated[
        str,
        Parameter(
            name="start",
            group=opts.INPUT,
            help=f"Picture to fall into (of a video the first one), or noise: {', '.join(NAMES)}.",
        ),
    ],
    /,
    *,
    output: Annotated[
        Path | None,
        Parameter(
            alias="-o",
            group=opts.INPUT,
            help="File to write: mp4, mov, mkv, webm, gif, webp, apng, png in a row; - for piping "
            "it on (Matroska). Without it a window opens.",
        ),
    ] = None,
    preset: Annotated[
        str | None, Parameter(group=opts.SETTINGS, help=settings.preset_help(ZoomOptions))
    ] = None,
    config: settings.Config = None,
    like: settings.Like = None,
    flags: Annotated[ZoomFlags | None, Parameter(name="*")] = None,
) -> int:
    """Make a zoom movie: fall for ever into the dream of a picture, or of pure noise."""
    chosen = settings.chosen(ZoomOptions, flags, preset, config)
    read = files_read(source, chosen)
    if output is not None:
        output = STDOUT if str(output) == PIPE else output
        check_target(output, read, chosen.overwrite)
        check_codec(output, chosen.codec, chosen.crf)
        check_size(output, chosen.most_bytes)
    if like is not None:
        from streamdream.run import read_settings

        recorded = settings.recorded(read_settings(like), f"--like {like}", ZoomOptions)
        place = f"with --like {like}:"
        chosen = settings.chosen(ZoomOptions, flags, preset, config, recorded, place)
    provide(chosen)
    from streamdream.zoom.movie import zoom_file

    with Display(writes_a_file=output is not None) as display:
        outcome = zoom_file(source, output, chosen, display)
    return report(outcome, output, display)
