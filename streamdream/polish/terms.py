"""What draws a dream back, step by step: total variation, and the way to its source.

Both act on what was changed, not on the picture: a source keeps its own grain and edges.
Sources: Rudin, Osher and Fatemi, "Nonlinear total variation based noise removal algorithms"
(1992); Mahendran and Vedaldi, "Understanding deep image representations by inverting them"
(arXiv:1412.0035) for such terms beside what a network is asked for.
"""

from __future__ import annotations

import torch

from streamdream.frame import Delta
from streamdream.polish.gradient import Polish

STEEP = 8.0  # norm of the square of the gradient's operator: a descent by more than 2 / it leaps


def drawn_back(change: Delta, polish: Polish, step: float) -> Delta:
    """What a step of this size (mean absolute change, of 1) takes off a `change` (3, h, w).

    `source_pull` is the part of it that is taken back, `total_variation` how large a step down
    the slope of the total variation is beside the step itself.
    """
    back = torch.zeros_like(change)
    if polish.source_pull > 0:
        back = back + change * polish.source_pull
    if polish.total_variation > 0:
        back = back + steeper(change, step * polish.total_variation)
    return back


def steeper(change: Delta, step: float) -> Delta:
    """`step` times the gradient (3, h, w) of the total variation of a change.

    Colours are taken together, so that their edges stay together. Where the change is flatter
    than the step could flatten without leaping over, the variation is rounded off.
    """
    dx = torch.zeros_like(change)
    dy = torch.zeros_like(change)
    dx[..., :-1] = change[..., 1:] - change[..., :-1]
    dy[..., :-1, :] = change[..., 1:, :] - change[..., :-1, :]
    soft = STEEP * step / 2
    norm = (dx.square() + dy.square()).sum(0, keepdim=True).add(soft**2).sqrt()
    dx, dy = dx / norm, dy / norm
    slope = -dx - dy
    slope[..., 1:] += dx[..., :-1]
    slope[..., 1:, :] += dy[..., :-1, :]
    return slope * step
