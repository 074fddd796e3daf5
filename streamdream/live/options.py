"""Options of `streamdream live`, declared once, as in `streamdream.options`.

Fields marked with `slides` can be changed while it runs: by the page, the keyboard, OSC, MIDI,
presets and signals, all under the one name.
"""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from cyclopts import Group, Parameter
from pydantic import AfterValidator, Field, field_validator

from streamdream.options import COHERENCE, DREAM, Common
from streamdream.reactions import SIGNALS, Reaction, Texts, sliders
from streamdream.schedule import Clock
from streamdream.values import AS_WRITTEN, HIDDEN, Rate, Size, moves, sides, slides

CAMERA = Group("Camera", sort_key=0.1)
WINDOW = Group("Window", sort_key=0.2)
OUTPUTS = Group("Outputs", sort_key=0.3)
CONTROL = Group("Control", sort_key=0.4)
UNATTENDED = Group("Unattended", sort_key=0.5)

USUAL_RATE = 30  # pictures a second, until it is known

Span = tuple[int, int]  # minutes of the day: from, to


def _hours(value: str) -> str:
    spans = [part.strip() for part in value.split(",")]
    for span in spans:
        found = re.fullmatch(r"(\d\d?):(\d\d)\s*-\s*(\d\d?):(\d\d)", span)
        good = found and all(int(found[i]) <= 24 and int(found[i + 1]) < 60 for i in (1, 3))
        if not found or not good or max(_minutes(found)) > 24 * 60:
            raise ValueError("opening hours are as 10:00-18:00 or 10:00-12:30,14:00-18:00")
    return ",".join(spans)


def _minutes(found: re.Match[str]) -> Span:
    a, b, c, d = (int(part) for part in found.groups())
    return a * 60 + b, c * 60 + d


Hours = Annotated[str, AfterValidator(_hours)]


