"""Which effects redraw the frames of a run, by its options."""

from __future__ import annotations

import torch

from streamdream import backbone
from streamdream.dream import Dream
from streamdream.options import Look
from streamdream.pipeline import Effect
from streamdream.style.named import Kind, styles_of

PAINTER = "vgg19"  # whose features tell styles apart best


def precision_of(options: Look, device: torch.device) -> str:
    """The name of the precision that the options stand for on a device.

    With a style it is that of the network which paints; a dream in it takes the same.
    """
    name = PAINTER if options.style or "style" in options.schedules else options.model
    return backbone.choose_precision(options.precision, name, device)


def effects_of(options: Look, device: torch.device) -> tuple[Effect, ...]:
    """The effects, loaded, in the order in which they redraw a frame.

    Raises ModelError where a network or its weights are missing or wrong, and SourceError where
    a style cannot be read.
    """
    precision = backbone.PRECISIONS[precision_of(options, device)]
    styles = styles_of(options)
    if not styles:
        return (Dream(backbone.load(options.model, device, precision)),)
    painter = _painter(options, styles[0].kind, device, precision)
    if options.dream_mix == 0 and "dream_mix" not in options.schedules:
        return (painter,)
    return painter, Dream(backbone.load(options.model, device, precision), mixed=True)


def _painter(options: Look, kind: Kind, device: torch.device, precision: torch.dtype) -> Effect:
    """What paints in styles of a kind."""
    if kind == "lite" or options.style_method == "fast":
        from streamdream.style import lite
        from streamdream.style.forward import Forward

        return Forward(lite.load("lite" if kind == "lite" else "picture", device, precision))
    from streamdream.style.optimised import Optimised

    return Optimised(backbone.load(PAINTER, device, precision))
