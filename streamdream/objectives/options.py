"""Options of what is excited besides layers, declared once, as in `streamdream.options`.

This module imports neither torch nor OpenCV, so that wrong options are answered at once.
"""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Group, Parameter
from pydantic import Field

from streamdream.moving import Moving
from streamdream.values import AS_WRITTEN, Layers, moves, slides

AIM = Group(
    "What is dreamed",
    sort_key=1.2,
    help='Of --layers also channels and neurons: "block9[3,17,40..55]", "block9[strongest:8]", '
    '"block9[17@0.5,0.4]" (channel at x,y), each with a weight: "block5,block9*-0.5" calms block9.',
)


class Aimed(Moving):
    """What decides what is excited, beside the layers."""

    objective: Annotated[Literal["energy", "squares", "mean", "log"], Parameter(group=AIM)] = Field(
        default="energy",
        json_schema_extra=slides(),
        description="How responses are summed: energy lets several layers share, squares lets "
        "the loudest lead, mean raises what is positive, log wakes also what responds faintly.",
    )
    channels: Annotated[Literal["all", "strongest", "weakest", "average"], Parameter(group=AIM)] = (
        Field(
            default="all",
            json_schema_extra=slides(),
            description="Which channels of layers that name none: all, or those that respond most, "
            "least, as usual to the picture.",
        )
    )
    channel_count: Annotated[int, Parameter(group=AIM, **AS_WRITTEN)] = Field(
        default=8,
        ge=1,
        le=4096,
        json_schema_extra=moves(1, 64),
        description="How many these are, at most all.",
    )
    channels_per: Annotated[Literal["scene", "frame"], Parameter(group=AIM)] = Field(
        default="scene",
        json_schema_extra=slides(),
        description="Picked from a scene's first frame and kept, or anew in each frame.",
    )
    classes: Annotated[
        Layers,
        Parameter(group=AIM, alias="--class", metavar="NAMES", show_default=False, **AS_WRITTEN),
    ] = Field(
        default=(),
        json_schema_extra={"moves": True, **slides()},
        description="Dream what the network knows by a name or number: goldfish, or "
        '"goldfish*0.7,bubble*0.3". In place of layers, or with --layers too.',
    )
    guide: Annotated[
        Layers, Parameter(group=AIM, metavar="FILE", show_default=False, **AS_WRITTEN)
    ] = Field(
        default=(),
        json_schema_extra={"moves": True, **slides()},
        description="Dream of what is in this picture or video, which runs along; several as "
        "a.jpg*0.7,b.mp4*0.3.",
    )
    guide_weight: Annotated[float, Parameter(group=AIM, **AS_WRITTEN)] = Field(
        default=1.0,
        ge=0,
        le=1,
        json_schema_extra=moves(0, 1),
        description="How much the guide decides: at 0 the layers dream freely.",
    )
    guide_end: Annotated[Literal["loop", "hold"], Parameter(group=AIM)] = Field(
        default="loop",
        description="What follows a guide video's end: its beginning, or its last picture.",
    )
