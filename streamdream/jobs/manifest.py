"""What a job is of: its input, options, versions and machine. Another one gives other frames."""

from __future__ import annotations

import json
import os
import platform
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any

from streamdream.errors import OptionError, SinkError, SourceError, words
from streamdream.jobs.folder import JobFolder, digest_of_bytes, read_sealed, write_sealed
from streamdream.options import Options
from streamdream.schedule import Schedule

FORMAT = 1
PIECE = 2**22  # bytes that are read at a time
PACKAGES = {
    "streamdream": "streamdream",
    "torch": "PyTorch",
    "av": "PyAV",
    "opencv-python": "OpenCV",
}


@dataclass(frozen=True)
class Fingerprint:
    """Tells files from others: `identity` by what the system says of them, `digest` by content."""

    identity: str
    digest: str

    @staticmethod
    def of(files: Sequence[Path]) -> Fingerprint:
        """Read files from front to end; raises SourceError."""
        found = blake2b(digest_size=16)
        for path in files:
            try:
                with path.open("rb") as file:
                    while data := file.read(PIECE):
                        found.update(data)
                    found.update(file.tell().to_bytes(8, "little"))
            except OSError as fault:
                raise SourceError(path, f"cannot be read ({words(fault)})") from None
        return Fingerprint(identity_of(files), found.hexdigest())


def identity_of(files: Sequence[Path]) -> str:
    """What the system says of files, as one text; raises SourceError if one is not there.

    The time of the last change of a file, which no program can set, is in it.
    """
    found = blake2b(digest_size=16)
    for path in files:
        try:
            told = path.stat()
        except OSError as fault:
            raise SourceError(
                path, words(fault), "put it back, and the same command goes on"
            ) from None
        parts = told.st_size, told.st_mtime_ns, told.st_ctime_ns, told.st_ino, told.st_dev
        found.update(repr(parts).encode())
    return found.hexdigest()


def options_told(options: Options) -> dict[str, Any]:
    """All options that decide about frames, for JSON."""
    values = options.model_dump(mode="json")
    moving = {name: schedule.text for name, schedule in options.schedules.items()}
    return {k: v for k, v in {**values, **moving}.items() if k not in options.free | {"device"}}


def machine_told(options: Options, device: Any) -> dict[str, Any]:
    """What else decides about the last bits of frames: versions, threads, processor."""
    import cv2
    import torch

    name = str(device)
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    told: dict[str, Any] = {title: version(package) for package, title in PACKAGES.items()}
    return told | {
        "PyTorch's threads": torch.get_num_threads(),
        "OpenCV's threads": cv2.getNumThreads(),
        "processors": os.cpu_count(),
        "instructions": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "device": name,
    }


def command_of(source: str | Path, target: Path, options: Options) -> str:
    """What a person types to make this again, in the folder where it was typed."""
    words = ["streamdream", str(source), "-o", str(target)]
    given = options.given()
    for name in type(options).model_fields:
        if name not in given or name == "resume":
            continue
        value = given[name]
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            default = type(options).model_fields[name].default
            if value != default:
                words.append(flag if value else f"--no-{flag[2:]}")
            continue
        if value is None or value == ():
            continue
        words.append(f"{flag}={_typed(value)}")
    implied = any(word.startswith(("--workers=", "--cluster=", "--split=")) for word in words)
    return shlex.join(words if implied else [*words, "--resume"])


def _typed(value: object) -> str:
    if isinstance(value, Schedule):
        return value.text
    if isinstance(value, Fraction):
        return format(float(value), ".12g")
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


