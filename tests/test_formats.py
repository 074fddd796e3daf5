"""Every kind of file into every kind of file: pictures, times, streams, tags, and what FFmpeg says.

The reference is what was painted, not what was decoded. Debian's ffmpeg, years older than the
libraries inside, gives a second opinion: a reader and a writer of one mind may err alike.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import pytest
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.filter import Graph
from av.video.frame import PictureType, VideoFrame
from media import frame_times, moving, packets
from PIL import Image

from streamdream.animation import AnimationSink
from streamdream.codecs import is_video
from streamdream.files import ANIMATIONS, is_row
from streamdream.frame import Frame, Pixels
from streamdream.pictures import RowSink
from streamdream.sources import VideoSource
from streamdream.video_sink import VideoSink

SIZE = 96, 128
MILLI = Fraction(1, 1000)
UNEVEN = (0, 40, 73, 200, 240, 281, 440, 480)
GRID = tuple(range(8))
GAPS = (0, 1, 2, 5, 6, 7, 11, 12)
LANGUAGES = ("deu", "eng")
FINELY = "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
GERMAN = {"ger": "deu"}  # both are ISO 639-2; QuickTime and ASF have the first
SPOKEN = ((0.0, 0.1, "one"), (0.2, 0.3, "two"))
CHAPTERS = ((0.0, 0.2, "First"), (0.2, 0.5, "Second"))
SILENT = 0.2  # seconds until a tone begins, to see that it stays with the pictures
PITCH = 330  # Hz of the first sound; the second has twice as much


def veil(index: int) -> np.ndarray:
    """Opacity in waves that move 6 px to the right a frame: what stays behind shows."""
    ramp = np.abs((np.arange(SIZE[1]) - 6 * index) % 64 - 32) * 8
    return np.tile(ramp.clip(0, 255).astype(np.uint8), (SIZE[0], 1))


@dataclass(frozen=True)
class Input:
    """A file to begin with.

    `words` is the codec of its subtitles; `named` whether it holds a title, `spoken` whether it
    says which sound has which language, `whole` whether it does both and has chapters; `error`
    is what its codec may take from the picture.
    """

    name: str
    codec: str
    pixels: str
    error: float
    options: tuple[tuple[str, str], ...] = ()
    base: Fraction = MILLI
    times: Sequence[int] = UNEVEN
    matrix: int = 6
    full: bool = False
    sounds: tuple[str, ...] = ()
    words: str = ""
    whole: bool = False
    named: bool = False
    spoken: bool = False
    clear: bool = False
    turned: int = 0

    @property
    def deep(self) -> bool:
        return "10le" in self.pixels

    @property
    def size(self) -> tuple[int, int]:
        return (SIZE[1], SIZE[0]) if self.turned else SIZE

    @property
    def seconds(self) -> list[Fraction]:
        return [t * self.base for t in self.times]

    def painted(self, index: int, hard: bool = False) -> np.ndarray:
        """What is to be seen, on black; with `hard` opacity is all or nothing."""
        colours = moving(SIZE)(index).astype(np.float64)
        if self.clear:
            share = veil(index)[..., None]
            colours *= (share >= 128) if hard else share / 255
        return np.rot90(colours, self.turned // 90)


X264 = (("crf", "8"), ("preset", "veryfast"))
X265 = (("crf", "6"), ("preset", "veryfast"), ("x265-params", "log-level=error"))
VP9 = (("crf", "8"), ("b", "0"), ("cpu-used", "5"), ("deadline", "good"))
INPUTS = [
    Input(
        "h264.mp4", "libx264", "yuv420p", 1.5, X264, sounds=("aac",) * 2, words="mov_text",
        whole=True,
    ),
    Input(
        "turned.mp4", "libx264", "yuv420p", 1.5, X264, matrix=1, turned=90, sounds=("aac",) * 2,
        words="mov_text", whole=True,
    ),
    Input(
        "prores.mov", "prores_ks", "yuv422p10le", 0.5, matrix=1, sounds=("pcm_s16le",) * 2,
        words="mov_text", whole=True,
    ),
    Input("qtrle.mov", "qtrle", "argb", 0.01, clear=True, sounds=("pcm_s16be",), named=True),
    Input(
        "hevc.mkv", "libx265", "yuv420p10le", 1.5, X265, matrix=1, sounds=("libopus",) * 2,
        words="subrip", whole=True,
    ),
    Input(
        "full.mkv", "libx264", "yuv420p", 1.5, X264, full=True, sounds=("ac3",) * 2, whole=True,
    ),
    Input(
        "ffv1.mkv", "ffv1", "bgr0", 0.01, sounds=("flac", "libmp3lame"), words="ass", whole=True,
    ),
    Input(
        "vp9.webm", "libvpx-vp9", "yuv420p", 1.2, VP9, sounds=("libopus",) * 2, words="webvtt",
        whole=True,
    ),
    Input(
        "clear.webm", "libvpx-vp9", "yuva420p", 1, (*VP9, ("auto-alt-ref", "0")), clear=True,
        sounds=("libopus",), whole=True,
    ),
    Input(
        "mpeg4.avi", "mpeg4", "yuv420p", 2, (("qmin", "1"), ("qmax", "2")), Fraction(1, 25), GAPS,
        sounds=("libmp3lame",) * 2, named=True,
    ),
    Input("h264.ts", "libx264", "yuv420p", 1.5, X264, sounds=("aac", "mp2"), spoken=True),
    Input(
        "mpeg2.mpg", "mpeg2video", "yuv420p", 2, (("qmin", "1"), ("qmax", "2")), Fraction(1, 25),
        GRID, sounds=("mp2",) * 2,
    ),
    Input("h264.flv", "libx264", "yuv420p", 1.5, X264, sounds=("aac",), named=True),
    Input(
        "wmv2.wmv", "wmv2", "yuv420p", 2, (("qmin", "1"), ("qmax", "2")), sounds=("wmav2",) * 2,
        named=True, spoken=True,
    ),
    Input("moving.gif", "gif", "pal8", 6, base=Fraction(1, 25), times=GAPS),
    Input("clear.apng", "apng", "rgba", 0.01, clear=True),
    Input("row%02d.png", "png", "rgb24", 0.01, base=Fraction(1, 25), times=GRID),
]  # fmt: skip


@dataclass(frozen=True)
class Output:
    """A file to end with.

    `adds` is what its codec may add to the error of the picture, `slack` what it may take from
    the times, None where it has none; `clear` whether it can be transparent.
    """

    name: str
    codec: str
    adds: float
    slack: Fraction | None
    clear: bool = False

    @property
    def ending(self) -> str:
        return Path(self.name).suffix

    @property
    def video(self) -> bool:
        return is_video(Path(self.name))


OUTPUTS = [
    Output("out.mp4", "auto", 3, Fraction(0)),
    Output("hevc.mp4", "hevc", 2.5, Fraction(0)),
    Output("out.mov", "prores", 0.6, Fraction(0), clear=True),
    Output("out.mkv", "ffv1", 0.3, MILLI, clear=True),
    Output("out.webm", "vp9", 1.7, MILLI, clear=True),
    Output("av1.webm", "av1", 2.5, MILLI),
    Output("out.gif", "auto", 6, Fraction(1, 100), clear=True),
    Output("out.webp", "auto", 3, MILLI, clear=True),
    Output("out.apng", "auto", 0.3, MILLI, clear=True),
    Output("o%d.png", "auto", 0.3, None, clear=True),
    Output("o%d.jpg", "auto", 1, None),
]
EVERY = [pytest.param(i, o, id=f"{i.name} {o.name}") for i in INPUTS for o in OUTPUTS]


def write(given: Input, folder: Path) -> Path:
    path = folder / given.name
    if given.codec in ("gif", "apng", "png"):
        _write_pictures(given, path)
        return path
    # Or the delay of MP3 would become a gap behind the first picture.
    unmoved = {"avoid_negative_ts": "disabled"} if path.suffix == ".avi" else {}
    with av.open(str(path), "w", options=unmoved) as out:
        video = cast(Any, out.add_stream(given.codec, rate=25))
        video.height, video.width = SIZE
        video.pix_fmt, video.options = given.pixels, dict(given.options)
        context = video.codec_context
        context.time_base = video.time_base = given.base
        if given.pixels.startswith("yuv"):
            context.colorspace = context.color_primaries = context.color_trc = given.matrix
            context.color_range = 2 if given.full else 1
        if given.turned:
            video.set_display_rotation(given.turned)
        sounds = [cast(Any, out.add_stream(codec, rate=48000)) for codec in given.sounds]
        for sound, language in zip(sounds, LANGUAGES, strict=False):
            sound.layout = "stereo"
            german = path.suffix == ".mov" and language == "deu"
            sound.metadata["language"] = "ger" if german else language
            sound.codec_context.bit_rate = 128_000
        words = cast(Any, out.add_mux_stream(given.words)) if given.words else None
        out.metadata["title"] = "Waves"
        if given.whole:
            out.set_chapters([
                {
                    "id": i, "start": round(a * 1000), "end": round(b * 1000),
                    "time_base": MILLI, "metadata": {"title": title},
                }
                for i, (a, b, title) in enumerate(CHAPTERS)
            ])  # fmt: skip
        out.start_encoding()  # only then encoders say how long a piece they want
        for k, sound in enumerate(sounds):
            _write_tone(out, sound, PITCH * (k + 1))
        for i, pts in enumerate(given.times):
            frame = _frame(given, i)
            frame.pts, frame.time_base = pts, given.base
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        for begin, end, text in SPOKEN if given.words else ():
            out.mux(_spoken(words, given.words, begin, end, text))
    return path


def _layers(given: Input, index: int) -> Pixels:
    colours = moving(SIZE)(index)
    return np.dstack([colours, veil(index)]) if given.clear else colours


def _frame(given: Input, index: int) -> VideoFrame:
    kind = "rgba" if given.clear else "rgb24"
    seen = VideoFrame.from_ndarray(np.ascontiguousarray(_layers(given, index)), format=kind)
    if not given.pixels.startswith("yuv"):
        return seen.reformat(format=given.pixels)
    # By a filter, because only that can say that chroma lies on the left, as H.264 means it.
    graph = Graph()
    matrix = "bt709" if given.matrix == 1 else "smpte170m"
    graph.link_nodes(
        graph.add_buffer(width=SIZE[1], height=SIZE[0], format=seen.format, time_base=MILLI),
        graph.add(
            "scale",
            f"in_range=pc:out_range={'pc' if given.full else 'tv'}:out_color_matrix={matrix}:"
            f"out_chroma_loc=left:{FINELY}",
        ),
        graph.add("format", f"pix_fmts={given.pixels}"),
        graph.add("buffersink"),
    ).configure()
    seen.pts, seen.time_base = 0, MILLI
    graph.push(seen)
    frame = cast(VideoFrame, graph.pull())
    frame.pict_type = PictureType.NONE
    frame.colorspace = given.matrix
    frame.color_primaries = frame.color_trc = given.matrix
    return frame


def _write_pictures(given: Input, path: Path) -> None:
    seen = [Image.fromarray(_layers(given, i)) for i in range(len(given.times))]
    if given.codec == "png":
        for i, picture in enumerate(seen, 1):
            picture.save(str(path) % i)
        return
    ends = [*given.seconds[1:], given.seconds[-1] + Fraction(1, 25)]
    shown = [round((b - a) * 1000) for a, b in zip(given.seconds, ends, strict=True)]
    seen[0].save(
        path, "GIF" if given.codec == "gif" else "PNG", save_all=True, append_images=seen[1:],
        duration=shown, loop=0,
    )  # fmt: skip


def _write_tone(out: Any, stream: Any, pitch: float) -> None:
    t = np.arange(round(0.6 * 48000)) / 48000
    wave = np.where(t < SILENT, 0, 0.4 * np.sin(2 * np.pi * pitch * t)).astype(np.float32)
    context = stream.codec_context
    resampler = AudioResampler(context.format, "stereo", 48000, context.frame_size or 1024)
    frame = AudioFrame.from_ndarray(np.stack([wave] * 2), format="fltp", layout="stereo")
    frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
    for piece in [*resampler.resample(frame), *resampler.resample(None)]:
        out.mux(stream.encode(piece))
    out.mux(stream.encode(None))


def _spoken(stream: Any, codec: str, begin: float, end: float, text: str) -> av.Packet:
    data = text.encode()
    if codec == "mov_text":
        data = len(data).to_bytes(2, "big") + data
    if codec == "ass":
        data = b"0,0,Default,,0,0,0,," + data
    packet = av.Packet(data)
    packet.stream, packet.time_base = stream, MILLI
    packet.pts = packet.dts = round(begin * 1000)
    packet.duration = round((end - begin) * 1000)
    return packet


@dataclass(frozen=True)
class Made:
    """What came out, and what was said of it."""

    source: Path
    path: Path
    notices: list[str]


class Kitchen:
    """Makes files when they are first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sources: dict[str, Path] = {}
        self._made: dict[tuple[str, str], Made] = {}
        self._errors: dict[str, list[float]] = {}

    def source(self, given: Input) -> Path:
        if given.name not in self._sources:
            self._sources[given.name] = write(given, self._folder)
        return self._sources[given.name]

    def made(self, given: Input, wanted: Output) -> Made:
        key = given.name, wanted.name
        if key not in self._made:
            folder = self._folder / f"from {given.name.replace('%', '')}"
            folder.mkdir(exist_ok=True)
            self._made[key] = convert(self.source(given), folder / wanted.name, wanted.codec)
        return self._made[key]

    def errors(self, given: Input) -> list[float]:
        """What coding took from each picture of an input."""
        if given.name not in self._errors:
            with VideoSource(self.source(given)) as reader:
                self._errors[given.name] = [
                    float(np.abs(seen(frame) - given.painted(i)).mean())
                    for i, frame in enumerate(reader)
                ]
        return self._errors[given.name]


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Kitchen:
    return Kitchen(tmp_path_factory.mktemp("formats"))


