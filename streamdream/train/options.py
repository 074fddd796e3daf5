"""Options of `streamdream train`, declared once, as in `streamdream.options`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Literal, Self

from cyclopts import Group, Parameter
from pydantic import ConfigDict, Field, model_validator

from streamdream import models
from streamdream.errors import OptionError, SinkError, SourceError
from streamdream.inputs import check_file
from streamdream.options import OUTPUT, RUN
from streamdream.style.cards import ENDING, WIDTHS, read_card
from streamdream.style.named import check_picture
from streamdream.values import Layers
from streamdream.zoo.options import PLACES, Modelled

LESSON = Group("What is learned", sort_key=0)
LENGTH = Group("How long", sort_key=1)
NETWORK = Group("The network", sort_key=2)

DEFAULT = "default"  # in place of layers: the model's own choice
USUAL_STEPS = 2000
LEAST = 64  # px; a painting that is smaller teaches nothing

# What can differ when a training goes on: it decides how long, not what.
FREE = {"data", "steps", "minutes", "checkpoint_every", "preview", "resume", "overwrite", "device"}


class TrainOptions(Modelled):
    """All options of a training."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    data: Annotated[tuple[Path, ...], Parameter(group=LESSON, negative=(), show_default=False)] = (
        Field(
            default=(),
            description="Folder of photographs to practise on, or a video; needed. Give it "
            "several times for several.",
        )
    )
    dream: Annotated[
        Layers, Parameter(group=LESSON, metavar="LAYERS", negative=(), show_default=False)
    ] = Field(
        default=(),
        description="Learn to dream these layers, instead of a painting: block9,block12, or "
        f"{DEFAULT} for the model's own.",
    )
    model: Annotated[str, Parameter(group=LESSON)] = Field(
        default="efficientnet-lite0",
        description="Network that --dream is of: one of those that streamdream models lists.",
    )
    style_weight: Annotated[float, Parameter(group=LESSON)] = Field(
        default=6.0,
        gt=0,
        le=1000,
        description="How much the painting counts against what is in the picture.",
    )
    style_scale: Annotated[float, Parameter(group=LESSON)] = Field(
        default=1.0,
        ge=0.25,
        le=4,
        description="Size of the brush strokes: at 1 the painting is looked at with 256 lines.",
    )
    temporal_weight: Annotated[float, Parameter(group=LESSON)] = Field(
        default=40.0,
        ge=0,
        le=10000,
        description="How much it counts that frames agree with the one before.",
    )
    dream_strength: Annotated[float, Parameter(group=LESSON)] = Field(
        default=16.0,
        ge=1,
        le=64,
        description="How much --dream changes a picture, in grey levels of 255 (root mean square).",
    )
    steps: Annotated[int | None, Parameter(group=LENGTH)] = Field(
        default=None,
        ge=1,
        le=10**7,
        description=f"Stop after so many steps. Default: {USUAL_STEPS}, or those that fit into "
        "--minutes.",
    )
    minutes: Annotated[float | None, Parameter(group=LENGTH)] = Field(
        default=None, gt=0, le=10**5, description="Stop after so many minutes of training in all."
    )
    checkpoint_every: Annotated[float, Parameter(group=LENGTH)] = Field(
        default=60.0,
        gt=0,
        le=86400,
        description="Seconds after which what was learned is written to disk again.",
    )
    resume: Annotated[bool, Parameter(group=LENGTH, negative=())] = Field(
        default=False, description="Go on with a training that was stopped, or has ended."
    )
    width: Annotated[int, Parameter(group=NETWORK)] = Field(
        default=16,
        ge=WIDTHS[0],
        le=WIDTHS[1],
        description="Channels of its first layer; time and size of the network grow with the "
        "square.",
    )
    start_from: Annotated[Path | None, Parameter(group=NETWORK, metavar="NETWORK")] = Field(
        default=None,
        description="Trained network to start from: another painting is learned in a fraction "
        "of the time.",
    )
    crop: Annotated[int, Parameter(group=NETWORK)] = Field(
        default=128, ge=64, le=1024, description="Side of the pieces it practises on, in pixels."
    )
    batch: Annotated[int, Parameter(group=NETWORK)] = Field(
        default=1, ge=1, le=64, description="How many of them a step looks at."
    )
    learning_rate: Annotated[float, Parameter(group=NETWORK)] = Field(
        default=0.002, gt=0, le=1, description="Size of Adam's steps."
    )
    seed: Annotated[int, Parameter(group=NETWORK)] = Field(
        default=0, ge=0, lt=2**63, description="Seed of all randomness."
    )
    preview: Annotated[Path | None, Parameter(group=OUTPUT, metavar="PICTURE")] = Field(
        default=None,
        description="Picture to paint with every checkpoint, beside the output: "
        "painting.preview.png.",
    )
    overwrite: Annotated[bool, Parameter(group=OUTPUT, negative=())] = Field(
        default=False, description="Replace files that exist."
    )
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], Parameter(group=RUN)] = Field(
        default="auto", description="Where it is trained; auto takes a GPU if there is one."
    )
    precision: Annotated[Literal["auto", "fp32", "bf16"], Parameter(group=RUN)] = Field(
        default="auto",
        description="Numbers that the judging network computes with; auto takes bf16 where the "
        "hardware is faster with it.",
    )

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.resume and self.overwrite:
            raise ValueError("only one of --resume and --overwrite can be given")
        return self

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers to dream, with weights as they are typed; none for a painting."""
        if self.dream == (DEFAULT,):
            return models.card(self.model).default_layers
        return self.dream

    @property
    def last_step(self) -> int | None:
        """The step to stop after, None if only time counts."""
        return USUAL_STEPS if self.steps is None and self.minutes is None else self.steps

    def as_text(self) -> str:
        """What decides how the network turns out, as one line of JSON."""
        without = FREE | PLACES | ({"weights"} if self.weights is None else set())
        return json.dumps(self.model_dump(mode="json", exclude=without))

    def as_started(self) -> Self:
        """The same with the width of the network that it starts from.

        Raises ModelError where that is none, OptionError where another width was asked for.
        """
        if self.start_from is None:
            return self
        width = read_card(self.start_from).width
        if "width" in self.model_fields_set and self.width != width:
            reason = f"--start-from {self.start_from} has a width of {width}"
            raise OptionError(f"--width {self.width}", reason, "leave one of them out")
        return self.model_copy(update={"width": width})


def checkpoint_of(path: Path) -> Path:
    """Where the checkpoint of a network lies: `out.safetensors` has `out.checkpoint`."""
    return path.with_suffix(".checkpoint")


def check_lesson(painting: Path | None, options: TrainOptions) -> None:
    """Raise an error if it is not clear what is to be learned, and from what."""
    if painting is not None and options.dream:
        reason = f"is learned in place of a painting, and {painting} is one"
        raise OptionError("--dream", reason, "leave one of them out")
    if painting is None and not options.dream:
        cure = "name a painting, or --dream"
        raise OptionError("painting", "nothing is named that could be learned", cure)
    if not options.data:
        cure = "name a folder of photographs, or a video"
        raise OptionError("--data", "is needed to practise on", cure)
    if painting is not None:
        check_file(painting)
        check_picture(painting, "painting", LEAST)
    models.card(options.model).check_layers(options.layers)
    for layer in options.layers:
        if "[" in layer:
            cure = "leave out what is in brackets"
            raise OptionError(f"--dream {layer}", "networks learn whole layers", cure)
    options.as_started()
    if options.preview is not None:
        check_file(options.preview)
        check_picture(options.preview, "--preview", LEAST)
    for source in options.data:
        if not source.is_dir():
            check_file(source)
        elif not any(source.iterdir()):
            raise SourceError(source, "is an empty folder", "name a folder of photographs")


def check_output(output: Path, options: TrainOptions) -> None:
    """Raise SinkError if the network can or should not be written there."""
    if output.suffix != ENDING:
        raise SinkError(output, "is no name of a network file", f"let it end in {ENDING}")
    if not output.parent.is_dir():
        raise SinkError(output, f"there is no folder {output.parent}", "make it first")
    if output.is_dir():
        raise SinkError(output, "is a folder", "name a file in it")
    if not os.access(output.parent, os.W_OK):
        raise SinkError(output, f"the folder {output.parent} may not be written to")
    checkpoint = checkpoint_of(output)
    if options.resume and not checkpoint.is_file():
        raise SinkError(checkpoint, "there is no checkpoint to go on from", "leave out --resume")
    for path in (output, checkpoint):
        if path.exists() and not (options.overwrite or options.resume):
            raise SinkError(path, "exists already", "give another name, --overwrite or --resume")