class LiveOptions(Common):
    """All options of a live run."""

    signals: ClassVar[tuple[str, ...]] = SIGNALS

    work_size: Annotated[int, Parameter(group=DREAM, **AS_WRITTEN)] = Field(
        default=180,
        ge=32,
        le=4320,
        json_schema_extra=moves(64, 480),
        description="Lines dreamed at, at most: it adapts to what this machine does in time.",
    )
    flow: Annotated[Literal["dis-fast", "dis", "dis-fine", "none"], Parameter(group=COHERENCE)] = (
        Field(
            default="dis-fast",
            json_schema_extra=slides(),
            description="Optical flow that carries the dream along.",
        )
    )

    recall: Annotated[Literal[0], HIDDEN] = 0  # type: ignore[assignment]
    fourier: Annotated[Literal[False], HIDDEN] = False  # type: ignore[assignment]

    capture_size: Annotated[Size | None, Parameter(group=CAMERA, metavar="WIDTHxHEIGHT")] = Field(
        default=None, description="Size asked of a camera, as 1280x720. Default: its own."
    )
    capture_rate: Annotated[Rate | None, Parameter(group=CAMERA, metavar="FPS", **AS_WRITTEN)] = (
        Field(default=None, description="Pictures a second asked of a camera, or of a clip.")
    )
    pixel_format: Annotated[str, Parameter(group=CAMERA)] = Field(
        default="auto",
        pattern=r"^[\w-]{1,32}$",
        description="Pixel format asked of a camera, as mjpeg or yuyv422. auto tries mjpeg first: "
        "USB has room for it.",
    )
    mirror: Annotated[bool, Parameter(group=CAMERA)] = Field(
        default=False, json_schema_extra=slides(), description="Show left as right, as mirrors do."
    )
    rotate: Annotated[Literal[0, 90, 180, 270], Parameter(group=CAMERA)] = Field(
        default=0, description="Turn the camera's picture clockwise, in degrees."
    )
    size: Annotated[Size | None, Parameter(group=CAMERA, metavar="WIDTHxHEIGHT")] = Field(
        default=None, description="Size that the picture is fitted into. Default: the camera's."
    )
    fps: Annotated[float | None, Parameter(group=CAMERA)] = Field(
        default=None,
        ge=1,
        le=240,
        description="Pictures a second at most. Default: the camera's.",
    )

    window: Annotated[bool, Parameter(group=WINDOW)] = Field(
        default=True, description="Show a window."
    )
    fullscreen: Annotated[bool, Parameter(group=WINDOW, negative=())] = Field(
        default=False, description="Fill the monitor, without a cursor; key F changes it."
    )
    monitor: Annotated[int, Parameter(group=WINDOW)] = Field(
        default=0, ge=0, le=63, description="Which monitor, counted from 0; key I shows them all."
    )
    fit: Annotated[Literal["fit", "fill", "stretch"], Parameter(group=WINDOW)] = Field(
        default="fit", description="With black bars, cut off, or out of shape."
    )
    turn: Annotated[Literal[0, 90, 180, 270], Parameter(group=WINDOW)] = Field(
        default=0, description="Turn what is on the screen clockwise, for a screen that is turned."
    )
    status: Annotated[bool, Parameter(group=WINDOW, negative=())] = Field(
        default=False, description="Show how it goes on top of the picture; key S changes it."
    )
    view: Annotated[Literal["dream", "source", "split"], Parameter(group=WINDOW)] = Field(
        default="dream",
        json_schema_extra=slides(),
        description="The dream, the camera's picture, or half and half.",
    )

    record: Annotated[Path | None, Parameter(group=OUTPUTS)] = Field(
        default=None,
        description="Record from the start, into files named after this one and the time: "
        "out.mp4 gives out-20260131-180000.mp4. Key R and the page begin and end it too.",
    )
    segment: Annotated[float, Parameter(group=OUTPUTS)] = Field(
        default=10, gt=0, le=1440, description="Minutes after which a recording's next file begins."
    )
    folder: Annotated[Path, Parameter(group=OUTPUTS)] = Field(
        default=Path(), description="Where snapshots go, and recordings without a name."
    )
    http: Annotated[int | None, Parameter(group=OUTPUTS, metavar="PORT")] = Field(
        default=None,
        ge=0,
        le=65535,
        description="Serve a page with the picture and all controls, as 8000; 0 takes a free port.",
    )
    host: Annotated[str, Parameter(group=OUTPUTS)] = Field(
        default="127.0.0.1",
        description="Address that the page and OSC are reached at; 0.0.0.0 is all of this "
        "machine's. Any but the loopback asks for a token.",
    )
    hls: Annotated[Path | None, Parameter(group=OUTPUTS, metavar="FOLDER")] = Field(
        default=None, description="Write HTTP live streaming (live.m3u8) into this folder."
    )
    stream: Annotated[
        Texts, Parameter(group=OUTPUTS, metavar="URL", negative=(), show_default=False)
    ] = Field(
        default=(),
        description="Send to rtmp://, udp://, tcp://, rtp:// or any URL that libav writes to; may "
        "be given again.",
    )
    virtual_camera: Annotated[str | None, Parameter(group=OUTPUTS, metavar="DEVICE|auto")] = Field(
        default=None, description="Be a camera for other programs (needs pyvirtualcam)."
    )
    ndi: Annotated[str | None, Parameter(group=OUTPUTS, metavar="NAME")] = Field(
        default=None, description="Send over NDI under this name (needs cyndilib; untested)."
    )
    spout: Annotated[str | None, Parameter(group=OUTPUTS, metavar="NAME")] = Field(
        default=None, description="Share by Spout, on Windows (needs SpoutGL; untested)."
    )
    syphon: Annotated[str | None, Parameter(group=OUTPUTS, metavar="NAME")] = Field(
        default=None, description="Share by Syphon, on macOS (needs syphon-python; untested)."
    )

    osc: Annotated[int | None, Parameter(group=CONTROL, metavar="PORT")] = Field(
        default=None, ge=0, le=65535, description="Listen for OSC over UDP, as 9000."
    )
    midi: Annotated[str | None, Parameter(group=CONTROL, metavar="NAME|auto")] = Field(
        default=None, description="Listen to a MIDI controller (needs mido and python-rtmidi)."
    )
    sound: Annotated[str | None, Parameter(group=CONTROL, metavar="DEVICE|auto|FILE")] = Field(
        default=None,
        description="Listen to a microphone (needs sounddevice), or to a sound file, looped.",
    )
    react: Annotated[Texts, Parameter(group=CONTROL, negative=(), show_default=False)] = Field(
        default=(),
        description='Let options follow signals: "strength: bass 0.4..1.2, jitter: onset". Signals '
        f"are {', '.join(SIGNALS)}.",
    )
    token: Annotated[str | None, Parameter(group=CONTROL)] = Field(
        default=None,
        min_length=8,
        max_length=128,
        pattern=r"^[\w.~-]+$",
        description="What other machines must know to control it. Default: a new one, printed.",
    )
    ramp: Annotated[float, Parameter(group=CONTROL)] = Field(
        default=0.4, ge=0, le=60, description="Seconds in which a changed value arrives."
    )
    fade: Annotated[float, Parameter(group=CONTROL)] = Field(
        default=2.0,
        ge=0,
        le=600,
        json_schema_extra=slides(0, 20),
        description="Seconds in which presets cross-fade and the picture fades to black.",
    )
    gate: Annotated[Literal["off", "still", "motion"], Parameter(group=CONTROL)] = Field(
        default="off",
        json_schema_extra=slides(),
        description="still: the dream grows while nothing moves, and movement brings the world "
        "back; motion: the other way round.",
    )
    sensitivity: Annotated[float, Parameter(group=CONTROL)] = Field(
        default=0.5,
        ge=0,
        le=1,
        json_schema_extra=slides(0, 1),
        description="For --gate and --attract: 0 sees only large movements, 1 the smallest.",
    )
    attract: Annotated[float | None, Parameter(group=CONTROL, metavar="SECONDS")] = Field(
        default=None,
        ge=5,
        le=86400,
        description="After so long without movement (at least 5) show the last there was, again.",
    )

    flash_limit: Annotated[bool, Parameter(group=UNATTENDED)] = Field(
        default=True, description="Damp what flashes more than three times a second."
    )
    hours: Annotated[Hours | None, Parameter(group=UNATTENDED, metavar="FROM-TO")] = Field(
        default=None,
        description="Opening hours, as 10:00-18:00; outside of them the picture is black and the "
        "camera is let go.",
    )
    watchdog: Annotated[bool, Parameter(group=UNATTENDED, negative=())] = Field(
        default=False, description="Run in a process of its own that is started again if it fails."
    )
    log: Annotated[Path | None, Parameter(group=UNATTENDED)] = Field(
        default=None, description="Write what happens into this file, of 1 MB, and four older ones."
    )
    seconds: Annotated[float | None, Parameter(group=UNATTENDED)] = Field(
        default=None, gt=0, description="End after so long. Default: never."
    )

    @field_validator("react", mode="before")
    @classmethod
    def _reactions(cls, value: object) -> object:
        return Reaction.read_all(value, cls)

    def _check_together(self) -> None:
        super()._check_together()
        reached = (self.http, self.hls, self.virtual_camera, self.ndi, self.spout, self.syphon)
        if not (self.window or self.record or self.stream or any(o is not None for o in reached)):
            raise ValueError(
                "--no-window needs another output: --http, --record, --stream, --hls or a device"
            )

    @classmethod
    def sliders(cls) -> dict[str, tuple[float, float]]:
        """Names of the numbers that can be changed while it runs, and their sliders' spans."""
        return sliders(cls)

    @property
    def clock(self) -> Clock:
        """What frames of schedules are counted by: the pictures a second; a run has no length."""
        return Clock(Fraction(self.fps or USUAL_RATE).limit_denominator(1000), None)

    @property
    def reactions(self) -> tuple[Reaction, ...]:
        """The options that follow signals."""
        return tuple(Reaction.read(text, LiveOptions) for text in self.react)

    @property
    def spans(self) -> tuple[Span, ...]:
        """Opening hours as minutes of the day; none is always."""
        found = re.findall(r"(\d\d?):(\d\d)\s*-\s*(\d\d?):(\d\d)", self.hours or "")
        return tuple((int(a) * 60 + int(b), int(c) * 60 + int(d)) for a, b, c, d in found)

    @property
    def fitted_size(self) -> tuple[int, int] | None:
        """The size (h, w) that the picture is fitted into, None for the camera's."""
        return sides(self.size)

    @property
    def wanted_rate(self) -> Fraction | None:
        """The rate asked of a camera."""
        return None if self.capture_rate is None else Fraction(self.capture_rate)


class LiveFlags(LiveOptions):
    """Options from the command line alone: what they mean together is not checked yet."""

    def _check_together(self) -> None:
        """Nothing yet."""
