"""One training: a painting and photographs in, a network file out, by the options."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from types import FrameType

import torch

from streamdream import backbone
from streamdream.display import say, span
from streamdream.errors import INTERRUPTED
from streamdream.run import choose_device
from streamdream.style.network import NetworkCard, save_network
from streamdream.train.checkpoint import Progress, checkpoint_of
from streamdream.train.data import Pictures, file_hash, painting as read_painting
from streamdream.train.objectives import DreamObjective, Objective, StyleObjective
from streamdream.train.options import TrainOptions
from streamdream.train.trainer import begin, train


def train_file(painting: Path | None, output: Path, options: TrainOptions) -> int:
    """Train a network into `output`."""
    device = choose_device(options.device)
    picture = None if painting is None else read_painting(painting)
    pictures = Pictures(options.data)
    for n in pictures.notices:
        say(n)
    model = "vgg19" if picture is not None else options.model
    precision = backbone.choose_precision(options.precision, model, device)
    options = options.model_copy(update={"precision": precision})
    network = backbone.load(model, device, backbone.PRECISIONS[precision])
    objective: Objective
    if picture is not None:
        objective = StyleObjective(network, picture.to(device), options)
    else:
        objective = DreamObjective(network, options)
    lesson = {
        "options": options.as_text(),
        "trained_on": painting.name if painting else ",".join(options.layers),
        "painting": file_hash(painting) if painting else "",
        "data": pictures.fingerprint,
    }
    progress = begin(options, device)
    if options.resume:
        progress.restore(checkpoint_of(output), lesson)
    stop = False

    def _stop(number: int, _frame: FrameType | None) -> None:
        nonlocal stop
        if stop:
            raise KeyboardInterrupt
        stop = True

    old = signal.signal(signal.SIGINT, _stop)

    def keep() -> None:
        progress.save(checkpoint_of(output), lesson)
        kind = "style" if painting else "dream"
        card = NetworkCard(
            kind, options.width, lesson["trained_on"], progress.step, lesson["options"]
        )
        save_network(output, progress.average, card)

    kept = time.monotonic()
    try:
        for report in train(progress, objective, pictures, options):
            if report.step % 10 == 0:
                say(
                    f"{report.step} {progress.seconds:.0f}s "
                    + " ".join(f"{k} {v:.3f}" for k, v in report.losses.items())
                )
            over = options.last_step is not None and progress.step >= options.last_step
            over = over or (
                options.minutes is not None and progress.seconds >= 60 * options.minutes
            )
            if over or stop:
                break
            if time.monotonic() - kept > options.checkpoint_every:
                keep()
                kept = time.monotonic()
    finally:
        signal.signal(signal.SIGINT, old)
    keep()
    return INTERRUPTED if stop else 0
