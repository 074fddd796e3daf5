"""The command `models`, and what every command does before it needs a network."""

from __future__ import annotations

import json as notation
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

from cyclopts import Parameter

from streamdream.display import say
from streamdream.errors import ModelError
from streamdream.models import CARDS, TIMM, ModelCard, card, classes_of, hosted, presence
from streamdream.zoo.options import MODELS
from streamdream.zoo.store import CACHE_VARIABLE, Store, url_of

if TYPE_CHECKING:
    from streamdream.options import Look
    from streamdream.train.options import TrainOptions


def models(
    name: Annotated[
        str | None,
        Parameter(group=MODELS, help="Model whose layers are told. Default: all models."),
    ] = None,
    /,
    *,
    classes: Annotated[
        bool,
        Parameter(group=MODELS, negative=(), help="List what it can be asked for with --class."),
    ] = False,
    fetch: Annotated[
        bool, Parameter(group=MODELS, negative=(), help="Fetch its weights now, for later.")
    ] = False,
    json: Annotated[
        bool, Parameter(group=MODELS, negative=(), help="Tell it as JSON, for programs.")
    ] = False,
    model_cache: Annotated[
        Path | None, Parameter(group=MODELS, metavar="FOLDER", help="Folder of fetched weights.")
    ] = None,
    offline: Annotated[bool, Parameter(group=MODELS, negative=(), help="Fetch nothing.")] = False,
) -> int:
    """List the networks that can dream; with a name, its layers."""
    store = Store(model_cache, offline)
    if classes:
        _print_classes(name or next(iter(CARDS)), json)
        return 0
    if name is None:
        if fetch:
            raise ModelError(
                "--fetch", "which model is not told", "streamdream models NAME --fetch"
            )
        known = [*CARDS.values(), *hosted().values()]
        if json:
            print(notation.dumps([_entry(one, store) for one in known], indent=2))
        else:
            print("\n".join(_list(known, store)))
        return 0
    found = card(name)
    if fetch:
        _fetched(found, store)
    if json:
        layers = zip(found.layers, found.channels, found.strides, strict=True)
        rows = [{"name": n, "channels": c, "stride": s or None} for n, c, s in layers]
        print(notation.dumps(_entry(found, store) | {"layers": rows}, indent=2))
    else:
        print("\n".join(_layers(found, store)))
    return 0


def _print_classes(name: str, json: bool) -> None:
    names = classes_of(card(name))
    if not names:
        cure = f"use {next(iter(CARDS))}"
        raise ModelError(f"--classes {name}", f"{name} tells no classes apart", cure)
    if json:
        print(notation.dumps(names, indent=2))
    else:
        print("\n".join(f"{number:4} {each}" for number, each in enumerate(names)))


def provide(options: Look | TrainOptions) -> None:
    """Fetch the weights of a model, showing how far it is, unless they are there.

    Raises ModelError where they cannot be had, or a file of one's own is not there.
    """
    if options.weights is not None:
        if not options.weights.is_file():
            raise ModelError(f"--weights {options.weights}", "there is no such file")
        return
    _fetched(card(options.model), options.store)


def _fetched(found: ModelCard, store: Store) -> None:
    from streamdream.zoo.fetch import fetch

    if found.package or not found.file:
        return  # they came along, or timm fetches them
    if store.offline or store.find(found.file) is not None:
        fetch(found.name, found.file, store)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    say(
        f"fetching {found.name} ({found.megabytes:.0f} MB) from "
        f"{urlsplit(url_of(found.file)).netloc} to {store.place}"
    )
    console = Console(stderr=True)
    columns = TextColumn("fetching"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    shown = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
    with shown:
        task = shown.add_task("", total=None)

        def watch(there: int, total: int | None) -> None:
            shown.update(task, completed=there, total=total)

        try:
            fetch(found.name, found.file, store, watch)
        except KeyboardInterrupt:
            say("what was fetched so far is kept; the next run goes on from there")
            raise


def _list(known: Iterable[ModelCard], store: Store) -> Iterator[str]:
    head = "model", "parameters", "size", "licence", "weights", "default layers"
    rows = [
        (
            one.name, f"{one.parameters / 1e6:.1f} M", f"{one.megabytes:.0f} MB", one.licence,
            presence(one, store), ",".join(one.default_layers),
        )
        for one in known
    ]  # fmt: skip
    yield from _aligned([head, *rows])
    yield ""
    yield f"Fetched weights are kept in {store.place} (--model-cache, or {CACHE_VARIABLE})."
    yield f"{TIMM}NAME is any convolutional network of timm (pip install 'streamdream[timm]')."


def _layers(found: ModelCard, store: Store) -> Iterator[str]:
    where = presence(found, store) if found.file else "timm's"
    yield (
        f"{found.name}: {found.parameters / 1e6:.1f} M parameters, {found.megabytes:.0f} MB, "
        f"{found.licence}, weights: {where}"
    )
    yield ""
    rows = [("layer", "channels", "stride", "")]
    for layer, channels, stride in zip(found.layers, found.channels, found.strides, strict=True):
        marks = ["default"] * (layer in found.default_layers) + ["walk"] * (layer in found.walk)
        rows.append((layer, str(channels), str(stride or "-"), ", ".join(marks)))
    yield from _aligned(rows)


def _aligned(rows: list[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, widths, strict=True)
        # Numbers meet at their ends.
        told = [c.rjust(w) if c[:1].isdigit() or c == "-" else c.ljust(w) for c, w in cells]
        yield "  ".join(told).rstrip()


def _entry(found: ModelCard, store: Store) -> dict[str, Any]:
    path = store.find(found.file) if not found.package and found.file else None
    return {
        "name": found.name,
        "parameters": found.parameters,
        "megabytes": found.megabytes,
        "licence": found.licence,
        "weights": presence(found, store) if found.file else "timm's",
        "path": path and str(path),
        "url": url_of(found.file) if found.file and not found.package else None,
        "default_layers": found.default_layers,
        "walk": found.walk,
    }