def convert(source: Path, target: Path, codec: str) -> Made:
    """Without dreaming, into the sink that a run would choose."""
    with VideoSource(source) as reader:
        also = [f"{s.type} stream {s.index}" for s in reader.companions.streams]
        if is_video(target):
            sink: VideoSink | RowSink | AnimationSink = VideoSink(
                target, reader.info, reader.companions, codec, preset="veryfast"
            )
        elif is_row(target):
            sink = RowSink(target, reader.info, also)
        else:
            assert target.suffix in ANIMATIONS
            sink = AnimationSink(target, reader.info, also)
        with sink:
            for frame in reader:
                sink.write(frame)
    return Made(source, target, list(sink.notices))


def on_black(layers: np.ndarray) -> np.ndarray:
    """RGBA of 8 bits as it is seen on black."""
    return layers[..., :3].astype(np.float64) * (layers[..., 3:].astype(np.float64) / 255)


def seen(frame: Frame) -> np.ndarray:
    """A frame as it is seen on black, of 8 bits."""
    colours = frame.pixels / np.iinfo(frame.pixels.dtype).max * 255
    if frame.alpha is None:
        return colours
    return colours * (frame.alpha / np.iinfo(frame.alpha.dtype).max)[..., None]


def beyond(
    pictures: Sequence[np.ndarray], given: Input, wanted: Output, mine: list[float]
) -> list[tuple[int, float]]:
    """Which pictures are further from what was painted than coding explains, and how far."""
    hard = wanted.ending == ".gif"
    assert len(pictures) == len(given.times)
    errors = [np.abs(p - given.painted(i, hard)).mean() for i, p in enumerate(pictures)]
    return [
        (i, round(float(error), 2))
        for i, error in enumerate(errors)
        if error > mine[i] + wanted.adds
    ]


