"""What is shown of a dream: with the source's colours, contrast and saturation, where asked for.

Nothing of this is fed back, so that it can be changed at any moment.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from streamdream.frame import (
    Delta,
    Image,
    Pixels,
    Planes,
    Resized,
    composite,
    interleaved,
    planes,
    resize,
    white,
)
from streamdream.options import Look
from streamdream.polish.gradient import blurred
from streamdream.style.colours import LUMINANCE, recoloured

WIDE = 8  # of a picture's shorter side: what is wider than that part is light and shade
NEAR = 24  # the same: what is nearer is one place, whose saturation is held
FAINT = 0.02  # saturation, of 1; grey has less
MOST = 4.0  # times that saturation or contrast are raised, at most


def dreamed_onto(
    pixels: Pixels, image: Resized, delta: Resized, options: Look, strength: float
) -> Pixels:
    """Full-size pixels (H, W, 3) with the dream `delta` of their `image`, as it is shown."""
    change = shown(image, delta, options, strength)
    if options.dream_colours != "luminance" or strength == 0:
        return composite(pixels, change, strength)
    # At full size there are colours that the image at work size has not.
    most = np.float32(white(pixels))
    source = planes(pixels.astype(np.float32) / most)
    light = resize(change[:1].cpu() * strength, (source.shape[-2], source.shape[-1]))
    return np.round(interleaved(source + fitting(source, light)) * most).astype(pixels.dtype)


def shown(image: Image, delta: Delta, options: Look, strength: float = 1.0) -> Delta:
    """What a dream's `delta` (3, h, w) of an `image` looks like: the same, unless asked for.

    It is what is right where it is laid on with this `strength`.
    """
    if strength == 0 or not options.alters:
        return delta
    result = image + delta * strength
    if options.dream_colours in ("covariance", "histogram"):
        result = recoloured(result.clamp(0, 1), image, options.dream_colours)
    if options.dream_colours == "luminance":
        result = image + fitting(image, luma(result - image))
    if options.hold_contrast > 0:
        result = contrast_held(result.clamp(0, 1), image, options.hold_contrast)
        if options.dream_colours == "luminance":
            result = image + fitting(image, luma(result - image))
    if options.hold_saturation > 0 and options.dream_colours != "luminance":
        result = saturation_held(result.clamp(0, 1), image, options.hold_saturation)
    return (result - image) / strength


def luma(image: Planes) -> Planes:
    """The luminance (1, h, w) of an image or delta (3, h, w), by BT.709."""
    weights = torch.tensor(LUMINANCE, device=image.device).view(3, 1, 1)
    return (image * weights).sum(0, keepdim=True)


def fitting(image: Image, light: Planes) -> Planes:
    """A change of luminance (1, h, w), as far as an image can take it and keep its hue."""
    return light.maximum(-image.amin(0, keepdim=True)).minimum(1 - image.amax(0, keepdim=True))


def contrast_held(result: Image, image: Image, amount: float) -> Image:
    """A result (3, h, w) with the light and shade, and the contrast, of its source.

    What the dream changed over wide areas is taken out of it, and the rest is spread so that
    luminance has the source's standard deviation. Hue and saturation stay.
    """
    have, want = luma(result), luma(image)
    sigma = min(image.shape[-2:]) / WIDE
    light = have - amount * blurred(have - want, sigma)
    # What is cut off at black and white is missed: so twice.
    for _ in range(2):
        mean = light.mean()
        gain = (want.std() / light.std().clamp_min(1e-4)).clamp(1 / MOST, MOST) ** amount
        light = ((light - mean) * gain + mean + amount * (want.mean() - mean)).clamp(0, 1)
    return result + (light - have)


def saturation_held(result: Image, image: Image, amount: float) -> Image:
    """A result (3, h, w) as colourful as its source at every place, and on the whole."""
    light = luma(result)
    colour, source = result - light, image - luma(image)
    sigma = min(image.shape[-2:]) / NEAR
    have, want = (_strength(each, sigma) for each in (colour, source))
    gain = ((want + FAINT**2) / (have + FAINT**2)).sqrt().clamp_max(MOST) ** amount
    colour = colour * gain
    whole = source.square().mean().sqrt() / colour.square().mean().sqrt().clamp_min(FAINT / 2)
    return light + colour * whole.clamp_max(MOST) ** amount


def _strength(colour: Planes, sigma: float) -> Tensor:
    """The mean square (1, h, w) of colours around each place."""
    return blurred(colour.square().mean(0, keepdim=True), sigma).clamp_min(0)
