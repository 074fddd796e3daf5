"""Lists of scenes for other programs: CSV, JSON, and edit decision lists."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from fractions import Fraction

from streamdream.scenes.listing import Scene

COLUMNS = (
    "Scene Number", "Start Frame", "Start Timecode", "Start Time (seconds)", "End Frame",
    "End Timecode", "End Time (seconds)", "Length (frames)", "Length (timecode)",
    "Length (seconds)",
)  # fmt: skip


def clock(time: Fraction) -> str:
    """A time as 0:01:23.500, rounded down, so that --start and --end mean the very frame."""
    whole = math.floor(time * 1000)
    return f"{whole // 3600000}:{whole // 60000 % 60:02}:{whole // 1000 % 60:02}.{whole % 1000:03}"


def as_csv(scenes: Sequence[Scene]) -> str:
    """As PySceneDetect writes it: the first frame is number 1, the last one belongs to it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for scene in scenes:
        writer.writerow([
            scene.number,
            scene.begin + 1, _padded(scene.time), f"{float(scene.time):.3f}",
            scene.end, _padded(scene.until), f"{float(scene.until):.3f}",
            scene.frames, _padded(scene.seconds), f"{float(scene.seconds):.3f}",
        ])  # fmt: skip
    return text.getvalue()


def as_json(scenes: Sequence[Scene], name: str, rate: Fraction | None) -> str:
    """Everything but the pictures; frames count from 0, and `end` is the next scene's `begin`."""
    found = {
        "input": name,
        "rate": None if rate is None else str(rate),
        "frames": scenes[-1].end,
        "scenes": [
            {
                "number": scene.number,
                "begin": scene.begin,
                "end": scene.end,
                "frames": scene.frames,
                "time": float(scene.time),
                "until": float(scene.until),
                "seconds": float(scene.seconds),
                "flashes": list(scene.flashes),
            }
            for scene in scenes
        ],
    }
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def as_edl(scenes: Sequence[Scene], name: str, rate: Fraction | None) -> str:
    """An edit decision list (CMX 3600) that cuts the film where it is cut; nothing dropped."""
    exact = rate or Fraction(25)
    title = "".join(c for c in name if c.isprintable())
    lines = [f"TITLE: {title}", "FCM: NON-DROP FRAME", ""]
    begins = scenes[0].time
    for scene in scenes:
        there = [_counted(t, exact) for t in (scene.time, scene.until)]
        here = [_counted(t - begins, exact) for t in (scene.time, scene.until)]
        lines.append(f"{scene.number:03}  AX       V     C        {' '.join([*there, *here])}")
        lines.append(f"* FROM CLIP NAME: {title}")
    return "\n".join(lines) + "\n"


def _padded(time: Fraction) -> str:
    return f"{clock(time):0>12}"


def _counted(time: Fraction, rate: Fraction) -> str:
    """A time code, which counts frames: of 29.97 a second it takes 30 for a second."""
    frames, second = round(time * rate), max(1, round(rate))
    whole, rest = divmod(frames, second)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}:{rest:02}"
