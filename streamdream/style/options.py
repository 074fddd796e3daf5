"""Options of style transfer, declared once, as in `streamdream.options`.

This module imports neither torch nor OpenCV, so that wrong options are answered at once.
"""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Group, Parameter
from pydantic import BeforeValidator, Field

from streamdream.moving import Moving
from streamdream.values import AS_WRITTEN, Layers, moves, slides


def _named(value: object) -> object:
    """Paths, several in a text with commas between."""
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        return value
    return tuple(path.strip() for text in texts for path in text.split(",") if path.strip())


Pictures = Annotated[tuple[str, ...], BeforeValidator(_named)]

STYLE = Group(
    "Style",
    sort_key=1.5,
    help="A painting in place of a dream. What is told of dreams holds for it too: --memory, "
    "--work-size, --strength, --flow, --seed.",
)


class Painted(Moving):
    """What decides how a style looks."""

    style: Annotated[
        Layers, Parameter(group=STYLE, metavar="PAINTING", show_default=False, **AS_WRITTEN)
    ] = Field(
        default=(),
        json_schema_extra={"moves": True, **slides()},
        description="Paint like this picture, or with this network that streamdream trained "
        "(.safetensors, or one by name, see the README); several as a.jpg*0.7,b.jpg*0.3.",
    )
    style_method: Annotated[Literal["auto", "gatys", "fast"], Parameter(group=STYLE)] = Field(
        default="auto",
        description="How a picture is painted like: gatys optimises every frame, fast takes a "
        "ready-made network (needs streamdream[fast-style]). auto is gatys.",
    )
    style_weight: Annotated[float, Parameter(group=STYLE, **AS_WRITTEN)] = Field(
        default=1.0,
        gt=0,
        le=100,
        json_schema_extra=moves(0.1, 4),
        description="How much the painting counts beside what is in the picture.",
    )
    style_scale: Annotated[float, Parameter(group=STYLE, **AS_WRITTEN)] = Field(
        default=1.0,
        ge=0.1,
        le=8,
        json_schema_extra=moves(0.25, 2),
        description="Size of its strokes: at 1 the painting is as large as the picture. "
        "Networks paint a smaller picture for larger strokes, a larger one for smaller.",
    )
    style_colours: Annotated[
        Literal["painting", "luminance", "covariance", "histogram"], Parameter(group=STYLE)
    ] = Field(
        default="painting",
        json_schema_extra=slides(),
        description="Colours of the painting, or those of the source: its own hue everywhere, or "
        "the painted colours turned into the source's (by covariance or histogram).",
    )
    style_mask: Annotated[
        Pictures, Parameter(group=STYLE, metavar="PICTURE", negative=(), show_default=False)
    ] = Field(
        default=(),
        description="Paint where this picture is white; with several styles one for each, in "
        "their order, as left.png,right.png.",
    )
    style_steps: Annotated[int, Parameter(group=STYLE, **AS_WRITTEN)] = Field(
        default=60,
        ge=1,
        le=5000,
        json_schema_extra=moves(),
        description="Steps of gatys for a frame that starts a scene, at each of its sizes.",
    )
    style_warm_steps: Annotated[int, Parameter(group=STYLE, **AS_WRITTEN)] = Field(
        default=12,
        ge=1,
        le=5000,
        json_schema_extra=moves(),
        description="The same on top of a carried painting.",
    )
    style_optimiser: Annotated[Literal["adam", "lbfgs"], Parameter(group=STYLE)] = Field(
        default="adam", description="What makes the steps of gatys; lbfgs takes more memory."
    )
    dream_mix: Annotated[float, Parameter(group=STYLE, **AS_WRITTEN)] = Field(
        default=0.0,
        ge=0,
        le=4,
        json_schema_extra=moves(0, 2),
        description="How much of a dream is shown on top of the painting.",
    )
