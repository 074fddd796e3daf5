"""Every option, declared once.

A field of `Options` is the Python argument, the flag, the key in a TOML file and the record
in the output's metadata: its type, default, range and one line of help are here and nowhere
else. `settings` tells where values come from.

This module imports neither torch nor OpenCV, so that wrong options are answered at once.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from cyclopts import Group, Parameter
from pydantic import (
    ConfigDict,
    Field,
    field_validator,
)

from streamdream import models
from streamdream.jobs.options import Lasting
from streamdream.masks.options import Masked
from streamdream.objectives.classes import check_classes
from streamdream.objectives.options import Aimed
from streamdream.piece import PIECE, Piece
from streamdream.polish.options import Polished
from streamdream.reactions import HEARD, Reaction, Texts
from streamdream.schedule import Clock
from streamdream.style.options import STYLE, Painted
from streamdream.values import (
    AS_WRITTEN,
    Bytes,
    Layers,
    Size,
    count_of,
    moves,
    sides,
    slides,
)
from streamdream.zoo.options import PLACES, Modelled

RECORD_MARK = "streamdream settings: "

SMALLEST = 32  # px; networks read less as nothing


INPUT = Group("Input and output", sort_key=-1)
SETTINGS = Group("Settings", sort_key=0)
DREAM = Group(
    "Dream",
    sort_key=1,
    help='Numbers, --layers and --preset can move: "0: 0.2, 3s: 1, 50%: 0.4 ease" (frame, time '
    'or part: value; hold, linear, cubic, ease, ease-in, ease-out) or "1 + 0.5*sin(pi*t)".',
)
COHERENCE = Group("Coherence", sort_key=2)
SOUND = Group("Sound", sort_key=3.5)
OUTPUT = Group("Output", sort_key=4)
RUN = Group("Run", sort_key=5)


class Look(Painted, Aimed, Polished, Modelled, Masked):
    """What decides how the result looks: written into the output, read back by `--like`."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    command: ClassVar[str] = ""  # of a kind of run whose looks are its own
    excludes: ClassVar[dict[str, str]] = {}  # options of which the one typed last is meant

    model: Annotated[str, Parameter(group=DREAM)] = Field(
        default="efficientnet-lite0",
        json_schema_extra=slides(),
        description="Network that dreams: efficientnet-lite0, vgg19, or one of those that "
        "streamdream models lists; timm:NAME for one of timm's.",
    )
    layers: Annotated[
        Layers, Parameter(group=DREAM, metavar="NAMES", show_default=False, **AS_WRITTEN)
    ] = Field(
        default=(),
        json_schema_extra={"moves": True, **slides()},
        description="Layers to excite, with commas between: block8,block12, or block8*0.3. "
        "By default the model's most beautiful ones.",
    )
    octaves: Annotated[int, Parameter(group=DREAM, **AS_WRITTEN)] = Field(
        default=4,
        ge=1,
        le=16,
        json_schema_extra=moves(1, 6),
        description="Sizes dreamed at, from small and bold to full and fine.",
    )
    octave_scale: Annotated[float, Parameter(group=DREAM, **AS_WRITTEN)] = Field(
        default=1.4,
        gt=1,
        le=4,
        json_schema_extra=moves(1.1, 2),
        description="Ratio of one octave's size to the next.",
    )
    steps: Annotated[int, Parameter(group=DREAM, **AS_WRITTEN)] = Field(
        default=10,
        ge=0,
        le=1000,
        json_schema_extra=moves(0, 30),
        description="Gradient steps per octave for a frame that starts from nothing: "
        "the first one, after a cut, or with --memory 0.",
    )
    warm_steps: Annotated[int, Parameter(group=DREAM, **AS_WRITTEN)] = Field(
        default=1,
        ge=0,
        le=1000,
        json_schema_extra=moves(0, 6),
        description="The same on top of a carried dream; the finest octave gets half of them.",
    )
    step_size: Annotated[float, Parameter(group=DREAM, **AS_WRITTEN)] = Field(
        default=1.5,
        gt=0,
        le=64,
        json_schema_extra=moves(0.25, 6),
        description="Mean change of one step, in grey levels of 255.",
    )
    jitter: Annotated[int, Parameter(group=DREAM, **AS_WRITTEN)] = Field(
        default=32,
        ge=0,
        le=256,
        json_schema_extra=moves(0, 32),
        description="Largest random shift under the network's grid, in pixels; "
        "at most 12 on top of a carried dream.",
    )
    strength: Annotated[float, Parameter(group=DREAM, **AS_WRITTEN)] = Field(
        default=1.0,
        ge=0,
        le=4,
        json_schema_extra=moves(0, 2),
        description="How much of the dream is shown; never fed back.",
    )
    work_size: Annotated[int, Parameter(group=DREAM, **AS_WRITTEN)] = Field(
        default=270,
        ge=SMALLEST,
        le=4320,
        json_schema_extra=moves(64, 480),
        description="Lines dreamed at (columns of a portrait) in standard quality; the result "
        "is added to the full-size source. Cost follows it.",
    )
    quality: Annotated[Literal["draft", "standard", "fine"], Parameter(group=DREAM)] = Field(
        default="standard",
        description="The same picture, coarser and sooner or finer and later: draft leaves out "
        "the finest octave, fine adds two finer ones where the source has the lines.",
    )
    tile: Annotated[int, Parameter(group=DREAM, **AS_WRITTEN)] = Field(
        default=1024,
        ge=384,
        le=16384,
        json_schema_extra=moves(),
        description="Side of the largest piece that the network sees at once, in pixels; larger "
        "pictures are dreamed in overlapping pieces. Less takes less memory.",
    )
    seed: Annotated[int, Parameter(group=DREAM, **AS_WRITTEN)] = Field(
        default=0,
        ge=0,
        lt=2**63,
        json_schema_extra=moves(0, 999),
        description="Seed of all randomness.",
    )
    memory: Annotated[float, Parameter(group=COHERENCE, **AS_WRITTEN)] = Field(
        default=3.0,
        ge=0,
        le=3600,
        json_schema_extra=moves(0.2, 12),
        description="Longest time constant, in seconds, of the carried dream's fading; it fades "
        "sooner while it is too strong. 0 dreams every frame on its own.",
    )
    flow: Annotated[Literal["dis-fast", "dis", "dis-fine", "none"], Parameter(group=COHERENCE)] = (
        Field(
            default="dis",
            json_schema_extra=slides(),
            description="Optical flow that carries the dream along.",
        )
    )
    recall: Annotated[float, Parameter(group=COHERENCE, **AS_WRITTEN)] = Field(
        default=0.0,
        ge=0,
        le=60,
        json_schema_extra=moves(),
        description="Look so many seconds back for what was hidden for a while, and give it back "
        "the look that it had. Takes memory and time; 0 does not.",
    )
    precision: Annotated[Literal["auto", "fp32", "bf16"], Parameter(group=RUN)] = Field(
        default="auto",
        description="Numbers that the network computes with; auto takes bf16 where the "
        "hardware is faster with it.",
    )

    def _check_together(self) -> None:
        super()._check_together()
        models.card(self.model).check_layers(self.layers)
        check_classes(self.classes, self.model, self.weights is not None)
        moving = {"memory", "steps"} & set(self.schedules)
        if self.memory == 0 and self.steps == 0 and not moving:
            raise ValueError("--steps 0 with --memory 0 would dream nothing; use --strength 0")

    @property
    def chosen_layers(self) -> tuple[str, ...]:
        """The layers asked for, or the model's own choice."""
        return self.layers or models.card(self.model).default_layers

    @property
    def finer(self) -> int:
        """How many octaves finer than standard quality this one is."""
        return {"draft": -1, "standard": 0, "fine": 2}[self.quality]

    @property
    def lines(self) -> int:
        """The lines dreamed at: `work_size` as `quality` has it."""
        return max(SMALLEST, round(self.work_size * self.octave_scale**self.finer))

    @property
    def dreams(self) -> bool:
        """Whether a dream takes part: with a style it may not."""
        return not self.style or self.dream_mix > 0 or "dream_mix" in self.schedules

    def octaves_at(self, size: tuple[int, int]) -> int:
        """How many octaves a picture (h, w) at work size has, from the same smallest one.

        A source with too few lines has no room for finer octaves.
        """
        room = math.log(min(size) / self.work_size, self.octave_scale)
        return max(1, self.octaves + min(self.finer, max(0, round(room))))

    def clocked(self, clock: Clock) -> Self:
        """The same by this clock; raises OptionError, and ModelError for unknown layers."""
        if "layers" in self.schedules:
            models.card(self.model).check_layers(self.schedules["layers"].layers)
        if "classes" in self.schedules:
            typed = self.schedules["classes"].layers
            check_classes(typed, self.model, self.weights is not None)
        return super().clocked(clock)

    def as_comment(self, job: str = "") -> str:
        """The look as one line of text, for the output's metadata; `settings.recorded` reads it.

        `job` tells which job made that, see `settings.job_in`.
        """
        values = self.model_dump(mode="json", include=self._recorded())
        as_typed = {name: moving.text for name, moving in self.schedules.items() if name in values}
        kind = {"command": self.command} if self.command else {}
        made = {"job": job} if job else {}
        return RECORD_MARK + json.dumps(kind | made | values | as_typed)

    def _recorded(self) -> set[str]:
        return set(Look.model_fields) - PLACES - ({"weights"} if self.weights is None else set())


