"""Makes real media files with PyAV: known pictures, known times, sound, subtitles, chapters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame

from streamdream.frame import Pixels

Painter = Callable[[int], Pixels]


def moving(size: tuple[int, int] = (72, 128)) -> Painter:
    """A smooth colourful texture that moves 2 px to the right and 1 px down a frame."""
    h, w = size
    y, x = np.mgrid[0:h, 0:w].astype(np.float64)

    def paint(index: int) -> Pixels:
        u, v = x - 2 * index, y - index
        waves = [
            np.sin(u / 5) + np.cos(v / 7),
            np.sin((u + v) / 9) + np.cos(u / 11),
            np.cos((u - v) / 6) + np.sin(v / 5),
        ]
        return np.stack([127 + 30 * wave for wave in waves], -1).round().astype(np.uint8)

    return paint


def flat(colour: tuple[int, int, int], size: tuple[int, int] = (72, 128)) -> Painter:
    """One colour."""
    return lambda index: np.full((*size, 3), colour, np.uint8)


@dataclass
class Film:
    """What to put into a file; `times` in units of `time_base`."""

    paint: Painter = field(default_factory=moving)
    times: Sequence[int] = tuple(range(10))
    time_base: Fraction = Fraction(1, 25)
    codec: str = "libx264"
    pixel_format: str = "yuv420p"
    matrix: int = 6  # ITU-T H.273: 1 BT.709, 6 BT.601
    tagged: bool = True
    options: dict[str, str] = field(default_factory=lambda: {"crf": "10", "preset": "fast"})
    languages: Sequence[str] = ()  # one audio stream each
    sound_seconds: float | None = None
    subtitles: Sequence[tuple[float, float, str]] = ()
    chapters: Sequence[tuple[float, float, str]] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    aspect: Fraction | None = None
    rotation: int = 0
    container_options: dict[str, str] = field(default_factory=dict)

    def write(self, path: Path) -> Path:
        """Write the file; the ending decides the container."""
        with av.open(str(path), "w", options=self.container_options) as out:
            first = self.paint(0)
            h, w = first.shape[:2]
            video = cast(Any, out.add_stream(self.codec, rate=25))
            video.width, video.height, video.pix_fmt = w, h, self.pixel_format
            video.options = self.options
            video.codec_context.time_base = self.time_base
            video.time_base = self.time_base
            if self.aspect:
                video.codec_context.sample_aspect_ratio = self.aspect
            if self.tagged:
                video.codec_context.colorspace = self.matrix
                video.codec_context.color_range = 1
            if self.rotation:
                video.set_display_rotation(self.rotation)
            sounds = [cast(Any, out.add_stream("aac", rate=48000)) for _ in self.languages]
            for sound, language in zip(sounds, self.languages, strict=True):
                sound.metadata["language"] = language
                sound.layout = "stereo"
            words = None
            if self.subtitles:
                kind = "mov_text" if path.suffix == ".mp4" else "subrip"
                words = cast(Any, out.add_mux_stream(kind))
            out.metadata.update(self.metadata)
            if self.chapters:
                out.set_chapters([
                    {
                        "id": i, "start": round(a * 1000), "end": round(b * 1000),
                        "time_base": Fraction(1, 1000), "metadata": {"title": title},
                    }
                    for i, (a, b, title) in enumerate(self.chapters)
                ])  # fmt: skip
            end = float((self.times[-1] + 1) * self.time_base)
            for k, sound in enumerate(sounds):
                self._tone(out, sound, 220.0 * (k + 1), self.sound_seconds or end)
            for i, pts in enumerate(self.times):
                rgb = VideoFrame.from_ndarray(self.paint(i), format="rgb24")
                frame = rgb
                if self.pixel_format != "rgb24":
                    frame = rgb.reformat(
                        format=self.pixel_format,
                        src_color_range=2,
                        dst_colorspace=self.matrix if self.matrix == 1 else 5,
                        dst_color_range=1,
                        interpolation=4 | 0x40000 | 0x2000,
                    )
                frame.pts, frame.time_base = pts, self.time_base
                for packet in video.encode(frame):
                    out.mux(packet)
            for packet in video.encode(None):
                out.mux(packet)
            if words is not None:
                self._words(out, words)
        return path

    def _tone(self, out: Any, stream: Any, pitch: float, seconds: float) -> None:
        t = np.arange(round(seconds * 48000)) / 48000
        wave = (0.2 * np.sin(2 * np.pi * pitch * t)).astype(np.float32)
        for start in range(0, len(wave), 1024):
            piece = np.stack([wave[start : start + 1024]] * 2)
            frame = AudioFrame.from_ndarray(piece, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
            for packet in stream.encode(frame):
                out.mux(packet)
        for packet in stream.encode(None):
            out.mux(packet)

    def _words(self, out: Any, stream: Any) -> None:
        for begin, end, text in self.subtitles:
            data = text.encode()
            if out.format.name == "mp4":
                data = len(data).to_bytes(2, "big") + data
            packet = av.Packet(data)
            packet.stream = stream
            packet.time_base = Fraction(1, 1000)
            packet.pts = packet.dts = round(begin * 1000)
            packet.duration = round((end - begin) * 1000)
            out.mux(packet)


def frame_times(path: Path) -> list[Fraction]:
    """Presentation times of all pictures."""
    with av.open(str(path)) as container:
        return [
            cast(int, f.pts) * Fraction(f.time_base.numerator, f.time_base.denominator)
            for f in container.decode(video=0)
            if f.time_base
        ]


def pictures(path: Path) -> list[Pixels]:
    """All pictures as RGB, by libav's default conversion."""
    with av.open(str(path)) as container:
        return [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]


def packets(path: Path, kind: str = "audio") -> list[list[tuple[Fraction, bytes]]]:
    """Of each stream of a kind: the times and contents of its packets."""
    with av.open(str(path)) as container:
        streams = [s for s in container.streams if s.type == kind]
        found: dict[int, list[tuple[Fraction, bytes]]] = {s.index: [] for s in streams}
        if streams:
            for packet in container.demux(streams):
                if packet.size and packet.pts is not None:
                    time = packet.pts * packet.time_base
                    found[packet.stream.index].append((time, bytes(packet)))
        return list(found.values())