def shown(path: Path) -> list[tuple[Fraction, np.ndarray]]:
    """When each picture of an animation is shown, and its RGBA, by Pillow."""
    found, time = [], Fraction(0)
    with Image.open(path) as image:
        for index in range(getattr(image, "n_frames", 1)):
            image.seek(index)
            image.load()
            found.append((time, np.array(image.convert("RGBA"))))
            time += Fraction(round(image.info["duration"]), 1000)
    return found


def heard(path: Path, stream: int) -> tuple[float, float]:
    """The pitch of a sound, and how long after the first picture it begins."""
    first = min(frame_times(path))
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=stream))
    rate = frames[0].sample_rate
    resampler = AudioResampler("flt", "mono", rate)
    pieces = [p for f in frames for p in resampler.resample(f)]
    wave = np.concatenate([p.to_ndarray()[0] for p in pieces])
    begins = int(np.flatnonzero(np.abs(wave) > 0.1)[0])
    tone = wave[begins : begins + round(0.25 * rate)]
    strength = np.abs(np.fft.rfft(tone * np.hanning(len(tone)), 4 * rate))
    base = frames[0].time_base
    assert base is not None
    start = Fraction(frames[0].pts or 0) * Fraction(base.numerator, base.denominator)
    return strength.argmax() / 4, float(start - first) + begins / rate


