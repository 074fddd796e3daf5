"""Options of `streamdream atlas`, declared once, as in `streamdream.options`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from cyclopts import Group, Parameter
from pydantic import Field

from streamdream.masks.parts import FOLLOWING
from streamdream.models import card
from streamdream.options import RUN, Common, Options
from streamdream.piece import Piece
from streamdream.settings import made
from streamdream.values import HIDDEN

ATLAS = Group("Atlas", sort_key=0)


class Still(Common, Piece):
    """What every atlas has: one picture, dreamed in several ways.

    One picture carries nothing over from another, and an atlas is of dreams.
    """

    overwrite: Annotated[bool, Parameter(group=RUN, negative=())] = Field(
        default=False, description="Replace files that exist."
    )

    end: Annotated[None, HIDDEN] = None  # type: ignore[assignment]
    frames: Annotated[Literal[1], HIDDEN] = 1  # type: ignore[assignment]
    warm_steps: Annotated[Literal[1], HIDDEN] = 1  # type: ignore[assignment]
    memory: Annotated[float, HIDDEN] = Field(default=3.0, ge=3, le=3)
    flow: Annotated[Literal["dis"], HIDDEN] = "dis"  # type: ignore[assignment]
    recall: Annotated[Literal[0], HIDDEN] = 0  # type: ignore[assignment]

    style: Annotated[tuple[()], HIDDEN] = ()
    style_method: Annotated[Literal["auto"], HIDDEN] = "auto"  # type: ignore[assignment]
    style_weight: Annotated[Literal[1], HIDDEN] = 1  # type: ignore[assignment]
    style_scale: Annotated[Literal[1], HIDDEN] = 1  # type: ignore[assignment]
    style_colours: Annotated[Literal["painting"], HIDDEN] = "painting"  # type: ignore[assignment]
    style_mask: Annotated[tuple[()], HIDDEN] = ()
    style_steps: Annotated[Literal[60], HIDDEN] = 60  # type: ignore[assignment]
    style_warm_steps: Annotated[Literal[12], HIDDEN] = 12  # type: ignore[assignment]
    style_optimiser: Annotated[Literal["adam"], HIDDEN] = "adam"  # type: ignore[assignment]
    dream_mix: Annotated[Literal[0], HIDDEN] = 0  # type: ignore[assignment]

    def _check_together(self) -> None:
        super()._check_together()
        for part in self.mask_parts:
            if part.kind in FOLLOWING:
                raise ValueError(f"--mask {part.text} is for videos; an atlas is of one picture")

    def as_options(self, *above: dict[str, object]) -> Options:
        """The options of a run that dreams this picture, with values put over these."""
        hidden = {n for n, f in type(self).model_fields.items() if HIDDEN in f.metadata}
        shared = set(Options.model_fields) - hidden - UNTYPED
        given = {n: v for n, v in self.given(all_fields=True).items() if n in shared}
        return made(Options, given, *above)


class PresetsOptions(Still):
    """All options of an atlas of the presets: they go over what the presets say."""

    sheet: Annotated[Path | None, Parameter(group=ATLAS, metavar="FILE")] = Field(
        default=None, description="Write a contact sheet too: png, jpg or webp."
    )


# What is no part of how one of the pictures is made, or another thing in an atlas.
UNTYPED = {"overwrite", "channels"}


class AtlasOptions(Still):
    """All options of an atlas of a network's layers."""

    command: ClassVar[str] = "atlas"

    channels: Annotated[int, Parameter(group=ATLAS)] = Field(  # type: ignore[assignment]
        default=0,
        ge=0,
        le=1024,
        description="Show also as many channels of every layer, each by itself: those that the "
        "picture excites most.",
    )
    sheet: Annotated[Path | None, Parameter(group=ATLAS, metavar="FILE")] = Field(
        default=None, description="Write a contact sheet too: png, jpg or webp."
    )
    features: Annotated[Path | None, Parameter(group=ATLAS, metavar="FOLDER")] = Field(
        default=None,
        description="Write what every layer sees in the picture into this folder: a PNG a layer, "
        "with a map of each of its channels.",
    )
    feature_data: Annotated[Literal["none", "npz", "safetensors"], Parameter(group=ATLAS)] = Field(
        default="none",
        description="Write the same as numbers too: features.npz or features.safetensors, float32 "
        "(channels, rows, columns) by the layer's name.",
    )

    channel_count: Annotated[Literal[8], HIDDEN] = 8  # type: ignore[assignment]
    channels_per: Annotated[Literal["scene"], HIDDEN] = "scene"  # type: ignore[assignment]
    classes: Annotated[tuple[()], HIDDEN] = ()

    def _check_together(self) -> None:
        super()._check_together()
        if "layers" in self.schedules:
            raise ValueError("--layers cannot move in an atlas, which shows each by itself")
        for layer in self.layers:
            if layer not in card(self.model).layers:
                reason = "an atlas shows whole layers, each by itself; for channels give --channels"
                raise ValueError(f"--layers {layer}: {reason}")
        if self.feature_data != "none" and self.features is None:
            raise ValueError(
                f"--feature-data {self.feature_data} needs a folder: --features FOLDER"
            )

    @property
    def shown_layers(self) -> tuple[str, ...]:
        """The layers that are shown, in order of depth."""
        every = card(self.model).layers
        return tuple(layer for layer in every if layer in self.layers) if self.layers else every
