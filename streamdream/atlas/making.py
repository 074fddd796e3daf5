"""One atlas: a picture in; a page, a contact sheet, feature maps out."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from streamdream import backbone
from streamdream.atlas import sheet, typed
from streamdream.atlas.features import Maps, write_features
from streamdream.atlas.options import UNTYPED, AtlasOptions, Still
from streamdream.atlas.page import Book, Card, inline, rendered
from streamdream.atlas.plates import Dreamed, Plate, dream_plates
from streamdream.files import is_picture, part_of
from streamdream.frame import Frame, on_black, to_image, work_size
from streamdream.info import Counts, VideoInfo
from streamdream.masks.options import check_mask
from streamdream.models import card, classes_of
from streamdream.objectives.aimer import LOGITS
from streamdream.objectives.named import check_guides
from streamdream.options import Options
from streamdream.run import Listener, Silent, choose_device, enough_memory, reading_of
from streamdream.sinks import PartFile, Stopped, write_error
from streamdream.sources import VideoSource


@dataclass
class Made:
    """What an atlas became: `pictures` of it in `seconds`, in the files `paths`."""

    pictures: int = 0
    seconds: float = 0.0
    complete: bool = True
    paths: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class Subject:
    """The picture that an atlas is of, what it is called in commands, and what it is like."""

    frame: Frame
    label: str
    info: VideoInfo


def subject_of(source: str, options: Still) -> Subject:
    """Read the picture, of a video the frame at `start`; raises SourceError."""
    with VideoSource(source, options.start, None, 1, None, reading_of(options)) as frames:
        frame = next(iter(frames))
        label = frames.input.name if frames.input.piped else frames.input.label
        frame = replace(frame, pixels=on_black(frame), alpha=None)
        return Subject(frame, label, frames.info)


def command_of(subject: Subject, name: str, given: Sequence[str], options: Options) -> str:
    """The command that makes one of the pictures alone: with what is `given`, and these options."""
    words = [*given, *typed.flags(options, UNTYPED)]
    words += [] if subject.info.still else ["--frames", "1"]
    return typed.command(subject.label, f"{typed.stem(subject.label)}-{name}.png", *words)


def make_atlas(
    source: str, output: Path | None, options: AtlasOptions, listener: Listener | None = None
) -> Made:
    """Dream every layer into a picture: a page or a sheet at `output`, and what options name.

    A listener that raises Stopped ends it early, with what is done in `name.part.ext`.
    Raises errors.Error.
    """
    listener, made, began = listener or Silent(), Made(), time.perf_counter()
    check_guides(options)
    check_mask(options)
    subject = subject_of(source, options)
    device = choose_device(options.device)
    if options.weights is not None and not options.layers:
        # They may have no classes: then all layers are those that there are.
        there = loaded(options, device).layers
        options = options.model_copy(update={"layers": there})
    size = work_size((subject.frame.pixels.shape[0], subject.frame.pixels.shape[1]), options.lines)
    listener.begin(replace(subject.info, frames=len(options.shown_layers) * (1 + options.channels)))
    try:
        if options.features is not None:
            made.paths.append(options.features)
            with enough_memory(device):
                wanted = maps_of(subject.frame, options, device)
                write_features(
                    wanted, options.features, options.feature_data,
                    lambda: listener.step(0, Counts()),
                )  # fmt: skip
    except Stopped:
        made.complete = False
        return made
    with enough_memory(device):
        plates = plates_of(subject, options, device)
    octaves = f"{options.octaves} octaves" if options.octaves > 1 else "one octave"
    title = Path(subject.label).name if subject.label else source
    what = f"{len(options.shown_layers)} layers"
    what += f" and {len(plates) - len(options.shown_layers)} channels" * bool(options.channels)
    told = f"What {what} of {options.model} dream into it, each by itself: "
    told += f"{octaves} of {options.steps} steps, at {size[1]}x{size[0]}."
    book = Book(title, told, "layers", inline(subject.frame.pixels))
    targets = [path for path in (output, options.sheet) if path is not None]
    if targets:
        paged = not all(map(is_picture, targets))
        cards = shown(plates, subject.frame, device, listener, made, paged)
        write(book, cards, len(plates), targets, made)
    made.seconds = time.perf_counter() - began
    return made


def loaded(options: AtlasOptions, device: torch.device) -> backbone.Backbone:
    """The network that the options name; raises ModelError."""
    precision = backbone.choose_precision(options.precision, options.model, device)
    how = backbone.PRECISIONS[precision], options.weights, options.store
    return backbone.load(options.model, device, *how)


def maps_of(frame: Frame, options: AtlasOptions, device: torch.device) -> Mapping[str, Maps]:
    """What the layers see in a frame at work size: (channels, rows, columns), float32."""
    network = loaded(options, device)
    size = work_size((frame.pixels.shape[0], frame.pixels.shape[1]), options.lines)
    with torch.no_grad():
        found = network(to_image(frame.pixels, size, device), options.shown_layers)
    return {n: found[n][0].float().cpu().contiguous().numpy() for n in options.shown_layers}


def plates_of(subject: Subject, options: AtlasOptions, device: torch.device) -> list[Plate]:
    """A plate for each layer that is shown, and for its most excited channels if asked for."""
    network, usual = card(options.model), options.as_options({"layers": ()})
    # What the classes of weights of one's own are called is not known.
    classes = classes_of(network) if options.weights is None else ()
    strongest = strongest_of(subject.frame, options, device) if options.channels else {}
    found = []

    def add(name: str, file: str, kind: str, *facts: str) -> None:
        command = command_of(subject, file, ["--layers", name], usual)
        chosen = options.as_options({"layers": name})
        found.append(Plate(name, chosen, command, facts, kind))

    for layer in options.shown_layers:
        place = network.layers.index(layer)
        count, stride = network.channels[place], network.strides[place]
        depth = f"{place + 1} of {len(network.layers)}"
        sees = f"stride {stride}" if stride else "sees all at once"
        add(layer, layer, kind_of(layer), depth, f"{count} channels", sees)
        for channel in strongest.get(layer, ()):
            known = classes[channel : channel + 1] if layer == LOGITS else ()
            facts = depth, f"channel {channel} of {count}", *(known or (sees,))
            add(f"{layer}[{channel}]", f"{layer}-{channel}", "channel", *facts)
    return found


def strongest_of(frame: Frame, options: AtlasOptions, device: torch.device) -> dict[str, list[int]]:
    """The channels of each layer that a frame excites most (mean square), the first the most."""
    found = {}
    for layer, maps in maps_of(frame, options, device).items():
        squares = np.square(maps).mean(axis=(1, 2))
        order = np.argsort(-squares, kind="stable")[: options.channels]
        found[layer] = [int(channel) for channel in order if squares[channel] > 0]
    return found


def kind_of(layer: str) -> str:
    """The kind of a layer, by its name: block9.expand is an expand, layer3.2 a layer, fc6 an fc."""
    first, *_, last = layer.split(".") * 2
    part = first if last.isdigit() else last
    return re.sub(r"[\d_]+[a-z]?$", "", part) or part


def shown(
    plates: Sequence[Plate],
    frame: Frame,
    device: torch.device,
    listener: Listener,
    made: Made,
    paged: bool,
) -> list[Card]:
    """Dream the plates; what of them is done when a listener stops it, which `made` tells.

    Their pictures are encoded only if it is `paged`. Raises ModelError.
    """
    cards: dict[int, Card] = {}

    def keep(number: int, dreamed: Dreamed) -> None:
        picture = inline(dreamed.pixels) if paged else ""
        cards[number] = Card(dreamed.plate, picture, sheet.small(dreamed.pixels))

    try:
        with enough_memory(device), closing(dream_plates(plates, frame, device, keep)) as going:
            for done in going:
                listener.step(done, Counts())
    except Stopped:
        made.complete = False
    return [cards[number] for number in sorted(cards)]


def write(
    book: Book, cards: Sequence[Card], count: int, targets: Sequence[Path], made: Made
) -> None:
    """Write a page or a sheet, as its ending tells, at each target; `count` cards are all.

    Tells in `made` what was written; raises SinkError.
    """
    made.pictures = len(cards)
    if not cards:
        return
    if not made.complete:
        told = f"{book.told} Interrupted: {len(cards)} of {count} are here."
        book = replace(book, told=told)
    for path in targets:
        if is_picture(path):
            pictures = [
                (c.small, c.plate.name, c.plate.told or " · ".join(c.plate.facts)) for c in cards
            ]
            sheet.save(sheet.drawn(book.title, book.told, pictures), path, made.complete)
        else:
            _save_page(rendered(book, cards), path, made.complete)
        made.paths.append(path if made.complete else part_of(path))


def _save_page(html: str, path: Path, complete: bool) -> None:
    file = PartFile(path)
    try:
        file.part.write_text(html, "utf-8")
        if complete:
            file.complete()
    except OSError as fault:
        file.forget()
        raise write_error(path, fault) from None