def bare(data: bytes) -> bytes:
    """AAC without the headers that only broadcasts put before it."""
    return data[7:] if data[:1] == b"\xff" and data[1] & 0xF6 == 0xF0 else data


def streams_of(path: Path) -> list[tuple[int, str]]:
    """Index and type of sound and subtitles."""
    with av.open(str(path)) as container:
        return [(s.index, s.type) for s in container.streams if s.type in ("audio", "subtitle")]


def told(notices: list[str], stream: int, kind: str) -> str:
    """What was said of a stream."""
    return " ".join(n for n in notices if n.startswith(f"{kind} stream {stream} "))


@pytest.mark.parametrize("given", INPUTS, ids=lambda given: given.name)
def test_what_is_painted_is_in_the_inputs(kitchen: Kitchen, given: Input) -> None:
    errors = kitchen.errors(given)
    assert len(errors) == len(given.times)
    assert max(errors) < given.error
    with VideoSource(kitchen.source(given)) as reader:
        times = [frame.time for frame in reader]
        assert (reader.info.deep, reader.info.alpha) == (given.deep, given.clear)
        assert reader.counts.skipped == reader.counts.damaged == reader.counts.missing == 0
    assert [t - times[0] for t in times] == given.seconds


@pytest.mark.parametrize(("given", "wanted"), EVERY)
def test_pictures_and_times_come_through(kitchen: Kitchen, given: Input, wanted: Output) -> None:
    made = kitchen.made(given, wanted)
    kept = given.clear and wanted.clear
    if wanted.ending == ".webp":  # written, but not read: libav knows only its still pictures
        pictures = [on_black(picture) for _, picture in shown(made.path)]
    else:
        with VideoSource(made.path) as reader:
            pictures = [seen(frame) for frame in reader]
            assert reader.info.size == given.size
            assert reader.info.alpha == kept
            if wanted.ending in (".mov", ".mkv", ".png"):
                assert reader.info.deep == (given.deep or wanted.codec == "prores")
    assert any("transparency is lost" in n for n in made.notices) == (given.clear and not kept)
    assert beyond(pictures, given, wanted, kitchen.errors(given)) == []
    if wanted.slack is not None:
        times = frame_times(made.path) if wanted.video else [t for t, _ in shown(made.path)]
        gaps = [abs(t - times[0] - s) for t, s in zip(times, given.seconds, strict=True)]
        assert max(gaps) <= wanted.slack


