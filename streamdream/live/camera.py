"""Cameras, and all that stands in for one: what they are called, and how they are opened.

A camera is what libav needs to open it: a name, a format, options. So a test clip, a screen, a
stream of another machine and a webcam are all read in one way (see `capture`).
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from streamdream.errors import SourceError, near, words
from streamdream.inputs import SECRET, URL, check_file
from streamdream.live.options import LiveOptions

Settings = dict[str, str]

FORMATS = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}
TEST_SIZE, TEST_RATE = "640x360", "30"
SCENES = ("test", "mandelbrot", "life", "bars")
LACKING = ("srt", "rist", "whip", "ndi", "sftp", "ws", "wss")
# No more is read of a stream before its first picture than it takes to know its kind.
AT_ONCE = {
    "fflags": "nobuffer", "flags": "low_delay", "probesize": "50000", "analyzeduration": "100000",
}  # fmt: skip


@dataclass(frozen=True)
class Camera:
    """Something to open.

    `label` for people; `name` and `format` for libav; `tries` the options to try one after
    another. `repeats`: it is a file, shown at its own pace and begun again at its end.
    `noisy`: its pictures are never twice the same, so the same one for long means that it hangs.
    """

    label: str
    name: str
    format: str | None = None
    tries: tuple[Settings, ...] = ({},)
    repeats: bool = False
    noisy: bool = False


@dataclass(frozen=True)
class Device:
    """A camera that is plugged in: `name` is what `streamdream live` takes, `label` for people."""

    name: str
    label: str
    default: bool = False


def devices() -> list[Device]:
    """The cameras that are plugged in, under names that stay when one is plugged in again."""
    import av.device
    from av.error import FFmpegError

    kind = FORMATS.get(sys.platform)
    if kind is None:
        return []
    try:
        found = av.device.enumerate_input_devices(kind)
    except (FFmpegError, OSError, ValueError):
        found = []
    cameras = [d for d in found if "video" in (getattr(d, "media_types", None) or ("video",))]
    steady = _steady_names()
    return [
        Device(steady.get(d.name, d.name), d.description or d.name, bool(d.is_default))
        for d in cameras
    ]


def _steady_names() -> dict[str, str]:
    """Names of /dev/video* that do not change with the order of plugging in."""
    folder = Path("/dev/v4l/by-id")
    if not folder.is_dir():
        return {}
    return {str(link.resolve()): str(link) for link in sorted(folder.iterdir(), reverse=True)}


def find(text: str | None, options: LiveOptions, patient: bool = False) -> Camera:
    """The camera that `text` names, None for the default one. Raises SourceError.

    A `patient` one does not ask whether a device is there: it will be waited for.

    A number; a device (/dev/video2, or a part of a camera's name); `screen`; `test` and other
    pictures that are made; a URL; a video or picture file.
    """
    if text is None or text.isdecimal():
        number = None if text is None else int(text)
        return _numbered(number, options, patient)
    if text == "screen":
        return _screen(options)
    if text in SCENES:
        return _made(text, options)
    if text.startswith("lavfi:"):
        return Camera(text, text.removeprefix("lavfi:"), "lavfi")
    if URL.match(text):
        return _from_network(text)
    return _there(text, options, patient)


def _there(text: str, options: LiveOptions, patient: bool) -> Camera:
    """A device or file by its path, or a camera by a part of its name."""
    if text.startswith("/dev/") and (patient or Path(text).exists()):
        return _device(text, text, options)
    if Path(text).exists():
        check_file(Path(text))
        _check_plays(Path(text))
        return Camera(text, str(Path(text).absolute()), repeats=True)
    for device in devices():
        if text.lower() in device.label.lower():
            return _device(device.name, device.label, options)
    if text.startswith("/dev/"):
        raise SourceError(text, "no such device", "streamdream cameras lists those there are")
    known = (*SCENES, "screen", *(d.label for d in devices()))
    raise SourceError(
        text, "no such file, and no camera of that name", near(text, known, "sources")
    )


def _check_plays(path: Path) -> None:
    """Raise SourceError for a file that no waiting makes a video."""
    import av
    from av.error import FFmpegError

    try:
        with av.open(str(path.absolute()), metadata_errors="replace") as container:
            if not container.streams.video:
                raise SourceError(path, "has no picture")
    except (FFmpegError, OSError, ValueError, EOFError) as fault:
        raise SourceError(path, f"not a video or picture ({words(fault)})") from None


def _numbered(given: int | None, options: LiveOptions, patient: bool) -> Camera:
    number, default = given or 0, given is None
    cure = "name a file or URL, or try: streamdream live test"
    if sys.platform == "linux":
        node = Path(f"/dev/video{number}")
        if default and not node.exists():
            there = sorted(Path("/dev").glob("video*"), key=lambda p: (len(p.name), p.name))
            node = there[0] if there else node
        if not node.exists() and not patient:
            subject = "camera" if default else f"camera {number}"
            raise SourceError(subject, "none is plugged in" if default else f"no {node}", cure)
        return _device(_steady_names().get(str(node), str(node)), str(node), options)
    if sys.platform == "darwin":
        return _device(str(number), f"camera {number}", options)
    found = devices()
    if number >= len(found):
        raise SourceError(f"camera {number}", f"of cameras there are {len(found)}", cure)
    return _device(f"video={found[number].name}", found[number].label, options)


def _device(name: str, label: str, options: LiveOptions) -> Camera:
    common: Settings = {}
    if options.capture_size is not None:
        common["video_size"] = options.capture_size
    if options.wanted_rate is not None:
        common["framerate"] = str(options.wanted_rate)
    wanted = options.pixel_format
    tries: list[Settings] = []
    if sys.platform == "linux":
        # Uncompressed pictures fill USB 2; a camera that has no MJPEG refuses, and is asked again.
        tries += [{**common, "input_format": "mjpeg"}] if wanted == "auto" else []
        tries += [{**common, "input_format": wanted}] if wanted != "auto" else []
    elif sys.platform == "darwin":
        common.setdefault("framerate", "30")  # it must be one that the camera has
        tries += [{**common, "pixel_format": wanted}] if wanted != "auto" else []
    else:
        tries += [{**common, "vcodec": "mjpeg"}] if wanted == "auto" else []
        tries += [{**common, "pixel_format": wanted}] if wanted != "auto" else []
    tries += [common] if wanted == "auto" else []
    tries += [{}] if common and wanted == "auto" else []
    return Camera(label, name, FORMATS.get(sys.platform), tuple(tries), noisy=True)


def _screen(options: LiveOptions) -> Camera:
    rate = str(options.wanted_rate or 30)
    if sys.platform == "linux":
        display = os.environ.get("DISPLAY")
        if not display:
            cure = "set DISPLAY; screens of Wayland cannot be read this way"
            raise SourceError("screen", "there is no X display", cure)
        given = {"framerate": rate}
        if options.capture_size is not None:
            given["video_size"] = options.capture_size
        return Camera("screen", f"{display}+0,0", "x11grab", (given,))
    if sys.platform == "darwin":
        return Camera("screen", "Capture screen 0", "avfoundation", ({"framerate": rate},))
    return Camera("screen", "desktop", "gdigrab", ({"framerate": rate},))


def _made(scene: str, options: LiveOptions) -> Camera:
    size, rate = options.capture_size or TEST_SIZE, options.wanted_rate or TEST_RATE
    source = {"test": "testsrc2", "mandelbrot": "mandelbrot", "bars": "smptebars", "life": "life"}
    extra = ":ratio=.1:mold=10:death_color=#203040:life_color=#e0f0ff" if scene == "life" else ""
    return Camera(scene, f"{source[scene]}=size={size}:rate={rate}{extra},realtime", "lavfi")


def _from_network(url: str) -> Camera:
    scheme = url.split(":", 1)[0].lower()
    shown = SECRET.sub("", url).partition("?")[0]  # cameras take passwords there too
    if scheme in LACKING:
        raise SourceError(shown, f"libav here has no {scheme}", "use rtsp, rtmp, http, udp or tcp")
    given = dict(AT_ONCE)
    kind = None
    if scheme.startswith("rtsp"):
        given["rtsp_transport"] = "tcp"
    if re.search(r"\.mjpe?g([?#]|$)", url, re.IGNORECASE):
        kind = "mpjpeg"
    tries = [given]
    if scheme.startswith("rtsp"):
        tries.append({**given, "rtsp_transport": "udp"})
    if kind is not None:
        return Camera(shown, url, kind, tuple(tries))
    # Some streams tell too little in so few bytes.
    return Camera(shown, url, None, tuple(tries) if scheme.startswith("rtsp") else (*tries, {}))


def pace_of(stream: Any) -> Fraction:
    """Pictures a second of a file's video stream."""
    told = stream.average_rate or stream.guessed_rate
    rate = Fraction(told.numerator, told.denominator) if told else Fraction(25)
    return rate if 1 <= rate <= 240 else Fraction(25)


def listed() -> Iterator[str]:
    """Lines on what can be named as a source here."""
    found = devices()
    for number, device in enumerate(found):
        yield f"{number}  {device.label}  ({device.name})" + (" default" * device.default)
    if not found:
        yield "no camera is plugged in"
    yield "named as: streamdream live 0, or by a part of the name"
    yield f"always there: {', '.join(SCENES)}; screen; a file (looped); rtsp, rtmp, http, udp, tcp"
