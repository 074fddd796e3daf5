"""READ FIRST: how a network learns to paint, or to dream, frame after frame.

A step looks at a few short clips, each a piece of a photograph that moves in a way that is
exactly known. The network paints a clip frame by frame as it will in a video; the last frame is
judged: by its style and content (or how much of a dream it is), and by how well it agrees with
what was carried along. Where nothing was carried, at first frames and behind things that move
away, it learns to paint afresh.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from streamdream.errors import ModelError
from streamdream.motion import warp
from streamdream.style.losses import temporal_loss
from streamdream.style.network import Network, load_network
from streamdream.train.checkpoint import Progress
from streamdream.train.data import Moment, Pictures, clip, on
from streamdream.train.objectives import Objective
from streamdream.train.options import TrainOptions

LENGTHS, CHANCES = (1, 2, 3, 5), (0.3, 0.4, 0.2, 0.1)  # frames of a clip, and how often
STEEPEST = 1.0  # norm of a gradient; steeper ones are shortened
SETTLING = 0.99  # share of the average that stays with each step, once it is old enough


def begin(options: TrainOptions, device: torch.device) -> Progress:
    """A network that has learned nothing, the same for the same seed; or one to start from."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        network = Network(options.width, detail=1.0 if options.layers else 0.5)
    if options.start_from is not None:
        network.load_state_dict(load_network(options.start_from).state_dict())
    network.to(device).to(memory_format=torch.channels_last)
    average = copy.deepcopy(network).requires_grad_(False)
    adam = torch.optim.Adam(network.parameters(), options.learning_rate, betas=(0.9, 0.99))
    return Progress(network, average, adam)


@dataclass(frozen=True)
class Report:
    """What a step was: its number, its losses by name, and how long all steps took in seconds."""

    step: int
    seconds: float
    losses: Mapping[str, float]


def train(
    progress: Progress, objective: Objective, pictures: Pictures, options: TrainOptions
) -> Iterator[Report]:
    """Train on and on, step by step; `progress` is the state after each."""
    while True:
        began = time.perf_counter()
        told: dict[str, float] = {}
        progress.adam.zero_grad(set_to_none=True)
        for item in range(options.batch):
            seed = (options.seed, progress.step, item)
            losses = lesson(progress.network, objective, pictures, options, seed)
            total = torch.stack(list(losses.values())).sum() / options.batch
            if not total.isfinite():
                cure = "train anew with a smaller --learning-rate"
                raise ModelError(f"step {progress.step + 1}", "its losses are no numbers", cure)
            total.backward()
            for name, loss in losses.items():
                told[name] = told.get(name, 0.0) + float(loss.detach()) / options.batch
        torch.nn.utils.clip_grad_norm_(progress.network.parameters(), STEEPEST)
        progress.adam.step()
        progress.step += 1
        blend(progress.average, progress.network, progress.step)
        progress.seconds += time.perf_counter() - began
        yield Report(progress.step, progress.seconds, told)


def lesson(
    network: Network,
    objective: Objective,
    pictures: Pictures,
    options: TrainOptions,
    seed: tuple[int, ...],
) -> Mapping[str, Tensor]:
    """The losses of one clip."""
    rng = np.random.default_rng((*seed, 1))
    device = next(network.parameters()).device
    length = int(rng.choice(LENGTHS, p=CHANCES))
    moments = [on(device, m) for m in clip(pictures, seed, options.crop, length)]
    with torch.no_grad():
        result = None
        for moment in moments[:-1]:
            result = painted(network, moment, carried(moment, result))
    last = moments[-1]
    brought = carried(last, result)
    result = painted(network, last, brought)
    losses = dict(objective(result, last.image, rng))
    if length > 1:
        losses["temporal"] = options.temporal_weight * temporal_loss(result, brought, last.trust)
    return losses


def carried(moment: Moment, result: Tensor | None) -> Tensor:
    """The last result as it looks from a moment; at a first one the image itself."""
    return moment.image if result is None else warp(result, moment.flow).clamp(0, 1)


def painted(network: Callable[..., Tensor], moment: Moment, brought: Tensor) -> Tensor:
    """What the network makes of a moment (3, h, w)."""
    return network(moment.image[None], brought[None], moment.trust[None])[0]


@torch.no_grad()
def blend(average: Network, network: Network, step: int) -> None:
    """Let the average follow the network, quickly at first."""
    stays = min(SETTLING, step / (step + 10))
    for old, new in zip(average.parameters(), network.parameters(), strict=True):
        old.lerp_(new, 1 - stays)