@pytest.mark.parametrize(("given", "wanted"), EVERY)
def test_streams_come_along_or_are_named(kitchen: Kitchen, given: Input, wanted: Output) -> None:
    made = kitchen.made(given, wanted)
    others = streams_of(made.source) if "%" not in given.name else []
    if not wanted.video:
        assert len(others) == len(given.sounds) + bool(given.words)
        assert all("is left out" in told(made.notices, index, kind) for index, kind in others)
        return
    with av.open(str(made.path)) as container:
        languages = [GERMAN.get(s.language or "", s.language) for s in container.streams.audio]
        words = [s.codec.canonical_name for s in container.streams.subtitles]
    assert len(languages) == len(given.sounds)
    if given.spoken or given.whole:
        assert languages == list(LANGUAGES[: len(given.sounds)])
    before, after = packets(made.source), packets(made.path)
    first = min(frame_times(made.source)) if others else Fraction(0)
    moved = first - min(frame_times(made.path))
    for k, index in enumerate(index for index, kind in others if kind == "audio"):
        if "becomes" in told(made.notices, index, "audio"):
            # Matroska holds every sound, but libav's bindings let no WMA into it.
            assert wanted.ending != ".mkv" or given.sounds[k] == "wmav2"
        else:
            same = [b"".join(bare(data) for _, data in some[k]) for some in (before, after)]
            assert same[0] == same[1]
            assert abs(before[k][0][0] - after[k][0][0] - moved) <= 2 * MILLI
        pitch, begins = heard(made.path, k)
        assert pitch == pytest.approx(PITCH * (k + 1), abs=4)
        assert begins == pytest.approx(heard(made.source, k)[1], abs=0.012)
    form = {".webm": ["webvtt"], ".mkv": ["subrip", "ass", "webvtt"]}.get(
        wanted.ending, ["mov_text"]
    )
    assert len(words) == bool(given.words)
    assert set(words) <= set(form)
    if given.words:
        lines = packets(made.path, "subtitle")[0]
        texts = [
            (time - min(frame_times(made.path)), data) for time, data in lines if len(data) > 2
        ]
        for (time, data), (begin, _, text) in zip(texts, SPOKEN, strict=True):
            assert text.encode() in data
            assert float(time) == pytest.approx(begin, abs=0.002)


