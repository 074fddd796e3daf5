"""Which effects redraw the frames of a run, by its options."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import torch

from streamdream import backbone
from streamdream.dream import Dream
from streamdream.memory import keep_freed
from streamdream.moving import typed
from streamdream.options import Look
from streamdream.pipeline import Effect
from streamdream.polish.options import NOISES, SHOWN
from streamdream.style.named import Named, optimises, styles_of
from streamdream.zoo.store import Store

OPTIMISER = "vgg19"  # whose features tell styles apart best
# What changes nothing without another option.
AIMED = ("layers", "channels", "classes", "guide", "objective")  # at what a dream aims
DEPENDING = {
    "guide": ("guide_weight", "guide_end"),
    "channels": ("channel_count",),
    "mask": ("mask_invert", "mask_feather", "mask_smooth", "mask_strength"),
    "style": (
        "style_method", "style_weight", "style_scale", "style_colours", "style_mask",
        "style_steps", "style_warm_steps", "style_optimiser", "dream_mix",
    ),
}  # fmt: skip


def precision_of(options: Look, device: torch.device) -> str:
    """The name of the precision that the options stand for on a device.

    With a style it is that of the network which paints; a dream mixed into it takes the same.
    """
    name = OPTIMISER if optimises(styles_of(options), options) else options.model
    return backbone.choose_precision(options.precision, name, device)


Load = Callable[
    [str, torch.device, torch.dtype, Path | None, Store | None], backbone.Backbone
]  # as backbone.load

_kept: ContextVar[dict[tuple[str, str], tuple[Effect, ...]] | None]
_kept = ContextVar("kept", default=None)


@contextmanager
def kept() -> Generator[None, None, None]:
    """Within it, runs of the same look get the same effects: networks are loaded once.

    Effects remember nothing of what they redrew, so results are as those of single runs.
    """
    token = _kept.set({})
    try:
        yield
    finally:
        _kept.reset(token)


def effects_of(options: Look, device: torch.device, load: Load | None = None) -> tuple[Effect, ...]:
    """The effects, loaded by `load` (or backbone.load), in the order in which they redraw a frame.

    They are for one thread; networks can be shared. Raises ModelError where a network or its
    weights are missing or wrong, and SourceError where a style cannot be read.
    """
    load = load or backbone.load
    there = _kept.get()
    if there is None:
        return _loaded(options, device, load)
    look = options.as_comment(), str(device)
    if look not in there:
        there.clear()
        there[look] = _loaded(options, device, load)
    return there[look]


def _loaded(options: Look, device: torch.device, load: Load) -> tuple[Effect, ...]:
    keep_freed()
    precision = backbone.PRECISIONS[precision_of(options, device)]
    styles = styles_of(options)
    if not styles:
        return (Dream(_dreaming(options, device, precision, load)),)
    painter = _painter(styles, options, device, precision, load)
    if not options.dreams:
        return (painter,)
    return painter, Dream(_dreaming(options, device, precision, load), mixed=True)


def _dreaming(
    options: Look, device: torch.device, precision: torch.dtype, load: Load
) -> backbone.Backbone:
    return load(options.model, device, precision, options.weights, options.store)


def idle(effects: Iterable[Effect], options: Look) -> Iterator[str]:
    """What a person should know of options that change nothing here."""
    for name, dependent in DEPENDING.items():
        left = [each for each in dependent if options.asks(each)]
        if left and not options.asks(name):
            yield f"{', '.join(map(typed, left))}: nothing without {typed(name)}"
    asked = options.finishes()
    if not any(isinstance(effect, Dream) for effect in effects):
        alone = all(effect.replaces for effect in effects)
        aimed = [typed(name) for name in AIMED if options.asks(name)]
        left = aimed + [name for name in asked if alone or name not in SHOWN]
        if left:
            yield f"{', '.join(left)}: a style has no such thing; --dream-mix lays a dream on it"
            return
    if options.fourier and "--levels" in asked:
        yield "--levels: --fourier has no pyramid"
    if "--noise" not in asked and options.noise_kind != NOISES[0]:
        yield f"--noise-kind {options.noise_kind}: how much of it is said by --noise"
    if options.dream_colours == "luminance" and "--hold-saturation" in asked:
        yield "--hold-saturation: --dream-colours luminance holds all of it"


def _painter(
    styles: tuple[Named, ...],
    options: Look,
    device: torch.device,
    precision: torch.dtype,
    load: Load,
) -> Effect:
    # Each brings in libraries that the others do without.
    if optimises(styles, options):
        from streamdream.style.optimised import Optimised

        return Optimised(load(OPTIMISER, device, precision, None, None))
    from streamdream.style.forward import Forward

    if styles[0].kind == "network":
        from streamdream.style.trained import Trained

        trained = Trained(device, precision, [style.name for style in styles])
        # A dream that was trained holds still only half: it would rather be a better one.
        return Forward(trained, trained.kind == "style", steady=trained.kind == "dream")
    from streamdream.style import lite

    return Forward(lite.load(styles[0].kind, device, precision))
