"""Laying a painting on its source, and leaving the source its colours.

Nothing of this is fed back, so that it can be changed at any moment.

Sources: Gatys, Bethge, Hertzmann and Shechtman, "Preserving color in neural artistic style
transfer" (arXiv:1606.05897); the map between covariances is the one of least change, as in Pitie
and Kokaram, "The linear Monge-Kantorovitch linear colour mapping" (2007).
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from streamdream.frame import Image, Mask, Pixels, Resized, composite, interleaved, white
from streamdream.options import Look
from streamdream.stills import mask_of

LUMINANCE = 0.2126, 0.7152, 0.0722  # of red, green and blue, BT.709


def painted_on(pixels: Pixels, image: Resized, delta: Resized, options: Look) -> Pixels:
    """Full-size pixels (H, W, 3) with a painting on them, at work size `image + delta`.

    It is laid on with the strength of the options, where their one mask is white, in the colours
    that they ask for.
    """
    if options.strength == 0:
        return pixels
    size = pixels.shape[0], pixels.shape[1]
    painting = recoloured(image + delta, image, options.style_colours)
    most = np.float32(white(pixels))
    found = interleaved(painting)
    if found.shape[:2] != size:
        found = cv2.resize(found, size[::-1], interpolation=cv2.INTER_CUBIC)
    source = pixels.astype(np.float32) / most
    if options.style_colours == "luminance":
        found = source + _luma(found - source)
    share: float | np.ndarray = options.strength
    if (cover := cover_of(options, size)) is not None:
        share = interleaved(cover) * np.float32(share)
    mixed = source + (found - source) * share
    return np.round(mixed.clip(0, 1) * most).astype(pixels.dtype)


def dreamed_on(pixels: Pixels, delta: Resized, options: Look) -> Pixels:
    """Full-size pixels (H, W, 3) with a trained dream added, where the options' mask is white."""
    found = composite(pixels, delta, options.strength)
    if (cover := cover_of(options, (pixels.shape[0], pixels.shape[1]))) is None:
        return found
    mixed = pixels + (found.astype(np.float32) - pixels) * interleaved(cover)
    return np.round(mixed).astype(pixels.dtype)


def cover_of(options: Look, size: tuple[int, int]) -> Mask | None:
    """Where (1, h, w) a painting is laid on, None for everywhere."""
    if not options.style_mask:
        return None
    masks = [mask_of(Path(mask), size) for mask in options.style_mask]
    return torch.stack(masks).sum(0).clamp(0, 1)


def recoloured(painting: Image, image: Image, how: str) -> Resized:
    """A painting (3, h, w) in the colours of its source, an image of the same size."""
    if how == "luminance":
        weights = torch.tensor(LUMINANCE, device=image.device).view(3, 1, 1)
        return image + ((painting - image) * weights).sum(0, keepdim=True)
    if how == "covariance":
        return _mapped(painting, image)
    if how == "histogram":
        return torch.stack([_ranked(p, i) for p, i in zip(painting, image, strict=True)])
    return painting


def _mapped(painting: Image, image: Image) -> Image:
    """Linearly mapped so that mean and covariance of the colours are those of the image."""
    flat, goal = painting.flatten(1).double(), image.flatten(1).double()
    mean, aim = flat.mean(1, keepdim=True), goal.mean(1, keepdim=True)
    some = 1e-5 * torch.eye(3, device=flat.device, dtype=flat.dtype)
    have = (flat - mean) @ (flat - mean).T / flat.shape[1] + some
    want = (goal - aim) @ (goal - aim).T / flat.shape[1] + some
    root = _power(have, 0.5)
    back = _power(have, -0.5)
    move = back @ _power(root @ want @ root, 0.5) @ back
    return (move @ (flat - mean) + aim).to(painting.dtype).view_as(painting)


def _power(matrix: Tensor, power: float) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag(values.clamp_min(1e-12) ** power) @ vectors.T


def _ranked(channel: Tensor, goal: Tensor) -> Tensor:
    """A channel (h, w) with the histogram of another one of the same size."""
    order = channel.flatten().argsort(stable=True)
    found = torch.empty_like(goal.flatten())
    found[order] = goal.flatten().sort().values
    return found.view_as(channel)


def _luma(colours: np.ndarray) -> np.ndarray:
    return (colours @ np.array(LUMINANCE, np.float32))[..., None]