@pytest.mark.parametrize(("given", "wanted"), [p for p in EVERY if cast(Output, p.values[1]).video])
def test_tags_come_along(kitchen: Kitchen, given: Input, wanted: Output) -> None:
    made = kitchen.made(given, wanted)
    with av.open(str(made.path)) as container:
        assert container.metadata.get("title") == ("Waves" if given.named or given.whole else None)
        chapters = [
            (c["metadata"]["title"], float((c["start"]) * (c["time_base"] or 0)))
            for c in container.chapters()
        ]
        context = container.streams.video[0].codec_context
        next(container.decode(video=0))
        colours = context.colorspace, context.color_range, context.color_primaries
        transfer = context.color_trc
        assert context.sample_aspect_ratio in (None, 0, 1)
    assert chapters == ([(title, begin) for begin, _, title in CHAPTERS] if given.whole else [])
    matrix, span = (0, 2) if wanted.codec == "ffv1" else (given.matrix, 1)
    assert colours == (matrix, span, given.matrix)
    # The functions that H.273 numbers 1 and 6 are the same; ProRes knows the name of the first.
    assert transfer == (1 if wanted.codec == "prores" and given.matrix == 6 else given.matrix)


FFMPEG = shutil.which("ffmpeg") or ""
SECOND_OPINION = pytest.mark.skipif(not FFMPEG, reason="no ffmpeg here to give a second opinion")
# FFmpeg 5.1 would take chroma for lying in the middle, whatever the codec means.
EXACTLY = f"scale=in_range=auto:in_color_matrix=auto:in_h_chr_pos=0:{FINELY}"


def by_ffmpeg(path: Path, size: tuple[int, int], seeing: bool) -> tuple[np.ndarray, str]:
    """RGBA of every picture, and what is complained of in pictures and sound."""
    # FFmpeg's own decoder of VP9 sees no transparency.
    decoder = ["-c:v", "libvpx-vp9"] if seeing else []
    finely = ["-vsync", "passthrough", "-enc_time_base", "1:90000"]
    command = [
        FFMPEG, "-nostdin", "-v", "error", "-xerror", "-threads", "1", *decoder, "-i", str(path),
        "-map", "0:v:0", *finely, "-vf", EXACTLY,
        "-pix_fmt", "rgba", "-f", "rawvideo", "pipe:1",
        "-map", "0:v", "-map", "0:a?", *finely, "-f", "null", "-",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    seen = np.frombuffer(done.stdout, np.uint8)
    return seen.reshape(-1, *size, 4), done.stderr.decode()


def words_by_ffmpeg(path: Path) -> str:
    command = [FFMPEG, "-nostdin", "-v", "error", "-copyts", "-i", str(path), "-f", "srt", "pipe:1"]
    done = subprocess.run(command, capture_output=True, timeout=60, check=True)
    return (done.stdout + done.stderr).decode()


@SECOND_OPINION
@pytest.mark.parametrize("given", INPUTS, ids=lambda given: given.name)
def test_ffmpeg_sees_in_the_inputs_what_is_painted(kitchen: Kitchen, given: Input) -> None:
    path = kitchen.source(given)
    found, _ = by_ffmpeg(path, given.size, given.name == "clear.webm")
    assert len(found) == len(given.times)
    for i, picture in enumerate(found):
        error = np.abs(on_black(picture) - given.painted(i)).mean()
        # FFmpeg turns a picture before it asks where chroma lies, which is no longer on the left.
        assert error == pytest.approx(kitchen.errors(given)[i], abs=1.5 if given.turned else 0.35)


@SECOND_OPINION
@pytest.mark.parametrize(("given", "wanted"), EVERY)
def test_ffmpeg_sees_the_same_and_has_no_complaint(
    kitchen: Kitchen, given: Input, wanted: Output
) -> None:
    made = kitchen.made(given, wanted)
    if wanted.ending == ".webp":  # FFmpeg 5.1 cannot read animated WebP, Pillow can
        found, complaint = np.stack([picture for _, picture in shown(made.path)]), ""
    else:
        seeing = given.clear and wanted.codec == "vp9"
        found, complaint = by_ffmpeg(made.path, given.size, seeing)
    assert complaint == ""
    pictures = [on_black(picture) for picture in found]
    assert beyond(pictures, given, wanted, kitchen.errors(given)) == []
    if given.words and wanted.video:
        words = words_by_ffmpeg(made.path)
        assert re.findall(r"(\S+) --> \S+\n(?:<[^>]*>)*(\w+)", words) == [
            ("00:00:00,000", "one"), ("00:00:00,200", "two"),
        ]  # fmt: skip
