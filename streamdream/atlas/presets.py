"""An atlas of the presets: of the package's own pictures of them, or of a picture of one's own."""

from __future__ import annotations

import time
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from streamdream.atlas import sheet
from streamdream.atlas.gallery import Preset, presets
from streamdream.atlas.making import Made, Subject, command_of, shown, subject_of, write
from streamdream.atlas.options import UNTYPED, PresetsOptions
from streamdream.atlas.page import Book, Card, inline, url
from streamdream.atlas.plates import Plate
from streamdream.files import is_picture
from streamdream.masks.options import check_mask
from streamdream.objectives.named import check_guides
from streamdream.options import Options
from streamdream.run import Listener, Silent, choose_device
from streamdream.settings import made as made_of
from streamdream.settings import preset_picture, read_preset
from streamdream.style.named import check_styles

SOURCE = "photograph"  # of the package's pictures
TITLE = "Presets"


def make_presets(
    source: str | None,
    output: Path | None,
    options: PresetsOptions,
    listener: Listener | None = None,
) -> Made:
    """Show what all presets make of a picture; without one, what they made of the package's own.

    A page or a sheet at `output`, and what options name. A listener that raises Stopped ends it
    early, with what is done in `name.part.ext`. Raises errors.Error.
    """
    listener, made, began = listener or Silent(), Made(), time.perf_counter()
    targets = [path for path in (output, options.sheet) if path is not None]
    if source is None:
        cards = [ready(preset) for preset in presets()]
        picture = url("webp", preset_picture(SOURCE))
        told = "The looks that come along, each on the same photograph; those of zoom movies after "
        told += "a few seconds of falling into it."
        write(Book(TITLE, told, "presets", picture), cards, len(cards), targets, made)
        made.seconds = time.perf_counter() - began
        return made
    check_styles(options)
    check_guides(options)
    check_mask(options)
    subject = subject_of(source, options)
    plates = plates_of(subject, options)
    book = Book(
        Path(subject.label).name or source,
        f"What {len(plates)} presets make of it.",
        "presets",
        inline(subject.frame.pixels),
    )
    listener.begin(replace(subject.info, frames=len(plates)))
    paged = not all(map(is_picture, targets))
    device = choose_device(options.device)
    cards = shown(plates, subject.frame, device, listener, made, paged)
    write(book, cards, len(plates), targets, made)
    made.seconds = time.perf_counter() - began
    return made


def plates_of(subject: Subject, options: PresetsOptions) -> list[Plate]:
    """A plate for each preset of pictures and videos, with the options over it."""
    known = set(Options.model_fields) - UNTYPED
    given = {name: value for name, value in options.given().items() if name in known}
    over = made_of(Options, given)
    found = []
    for preset in presets():
        if preset.zooms:
            continue
        look = made_of(Options, read_preset(preset.name), given)
        command = command_of(subject, preset.name, ["--preset", preset.name], over)
        found.append(Plate(preset.name, look, command, preset.facts, told=preset.told))
    return found


def ready(preset: Preset) -> Card:
    """A preset with the package's own picture of it."""
    plate = Plate(
        preset.name, Options(), preset.command(), preset.facts,
        "zoom" if preset.zooms else "video", preset.told,
    )  # fmt: skip
    pixels = np.asarray(Image.open(BytesIO(preset.picture)).convert("RGB"))
    return Card(plate, url("webp", preset.picture), sheet.small(pixels))
