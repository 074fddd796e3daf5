"""One training: a painting and photographs in, a network file out, by the options."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image as Files

from streamdream import backbone
from streamdream.errors import ModelError, OptionError
from streamdream.frame import Image, resize, to_pixels, work_size
from streamdream.run import choose_device
from streamdream.sinks import Stopped
from streamdream.stills import painting as read
from streamdream.style.network import NetworkCard, save_network, write_whole
from streamdream.train.checkpoint import Progress
from streamdream.train.data import Moment, Pictures, file_hash
from streamdream.train.objectives import DreamObjective, Objective, StyleObjective
from streamdream.train.options import TrainOptions, check_lesson, check_output, checkpoint_of
from streamdream.train.trainer import Report, begin, painted, train

PREVIEW_LINES = 270


class Listener(Protocol):
    """Is told how a training goes, and may stop it."""

    def notice(self, text: str) -> None:
        """Something a person should know."""
        ...

    def begin(self, options: TrainOptions) -> None:
        """The steps begin: from here on only Stopped ends the training in good order."""
        ...

    def step(self, report: Report) -> None:
        """A step was made; raise Stopped to stop."""
        ...


class Silent:
    """A listener that does not listen."""

    def notice(self, text: str) -> None:
        """Ignore it."""

    def begin(self, options: TrainOptions) -> None:
        """Ignore it."""

    def step(self, report: Report) -> None:
        """Ignore it."""


@dataclass
class Outcome:
    """What a training reached: `steps` in `seconds`, all sessions together."""

    steps: int
    seconds: float
    complete: bool


def train_network(
    painting: Path | None,
    output: Path,
    options: TrainOptions,
    listener: Listener | None = None,
) -> Outcome:
    """Train a network on a painting, or on the dream of the options, into `output`.

    Beside it `output.checkpoint` is what `resume` goes on from; both are written again and
    again. A listener that raises Stopped ends it early with both. Raises errors.Error before
    anything is loaded where input or output are unfit.
    """
    listener = listener or Silent()
    check_lesson(painting, options)
    check_output(output, options)
    device = choose_device(options.device)
    picture = None if painting is None else read(painting)
    preview = None if options.preview is None else read(options.preview)
    pictures = Pictures(options.data)
    for notice in pictures.notices:
        listener.notice(notice)
    model = options.model if picture is None else "vgg19"
    precision = backbone.choose_precision(options.precision, model, device)
    # What is recorded is what was used: other precisions give other bits.
    options = options.as_started().model_copy(update={"precision": precision})
    lesson = {
        "options": options.as_text(),
        "trained_on": ",".join((model, *options.layers)) if painting is None else painting.name,
        "painting": "" if painting is None else file_hash(painting),
        "data": pictures.fingerprint,
    }
    progress, weights = begin(options, device), options.weights if picture is None else None
    if options.resume:
        progress.restore(checkpoint_of(output), lesson)
        if _is_over(progress, options):
            reached = f"{progress.step} steps in {progress.seconds / 60:.1f} minutes are done"
            raise OptionError("--resume", reached, "give more --steps or --minutes")
    judge = backbone.load(model, device, backbone.PRECISIONS[precision], weights, options.store)
    objective: Objective
    if picture is None:
        objective = DreamObjective(judge, options)
    else:
        objective = StyleObjective(judge, picture.to(device), options)

    def keep() -> None:
        progress.save(checkpoint_of(output), lesson)
        kind = "dream" if painting is None else "style"
        told = lesson["trained_on"], progress.step, lesson["options"]
        save_network(output, progress.average, NetworkCard(kind, options.width, *told))
        if preview is not None:
            _show(progress, preview.to(device), preview_of(output))

    listener.begin(options)
    kept, complete = time.monotonic(), True
    try:
        for report in train(progress, objective, pictures, options):
            if _is_over(progress, options):
                break
            if time.monotonic() - kept > options.checkpoint_every:
                keep()
                kept = time.monotonic()
            listener.step(report)
    except Stopped:
        complete = False
    except (MemoryError, torch.OutOfMemoryError, RuntimeError) as fault:
        # PyTorch says so on the CPU with a RuntimeError that nothing but its words tells.
        if type(fault) is RuntimeError and "allocate memory" not in str(fault):
            raise
        cure = "use a smaller --crop or --batch"
        raise ModelError("memory", f"there is not enough ({device})", cure) from None
    keep()
    return Outcome(progress.step, progress.seconds, complete)


def _is_over(progress: Progress, options: TrainOptions) -> bool:
    last, minutes = options.last_step, options.minutes
    if last is not None and progress.step >= last:
        return True
    return minutes is not None and progress.seconds >= 60 * minutes


def preview_of(output: Path) -> Path:
    """Where the preview of a network lies."""
    return output.with_suffix(".preview.png")


@torch.no_grad()
def _show(progress: Progress, picture: Image, path: Path) -> None:
    image = resize(picture, work_size((picture.shape[-2], picture.shape[-1]), PREVIEW_LINES))
    image = image.clamp(0, 1)
    first = Moment(image, torch.zeros_like(image[:2]), torch.zeros_like(image[:1]))
    data = io.BytesIO()
    Files.fromarray(to_pixels(painted(progress.average, first, image))).save(data, "PNG")
    write_whole(path, data.getvalue())
