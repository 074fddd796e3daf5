"""What `--mask` says: parts such as `foreground`, `not left.png`, `luminance 0.5..1`.

    part     a picture or video file | polygon 0.1,0.2 0.9,0.2 0.5,0.9 | luminance 0.3..0.7
             | colour #3a7 30 | hue 90..150 | motion 5 | foreground
             | person selfie_segmenter.tflite
    mask     part, or `not` part; several with `and` between hold where all of them do

This module imports neither torch nor OpenCV, so that what is wrong is answered at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from streamdream.errors import near

Kind = Literal["file", "polygon", "luminance", "colour", "hue", "motion", "foreground", "person"]

KINDS: dict[str, Kind] = {
    "polygon": "polygon", "luminance": "luminance", "colour": "colour", "color": "colour",
    "hue": "hue", "motion": "motion", "foreground": "foreground", "person": "person",
}  # fmt: skip
PLACED = ("file", "polygon")  # known without looking at the frame
FOLLOWING = ("motion", "foreground")  # tell by what was before

MOST_ANGLES = 1000  # of a polygon
NETWORK = (
    "is found by a network in a file, as person selfie_segmenter.tflite (docs/masks.md tells "
    "where to get one); foreground needs none"
)
TOLERANCE = 25.0  # CIE 1976 colour difference
SPEED = 5.0  # % of the picture's height in a second

NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)"
SPAN = re.compile(rf"({NUMBER})\s*\.\.\s*({NUMBER})")


@dataclass(frozen=True)
class Part:
    """One part of a mask; `text` is how it was typed.

    `inverted`: where it does not hold. `numbers` are those behind a word: a span's two ends, a
    threshold, a polygon's x and y in turn (0 to 1 of the picture). `colour` is (r, g, b), 0 to 255.
    `path` names a picture, a network, or a video, which is `looped` instead of held at its end.
    """

    kind: Kind
    text: str
    inverted: bool = False
    numbers: tuple[float, ...] = ()
    colour: tuple[int, int, int] = (0, 0, 0)
    path: str = ""
    looped: bool = False

    @property
    def placed(self) -> bool:
        """Whether it lies where it is typed or drawn, whatever a frame shows."""
        return self.kind in PLACED


def split(texts: Iterable[str]) -> tuple[str, ...]:
    """The parts of masks: what is typed with `and` between, or one after another."""
    parts = (part.strip() for text in texts for part in re.split(r"\s+and\s+", text))
    return tuple(" ".join(part.split()) for part in parts if part)


def read(text: str) -> Part:
    """One part, from what was typed; raises ValueError."""
    rest, inverted = text, False
    while (found := re.match(r"not(?:\s*:\s*|\s+)", rest)) is not None:
        rest, inverted = rest[found.end() :], not inverted
    if not rest or rest == "not":
        raise ValueError('there is nothing behind "not"; write "not left.png"')
    found = re.match(r"([a-z]+)(?:\s*:\s*|\s+|$)", rest)
    kind = KINDS.get(found[1]) if found is not None else None
    if found is None or kind is None:
        looped = rest.endswith(" looped")
        path = rest.removesuffix(" looped").strip()
        return Part("file", text, inverted, path=path, looped=looped)
    said = rest[found.end() :].strip()
    if kind == "colour":
        colour, numbers = _colour(said)
        return Part(kind, text, inverted, numbers, colour)
    readers = {"polygon": _polygon, "luminance": _luminance, "hue": _hue, "motion": _motion}
    if kind in readers:
        return Part(kind, text, inverted, readers[kind](said))
    if kind == "person":
        if not said:
            raise ValueError(NETWORK)
        return Part(kind, text, inverted, path=said)
    if said:
        raise ValueError(f'nothing follows the word {kind}; join masks with "and"')
    return Part(kind, text, inverted)


def unknown(path: str) -> str:
    """The cure for a file that is not there: maybe a word was meant."""
    words = path.split()
    if not words or re.search(r"[./\\]", words[0]):
        return "name a picture or video, white where it shall dream"
    told = near(words[0], tuple(dict.fromkeys(KINDS.values())), "masks")
    return f"{told}; or name a picture or video"


def _polygon(text: str) -> tuple[float, ...]:
    found = [re.fullmatch(rf"({NUMBER}),({NUMBER})", point) for point in text.split()]
    points = [(float(point[1]), float(point[2])) for point in found if point is not None]
    if len(points) != len(found) or not 3 <= len(points) <= MOST_ANGLES:
        raise ValueError(
            "a polygon has three points or more, in parts of the picture from its upper left, "
            "as polygon 0.1,0.2 0.9,0.2 0.5,0.9"
        )
    if not all(-10 <= number <= 10 for point in points for number in point):
        raise ValueError("a polygon's points are in parts of the picture: 0.5,0.5 is its middle")
    return tuple(number for point in points for number in point)


def _luminance(text: str) -> tuple[float, ...]:
    low, high = _span(text, "luminance goes from black, 0, to white, 1, as luminance 0.5..1")
    if not 0 <= low < high <= 1:
        raise ValueError("luminance goes from black, 0, to white, 1, as luminance 0.5..1")
    return low, high


def _hue(text: str) -> tuple[float, ...]:
    told = "a hue is in degrees: red 0, green 120, blue 240, as hue 90..150, or hue 330..30"
    low, high = _span(text, told)
    if not (0 <= low <= 360 and 0 <= high <= 360) or low == high:
        raise ValueError(told)
    return low, high


def _span(text: str, told: str) -> tuple[float, float]:
    found = SPAN.fullmatch(text)
    if found is None:
        raise ValueError(told)
    return float(found[1]), float(found[2])


def _motion(text: str) -> tuple[float, ...]:
    if not text:
        return (SPEED,)
    if re.fullmatch(NUMBER, text) is None or not 0 < float(text) <= 10000:
        raise ValueError(
            "motion is faster than so many percent of the picture's height a second, as motion 5"
        )
    return (float(text),)


def _colour(text: str) -> tuple[tuple[int, int, int], tuple[float, ...]]:
    from PIL import ImageColor

    name, _, tolerance = text.rpartition(" ")
    if not re.fullmatch(NUMBER, tolerance) or not name:
        name, tolerance = text, str(TOLERANCE)
    try:
        red, green, blue = ImageColor.getrgb(name)[:3]
    except ValueError:
        raise ValueError(
            "a colour is as #3a7 or #33aa77, or has a name as skyblue, and how far others may be "
            "from it, as colour #3a7 25"
        ) from None
    if not 0 < float(tolerance) <= 300:
        raise ValueError("a colour's tolerance goes from 0 to 300: at 10 shades of it, at 50 kin")
    return (red, green, blue), (float(tolerance),)
