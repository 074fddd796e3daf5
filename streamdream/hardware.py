"""Encoders in graphics hardware: which there may be, and whether one works here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import cast

import av
from av.codec.codec import UnknownCodecError
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext

from streamdream.codecs import EFFORTS, Codec
from streamdream.errors import words
from streamdream.frame import Size

Settings = Callable[[float, str], dict[str, str]]


@dataclass(frozen=True)
class Maker:
    """A family of encoders: `pixels` and `deep` are the pixel formats that they take.

    `settings` gives an encoder's options for a quality (as x264's crf) and an effort.
    """

    pixels: str
    deep: str | None
    settings: Settings


def _nvenc(crf: float, effort: str) -> dict[str, str]:
    preset = 1 + round(EFFORTS[effort] * 6 / 8)
    # Its 0 means that it chooses.
    return {"rc": "vbr", "cq": f"{max(1.0, crf):g}", "b": "0", "preset": f"p{preset}"}


def _qsv(crf: float, effort: str) -> dict[str, str]:
    known = effort if EFFORTS[effort] >= EFFORTS["veryfast"] else "veryfast"
    return {"global_quality": f"{round(crf)}", "preset": known}


def _amf(crf: float, effort: str) -> dict[str, str]:
    quality = "speed" if EFFORTS[effort] < 3 else "balanced" if EFFORTS[effort] < 6 else "quality"
    value = f"{round(crf)}"
    return {"rc": "cqp", "qp_i": value, "qp_p": value, "quality": quality}


def _videotoolbox(crf: float, effort: str) -> dict[str, str]:
    # It counts from 1 to 100, the best; libav wants that times 118.
    return {"flags": "+qscale", "global_quality": f"{118 * max(1, round(100 - 2 * crf))}"}


def _v4l2m2m(crf: float, effort: str) -> dict[str, str]:
    # It knows only bits a second: what 1080p takes at crf 18, half of it every 6 steps on.
    return {"b": f"{round(20e6 * 2 ** ((18 - crf) / 6))}"}


# In the order in which they are tried.
MAKERS = {
    "nvenc": Maker("yuv420p", "p010le", _nvenc),
    "qsv": Maker("nv12", "p010le", _qsv),
    "amf": Maker("nv12", "p010le", _amf),
    "videotoolbox": Maker("nv12", "p010le", _videotoolbox),
    "v4l2m2m": Maker("nv12", None, _v4l2m2m),
}
IN_HARDWARE = {"h264", "hevc", "av1", "vp9"}
HOLDING = {"hevc", "av1"}  # codecs with more than 8 bits in hardware


@dataclass(frozen=True)
class Found:
    """An encoder that works: its name, the pixel format it takes, its options."""

    encoder: str
    pixels: str
    options: dict[str, str]


def find(
    kind: str, codec: Codec, size: Size, deep: bool, crf: float, effort: str, second: int
) -> tuple[Found | None, str]:
    """The first encoder of this `kind` ("any": of all) that encodes a trial picture here.

    Without one the text says why not. `second` is how many frames one lasts.
    """
    if codec.name not in IN_HARDWARE:
        return None, "there is none"
    reasons: list[str] = []
    for name in MAKERS if kind == "any" else [kind]:
        maker = MAKERS[name]
        wanted = maker.deep if deep and codec.name in HOLDING else maker.pixels
        if wanted is None:
            reasons.append(f"{name}: 8 bits only")
            continue
        settings = {**maker.settings(crf, effort), "g": str(second)}
        found = Found(encoder_name(codec.name, name), wanted, settings)
        fault = _fault(found, size)
        if fault is None:
            return found, ""
        reasons.append(f"{name}: {fault}")
    return None, "; ".join(reasons)


def encoder_name(codec: str, maker: str) -> str:
    """What libav calls a maker's encoder."""
    return f"{codec}_{maker}"


def _fault(found: Found, size: Size) -> str | None:
    """What goes wrong with a trial picture."""
    try:
        context = cast(VideoCodecContext, av.CodecContext.create(found.encoder, "w"))
        context.height, context.width = size
        context.pix_fmt, context.time_base = found.pixels, Fraction(1, 25)
        context.options = dict(found.options)
        picture = av.VideoFrame(size[1], size[0], found.pixels)
        picture.pts = 0
        packets = [*context.encode(picture), *context.encode(None)]
    except UnknownCodecError:
        return "not in this build"
    except (FFmpegError, OSError, ValueError) as fault:
        return words(fault)
    return None if packets else "gives nothing"
