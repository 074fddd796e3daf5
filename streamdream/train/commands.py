"""The command `train`: arguments to options to a network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from streamdream import models
from streamdream import options as opts
from streamdream.errors import OptionError, SinkError, SourceError
from streamdream.inputs import check_file
from streamdream.style.cards import ENDING
from streamdream.train.options import TrainOptions


def train(
    painting: Annotated[
        Path | None,
        Parameter(
            name="painting", group=opts.INPUT, help="Picture whose style is learned; or --dream."
        ),
    ] = None,
    /,
    *,
    output: Annotated[
        Path,
        Parameter(alias="-o", group=opts.INPUT, help=f"Network file to write: name{ENDING}."),
    ],
    flags: Annotated[TrainOptions | None, Parameter(name="*")] = None,
) -> int:
    """Train a small network that paints like a painting, or dreams, in one pass a frame."""
    options = flags or TrainOptions()
    check_lesson(painting, options)
    check_output(output, options)
    from streamdream.train.session import train_file

    return train_file(painting, output, options)


def check_lesson(painting: Path | None, options: TrainOptions) -> None:
    """Raise an error if it is not clear what is to be learned, and from what."""
    if painting is not None and options.dream:
        raise OptionError(
            "--dream", f"is learned in place of a painting, and {painting} is one", "leave one out"
        )
    if painting is None and not options.dream:
        raise OptionError(
            "painting", "nothing is named that could be learned", "name a painting, or --dream"
        )
    if not options.data:
        raise OptionError(
            "--data", "is needed to practise on", "name a folder of photographs, or a video"
        )
    if painting is not None:
        check_file(painting)
    if options.preview is not None:
        check_file(options.preview)
    models.card(options.model).check_layers(options.layers)
    for source in options.data:
        if not source.is_dir():
            check_file(source)
        elif not any(source.iterdir()):
            raise SourceError(source, "is an empty folder", "name a folder of photographs")


def check_output(output: Path, options: TrainOptions) -> None:
    """Raise SinkError if the network can or should not be written there."""
    checkpoint = output.with_suffix(".checkpoint")
    if output.suffix != ENDING:
        raise SinkError(output, "is no name of a network file", f"let it end in {ENDING}")
    if not output.parent.is_dir():
        raise SinkError(output, f"there is no folder {output.parent}", "make it first")
    if output.is_dir():
        raise SinkError(output, "is a folder", "name a file in it")
    if options.resume:
        if not checkpoint.is_file():
            raise SinkError(checkpoint, "there is no checkpoint to go on from", "train anew")
        return
    for path in (output, checkpoint):
        if path.exists() and not options.overwrite:
            raise SinkError(path, "exists already", "give another name, --overwrite or --resume")