@dataclass(frozen=True)
class Manifest:
    """What a job is of.

    `files` are fingerprints of what is read, by what it is; `options` and `machine` what has to
    stay; `command` makes it in `folder`; `frames` there are about, None if that is unknown;
    `begun` is when, in seconds of the system's clock.
    """

    target: str
    folder: str
    command: str
    files: dict[str, Fingerprint]
    options: dict[str, Any]
    machine: dict[str, Any]
    frames: int | None
    begun: float

    @staticmethod
    def read(folder: JobFolder) -> Manifest | None:
        """That of a job; None if there is none. Raises SinkError if it is damaged."""
        try:
            told = read_sealed(folder.manifest)
            if told is None:
                return None
            if told.pop("format") != FORMAT:
                raise ValueError("is of another version of streamdream")
            files = {name: Fingerprint(**each) for name, each in told.pop("files").items()}
            return Manifest(files=files, **told)
        except (ValueError, TypeError, KeyError, AttributeError) as fault:
            reason = words(fault) if isinstance(fault, ValueError) else "is damaged"
            cure = f"remove {folder.path} to begin anew"
            raise SinkError(folder.manifest, reason, cure) from None

    def write(self, folder: JobFolder) -> None:
        """Keep it; raises OSError."""
        files = {name: vars(each) for name, each in self.files.items()}
        write_sealed(folder.manifest, {"format": FORMAT, **vars(self), "files": files})

    @property
    def line(self) -> str:
        """The command that goes on, from any folder."""
        return f"cd {shlex.quote(self.folder)} && {self.command}"

    @property
    def mark(self) -> str:
        """Tells what comes of it from what comes of another input or other options.

        However many threads there are: that one is complete does not depend on them.
        """
        files = {name: each.digest for name, each in self.files.items()}
        options = {name: value for name, value in self.options.items() if name != "threads"}
        told = json.dumps([options, files], sort_keys=True)
        return digest_of_bytes(told.encode())

    def check(self, now: Manifest, folder: JobFolder) -> None:
        """Raise an Error that tells what has changed, if anything has."""
        cure = f"leave it as it was, or remove {folder.path} to begin anew"
        for name, before, after in _changes(self.options, now.options):
            flag = "--" + name.replace("_", "-")
            told = f"{flag} was {_shown(before)} when this job began, now it is {_shown(after)}"
            raise OptionError("--resume", told, cure)
        for name, before, after in _changes(self.machine, now.machine):
            told = f"{name}: {before} when this job began, now {after}, which gives other frames"
            raise OptionError("--resume", told, cure)


def now_of(
    source: str | Path,
    target: Path,
    typed: Options,
    options: Options,
    device: Any,
    frames: int | None,
) -> Manifest:
    """The manifest of a job as it is now, without its files.

    `typed` are the options as they were given, `options` what they stand for here.
    """
    return Manifest(
        str(target.absolute()),
        os.getcwd(),
        command_of(source, target, typed),
        {},
        options_told(options),
        machine_told(options, device),
        frames,
        time.time(),
    )


def check_files(
    files: Mapping[str, Sequence[Path]], before: Mapping[str, Fingerprint], folder: JobFolder
) -> dict[str, Fingerprint]:
    """The fingerprints of files, whose content is what it was `before`; raises SourceError.

    They are only read where the system does not say that they are the same.
    """
    found: dict[str, Fingerprint] = {}
    for name, paths in files.items():
        known = before.get(name)
        if known is not None and known.identity == identity_of(paths):
            found[name] = known
            continue
        found[name] = Fingerprint.of(paths)
        if known is not None and known.digest != found[name].digest:
            told = f"{name} has changed since this job began"
            cure = f"put it back as it was, or remove {folder.path} to begin anew"
            raise SourceError(paths[0] if len(paths) == 1 else paths[0].parent, told, cure)
    return found


class StillThere:
    """Asked again and again whether files are what they were; raises SourceError if not."""

    def __init__(
        self,
        files: Mapping[str, Sequence[Path]],
        known: Mapping[str, Fingerprint],
        folder: JobFolder,
    ) -> None:
        """For what check_files takes."""
        self._files, self._known, self._folder = files, known, folder

    def __call__(self) -> None:
        """Look; what was only moved is read once, and known from then on."""
        self._known = check_files(self._files, self._known, self._folder)


def apart(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What makes a machine (see `machine_told`) give other frames than another; "" if nothing.

    With a given number of threads it does not matter how many processors there are.
    """
    found = _changes(before, now)
    return ", ".join(f"{n}: {b} here, {a} there" for n, b, a in found if n != "processors")


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for name in dict.fromkeys([*before, *now]):
        if before.get(name) != now.get(name):
            yield name, before.get(name), now.get(name)


def _shown(value: object) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return text or "not given"
