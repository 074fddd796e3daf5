"""Options that say which part of a source is read, and how; declared once, as in `options`.

This module imports neither torch nor OpenCV, so that wrong options are answered at once.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated

from cyclopts import Group, Parameter
from pydantic import ConfigDict, Field

from streamdream.moving import Moving
from streamdream.values import AS_WRITTEN, Rate, Time

PIECE = Group("Which part, which size", sort_key=3)


class Piece(Moving):
    """Which part of a source is read, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    start: Annotated[Time | None, Parameter(group=PIECE, metavar="TIME", **AS_WRITTEN)] = Field(
        default=None, description="Begin at this time: 83.5 or 1:23.5."
    )
    end: Annotated[Time | None, Parameter(group=PIECE, metavar="TIME", **AS_WRITTEN)] = Field(
        default=None, description="Stop at this time of the input."
    )
    frames: Annotated[int | None, Parameter(group=PIECE)] = Field(
        default=None, ge=1, description="Stop after so many frames."
    )
    video_stream: Annotated[int | None, Parameter(group=PIECE)] = Field(
        default=None, ge=0, description="Index of the video stream. Default: the largest."
    )
    rate: Annotated[Rate, Parameter(group=PIECE, metavar="FPS", **AS_WRITTEN)] = Field(
        default="25", description="Pictures a second of pictures in a row, as 24 or 30000/1001."
    )
    deinterlace: Annotated[bool, Parameter(group=PIECE)] = Field(
        default=True, description="Make whole pictures of interlaced video."
    )
    tone_map: Annotated[bool, Parameter(group=PIECE, negative=())] = Field(
        default=False, description="Turn HDR into ordinary video; it stays HDR by default."
    )
    max_pixels: Annotated[int, Parameter(group=PIECE)] = Field(
        default=8192 * 8192, ge=1024, description="Refuse pictures that are larger than this."
    )
    strict: Annotated[bool, Parameter(group=PIECE, negative=())] = Field(
        default=False, description="Fail where something is damaged instead of skipping it."
    )

    def _check_together(self) -> None:
        if self.start is not None and self.end is not None and self.end <= self.start:
            raise ValueError(
                f"--end {float(self.end):g} is not after --start {float(self.start):g}"
            )

    @property
    def exact_rate(self) -> Fraction:
        """The rate of pictures in a row."""
        return Fraction(self.rate)
