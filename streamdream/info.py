"""What is known of a source: what its pictures are like, how it is read, what went wrong."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from streamdream.colour import Colour, Light
from streamdream.frame import Size


@dataclass(frozen=True)
class VideoInfo:
    """What a stream of pictures is like.

    `size` (h, w) upright, as delivered; `rate` frames a second on average, None if unknown;
    `time_base` the unit of its times; `frames` how many there are about, None if unknown;
    `sample_aspect` width over height of one pixel; `still` True for a single picture; `deep`
    that there are more than 8 bits a colour, delivered as uint16; `alpha` that frames tell how
    opaque they are; `light` what an HDR source was mastered for; `profile` the ICC profile
    that its colours are meant in, None for the usual ones.
    """

    size: Size
    rate: Fraction | None
    time_base: Fraction
    frames: int | None
    sample_aspect: Fraction
    colour: Colour
    still: bool
    deep: bool = False
    alpha: bool = False
    light: Light | None = None
    profile: bytes | None = None


@dataclass
class Counts:
    """What went not quite right while reading.

    `skipped` packets not decodable, `damaged` pictures that were shown all the same, `mended`
    times, `missing` pictures that the file promised, `blackened` ones that are transparent
    though the first was not, and are drawn on black.
    """

    skipped: int = 0
    damaged: int = 0
    mended: int = 0
    missing: int = 0
    blackened: int = 0


@dataclass(frozen=True)
class Reading:
    """How a source is to be read.

    `stream` the index of the video stream, None for the largest; `rate` of pictures in a row;
    `most` pixels that a picture may have; `strict` that anything broken ends it;
    `deinterlace` that interlaced pictures are made whole; `tone_map` that HDR becomes BT.709;
    `profiled` that colours stay in a photo's ICC profile instead of being brought to sRGB.
    """

    stream: int | None = None
    rate: Fraction = Fraction(25)
    most: int = 8192 * 8192
    strict: bool = False
    deinterlace: bool = True
    tone_map: bool = False
    profiled: bool = False