class Common(Look):
    """What every kind of run has besides.

    `signals` are those that options can follow in such runs.
    """

    signals: ClassVar[tuple[str, ...]] = HEARD

    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], Parameter(group=RUN)] = Field(
        default="auto", description="Where the network runs; auto takes a GPU if there is one."
    )


class Written(Common):
    """What every run has that writes a file."""

    audio: Annotated[Path | None, Parameter(group=SOUND)] = Field(
        default=None,
        description="Sound file that goes into the result in place of the video's own sound.",
    )
    react: Annotated[Texts, Parameter(group=SOUND, negative=(), show_default=False)] = Field(
        default=(),
        description='Let options follow the sound: "strength: bass 0.4..1.2, step-size: onset". '
        f"There are {', '.join(HEARD)}.",
    )
    codec: Annotated[
        Literal["auto", "h264", "hevc", "av1", "vp9", "prores", "ffv1"], Parameter(group=OUTPUT)
    ] = Field(
        default="auto",
        description="Codec of a video: auto takes H.264 (webm: VP9), or one that keeps what "
        "the source has: more than 8 bits a colour, transparency.",
    )
    crf: Annotated[float | None, Parameter(group=OUTPUT)] = Field(
        default=None,
        ge=0,
        le=63,
        description="Quality: 0 is the best, higher is smaller, up to 51 (av1, vp9: 63). By "
        "default what looks lossless: 18 for H.264, 20 for HEVC, 24 for AV1 and VP9.",
    )
    encoder_preset: Annotated[
        Literal[
            "ultrafast", "superfast", "veryfast", "faster", "fast",
            "medium", "slow", "slower", "veryslow",
        ],
        Parameter(group=OUTPUT),
    ] = Field(
        default="medium", description="Effort of encoders that know such: slow makes small files."
    )  # fmt: skip
    hardware: Annotated[
        Literal["none", "any", "nvenc", "qsv", "amf", "videotoolbox", "v4l2m2m"],
        Parameter(group=OUTPUT),
    ] = Field(
        default="none",
        description="Encode in graphics hardware if it works here: faster, at larger files.",
    )
    max_size: Annotated[Bytes | None, Parameter(group=OUTPUT, metavar="BYTES")] = Field(
        default=None, description="Largest size of a GIF, WebP or APNG, as 8MB; made to fit."
    )
    overwrite: Annotated[bool, Parameter(group=OUTPUT, negative=())] = Field(
        default=False, description="Replace files that exist."
    )

    @field_validator("react", mode="before")
    @classmethod
    def _reactions(cls, value: object) -> object:
        return Reaction.read_all(value, cls)

    @property
    def reactions(self) -> tuple[Reaction, ...]:
        """The options that follow the sound."""
        return tuple(Reaction.read(text, type(self)) for text in self.react)

    def _recorded(self) -> set[str]:
        return super()._recorded() | ({"react"} if self.react else set())

    @property
    def most_bytes(self) -> int | None:
        """The largest size of an animation's file in bytes, None for any."""
        if self.max_size is None:
            return None
        return count_of(self.max_size)


