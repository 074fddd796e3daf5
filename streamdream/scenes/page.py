"""Scenes as a page: one file that needs nothing else, with all pictures in it."""

from __future__ import annotations

import base64
import html
import io
import shlex
from collections.abc import Sequence
from fractions import Fraction
from importlib import resources
from string import Template

from PIL import Image

from streamdream.frame import Bytes
from streamdream.scenes.formats import clock
from streamdream.scenes.listing import Scene

QUALITY = 82  # of the thumbnails, as JPEG


def as_page(scenes: Sequence[Scene], name: str, rate: Fraction | None) -> str:
    """A page of HTML; the scenes have to have their pictures."""
    page = Template((resources.files("streamdream.scenes") / "page.html").read_text("utf-8"))
    total = scenes[-1].until - scenes[0].time
    lengths = sorted(scene.seconds for scene in scenes)
    median = lengths[len(lengths) // 2]
    told = [
        ("scenes", str(len(scenes))),
        ("length", clock(total)),
        ("frames", f"{scenes[-1].end - scenes[0].begin}"),
        ("a second", f"{float(rate):.5g}" if rate else "?"),
        ("median scene", f"{float(median):.2f} s"),
    ]
    facts = "".join(f"<div><dt>{what}</dt><dd>{value}</dd></div>" for what, value in told)
    return page.substitute(
        name=html.escape(name),
        facts=facts,
        bar="".join(_stripe(scene) for scene in scenes),
        cards="".join(_card(scene, name) for scene in scenes),
    )


def _stripe(scene: Scene) -> str:
    """A scene's part of the bar, as long as it is, in its mean colour."""
    r, g, b = (round(float(v)) for v in scene.pictures[1].reshape(-1, 3).mean(0))
    told = f"Scene {scene.number}, {float(scene.seconds):.2f} s"
    return (
        f'<a href="#s{scene.number}" title="{told}" aria-label="{told}" '
        f'style="flex-grow:{1000 * float(scene.seconds):.1f};background:rgb({r},{g},{b})"></a>'
    )


def _card(scene: Scene, name: str) -> str:
    which = "first frame", "from the middle", "last frame"
    pictures = "".join(
        f'<img src="data:image/jpeg;base64,{_jpeg(picture)}" width="{picture.shape[1]}" '
        f'height="{picture.shape[0]}" alt="Scene {scene.number}: {what}" loading="lazy">'
        for picture, what in zip(scene.pictures, which, strict=True)
    )
    flashes = len(scene.flashes)
    also = f'<span class="flash">{flashes} flash{"es" * (flashes > 1)}</span>' if flashes else ""
    # Unlike the table's, times here are for --start and --end.
    part = f"--start {clock(scene.time)} --end {clock(scene.until)}"
    command = f"streamdream {shlex.quote(name)} -o scene-{scene.number:03}.mp4 {part}"
    return (
        f'<article id="s{scene.number}" data-seconds="{float(scene.seconds):.6f}">'
        f'<div class="strip">{pictures}</div><h2>{scene.number}</h2>'
        f"<p><time>{clock(scene.time)}</time><b>{float(scene.seconds):.2f} s</b>"
        f"<span>frames {scene.begin}&ndash;{scene.end - 1}</span>{also}</p>"
        f'<button type="button" data-command="{html.escape(command)}">copy command</button>'
        "</article>"
    )


def _jpeg(picture: Bytes) -> str:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=QUALITY)
    return base64.b64encode(file.getvalue()).decode("ascii")
