"""Options of `streamdream zoom`, declared once, as in `streamdream.options`."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from cyclopts import Group, Parameter
from pydantic import BeforeValidator, Field

from streamdream.masks.parts import FOLLOWING
from streamdream.options import DREAM, Written
from streamdream.values import AS_WRITTEN, HIDDEN, Rate, Size, Time, moves

CAMERA = Group("Camera", sort_key=0.1)
MOVIE = Group("Movie", sort_key=0.2)

MOST_OCTAVES, LEAST_SCALE = 16, 1.05  # beyond them sizes hardly differ
USUAL_LINES = 270  # px; a canvas that has `octaves` of them
CAMERA_MOVES = {"zoom", "rotate", "pan_x", "pan_y", "centre_x", "centre_y", "layers_walk"}


def _paths(value: object) -> object:
    texts = [value] if isinstance(value, str | Path) else value
    if not isinstance(texts, list | tuple):
        return value
    return tuple(part.strip() for text in texts for part in str(text).split(",") if part.strip())


Paths = Annotated[tuple[str, ...], BeforeValidator(_paths)]


class ZoomOptions(Written):
    """All options of a zoom movie."""

    command: ClassVar[str] = "zoom"
    excludes: ClassVar[dict[str, str]] = {"layers": "layers_walk", "layers_walk": "layers"}

    zoom: Annotated[float, Parameter(group=CAMERA, **AS_WRITTEN)] = Field(
        default=1.25,
        ge=0.1,
        le=10,
        json_schema_extra=moves(0.8, 2),
        description="How many times larger things get in a second; below 1 the camera draws back.",
    )
    rotate: Annotated[float, Parameter(group=CAMERA, **AS_WRITTEN)] = Field(
        default=0.0,
        ge=-720,
        le=720,
        json_schema_extra=moves(-45, 45),
        description="Degrees a second that the picture turns clockwise.",
    )
    pan_x: Annotated[float, Parameter(group=CAMERA, **AS_WRITTEN)] = Field(
        default=0.0,
        ge=-4,
        le=4,
        json_schema_extra=moves(-0.3, 0.3),
        description="Where the camera goes: widths of the picture a second to the right.",
    )
    pan_y: Annotated[float, Parameter(group=CAMERA, **AS_WRITTEN)] = Field(
        default=0.0,
        ge=-4,
        le=4,
        json_schema_extra=moves(-0.3, 0.3),
        description="The same downwards, in heights.",
    )
    centre_x: Annotated[float, Parameter(group=CAMERA, **AS_WRITTEN)] = Field(
        default=0.5,
        ge=-1,
        le=2,
        json_schema_extra=moves(0, 1),
        description="The point it falls towards and turns about: 0 is the left edge, 1 the right.",
    )
    centre_y: Annotated[float, Parameter(group=CAMERA, **AS_WRITTEN)] = Field(
        default=0.5,
        ge=-1,
        le=2,
        json_schema_extra=moves(0, 1),
        description="The same: 0 is the upper edge, 1 the lower.",
    )

    duration: Annotated[
        Time | None, Parameter(group=MOVIE, metavar="TIME", show_default=False, **AS_WRITTEN)
    ] = Field(default=None, description="How long the movie is: 20 or 1:30. Default: 20 seconds.")
    rate: Annotated[Rate, Parameter(group=MOVIE, metavar="FPS", **AS_WRITTEN)] = Field(
        default="24", description="Pictures a second, as 30 or 30000/1001; the movie is the same."
    )
    size: Annotated[Size | None, Parameter(group=MOVIE, metavar="WIDTHxHEIGHT")] = Field(
        default=None,
        description="Size of the movie, as 1920x1080; a picture is cut to its shape. Default: "
        "the picture's shape, at most 960x540 (portraits 540x960).",
    )
    frames: Annotated[int | None, Parameter(group=MOVIE)] = Field(
        default=None, ge=1, description="Stop after so many frames of it, to see how it begins."
    )
    loop: Annotated[bool, Parameter(group=MOVIE, negative=())] = Field(
        default=False,
        description="End where it began: the movie falls into its own first picture.",
    )
    ping_pong: Annotated[bool, Parameter(group=MOVIE, negative=())] = Field(
        default=False, description="Fall in, and come out again the same way: twice as long."
    )
    through: Annotated[Paths, Parameter(group=MOVIE, metavar="PICTURES", **AS_WRITTEN)] = Field(
        default=(),
        description="Pictures to dive into on the way, with commas between: a.jpg,b.jpg.",
    )
    blend: Annotated[
        Time | None, Parameter(group=MOVIE, metavar="TIME", show_default=False, **AS_WRITTEN)
    ] = Field(
        default=None,
        description="How long before it is reached such a picture begins to show. Default: 4 "
        "seconds, at most three quarters of the way to it.",
    )
    lead_in: Annotated[
        Time | None, Parameter(group=MOVIE, metavar="TIME", show_default=False, **AS_WRITTEN)
    ] = Field(
        default=None,
        description="How long it dreams before the movie begins. Default: 6 seconds where "
        "a loop starts from noise, half a second from a picture; without --loop 0.",
    )
    layers_walk: Annotated[bool, Parameter(group=MOVIE, negative=())] = Field(
        default=False,
        description="Travel through the network: from edges to objects, in a loop and back.",
    )

    octaves: Annotated[int, Parameter(group=DREAM, **AS_WRITTEN)] = Field(
        default=4,
        ge=1,
        le=16,
        json_schema_extra=moves(1, 6),
        description="Sizes dreamed at in a picture of 270 lines; larger ones have more.",
    )
    steps: Annotated[int, Parameter(group=DREAM, **AS_WRITTEN)] = Field(
        default=1,
        ge=0,
        le=100,
        json_schema_extra=moves(0, 4),
        description="Gradient steps per octave and frame.",
    )
    step_size: Annotated[float, Parameter(group=DREAM, **AS_WRITTEN)] = Field(
        default=1.5,
        gt=0,
        le=64,
        json_schema_extra=moves(0.25, 6),
        description="Mean change of one step, in grey levels of 255, at 25 pictures a second; at "
        "other rates as much more or less.",
    )
    strength: Annotated[float, Parameter(group=DREAM, **AS_WRITTEN)] = Field(
        default=1.0,
        ge=0,
        le=4,
        json_schema_extra=moves(0, 2),
        description="How much it dreams, of the step size; with 0 the camera only moves.",
    )
    work_size: Annotated[int, Parameter(group=DREAM, **AS_WRITTEN)] = Field(
        default=4320,
        ge=32,
        le=4320,
        json_schema_extra=moves(64, 1080),
        description="Lines dreamed at, at most (columns of a portrait). Fewer take less time, "
        "and the finest detail.",
    )
    # A movie that feeds on itself has no flow, and forgets nothing.
    warm_steps: Annotated[Literal[1], HIDDEN] = 1  # type: ignore[assignment]
    memory: Annotated[float, HIDDEN] = Field(default=3.0, ge=3, le=3)
    flow: Annotated[Literal["none"], HIDDEN] = "none"  # type: ignore[assignment]
    quality: Annotated[Literal["standard"], HIDDEN] = "standard"  # type: ignore[assignment]
    recall: Annotated[Literal[0], HIDDEN] = 0  # type: ignore[assignment]
    fourier: Annotated[Literal[False], HIDDEN] = False  # type: ignore[assignment]
    style: Annotated[tuple[()], HIDDEN] = ()
    style_method: Annotated[Literal["auto"], HIDDEN] = "auto"  # type: ignore[assignment]
    style_weight: Annotated[Literal[1], HIDDEN] = 1  # type: ignore[assignment]
    style_scale: Annotated[Literal[1], HIDDEN] = 1  # type: ignore[assignment]
    style_colours: Annotated[Literal["painting"], HIDDEN] = "painting"  # type: ignore[assignment]
    style_mask: Annotated[tuple[()], HIDDEN] = ()
    style_steps: Annotated[Literal[1], HIDDEN] = 1  # type: ignore[assignment]
    style_warm_steps: Annotated[Literal[1], HIDDEN] = 1  # type: ignore[assignment]
    style_optimiser: Annotated[Literal["adam"], HIDDEN] = "adam"  # type: ignore[assignment]
    dream_mix: Annotated[Literal[0], HIDDEN] = 0  # type: ignore[assignment]

    mask_smooth: Annotated[float, HIDDEN] = Field(default=0.0, ge=0, le=0)

    def _check_together(self) -> None:
        for part in self.mask_parts:
            if part.kind in FOLLOWING:
                raise ValueError(
                    f"--mask {part.text} is for videos; a zoom movie only has a camera"
                )
        super()._check_together()
        if self.layers_walk and self.layers:
            raise ValueError("--layers-walk and --layers exclude each other")
        if self.loop and self.ping_pong:
            raise ValueError("--loop and --ping-pong exclude each other")

    def _recorded(self) -> set[str]:
        hidden = {
            name for name, field in ZoomOptions.model_fields.items() if HIDDEN in field.metadata
        }
        return (super()._recorded() - hidden) | CAMERA_MOVES

    def octaves_at(self, size: tuple[int, int]) -> int:
        """How many octaves a picture (h, w) has, so that the smallest is about the same in all."""
        finer = math.log(min(size) / USUAL_LINES, max(self.octave_scale, LEAST_SCALE))
        return min(MOST_OCTAVES, max(1, self.octaves + round(finer)))

    @property
    def exact_rate(self) -> Fraction:
        """Pictures a second."""
        return Fraction(self.rate)
