"""Every codec in every container that takes it, and more than 8 bits a colour."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
import pytest
from av.video.frame import PictureType
from av.video.stream import VideoStream
from media import Film, frame_times, moving, packets, pictures
from PIL import Image, ImageCms

from streamdream import hardware
from streamdream.codecs import CODECS, CONTAINERS, check_codec
from streamdream.errors import OptionError, SinkError
from streamdream.frame import Frame, Pixels
from streamdream.info import Reading
from streamdream.pictures import PictureSink, RowSink
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


@pytest.mark.parametrize(("ending", "codec"), EVERY)
def test_pixels_that_are_not_square_stay_so_or_are_made_square(
    tmp_path: Path, ending: str, codec: str
) -> None:
    film = Film(moving((96, 96)), times=(0, 1, 2), aspect=Fraction(4, 3))
    sink = through(film.write(tmp_path / "in.mp4"), tmp_path / f"out{ending}", codec)
    with VideoSource(tmp_path / f"out{ending}") as result:
        h, w = result.info.size
        shown = w * result.info.sample_aspect / h
    assert shown == Fraction(4, 3)
    assert any("made square: 96x96 becomes 128x96" in n for n in sink.notices) == (w == 128)
    assert (w == 128) == (ending in (".mkv", ".webm") and codec not in ("h264", "hevc"))


@pytest.mark.parametrize(("codec", "size"), [("ffv1", (61, 97)), ("vp9", (62, 98))])
def test_only_codecs_that_need_it_get_even_sides(tmp_path: Path, codec: str, size: object) -> None:
    film = Film(moving((61, 97)), times=(0, 1), codec="ffv1", pixel_format="yuv444p", options={})
    through(film.write(tmp_path / "in.mkv"), tmp_path / "out.mkv", codec)
    assert pictures(tmp_path / "out.mkv")[0].shape[:2] == size


def greys(levels: np.ndarray, pts: int) -> av.VideoFrame:
    """Columns of grey, in ten bits of limited range."""
    frame = av.VideoFrame(len(levels), 64, "yuv420p10le")
    for k, plane in enumerate(frame.planes):
        rows = np.full((plane.height, plane.line_size // 2), 512, np.uint16)
        if k == 0:
            rows[:, : len(levels)] = levels
        plane.update(rows.tobytes())
    frame.pts, frame.time_base = pts, Fraction(1, 25)
    return frame


def ramp(path: Path) -> Path:
    """Ten bits of grey that 8 bits cannot tell apart."""
    levels = np.linspace(200, 520, 320).round().astype(np.uint16)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 64, "yuv420p10le"
        stream.codec_context.color_range = 1
        for i in range(3):
            out.mux(stream.encode(greys(levels, i)))
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


@pytest.mark.parametrize(
    ("form", "level"),
    [("yuv420p10le", 940), ("yuv444p12le", 3760), ("gray10le", 1023), ("gray16le", 65535),
     ("gbrp10le", 1023), ("gbrp16le", 65535)],
)  # fmt: skip
def test_white_is_white_however_deep(tmp_path: Path, form: str, level: int) -> None:
    with av.open(str(tmp_path / "in.mkv"), "w") as out:
        stream = cast(VideoStream, out.add_stream("ffv1", rate=25))
        stream.width, stream.height, stream.pix_fmt = 64, 64, form
        stream.codec_context.color_range = 1 if "yuv" in form else 2
        frame = av.VideoFrame(64, 64, form)
        for k, plane in enumerate(frame.planes):
            value = 1 << (frame.format.components[0].bits - 1) if "yuv" in form and k else level
            plane.update(np.full(plane.buffer_size // 2, value, np.uint16).tobytes())
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    with VideoSource(tmp_path / "in.mkv") as source:
        assert next(iter(source)).pixels.min() >= 65535 - 4


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
        ("out.webm", "h264", None, "use vp9 or av1"),
        ("out.mp4", "prores", None, "name it .mov or .mkv"),
        ("out.mp4", "auto", 52.0, "H.264 goes from 0 to 51"),
        ("out.mov", "prores", 10.0, "ProRes has no such quality"),
        ("out.gif", "h264", None, "is for videos, not .gif files"),
        ("out.png", "auto", 20.0, "is for videos, not .png files"),
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


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("codec", list(CODECS))
def test_the_shortest_videos_come_out_whole(tmp_path: Path, codec: str, count: int) -> None:
    times = (0, 3003, 9009)[:count]
    film = Film(moving((96, 128)), times=times, time_base=Fraction(1, 90000))
    target = tmp_path / ("out.mov" if codec == "prores" else "out.mkv")
    through(film.write(tmp_path / "in.mp4"), target, codec)
    found = frame_times(target)
    assert [abs(a - Fraction(b, 90000)) < 0.001 for a, b in zip(found, times, strict=True)]
    if codec == "hevc":
        through(tmp_path / "in.mp4", tmp_path / "out.mp4", codec)
        assert frame_times(tmp_path / "out.mp4") == [Fraction(t, 90000) for t in times]


def lit(path: Path, transfer: int = 16) -> Path:
    """HDR of 10 bits, with what it was mastered for."""
    told = (
        "log-level=error:master-display=G(13250,34500)B(7500,3000)R(34000,16000)"
        "WP(15635,16450)L(10000000,50):max-cll=1000,400"
    )
    with av.open(str(path), "w") as out:
        stream = cast(VideoStream, out.add_stream("libx265", rate=25))
        stream.width, stream.height, stream.pix_fmt = 128, 64, "yuv420p10le"
        stream.options = {"x265-params": told, "crf": "4"}
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc = 9, 9, transfer
        context.color_range = 1
        for i in range(4):
            out.mux(stream.encode(greys(np.linspace(64, 940, 128), i)))
        out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("name", "codec"), [("out.mp4", "auto"), ("out.mkv", "hevc"), ("out.webm", "auto")]
)
@pytest.mark.parametrize("transfer", [16, 18])
def test_hdr_stays_hdr_with_what_it_was_mastered_for(
    tmp_path: Path, name: str, codec: str, transfer: int
) -> None:
    source = lit(tmp_path / "in.mp4", transfer)
    through(source, tmp_path / name, codec)
    with VideoSource(source) as was, VideoSource(tmp_path / name) as now:
        assert now.info.deep
        assert (now.info.colour.primaries, now.info.colour.transfer) == (9, transfer)
        a, b = was.info.light, now.info.light
        assert a is not None
        assert b is not None
        assert b.content == a.content == (1000, 400)
        assert a.display is not None
        assert b.display is not None
        assert b.display == pytest.approx([float(v) for v in a.display], rel=1e-3, abs=2e-5)
        assert float(a.display[9]) == 1000
        pairs = [np.abs(x.pixels.astype(float) - y.pixels) for x, y in zip(was, now, strict=True)]
    assert np.mean(pairs) < 65535 * 0.006


@pytest.mark.parametrize("name", ["out.mp4", "out.png"])
def test_what_cannot_be_hdr_is_told(tmp_path: Path, name: str) -> None:
    with VideoSource(lit(tmp_path / "in.mp4"), frames=1) as reader:
        if name == "out.png":
            notices = PictureSink(tmp_path / name, reader.info).notices
        else:
            notices = VideoSink(tmp_path / name, reader.info, codec="h264").notices
    assert any("--tone-map" in notice for notice in notices)
    assert name == "out.png" or any("mastered" in notice for notice in notices)


@pytest.mark.parametrize(("transfer", "middle"), [(16, (140, 175)), (18, (110, 160))])
def test_tone_mapping_gives_ordinary_video(
    tmp_path: Path, transfer: int, middle: tuple[int, int]
) -> None:
    with VideoSource(lit(tmp_path / "in.mp4", transfer), reading=Reading(tone_map=True)) as reader:
        assert not reader.info.deep
        assert reader.info.light is None
        assert (reader.info.colour.matrix, reader.info.colour.transfer) == (1, 1)
        assert any("tone-mapping" in notice for notice in reader.notices)
        pixels = next(iter(reader)).pixels
    ramp_of_greys = pixels[32].astype(int)
    assert np.ptp(ramp_of_greys, axis=1).max() <= 3  # grey stays grey
    assert (np.diff(ramp_of_greys[:, 1]) >= -1).all()
    # PQ's 572 of 10 bits, HLG's 502: about the white of ordinary video and half of it.
    place = round((572 if transfer == 16 else 502) / (940 - 64) * 127 - 64 / (940 - 64) * 127)
    assert middle[0] < ramp_of_greys[place, 1] < middle[1]
    assert ramp_of_greys[-1, 1] >= 250


def veil(path: Path, codec: str, pixel_format: str) -> Path:
    """Colours that move under an opacity that grows from left to right."""
    paint = moving((64, 96))
    options = {"prores_ks": {"profile": "4444"}, "libvpx-vp9": {"crf": "8", "auto-alt-ref": "0"}}
    with av.open(str(path), "w") as out:
        stream = cast(VideoStream, out.add_stream(codec, rate=25))
        stream.width, stream.height, stream.pix_fmt = 96, 64, pixel_format
        stream.options = dict(options.get(codec, {}))
        for i in range(4):
            seen = np.dstack([paint(i), np.tile(np.linspace(0, 255, 96).round(), (64, 1))])
            frame = av.VideoFrame.from_ndarray(seen.astype(np.uint8), format="rgba")
            frame = frame.reformat(format=pixel_format)
            frame.pts, frame.time_base = i, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


CLEAR = {"mov": ("prores_ks", "yuva444p10le"), "webm": ("libvpx-vp9", "yuva420p")}


@pytest.mark.parametrize("kind", [*CLEAR, "qtrle"])
@pytest.mark.parametrize(
    "name", ["out.mov", "out.webm", "out.mkv", "o%d.png", "out.mp4", "o%d.jpg"]
)
def test_transparency_is_carried_or_drawn_on_black_and_said(
    tmp_path: Path, kind: str, name: str
) -> None:
    codec, pixel_format = CLEAR.get(kind, ("qtrle", "argb"))
    source = veil(tmp_path / f"in.{'mov' if kind == 'qtrle' else kind}", codec, pixel_format)
    target = tmp_path / name
    with VideoSource(source) as reader:
        assert reader.info.alpha
        if "%" in name:
            sink: RowSink | VideoSink = RowSink(target, reader.info, [])
        else:
            sink = VideoSink(target, reader.info, preset="veryfast")
        with sink:
            for frame in reader:
                assert frame.alpha is not None
                sink.write(frame)
    with VideoSource(target) as result:
        last = list(result)[-1]
    wanted = np.linspace(0, 255, 96)
    if name in ("out.mp4", "o%d.jpg"):
        assert last.alpha is None
        assert any("transparency is lost" in notice for notice in sink.notices)
        seen = last.pixels / np.iinfo(last.pixels.dtype).max
        assert seen[:, :2].mean() < 0.05
        assert seen[:, -2:].mean() > 0.35
    else:
        assert last.alpha is not None
        share = last.alpha[32].astype(float) / np.iinfo(last.alpha.dtype).max * 255
        assert np.abs(share - wanted).max() < 6
        shown = last.pixels.astype(float) / np.iinfo(last.pixels.dtype).max * 255
        assert np.abs(shown[:, 48:] - moving((64, 96))(3)[:, 48:]).mean() < 8


def test_a_photo_that_could_be_transparent_but_is_not_is_none(tmp_path: Path) -> None:
    opaque = np.dstack([moving()(0), np.full((72, 128), 255, np.uint8)])
    Image.fromarray(opaque).save(tmp_path / "in.png")
    with VideoSource(tmp_path / "in.png") as source:
        assert not source.info.alpha
        assert next(iter(source)).alpha is None


def test_16_bits_stay_16_bits_in_png_with_alpha_and_words(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 65536, (40, 60, 3), dtype=np.uint16)
    alpha = rng.integers(0, 65536, (40, 60), dtype=np.uint16)
    with VideoSource(ramp(tmp_path / "in.mkv")) as reader:
        info = replace(reader.info, size=(40, 60), alpha=True)
    with PictureSink(tmp_path / "out.png", info, "so gemacht: grün") as sink:
        sink.write(Frame(pixels, Fraction(0), 0, alpha=alpha))
    assert sink.notices == []
    with VideoSource(tmp_path / "out.png") as back:
        assert back.info.deep
        frame = next(iter(back))
    assert np.array_equal(frame.pixels, pixels)
    assert frame.alpha is not None
    assert np.array_equal(frame.alpha, alpha)
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.info["Comment"] == "so gemacht: grün"


def profile() -> bytes:
    """An ICC profile in which red and green are swapped: what ignores it shows."""
    made = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    tags = {bytes(made[i : i + 4]): i for i in range(132, 132 + 12 * made[131], 12)}
    red, green = tags[b"rXYZ"], tags[b"gXYZ"]
    made[red + 4 : red + 12], made[green + 4 : green + 12] = (
        made[green + 4 : green + 12],
        made[red + 4 : red + 12],
    )
    return bytes(made).replace(b"s\0R\0G\0B", b"o\0d\0d\0 ").replace(b"sRGB", b"odd ")


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_a_photos_profile_goes_along_or_is_applied(tmp_path: Path, ending: str) -> None:
    photo = Image.fromarray(np.full((64, 64, 3), (200, 40, 40), np.uint8))
    photo.save(tmp_path / f"in.{ending}", icc_profile=profile(), quality=100)
    with VideoSource(tmp_path / f"in.{ending}", reading=Reading(profiled=True)) as kept:
        assert kept.info.profile == profile()
        with PictureSink(tmp_path / "out.png", kept.info) as sink:
            for frame in kept:
                sink.write(frame)
    with Image.open(tmp_path / "out.png") as written:
        assert written.info["icc_profile"] == profile()
    with VideoSource(tmp_path / f"in.{ending}") as applied:
        assert applied.info.profile is None
        assert any("to sRGB" in notice for notice in applied.notices)
        assert np.abs(next(iter(applied)).pixels[30, 30].astype(int) - (40, 200, 40)).max() < 6


def test_hardware_that_is_not_there_is_told_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Film(moving((96, 128)), times=(0, 1, 2)).write(tmp_path / "in.mp4")
    with VideoSource(source) as reader:
        sink = VideoSink(tmp_path / "a.mp4", reader.info, hardware="videotoolbox")
        assert any("videotoolbox: not in this build" in n and "libx264" in n for n in sink.notices)
        sink.close()
        # A maker whose encoder is there: the software one by the name of hardware.
        monkeypatch.setitem(
            hardware.MAKERS, "mine", hardware.Maker("yuv444p", None, lambda q, e: {})
        )
        monkeypatch.setattr(hardware, "encoder_name", lambda codec, maker: "libx264")
        with VideoSink(tmp_path / "b.mp4", reader.info, hardware="mine") as sink:
            assert sink.notices == ["encoding with libx264"]
            for frame in reader:
                sink.write(frame)
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuv444p"
    assert frame_times(tmp_path / "b.mp4") == frame_times(source)


@pytest.fixture(scope="module")
def natural(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photograph that glides, without loss."""
    from skimage import data

    photo = data.coffee()

    def crop(index: int) -> Pixels:
        return photo[100 + index : 100 + index + 192, 60 + 2 * index : 60 + 2 * index + 256]

    film = Film(crop, times=range(12), codec="ffv1", options={})
    return film.write(tmp_path_factory.mktemp("natural") / "in.mkv")


