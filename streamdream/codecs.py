"""Which codec goes into which file, and how each is asked for quality.

Plain tables that import nothing heavy, so that a wrong combination is answered at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from streamdream.errors import OptionError, SinkError

if TYPE_CHECKING:
    from streamdream.colour import Light

# From x264's names of effort to what other encoders take about as long with, at 640x360.
EFFORTS = {
    "ultrafast": 0, "superfast": 1, "veryfast": 2, "faster": 3, "fast": 4,
    "medium": 5, "slow": 6, "slower": 7, "veryslow": 8,
}  # fmt: skip
X265_PRESETS = (
    "ultrafast", "ultrafast", "ultrafast", "ultrafast", "superfast",
    "superfast", "fast", "medium", "slow",
)  # fmt: skip
SVT_PRESETS = (12, 12, 11, 11, 10, 10, 8, 6, 4)
VP9_SPEEDS = (8, 8, 7, 6, 6, 5, 4, 2, 1)
VP9_REAL_TIME = 5  # and more are speeds that need its real-time mode


@dataclass(frozen=True)
class Codec:
    """A way to encode pictures.

    `pixels` and `deep` name libav's pixel formats for 8 bits and for more, `deep` None where
    there is none that players know; `alpha` and `deep_alpha` the same with transparency.
    `crf` is the quality that looks lossless, None where
    there is nothing to choose, `worst` the end of its scale. Below `smallest` pixels a side the
    encoder fails. `lossless` codecs keep RGB as it is;
    `halved` ones store colour at half size and need even sides. `lit` ones tell what HDR was
    mastered for.
    """

    name: str
    title: str
    encoder: str
    pixels: str
    deep: str | None
    crf: float | None = None
    worst: float = 51
    smallest: int = 2
    lossless: bool = False
    halved: bool = True
    alpha: str | None = None
    deep_alpha: str | None = None
    lit: bool = False

    def form(self, deep: bool, alpha: bool) -> str:
        """The pixel format for pictures that are `deep` (if there is one) or transparent."""
        if alpha:
            assert self.alpha is not None
            return (self.deep_alpha if deep else None) or self.alpha
        return (self.deep if deep else None) or self.pixels

    def transfer(self, told: int) -> int:
        """A transfer function as it can be told: ProRes has one name for the usual ones.

        1, 6, 14 and 15 are the same function (ITU-T H.273, table 3).
        """
        return 1 if self.name == "prores" and told in (6, 14, 15) else told

    def options(
        self, crf: float, effort: str, second: int, alpha: bool = False, light: Light | None = None
    ) -> dict[str, str]:
        """Options of libav's encoder; `second` is how many frames one lasts.

        A killed run keeps what was written up to the last key frame: one about every second.
        """
        if self.name == "h264":
            return {"crf": f"{crf:g}", "preset": effort, "g": str(second)}
        if self.name == "hevc":
            quiet = f"log-level=error:keyint={second}" + (light.for_x265() if light else "")
            preset = X265_PRESETS[EFFORTS[effort]]
            return {"crf": f"{crf:g}", "preset": preset, "x265-params": quiet}
        if self.name == "av1":
            speed = SVT_PRESETS[EFFORTS[effort]]
            told = {"svtav1-params": light.for_svt()} if light else {}
            return {"crf": f"{crf:g}", "preset": str(speed), "g": str(second), **told}
        if self.name == "vp9":
            speed = VP9_SPEEDS[EFFORTS[effort]]
            clear = {"auto-alt-ref": "0"} if alpha else {}
            deadline = "realtime" if speed >= VP9_REAL_TIME else "good"
            return {
                "crf": f"{crf:g}", "b": "0", "deadline": deadline, "row-mt": "1",
                "cpu-used": str(speed), "g": str(second), **clear,
            }  # fmt: skip
        if self.name == "prores":
            # Of libav's two encoders the one that is twice as fast, at .06 grey levels more error.
            return {"vendor": "apl0", "profile": "4" if alpha else "3"}  # 4444 or 422 HQ
        return {"level": "3", "slicecrc": "1", "g": "1"}


CODECS = {
    codec.name: codec
    for codec in (
        Codec("h264", "H.264", "libx264", "yuv420p", None, 18),
        Codec("hevc", "HEVC", "libx265", "yuv420p", "yuv420p10le", 20, smallest=64, lit=True),
        Codec("av1", "AV1", "libsvtav1", "yuv420p", "yuv420p10le", 24, 63, smallest=64, lit=True),
        Codec("vp9", "VP9", "libvpx-vp9", "yuv420p", None, 24, 63, alpha="yuva420p"),
        Codec(
            "prores", "ProRes", "prores_aw", "yuv422p10le", "yuv422p10le",
            alpha="yuva444p10le", deep_alpha="yuva444p10le",
        ),
        Codec(
            "ffv1", "FFV1", "ffv1", "bgr0", "gbrp16le", lossless=True, halved=False,
            alpha="bgra", deep_alpha="gbrap16le",
        ),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Container:
    """A kind of video file: libav's name of it, and the codecs it takes, the usual one first.

    With `clear` ones it can be transparent.
    """

    name: str
    codecs: tuple[str, ...]
    clear: tuple[str, ...] = ()

    def tells_aspect(self, codec: str) -> bool:
        """Whether pixels may be other than square: Matroska leaves that to the codec here.

        It could say so itself, but libav's bindings have no way to ask it to.
        """
        return self.name in ("mp4", "mov") or codec in ("h264", "hevc")


CONTAINERS = {
    ".mp4": Container("mp4", ("h264", "hevc", "av1", "vp9")),
    ".m4v": Container("mp4", ("h264", "hevc")),
    ".mov": Container("mov", ("h264", "hevc", "prores"), ("prores",)),
    ".mkv": Container(
        "matroska", ("h264", "hevc", "av1", "vp9", "ffv1", "prores"), ("vp9", "ffv1", "prores")
    ),
    ".webm": Container("webm", ("vp9", "av1"), ("vp9",)),
}


STDOUT = Path("pipe:1")  # as libav says it; what is written there is Matroska


def is_video(path: Path) -> bool:
    """Whether what is written there is a video file."""
    return path == STDOUT or path.suffix.lower() in CONTAINERS


def check_codec(path: Path, codec: str, crf: float | None) -> None:
    """Raise OptionError if a file cannot be written so."""
    if not is_video(path):
        for name, value in (("--codec", None if codec == "auto" else codec), ("--crf", crf)):
            if value is not None:
                raise OptionError(f"{name} {value}", f"is for videos, not {path.suffix} files")
        return
    container = container_of(path)
    if codec != "auto" and codec not in container.codecs:
        others = [ending for ending, c in CONTAINERS.items() if codec in c.codecs]
        raise OptionError(
            f"--codec {codec}",
            f"{path.suffix} files do not hold {CODECS[codec].title}",
            f"use {' or '.join(container.codecs)}, or name it {' or '.join(others)}",
        )
    chosen = CODECS[container.codecs[0] if codec == "auto" else codec]
    if crf is None:
        return
    if chosen.crf is None:
        raise OptionError(f"--crf {crf:g}", f"{chosen.title} has no such quality", "leave it out")
    if crf > chosen.worst:
        raise OptionError(f"--crf {crf:g}", f"{chosen.title} goes from 0 to {chosen.worst:g}")


def choose_codec(path: Path, codec: str, deep: bool, side: int, alpha: bool = False) -> Codec:
    """The codec for a file whose shorter side has `side` pixels.

    "auto" is the container's usual one, or the first that holds `alpha`, or else `deep`
    colour. Raises SinkError if the picture is too small for the one that is asked for.
    """
    container = container_of(path)
    names = container.codecs
    if codec == "auto":
        fit = [CODECS[n] for n in names if CODECS[n].smallest <= side]
        clear = [c for c in fit if c.name in container.clear] if alpha else []
        clear = [c for c in clear if c.deep_alpha or not deep] or clear
        able = [c for c in fit if c.deep] if deep else []
        return [*clear, *able, CODECS[names[0]]][0]
    chosen = CODECS[codec]
    if side < chosen.smallest:
        others = [n for n in names if CODECS[n].smallest <= side]
        raise SinkError(
            path,
            f"{chosen.title} takes no pictures with less than {chosen.smallest} pixels a side",
            f"use --codec {' or '.join(others)}",
        )
    return chosen


def container_of(path: Path) -> Container:
    """What a video file of this name is."""
    return CONTAINERS[".mkv" if path == STDOUT else path.suffix.lower()]
