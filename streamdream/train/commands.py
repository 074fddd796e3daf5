"""The command `train`: arguments to options to a network."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from streamdream import options as opts
from streamdream.display import say, span
from streamdream.style.cards import ENDING
from streamdream.train.display import Display
from streamdream.train.options import TrainOptions, check_lesson, check_output
from streamdream.zoo.commands import provide


def train(
    painting: Annotated[
        Path | None,
        Parameter(
            name="painting",
            group=opts.INPUT,
            help="Picture whose style is learned. Without one a dream is: see --dream.",
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
    if painting is None:
        provide(options)
    from streamdream.train.session import train_network

    with Display() as display:
        outcome = train_network(painting, output, options, display)
    learned = f"{output}: {outcome.steps} steps in {span(outcome.seconds)}"
    if not outcome.complete:
        say(f"interrupted: {learned}; it can be used, and --resume goes on")
        return 128 + (display.signal or signal.SIGINT)
    if display.terminal:
        say(learned)
    return 0
