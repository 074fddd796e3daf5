"""The page of an atlas: one file that shows everything and asks nobody for anything."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from io import BytesIO

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from PIL import Image

from streamdream.atlas.plates import Plate
from streamdream.atlas.sheet import shrunk
from streamdream.frame import Bytes, Pixels

LARGEST = 1280  # px; pictures on the page are not larger either way
QUALITY, EFFORT = 82, 3  # of WebP
MOST_KINDS = 10  # that can be chosen between by hand


@dataclass(frozen=True)
class Card:
    """A plate with its `picture` as it stands on the page: a URL that holds all of it.

    `small` is the picture as it stands on a sheet.
    """

    plate: Plate
    picture: str
    small: Bytes

    @property
    def size(self) -> tuple[int, int]:
        """How high and wide the picture is, or pixels of that shape."""
        return self.small.shape[:2]


@dataclass(frozen=True)
class Book:
    """What a page tells besides: its `title`, `told` below it, and the `source` (a URL).

    `what` the pictures are of, several of them.
    """

    title: str
    told: str
    what: str
    source: str


def inline(pixels: Pixels, most: int = LARGEST, quality: int = QUALITY) -> str:
    """Pixels as a data URL: WebP, which all browsers of today show."""
    return url("webp", webp(pixels, most, quality))


def webp(pixels: Pixels, most: int = LARGEST, quality: int = QUALITY) -> bytes:
    """Pixels as a WebP file of which neither side is longer than `most`."""
    file = BytesIO()
    Image.fromarray(shrunk(pixels, most)).save(file, "WEBP", quality=quality, method=EFFORT)
    return file.getvalue()


def url(kind: str, data: bytes) -> str:
    """The bytes of a picture as a data URL."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def rendered(book: Book, cards: Sequence[Card]) -> str:
    """The page, as HTML."""
    folder = resources.files("streamdream") / "atlas" / "page"
    html, style, script = (
        (folder / name).read_text("utf-8") for name in ("page.html", "style.css", "page.js")
    )
    counts = Counter(card.plate.kind for card in cards)
    kinds = [kind for kind, count in counts.most_common(MOST_KINDS) if kind and count > 1]
    # What is typed by people is escaped; only our own two files are not.
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return page.from_string(html).render(
        book=book,
        cards=cards,
        kinds=kinds if len(kinds) > 1 else [],
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