def rgb(path: Path) -> np.ndarray:
    with VideoSource(path) as source:
        return np.stack([f.pixels * (255 / np.iinfo(f.pixels.dtype).max) for f in source])


@pytest.mark.parametrize("codec", [name for name, codec in CODECS.items() if not codec.lossless])
def test_what_is_not_dreamed_loses_no_more_than_the_codec_takes(
    natural: Path, tmp_path: Path, codec: str
) -> None:
    ending = "mov" if codec == "prores" else "mkv"
    ours, direct = (tmp_path / f"{name}.{ending}" for name in ("ours", "direct"))
    with (
        VideoSource(natural) as source,
        VideoSink(ours, source.info, source.companions, codec) as sink,
    ):
        for frame in source:
            sink.write(frame)
    known = CODECS[codec]
    with av.open(str(natural)) as given, av.open(str(direct), "w") as out:
        stream = cast(VideoStream, out.add_stream(known.encoder, rate=25))
        first = given.streams.video[0]
        stream.width, stream.height, stream.pix_fmt = first.width, first.height, known.pixels
        stream.options = dict(known.options(known.crf or 0, "medium", 25))
        stream.codec_context.colorspace, stream.codec_context.color_range = 6, 1
        for picture in given.decode(video=0):
            picture.pict_type = PictureType.NONE
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    original = rgb(natural)
    twice, once = (np.abs(rgb(path) - original).mean() for path in (ours, direct))
    assert once < 4
    assert twice < once + 0.3
