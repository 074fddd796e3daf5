"""Options of how a dream is finished, declared once, as in `streamdream.options`.

This module imports neither torch nor OpenCV, so that wrong options are answered at once.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from cyclopts import Group, Parameter
from pydantic import Field

from streamdream.moving import Moving, typed
from streamdream.values import AS_WRITTEN, moves, slides

NoiseKind = Literal["gaussian", "uniform", "salt-and-pepper", "pink", "band-limited"]
NOISES: tuple[str, ...] = get_args(NoiseKind)
# Which of them act on what is shown, whatever dreamed it.
SHOWN = "--dream-colours", "--hold-contrast", "--hold-saturation"

FINISH = Group(
    "Finish",
    sort_key=1.3,
    help="How the gradient and the dreamed picture are treated; see docs/look.md.",
)


class Polished(Moving):
    """What decides how a dream is finished. The defaults do nothing."""

    smooth: Annotated[float, Parameter(group=FINISH, **AS_WRITTEN)] = Field(
        default=0.0,
        ge=0,
        le=16,
        json_schema_extra=moves(0, 4),
        description="Smooth every step by a cascade of Gaussians around so many pixels.",
    )
    levels: Annotated[int, Parameter(group=FINISH, **AS_WRITTEN)] = Field(
        default=4,
        ge=1,
        le=8,
        json_schema_extra=moves(1, 6),
        description="Bands of the Laplacian pyramid that makes fine and coarse equally strong: "
        "1 is the bare gradient, more are softer and bolder.",
    )
    total_variation: Annotated[float, Parameter(group=FINISH, **AS_WRITTEN)] = Field(
        default=0.0,
        ge=0,
        le=2,
        json_schema_extra=moves(0, 1),
        description="How much every step flattens the dream (not its source): painted areas in "
        "place of grain.",
    )
    source_pull: Annotated[float, Parameter(group=FINISH, **AS_WRITTEN)] = Field(
        default=0.0,
        ge=0,
        le=0.5,
        json_schema_extra=moves(0, 0.2),
        description="Part of its change that every step takes back (L2 to the source): 0.05 keeps "
        "near it, 0.2 very near.",
    )
    decorrelate: Annotated[float, Parameter(group=FINISH, **AS_WRITTEN)] = Field(
        default=0.0,
        ge=0,
        le=1,
        json_schema_extra=moves(0, 1),
        description="Dream in decorrelated colours: at 1 its colours vary as those of photographs "
        "do, mostly light and dark.",
    )
    fourier: Annotated[bool, Parameter(group=FINISH, negative=())] = Field(
        default=False,
        description="Dream a single picture in frequency space, at full size, in place of octaves: "
        "bold and soft.",
    )
    dream_colours: Annotated[
        Literal["dream", "luminance", "covariance", "histogram"], Parameter(group=FINISH)
    ] = Field(
        default="dream",
        json_schema_extra=slides(),
        description="Colours of the dream, or those of the source: its own hue everywhere, or all "
        "colours turned into the source's (by covariance or histogram).",
    )
    hold_contrast: Annotated[float, Parameter(group=FINISH, **AS_WRITTEN)] = Field(
        default=0.0,
        ge=0,
        le=1,
        json_schema_extra=moves(0, 1),
        description="How much the source's contrast and its wide light and shade are kept.",
    )
    hold_saturation: Annotated[float, Parameter(group=FINISH, **AS_WRITTEN)] = Field(
        default=0.0,
        ge=0,
        le=1,
        json_schema_extra=moves(0, 1),
        description="How much its saturation is kept, place by place: grey stays grey.",
    )
    noise: Annotated[float, Parameter(group=FINISH, **AS_WRITTEN)] = Field(
        default=0.0,
        ge=0,
        le=48,
        json_schema_extra=moves(0, 24),
        description="Noise to dream from, in grey levels of 255, wherever the picture is new; it "
        "is carried along like the dream.",
    )
    noise_kind: Annotated[NoiseKind, Parameter(group=FINISH)] = Field(
        default="gaussian", json_schema_extra=slides(), description="What noise that is."
    )

    @property
    def alters(self) -> bool:
        """Whether something else is shown of a dream than what was dreamed."""
        return self.dream_colours != "dream" or self.hold_contrast > 0 or self.hold_saturation > 0

    def finishes(self) -> tuple[str, ...]:
        """The options here that are asked for, as they are typed."""
        return tuple(
            typed(name)
            for name in Polished.model_fields
            if name != "noise_kind" and self.asks(name)
        )
