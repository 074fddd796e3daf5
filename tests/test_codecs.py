"""Every codec in every container that takes it, and more than 8 bits a colour."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media import Film, frame_times, moving, packets, pictures

from streamdream.codecs import CODECS, CONTAINERS, check_codec
from streamdream.errors import OptionError, SinkError
from streamdream.frame import Frame
from streamdream.sources import VideoSource
from streamdream.video_sink import VideoSink

EVERY = [(ending, codec) for ending, kind in CONTAINERS.items() for codec in kind.codecs]
TIMES = (0, 1, 2, 5, 6, 7, 11, 12)


def through(source: Path, target: Path, codec: str = "auto") -> VideoSink:
    with (
        VideoSource(source) as reader,
        VideoSink(target, reader.info, reader.companions, codec, preset="veryfast") as sink,
    ):
        for frame in reader:
            sink.write(frame)
    return sink


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    film = Film(moving((96, 128)), times=TIMES, languages=["deu"], metadata={"title": "Waves"})
    return film.write(tmp_path_factory.mktemp("in") / "in.mkv")


@pytest.mark.parametrize(("ending", "codec"), EVERY)
def test_picture_times_and_tags_survive_every_codec(
    source: Path, tmp_path: Path, ending: str, codec: str
) -> None:
    target = tmp_path / f"out{ending}"
    sink = through(source, target, codec)
    with av.open(str(target)) as container:
        context = container.streams.video[0].codec_context
        assert CODECS[codec].name in (context.name, {"libdav1d": "av1"}.get(context.name))
        matrix, full = (0, 2) if codec == "ffv1" else (6, 1)
        assert (context.colorspace, context.color_range) == (matrix, full)
        assert container.metadata["title"] == "Waves"
    slack = Fraction(0) if ending in (".mp4", ".mov", ".m4v") else Fraction(1, 1000)
    expected = [t * Fraction(1, 25) for t in TIMES]
    for found, wanted in zip(frame_times(target), expected, strict=True):
        assert abs(found - wanted) <= slack
    with VideoSource(source) as a, VideoSource(target) as b:
        off = [
            np.abs(
                x.pixels.astype(int) - (y.pixels >> 8 if y.pixels.dtype == np.uint16 else y.pixels)
            )
            for x, y in zip(a, b, strict=True)
        ]
    assert np.mean(off) < (0.01 if codec == "ffv1" else 2.2)
    kept = packets(target)
    if ending == ".webm":
        assert any("(aac) becomes opus" in notice for notice in sink.notices)
        with av.open(str(target)) as container:
            assert container.streams.audio[0].metadata["language"] == "deu"
            heard = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
        loudest = np.abs(np.fft.rfft(heard[4800:24000])).argmax() * 48000 / 19200
        assert len(heard) / 48000 == pytest.approx(13 / 25, abs=0.05)
        assert loudest == pytest.approx(220, abs=5)
    else:
        sound = zip(kept[0], packets(source)[0], strict=True)
        assert all(a[1] == b[1] and abs(a[0] - b[0]) <= Fraction(1, 1000) for a, b in sound)


@pytest.mark.parametrize(("codec", "size"), [("ffv1", (61, 97)), ("vp9", (62, 98))])
def test_only_codecs_that_need_it_get_even_sides(tmp_path: Path, codec: str, size: object) -> None:
    film = Film(moving((61, 97)), times=(0, 1), codec="ffv1", pixel_format="yuv444p", options={})
    through(film.write(tmp_path / "in.mkv"), tmp_path / "out.mkv", codec)
    assert pictures(tmp_path / "out.mkv")[0].shape[:2] == size


def ramp(path: Path) -> Path:
    """Ten bits of grey that 8 bits cannot tell apart."""
    levels = np.linspace(200, 520, 320).round().astype(np.uint16)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 64, "yuv420p10le"
        stream.codec_context.color_range = 1
        for i in range(3):
            frame = av.VideoFrame(320, 64, "yuv420p10le")
            for k, plane in enumerate(frame.planes):
                rows = np.full((plane.height, plane.line_size // 2), 512, np.uint16)
                if k == 0:
                    rows[:, :320] = levels
                plane.update(rows.tobytes())
            frame.pts, frame.time_base = i, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("name", "codec", "deep"),
    [
        ("out.mp4", "auto", "hevc"), ("out.mov", "auto", "hevc"), ("out.mkv", "av1", "av1"),
        ("out.webm", "auto", "av1"), ("out.mov", "prores", "prores"), ("out.mkv", "ffv1", "ffv1"),
        ("out.mp4", "h264", ""),
    ],
)  # fmt: skip
def test_more_than_8_bits_are_kept_or_said_to_be_cut(
    tmp_path: Path, name: str, codec: str, deep: str
) -> None:
    sink = through(ramp(tmp_path / "in.mkv"), tmp_path / name, codec)
    with VideoSource(tmp_path / name) as result, VideoSource(tmp_path / "in.mkv") as was:
        assert result.info.deep == bool(deep)
        assert was.info.deep
        shown, meant = (next(iter(s)).pixels.astype(float) for s in (result, was))
    if deep:
        assert len(np.unique(shown[32, :, 1])) > 250
        assert np.abs(shown - meant).mean() < 65535 * 0.002
    else:
        assert any("cut to 8" in notice for notice in sink.notices)
        assert np.abs(shown * 257 - meant).mean() < 65535 * 0.004
    assert any("HEVC" in n for n in sink.notices) == (deep == "hevc")


def test_undreamed_deep_pixels_are_not_touched() -> None:
    import torch

    from streamdream.frame import composite

    pixels = np.random.default_rng(0).integers(0, 65536, (40, 60, 3), dtype=np.uint16)
    delta = torch.zeros(3, 40, 60)
    assert np.array_equal(composite(pixels, delta, 1.0), pixels)
    brighter = composite(pixels // 2, delta + 0.25, 1.0)
    assert np.abs(brighter.astype(int) - pixels // 2 - 16384).max() <= 1
    assert Frame(brighter, Fraction(0), 0).pixels.dtype == np.uint16


@pytest.mark.parametrize(
    ("name", "codec", "crf", "told"),
    [
        ("out.webm", "h264", None, "use --codec vp9 or av1"),
        ("out.mp4", "prores", None, "name it .mov or .mkv"),
        ("out.mp4", "auto", 52.0, "H.264 goes from 0 to 51"),
        ("out.mov", "prores", 10.0, "ProRes has no such quality"),
    ],
)
def test_what_does_not_go_together_is_told(
    name: str, codec: str, crf: float | None, told: str
) -> None:
    with pytest.raises((SinkError, OptionError), match=told):
        check_codec(Path(name), codec, crf)


@pytest.mark.parametrize("codec", ["hevc", "av1"])
def test_pictures_too_small_for_an_encoder_are_told(tmp_path: Path, codec: str) -> None:
    film = Film(moving((18, 34)), times=(0, 1), codec="ffv1", options={})
    with pytest.raises(SinkError, match=r"less than 64 pixels a side; use --codec h264"):
        through(film.write(tmp_path / "in.mkv"), tmp_path / "out.mkv", codec)