class Options(Written, Piece, Lasting):
    """All options of a run that dreams a file."""

    size: Annotated[Size | None, Parameter(group=PIECE, metavar="WIDTHxHEIGHT")] = Field(
        default=None,
        description="Size that the result is fitted into, as 640x360; its shape stays. "
        "Default: the source's.",
    )
    loop: Annotated[bool, Parameter(group=OUTPUT, negative=())] = Field(
        default=False,
        description="For a source that loops, its last frame leading to its first: so does the "
        "dream.",
    )
    loop_blend: Annotated[float | None, Parameter(group=OUTPUT, metavar="SECONDS")] = Field(
        default=None,
        gt=0,
        le=3600,
        description="Make a loop of a source that does not: so many seconds of its beginning "
        "are left out and fade into its end, and it is dreamed as by --loop.",
    )
    ping_pong: Annotated[bool, Parameter(group=OUTPUT, negative=())] = Field(
        default=False, description="Add the same frames once more, backwards: a loop of any source."
    )
    style_passes: Annotated[int, Parameter(group=STYLE)] = Field(
        default=1,
        ge=1,
        le=20,
        description="Paint the film so many times by optimisation, to and fro, each time going "
        "on from the last: what comes into the picture fits what it will be next to later.",
    )
    view: Annotated[Literal["dream", "side", "split"], Parameter(group=OUTPUT)] = Field(
        default="dream",
        description="The dream alone, side by side with its source, or its right half only.",
    )

    def _check_together(self) -> None:
        super()._check_together()
        Piece._check_together(self)
        if self.loop + (self.loop_blend is not None) + self.ping_pong > 1:
            raise ValueError("only one of --loop, --loop-blend and --ping-pong can be given")

    def _recorded(self) -> set[str]:
        return super()._recorded() | ({"style_passes"} if self.style_passes > 1 else set())

    @property
    def loop_kind(self) -> str | None:
        """The option by which the result is to loop, as it is typed; None if it is not."""
        if self.loop_blend is not None:
            return f"--loop-blend {self.loop_blend:g}"
        return "--loop" if self.loop else "--ping-pong" if self.ping_pong else None

    @property
    def fitted_size(self) -> tuple[int, int] | None:
        """The size (h, w) that the result is fitted into, None for the source's."""
        return sides(self.size)
