"""The package's presets: what they are, in words and pictures."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

from streamdream.atlas import typed
from streamdream.options import Look, Options
from streamdream.settings import made, preset_names, preset_picture, preset_told, read_preset
from streamdream.zoom.options import ZoomOptions

if TYPE_CHECKING:
    from rich.text import Text

ACROSS = 24  # characters that a picture is wide on a terminal
KINDS: tuple[type[Look], ...] = (Options, ZoomOptions)


@dataclass(frozen=True)
class Preset:
    """One of the package's presets.

    `told` is a sentence about it, `flags` the words that would make it without its name, and
    `picture` a small WebP of it.
    """

    name: str
    kind: type[Look]
    told: str
    flags: tuple[str, ...]
    picture: bytes

    @property
    def zooms(self) -> bool:
        """Whether it is one for zoom movies."""
        return self.kind is ZoomOptions

    @property
    def use(self) -> str:
        """The command that it is for."""
        return "streamdream zoom" if self.zooms else "streamdream"

    @property
    def facts(self) -> tuple[str, ...]:
        """Its options as they are read: layers block9, octaves 5."""
        joined = " ".join(self.flags)
        return tuple(part.strip().replace("=", " ") for part in joined.split("--") if part.strip())

    def command(self, source: str = "") -> str:
        """A command that uses it."""
        if self.zooms:
            return typed.command(source or "photo.jpg", f"{self.name}.mp4", "--preset", self.name,
                                 before="zoom")  # fmt: skip
        return typed.command(source or "video.mp4", f"{self.name}.mp4", "--preset", self.name)


def presets() -> Iterator[Preset]:
    """All presets: those of videos and pictures, then those of zoom movies."""
    for kind in KINDS:
        for name in preset_names(kind):
            look = made(kind, read_preset(name, kind))
            words = tuple(typed.flags(look))
            yield Preset(name, kind, preset_told(name, kind), words, preset_picture(name, kind))


def drawn(preset: Preset) -> Text:
    """A preset for a terminal with colours: its picture, and below it its name and words."""
    text = blocks(preset.picture).append(f"\n{preset.name}", "bold")
    text.append("  zoom" * preset.zooms, "dim").append(f"\n{preset.told}\n")
    return text.append(shlex.join(preset.flags), "dim")


def blocks(picture: bytes, across: int = ACROSS) -> Text:
    """A picture for a terminal with colours: two pixels, one above the other, a character."""
    from PIL import Image
    from rich.color import Color
    from rich.style import Style
    from rich.text import Text

    image = Image.open(BytesIO(picture)).convert("RGB")
    rows = max(1, round(across * image.height / image.width / 2))
    pixels = image.resize((across, 2 * rows), Image.Resampling.BOX)
    text = Text()
    for row in range(rows):
        for column in range(across):
            above, below = (pixels.getpixel((column, 2 * row + half)) for half in (0, 1))
            assert isinstance(above, tuple)
            assert isinstance(below, tuple)
            style = Style(color=Color.from_rgb(*above[:3]), bgcolor=Color.from_rgb(*below[:3]))
            text.append("▀", style)
        if row + 1 < rows:
            text.append("\n")
    return text
