"""Options of masks, declared once, as in `streamdream.options`.

This module imports neither torch nor OpenCV, so that wrong options are answered at once.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter
from pydantic import BeforeValidator, Field

from streamdream.errors import ModelError, OptionError, SourceError
from streamdream.inputs import check_file, locate
from streamdream.masks.parts import Part, read, split, unknown
from streamdream.moving import Moving
from streamdream.values import AS_WRITTEN, moves, slides

WHERE = Group(
    "Where",
    sort_key=1.7,
    help="What is redrawn, and what stays as it is. A mask lies on the picture as it is seen: "
    "upright, in its final size.",
)


def _parts(value: object) -> object:
    """Texts of parts; what is no text is given back, for others to refuse."""
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        return value
    found = split(texts)
    for part in found:
        read(part)
    return found


Parts = Annotated[tuple[str, ...], BeforeValidator(_parts)]


class Masked(Moving):
    """What decides where a picture is redrawn."""

    mask: Annotated[
        Parts, Parameter(group=WHERE, metavar="MASK", negative=(), show_default=False)
    ] = Field(
        default=(),
        description="Dream only there: where a picture or video file is white, polygon 0.1,0.2 "
        "0.9,0.2 0.5,0.9, luminance 0.5..1, colour #3a7 25, hue 90..150, motion, foreground, "
        "person NETWORK; with not in front the rest, with and in between where both hold.",
    )
    mask_invert: Annotated[bool, Parameter(group=WHERE, negative=())] = Field(
        default=False,
        json_schema_extra=slides(),
        description="Dream where the whole mask does not hold.",
    )
    mask_feather: Annotated[float, Parameter(group=WHERE, **AS_WRITTEN)] = Field(
        default=2.0,
        ge=0,
        le=50,
        json_schema_extra=moves(0, 20),
        description="How wide the mask's edge is, in percent of the picture's shorter side. That "
        "of a picture or polygon lies inside of it: outside nothing changes.",
    )
    mask_smooth: Annotated[float, Parameter(group=WHERE, **AS_WRITTEN)] = Field(
        default=0.3,
        ge=0,
        le=10,
        json_schema_extra=moves(0, 2),
        description="Seconds over which masks that are found in the picture are averaged along "
        "its motion, so that they do not flicker.",
    )
    mask_strength: Annotated[float, Parameter(group=WHERE, **AS_WRITTEN)] = Field(
        default=1.0,
        ge=0,
        le=1,
        json_schema_extra=moves(0, 1),
        description="How much the mask takes away: with 1 all outside, with 0.7 a dream of 0.3 is "
        "left there, with 0 there is no mask.",
    )

    def _check_together(self) -> None:
        super()._check_together()
        motion = any(part.kind == "motion" for part in self.mask_parts)
        if motion and getattr(self, "flow", "") == "none":
            raise ValueError("--mask motion needs to see motion; leave out --flow none")

    @property
    def mask_parts(self) -> tuple[Part, ...]:
        """The parts of the mask; none is everywhere."""
        return tuple(read(text) for text in self.mask)


def mask_files(options: Masked) -> tuple[Path, ...]:
    """The files that the mask is read from; raises an Error as `check_mask`."""
    found: list[Path] = []
    for part in options.mask_parts:
        if part.kind == "file":
            found += _located(part)
        elif part.kind == "person":
            check_network(part.path)
            found.append(Path(part.path))
    return tuple(found)


def check_mask(options: Masked) -> None:
    """Raise an Error if a mask cannot be, as far as that shows without loading anything."""
    mask_files(options)


def check_network(path: str) -> None:
    """Raise an Error if there is no network in a file, or nothing that could run it."""
    subject = f"--mask person {path}"
    try:
        check_file(Path(path))
        with open(path, "rb") as file:
            mark = file.read(8)[4:]
    except SourceError as fault:
        raise SourceError(subject, fault.reason, fault.cure) from None
    if mark != b"TFL3":
        raise ModelError(subject, "is no TensorFlow Lite network", "see docs/masks.md for one")
    if importlib.util.find_spec("ai_edge_litert") is None:
        cure = "pip install 'streamdream[person]', or use --mask foreground"
        raise ModelError("--mask person", "ai-edge-litert is not installed", cure)


def _located(part: Part) -> tuple[Path, ...]:
    try:
        given = locate(part.path)
    except SourceError as fault:
        if fault.reason == "no such file":
            raise OptionError(f"--mask {part.text}", fault.reason, unknown(part.path)) from None
        raise SourceError(f"--mask {fault.subject}", fault.reason, fault.cure) from None
    if given.piped:
        raise OptionError(f"--mask {part.text}", "a mask is not piped in", "name a file")
    return given.all_files
