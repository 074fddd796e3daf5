"""Times, streams, pictures and colours survive the way from a file into a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from media import Film, flat, frame_times, moving, packets, pictures
from PIL import Image

from streamdream.animation import AnimationSink
from streamdream.errors import SinkError, SourceError
from streamdream.frame import Frame
from streamdream.info import Reading
from streamdream.pictures import PictureSink, RowSink
from streamdream.reader import Reader
from streamdream.sources import VideoSource
from streamdream.video_sink import VideoSink


def through(source: Path, target: Path, **part: object) -> tuple[VideoSource, VideoSink]:
    """Copy without dreaming."""
    with (
        VideoSource(source, **part) as reader,  # type: ignore[arg-type]
        VideoSink(target, reader.info, reader.companions, crf=0, preset="ultrafast") as writer,
    ):
        for frame in reader:
            writer.write(frame)
    return reader, writer


UNEVEN = (0, 3003, 6006, 12000, 12001, 20000, 20500, 33333, 40000, 41111)
NTSC = tuple(3003 * i for i in range(12))


@pytest.mark.parametrize("target", ["out.mp4", "out.mov", "out.mkv"])
@pytest.mark.parametrize(
    ("times", "base"),
    [
        (UNEVEN, Fraction(1, 90000)),
        (NTSC, Fraction(1, 90000)),
        (tuple(range(12)), Fraction(1001, 30000)),
        (tuple(range(35, 47)), Fraction(1, 25)),
        (tuple(126000 + t for t in UNEVEN), Fraction(1, 90000)),
    ],
    ids=["variable", "29.97", "base 1001/30000", "offset", "variable with offset"],
)
def test_times_survive(tmp_path: Path, target: str, times: tuple[int, ...], base: Fraction) -> None:
    source = Film(times=times, time_base=base).write(tmp_path / "in.mov")
    expected = frame_times(source)
    through(source, tmp_path / target)
    found = frame_times(tmp_path / target)
    assert len(found) == len(times)
    if target.endswith(".mkv"):
        assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) <= Fraction(1, 1000)
    else:
        assert found == expected


@pytest.mark.parametrize("target", ["out.mp4", "out.mov", "out.mkv"])
def test_sound_is_copied_packet_for_packet(film: Path, tmp_path: Path, target: str) -> None:
    through(film, tmp_path / target)
    before, after = packets(film), packets(tmp_path / target)
    assert len(after) == 2
    for a, b in zip(before, after, strict=True):
        assert [data for _, data in a] == [data for _, data in b]
        slack = Fraction(1, 1000) if target.endswith("mkv") else 0
        assert all(abs(s - t) <= slack for (s, _), (t, _) in zip(a, b, strict=True))
    with av.open(str(tmp_path / target)) as container:
        assert [s.language for s in container.streams.audio] == ["eng", "fra"]


def test_subtitles_chapters_and_tags_are_kept(film: Path, tmp_path: Path) -> None:
    through(film, tmp_path / "out.mp4")
    words = [data for _, data in packets(tmp_path / "out.mp4", "subtitle")[0]]
    assert {b"\x00\x03one", b"\x00\x03two"} <= set(words)
    with av.open(str(tmp_path / "out.mp4")) as container:
        chapters = container.chapters()
        assert [c["metadata"]["title"] for c in chapters] == ["First", "Second"]
        ends = [float(c["end"] * c["time_base"]) for c in chapters if c["time_base"]]
        assert ends == pytest.approx([0.2, 0.4])
        tags = {k: container.metadata.get(k) for k in ("title", "artist", "comment")}
    assert tags == {"title": "Ten frames", "artist": "nobody", "comment": "made for tests"}


@pytest.mark.parametrize("ending", ["mkv", "webm", "mov"])
def test_words_of_subtitles_go_from_form_to_form(film: Path, tmp_path: Path, ending: str) -> None:
    target = tmp_path / f"out.{ending}"
    _, sink = webm(film, target) if ending == "webm" else through(film, target)
    form = {"mkv": "subrip", "webm": "webvtt"}.get(ending)
    assert any(f"(mov_text) becomes {form}" in n for n in sink.notices) == (form is not None)
    for name in ("out.mp4", "again.mkv"):  # and back, and on
        through(tmp_path / f"out.{ending}", tmp_path / name)
        spoken = [
            (time, data[2:] if name == "out.mp4" else data)
            for time, data in packets(tmp_path / name, "subtitle")[0]
            if len(data) > 2
        ]
        assert spoken == [(0, b"one"), (Fraction(1, 5), b"two")]


def webm(source: Path, target: Path) -> tuple[VideoSource, VideoSink]:
    with (
        VideoSource(source) as reader,
        VideoSink(target, reader.info, reader.companions) as writer,
    ):
        for frame in reader:
            writer.write(frame)
    return reader, writer


def test_words_are_freed_of_marks(tmp_path: Path) -> None:
    from streamdream.copies import PLAIN

    assert PLAIN["subrip"](b"<i>so</i> {\\an8}be it") == "so be it"
    line = b"0,0,Default,,0,0,0,,{\\pos(1,2)}what, now\\Nthen"
    assert PLAIN["ass"](line) == "what, now\nthen"


def test_words_already_on_screen_at_the_start_are_kept(tmp_path: Path) -> None:
    film = Film(times=range(25), subtitles=[(0.0, 0.6, "long"), (0.8, 0.9, "late")])
    through(film.write(tmp_path / "in.mkv"), tmp_path / "out.mkv", start=Fraction(2, 5))
    found = packets(tmp_path / "out.mkv", "subtitle")[0]
    assert found == [(0, b"long"), (Fraction(2, 5), b"late")]


@pytest.mark.parametrize("part", [{"end": Fraction(2, 5)}, {"frames": 10}])
@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_words_and_tags_do_not_make_a_part_longer(
    tmp_path: Path, name: str, part: dict[str, object]
) -> None:
    film = Film(times=range(50), languages=["eng"], subtitles=[(0.2, 1.9, "long")])
    through(film.write(tmp_path / "in.mkv"), tmp_path / "first.mkv")  # has tags of its length
    through(tmp_path / "first.mkv", tmp_path / name, **part)
    with av.open(str(tmp_path / name)) as container:
        assert container.duration is not None
        assert container.duration / av.time_base == pytest.approx(0.4, abs=0.05)
        lengths = [s.metadata.get("DURATION", "00:00:00.4") for s in container.streams]
        assert all(length.startswith("00:00:00.4") for length in lengths)


def test_the_last_picture_of_a_part_is_shown_until_the_next_would_be(tmp_path: Path) -> None:
    source = Film(times=(0, 3, 9, 30, 31)).write(tmp_path / "in.mkv")
    with VideoSource(source, frames=3) as reader:
        assert [frame.duration for frame in reader][-1] == Fraction(21, 25)
    through(source, tmp_path / "out.mp4", frames=3)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.duration == 1_200_000


def test_what_a_container_cannot_hold_is_left_out_and_said(film: Path, tmp_path: Path) -> None:
    with VideoSource(film) as reader:
        row = RowSink(tmp_path / "%d.png", reader.info, ["audio stream 1"])
        assert row.notices == ["audio stream 1 is left out: pictures hold none"]


def test_broken_sound_is_left_out_and_told(tmp_path: Path) -> None:
    source = Film(times=range(20), languages=["eng"]).write(tmp_path / "in.ts")
    data = bytearray(source.read_bytes())
    whole = len(packets(source)[0])
    mark = bytes(packets(source)[0][4][1][:7])  # how a packet of AAC begins
    assert mark[0] == 0xFF
    data[data.index(mark)] = 0
    source.write_bytes(data)
    _, sink = through(source, tmp_path / "out.mp4")
    assert any("broken and left out" in notice for notice in sink.notices)
    assert len(frame_times(tmp_path / "out.mp4")) == 20
    kept, told = packets(tmp_path / "out.mp4")[0], packets(source)[0]
    assert whole / 4 < len(kept) < whole  # libav's reader loses its place for a while
    assert abs(kept[-1][0] - told[-1][0] - kept[0][0] + told[0][0]) < 0.001


def test_start_and_end_cut_the_sound_with_the_picture(tmp_path: Path) -> None:
    source = Film(times=tuple(range(50)), languages=("eng",)).write(tmp_path / "in.mp4")
    through(source, tmp_path / "out.mp4", start=Fraction(1, 2), end=Fraction(3, 2))
    times = frame_times(tmp_path / "out.mp4")
    # 0.5 s lies between the frames at 0.48 s and 0.52 s; times are counted from it.
    assert len(times) == 25
    assert times[0] == Fraction(2, 100)
    assert times[-1] == Fraction(98, 100)
    (sound,) = packets(tmp_path / "out.mp4")
    assert 0 <= sound[0][0] < Fraction(1024, 48000)
    assert Fraction(95, 100) < sound[-1][0] < 1
    original = {data: t for t, data in packets(source)[0]}
    moved = {original[data] - t for t, data in sound if data in original}
    assert max(abs(m - Fraction(1, 2)) for m in moved) <= Fraction(1, 48000)


def test_so_many_frames_cut_the_sound_too(tmp_path: Path) -> None:
    source = Film(times=tuple(range(50)), languages=("eng",)).write(tmp_path / "in.mp4")
    through(source, tmp_path / "out.mp4", frames=5)
    assert len(frame_times(tmp_path / "out.mp4")) == 5
    assert packets(tmp_path / "out.mp4")[0][-1][0] < Fraction(1, 5)


@pytest.mark.parametrize("name", ["in.mp4", "in.mkv", "in.ts", "in.mpg", "in.avi", "in.flv"])
def test_seeking_finds_the_exact_frame(tmp_path: Path, name: str) -> None:
    """Broadcast streams and AVI files land too late on a plain seek."""
    codec = {".mpg": "mpeg2video", ".avi": "mpeg4"}.get(Path(name).suffix, "libx264")
    options = {"g": "50", "bf": "2"} | ({"crf": "8"} if codec == "libx264" else {"b": "4M"})
    source = Film(times=tuple(range(120)), codec=codec, options=options).write(tmp_path / name)
    with VideoSource(source) as reader:
        everything = list(reader)
        origin = reader._origin
    for start in (Fraction(1), Fraction(2), Fraction(5, 2)):
        wanted = next(f for f in everything if f.time >= origin + start)
        with VideoSource(source, start=start, frames=1) as reader:
            (frame,) = list(reader)
        assert np.array_equal(frame.pixels, wanted.pixels)
        assert 0 <= frame.time <= Fraction(1, 25)


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_a_start_between_ticks_keeps_the_times_apart(tmp_path: Path, name: str) -> None:
    source = Film(times=tuple(range(30)), time_base=Fraction(1, 10), codec="mpeg4", options={})
    source.write(tmp_path / "in.avi")
    through(tmp_path / "in.avi", tmp_path / name, start=Fraction(1, 4))
    times = frame_times(tmp_path / name)
    assert all(abs((b - a) - Fraction(1, 10)) <= Fraction(1, 1000) for a, b in pairwise(times))


def with_sound(path: Path, codec: str, **sound: object) -> Path:
    """A film with sound of a codec, a second long."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 128, 72, "yuv420p"
        stream = out.add_stream(codec, rate=48000)
        assert isinstance(stream, av.AudioStream)
        stream.layout = "stereo"
        resampler = av.AudioResampler(stream.codec_context.format, "stereo", 48000)
        for i in range(25):
            frame = av.VideoFrame.from_ndarray(moving()(i), format="rgb24")
            frame.pts = i
            out.mux(video.encode(frame))
            heard = av.AudioFrame.from_ndarray(np.zeros((2, 1920), np.float32), "fltp", "stereo")
            heard.sample_rate, heard.pts = 48000, i * 1920
            for piece in resampler.resample(heard):
                out.mux(stream.encode(piece))
        out.mux(video.encode(None))
        out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("source", "codec", "target", "copied"),
    [
        ("in.mkv", "pcm_s16le", "out.mp4", True),
        ("in.avi", "pcm_s16le", "out.mov", True),
        ("in.ts", "aac", "out.mp4", True),
        ("in.ts", "aac", "out.mkv", True),
        ("in.ts", "mp2", "out.mp4", True),
        ("in.mkv", "libopus", "out.mp4", True),
        ("in.mkv", "libopus", "out.mov", False),
        ("in.mkv", "flac", "out.mov", False),
    ],
)
def test_sound_is_copied_where_it_can_be_and_else_encoded_anew(
    tmp_path: Path, source: str, codec: str, target: str, copied: bool
) -> None:
    with_sound(tmp_path / source, codec)
    _, sink = through(tmp_path / source, tmp_path / target)
    assert len(frame_times(tmp_path / target)) == 25
    assert any("becomes aac" in notice for notice in sink.notices) != copied
    with av.open(str(tmp_path / target)) as container:
        heard = sum(f.samples for f in container.decode(audio=0))
    assert heard > 0.9 * 48000


def test_the_last_picture_stays_as_long_as_it_did(tmp_path: Path) -> None:
    from PIL import Image

    shades = [Image.new("RGB", (64, 48), (50 * i, 80, 120)) for i in range(4)]
    shades[0].save(
        tmp_path / "in.gif", save_all=True, append_images=shades[1:], duration=[100, 100, 100, 3000]
    )
    for name in ("out.mp4", "out.mkv"):
        through(tmp_path / "in.gif", tmp_path / name)
        with av.open(str(tmp_path / name)) as container:
            assert container.duration is not None
            assert container.duration / av.time_base == pytest.approx(3.3, abs=0.05)


@pytest.mark.parametrize("matrix", [1, 6])
@pytest.mark.parametrize("tagged", [True, False])
@pytest.mark.parametrize("size", [(72, 128), (720, 1280)])
def test_colours_come_back(
    tmp_path: Path, matrix: int, tagged: bool, size: tuple[int, int]
) -> None:
    if not tagged and matrix != (1 if size[0] >= 720 else 6):
        pytest.skip("untagged streams are taken for what is usual at their size")
    red = Film(flat((220, 40, 30), size), times=(0, 1), matrix=matrix, tagged=tagged).write(
        tmp_path / "in.mp4"
    )
    with VideoSource(red) as reader:
        frames = list(reader)
        assert reader.info.colour.matrix == matrix
    assert np.abs(frames[0].pixels.astype(int) - (220, 40, 30)).max() <= 3
    through(red, tmp_path / "out.mp4")
    with VideoSource(tmp_path / "out.mp4") as again:
        assert again.info.colour.matrix == matrix
        back = next(iter(again)).pixels
    assert np.abs(back.astype(int) - frames[0].pixels).max() <= 1
    with av.open(str(tmp_path / "out.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_range) == (matrix, 1)


@pytest.mark.parametrize("matrix", [1, 6])
def test_a_lossless_round_trip_loses_nothing_to_speak_of(tmp_path: Path, matrix: int) -> None:
    source = Film(matrix=matrix).write(tmp_path / "in.mp4")
    through(source, tmp_path / "out.mp4")
    with VideoSource(source) as a, VideoSource(tmp_path / "out.mp4") as b:
        for before, after in zip(a, b, strict=True):
            difference = np.abs(before.pixels.astype(int) - after.pixels)
            assert difference.mean() < 0.25


def test_tags_that_make_no_sense_are_no_matter(tmp_path: Path) -> None:
    """One of libav's ProRes encoders writes a transfer function of 0, which is reserved."""
    film = Film(codec="prores_aw", pixel_format="yuv422p10le", options={"profile": "3"})
    source = film.write(tmp_path / "in.mov")
    with av.open(str(source)) as container:
        assert next(container.decode(video=0)).color_trc in (0, 2)
    with VideoSource(source) as reader:
        seen = next(iter(reader)).pixels
    assert np.abs(seen / 257 - moving()(0)).mean() < 1.5


def test_full_range_video_is_not_taken_for_limited(tmp_path: Path) -> None:
    white = Film(
        flat((255, 255, 255)), times=(0,), codec="mjpeg", pixel_format="yuvj420p", options={}
    )
    white.matrix, white.tagged = 5, False
    path = tmp_path / "in.mov"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 72, "yuvj420p"
        frame = av.VideoFrame.from_ndarray(np.full((72, 128, 3), 250, np.uint8), "rgb24")
        frame = frame.reformat(format="yuvj420p", src_color_range=2, dst_color_range=2)
        frame.pts = 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    with VideoSource(path) as reader:
        pixels = next(iter(reader)).pixels
    assert abs(float(pixels.mean()) - 250) < 2


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_is_applied_and_not_told_again(tmp_path: Path, degrees: int) -> None:
    def corner(index: int) -> np.ndarray:
        picture = np.full((72, 128, 3), 30, np.uint8)
        picture[:24, :40] = 230  # top left of the coded picture
        return picture

    source = Film(corner, times=(0, 1, 2), rotation=degrees).write(tmp_path / "in.mp4")
    through(source, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        frame = next(container.decode(video=0))
        assert frame.rotation == 0
        upright = frame.to_ndarray(format="rgb24")
    expected = np.rot90(corner(0), degrees // 90)
    assert upright.shape == expected.shape
    assert np.abs(upright.astype(int) - expected).mean() < 6


def test_sample_aspect_is_kept_and_turned(tmp_path: Path) -> None:
    for degrees, expected in ((0, Fraction(4, 3)), (90, Fraction(3, 4))):
        source = Film(aspect=Fraction(4, 3), rotation=degrees, times=(0, 1)).write(
            tmp_path / f"in{degrees}.mp4"
        )
        through(source, tmp_path / "out.mp4", **{})
        with av.open(str(tmp_path / "out.mp4")) as container:
            assert container.streams.video[0].sample_aspect_ratio == expected


def test_a_pixel_shape_that_makes_no_sense_is_square(tmp_path: Path) -> None:
    source = Film(times=(0,), aspect=Fraction(2049)).write(tmp_path / "in.mp4")
    with VideoSource(source) as reader:
        assert reader.info.sample_aspect == 1


def test_odd_sizes_keep_every_pixel_and_are_said(tmp_path: Path) -> None:
    source = Film(moving((71, 127)), pixel_format="yuv444p").write(tmp_path / "in.mp4")
    _, sink = through(source, tmp_path / "out.mp4")
    assert any("odd" in notice and "128x72" in notice for notice in sink.notices)
    with VideoSource(source) as reader:
        original = next(iter(reader)).pixels
    found = pictures(tmp_path / "out.mp4")[0]
    assert found.shape == (72, 128, 3)
    assert np.abs(found[:71, :127].astype(int) - original).mean() < 5


def test_size_fits_inside_and_keeps_the_shape(tmp_path: Path) -> None:
    source = Film(moving((90, 160))).write(tmp_path / "in.mp4")
    through(source, tmp_path / "out.mp4", size=(64, 80))
    assert pictures(tmp_path / "out.mp4")[0].shape == (44, 80, 3)
    upright = Film(moving((90, 160)), rotation=90).write(tmp_path / "turned.mp4")
    through(upright, tmp_path / "turned_out.mp4", size=(80, 64))
    assert pictures(tmp_path / "turned_out.mp4")[0].shape == (80, 44, 3)


def test_times_in_another_order_than_the_pictures_are_sorted(tmp_path: Path) -> None:
    """As webcams and AVI files with B-frames have them: pictures in order, numbers not."""
    good = Film(times=tuple(range(24)), options={"crf": "10", "bf": "2", "b_strategy": "0"})
    good.write(tmp_path / "good.mp4")
    with av.open(str(tmp_path / "good.mp4")) as read, av.open(str(tmp_path / "in.mp4"), "w") as out:
        copy = out.add_stream_from_template(read.streams.video[0])
        for packet in read.demux(video=0):
            if packet.size and packet.dts is not None:
                packet.pts = packet.dts = packet.dts + 1024
                packet.stream = copy
                out.mux(packet)
    raw = frame_times(tmp_path / "in.mp4")
    with VideoSource(tmp_path / "in.mp4") as reader:
        frames = list(reader)
    assert raw != sorted(raw), "the bad case was not made"
    assert [frame.time for frame in frames] == sorted(raw)
    assert reader.counts.mended == sum(a != b for a, b in zip(raw, sorted(raw), strict=True))
    for index, frame in enumerate(frames):
        assert np.abs(frame.pixels.astype(int) - moving()(index)).mean() < 4


def test_broken_packets_are_skipped_and_counted(tmp_path: Path) -> None:
    source = Film(times=tuple(range(40)), options={"crf": "20", "g": "10"}).write(
        tmp_path / "in.mkv"
    )
    with av.open(str(source)) as container:
        places = [(p.pos or 0, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(source.read_bytes())
    start, size = places[15]
    data[start + 8 : start + size] = np.random.default_rng(15).bytes(max(0, size - 8))
    source.write_bytes(bytes(data))
    with VideoSource(source) as reader:
        frames = list(reader)
    assert len(frames) >= 25
    assert len(frames) < 40 or reader.counts.skipped > 0
    assert all(b.time > a.time for a, b in pairwise(frames))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.mp4", None, "no such file"),
        ("empty.mp4", b"", "is empty"),
        ("words.mp4", b"These are only words, not a film. " * 50, "not a video or picture"),
    ],
)
def test_unfit_inputs_are_told(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError, match=message) as found:
        VideoSource(path)
    assert found.value.exit_code == 3


def test_a_folder_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is a folder"):
        VideoSource(tmp_path)


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.m4a"
    with av.open(str(path), "w", format="mp4") as out:
        stream = out.add_stream("aac", rate=48000)
        stream.layout = "stereo"
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
        frame.sample_rate = 48000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    with pytest.raises(SourceError, match=r"no video stream; it holds only sound"):
        VideoSource(path)


def test_a_cut_off_file_is_told(film: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.mp4"
    short.write_bytes(film.read_bytes()[:3000])
    with pytest.raises(SourceError, match=r"not a video|no picture"):
        VideoSource(short)


def test_a_start_behind_the_end_is_told(film: Path) -> None:
    with pytest.raises(SourceError, match="no picture at or after 100 s"):
        VideoSource(film, start=Fraction(100))


def test_the_best_of_several_video_streams_is_taken_and_said(tmp_path: Path) -> None:
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as out:
        streams = []
        for h, w in ((72, 128), (144, 256)):
            stream = out.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = w, h, "yuv420p"
            streams.append((stream, moving((h, w))))
        for i in range(5):
            for stream, paint in streams:
                frame = av.VideoFrame.from_ndarray(paint(i), format="rgb24")
                frame.pts = i
                out.mux(stream.encode(frame))
        for stream, _ in streams:
            out.mux(stream.encode(None))
    reader, sink = through(path, tmp_path / "out.mp4")
    assert reader.info.size == (144, 256)
    assert any("256x144" in notice for notice in reader.notices)
    assert any("video stream 0 is left out" in notice for notice in sink.notices)


def test_awkward_names_work(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("x:y.mp4", "-dash.mp4", "with space.mp4", "ü 映画.mp4"):
        Path(name).write_bytes(film.read_bytes())
        through(Path(name), Path(name).with_suffix(".mkv"))
        assert len(frame_times(tmp_path / Path(name).with_suffix(".mkv"))) == 10


def test_nothing_has_the_final_name_before_it_is_complete(film: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    with VideoSource(film) as reader:
        sink = VideoSink(target, reader.info, reader.companions)
        for count, frame in enumerate(reader):
            sink.write(frame)
            assert not target.exists()
            if count == 6:
                break
        sink.close(complete=False)
    assert not target.exists()
    assert len(frame_times(tmp_path / "out.part.mp4")) == 7
    (sound, _) = packets(tmp_path / "out.part.mp4")
    assert sound[-1][0] < Fraction(8, 25)


def test_a_full_disk_is_told(film: Path, tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    target = tmp_path / "out.mkv"
    (tmp_path / "out.part.mkv").symlink_to("/dev/full")
    with pytest.raises(SinkError, match="the disk is full") as found:
        through(film, target)
    assert found.value.exit_code == 4
    assert not target.exists()


@pytest.mark.parametrize("name", ["out.gif", "f%03d.png", "f%03d.jpg"])
def test_a_full_disk_is_told_of_pictures_too(film: Path, tmp_path: Path, name: str) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    part = {"out.gif": "out.gif.part.mkv"}.get(name, name.replace("%03d", "001.part"))
    (tmp_path / part).symlink_to("/dev/full")

    def write() -> None:
        with VideoSource(film) as reader:
            if name == "out.gif":
                sink: AnimationSink | RowSink = AnimationSink(tmp_path / name, reader.info)
            else:
                sink = RowSink(tmp_path / name, reader.info, [])
            with sink:
                for frame in reader:
                    sink.write(frame)

    with pytest.raises(SinkError, match="the disk is full"):
        write()
    assert {p.name for p in tmp_path.iterdir()} <= {part}


@pytest.mark.parametrize("name", ["out.png", "out.jpg", "out.webp"])
def test_a_picture_is_written(tmp_path: Path, name: str) -> None:
    picture = moving()(0)
    with VideoSource(Film(times=(0,)).write(tmp_path / "in.mp4")) as source:
        info = source.info
    with PictureSink(tmp_path / name, info, "words of the maker") as sink:
        sink.write(Frame(picture, Fraction(0), 0))
    with VideoSource(tmp_path / name) as reader:
        assert reader.info.still
        back = next(iter(reader)).pixels
    assert np.abs(back.astype(int) - picture).mean() < (0.01 if name.endswith("png") else 4)


def test_writing_a_frame_of_another_size_is_a_mistake(film: Path, tmp_path: Path) -> None:
    with VideoSource(film) as reader:
        sink = VideoSink(tmp_path / "out.mp4", reader.info)
        with pytest.raises(ValueError, match="not"):
            sink.write(Frame(np.zeros((8, 8, 3), np.uint8), Fraction(0), 0))
        sink.close(complete=False)
    assert not (tmp_path / "out.part.mp4").exists()


def test_sound_that_nobody_takes_is_not_kept(tmp_path: Path) -> None:
    source = Film(times=tuple(range(100)), languages=("eng",)).write(tmp_path / "in.mp4")
    with VideoSource(source) as reader:
        for _ in reader:
            assert list(reader.companions.take()) == []


def test_an_end_before_the_first_picture_is_told(film: Path) -> None:
    with pytest.raises(SourceError, match=r"no picture from 0.05 s to 0.06 s; give another"):
        VideoSource(film, start=Fraction(5, 100), end=Fraction(6, 100))


@pytest.mark.parametrize("count", [8, 25, 60])
def test_recordings_one_behind_the_other_are_one_film(tmp_path: Path, count: int) -> None:
    """As `cat a.ts b.ts` makes them: the clock leaps back, the size changes."""
    small = Film(times=tuple(range(count)), languages=["eng"]).write(tmp_path / "a.ts")
    large = Film(moving((144, 256)), times=tuple(range(count)), languages=["eng"])
    both = tmp_path / "both.ts"
    both.write_bytes(small.read_bytes() + large.write(tmp_path / "b.ts").read_bytes())
    reader, _ = through(both, tmp_path / "out.mp4")
    times = frame_times(tmp_path / "out.mp4")
    assert len(times) == 2 * count
    assert reader.counts.skipped == 0
    sound = [time for time, _ in packets(tmp_path / "out.mp4")[0]]
    for line in (times, sound):
        assert all(b > a for a, b in pairwise(line))
    if count > 12:  # shorter leaps look like disorder, and are mended by the least there is
        steps = {b - a for a, b in pairwise(times)}
        assert max(steps) <= Fraction(2, 25)
        assert min(steps) > Fraction(1, 50)
        assert float(sound[-1] - sound[0]) == pytest.approx(2 * count / 25, abs=0.2)
    with VideoSource(tmp_path / "out.mp4") as result:
        frames = list(result)
    assert frames[-1].pixels.shape == (72, 128, 3)


def test_interlaced_video_is_made_whole_and_said(tmp_path: Path) -> None:
    path = tmp_path / "in.mkv"
    paint = moving((96, 128))
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg2video", rate=25, options={"flags": "+ildct+ilme", "q": "2"})
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for i in range(8):
            woven = paint(4 * i).copy()
            woven[1::2] = paint(4 * i + 6)[1::2]  # the other half is another moment
            frame = av.VideoFrame.from_ndarray(woven, format="rgb24")
            frame.pts = i
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))

    def combing(frames: list[np.ndarray]) -> float:
        rows = [f.astype(float).mean(-1) for f in frames]
        return float(np.mean([np.abs(r[2:] + r[:-2] - 2 * r[1:-1]).mean() for r in rows]))

    with VideoSource(path) as source, VideoSource(path, reading=Reading(deinterlace=False)) as raw:
        assert any("interlaced" in notice for notice in source.notices)
        assert raw.notices == []
        whole, woven = list(source), list(raw)
    assert [f.time for f in whole] == [f.time for f in woven]
    assert combing([f.pixels for f in whole]) < 0.5 * combing([f.pixels for f in woven])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_upright_whatever_their_exif_says(tmp_path: Path, orientation: int) -> None:
    from PIL import Image, ImageOps

    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:16, :24] = 255, 0, 0
    pixels[-16:, :24] = 0, 255, 0
    exif = Image.Exif()
    exif[0x112] = orientation
    Image.fromarray(pixels).save(tmp_path / "in.jpg", exif=exif, quality=98, subsampling=0)
    with Image.open(tmp_path / "in.jpg") as photo:
        upright = np.asarray(ImageOps.exif_transpose(photo).convert("RGB")).astype(int)
    with VideoSource(tmp_path / "in.jpg") as source:
        seen = next(iter(source)).pixels
    assert seen.shape == upright.shape
    assert np.abs(seen - upright).mean() < 2


def test_an_avif_is_a_photo(tmp_path: Path) -> None:
    Image.fromarray(moving()(0)).save(tmp_path / "in.avif", quality=95)
    with VideoSource(tmp_path / "in.avif") as source:
        assert source.info.still
        assert np.abs(next(iter(source)).pixels.astype(int) - moving()(0)).mean() < 4


def test_a_file_cut_off_tells_what_is_missing(tmp_path: Path) -> None:
    film = Film(
        times=tuple(range(100)), options={"crf": "10", "preset": "fast", "g": "10"},
        container_options={"movflags": "faststart"},
    ).write(tmp_path / "in.mp4")  # fmt: skip
    film.write_bytes(film.read_bytes()[: film.stat().st_size * 2 // 3])
    with VideoSource(film) as source:
        frames = list(source)
    assert 20 < len(frames) < 100
    assert source.counts.missing == 100 - len(frames)
    with pytest.raises(SourceError, match=r"too early|damaged"):
        list(VideoSource(film, reading=Reading(strict=True)))


def test_strict_ends_at_what_is_damaged(tmp_path: Path) -> None:
    source = Film(times=tuple(range(40)), options={"crf": "20", "g": "10"}).write(
        tmp_path / "in.mkv"
    )
    with av.open(str(source)) as container:
        places = [(p.pos or 0, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(source.read_bytes())
    start, size = places[15]
    data[start + 4 : start + size] = bytes(size - 4)
    source.write_bytes(bytes(data))
    with VideoSource(source) as lenient:
        list(lenient)
    assert lenient.counts.skipped > 0
    with pytest.raises(SourceError, match=r"damaged .*strict"):
        list(VideoSource(source, reading=Reading(strict=True)))


def test_huge_pictures_are_refused_before_decoding(film: Path) -> None:
    with pytest.raises(SourceError, match=r"128x72 are more than 9000 pixels; .*--max-pixels"):
        VideoSource(film, reading=Reading(most=9000))
    with VideoSource(film, reading=Reading(most=128 * 72)) as source:
        assert len(list(source)) == 10


def test_another_video_stream_can_be_taken(tmp_path: Path) -> None:
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as out:
        for h, w in ((72, 128), (144, 256)):
            stream = out.add_stream("ffv1", rate=25)
            stream.width, stream.height, stream.pix_fmt = w, h, "yuv420p"
        for i in range(3):
            for stream in out.streams.video:
                frame = av.VideoFrame.from_ndarray(
                    moving((stream.height, stream.width))(i), "rgb24"
                )
                frame.pts = i
                out.mux(stream.encode(frame))
    with VideoSource(path, reading=Reading(stream=0)) as source:
        assert source.info.size == (72, 128)
        assert source.notices == []
    with pytest.raises(SourceError, match=r"stream 2 is no video; there are: 0 \(128x72\), 1"):
        VideoSource(path, reading=Reading(stream=2))


@pytest.mark.parametrize("target", ["out.mp4", "out.webm"])
def test_sound_stays_with_the_picture_where_recordings_join(tmp_path: Path, target: str) -> None:
    piece = Film(times=tuple(range(50)), languages=["eng"]).write(tmp_path / "a.ts").read_bytes()
    (tmp_path / "both.ts").write_bytes(piece + piece + piece)
    through(tmp_path / "both.ts", tmp_path / target)
    sound = [time for time, _ in packets(tmp_path / target)[0]]
    steps = np.diff([float(time) for time in sound])
    assert steps.min() > 0.01
    assert steps.max() < 0.08
    assert float(sound[-1] - sound[0]) == pytest.approx(6, abs=0.2)
    assert len(frame_times(tmp_path / target)) == 150


def test_sound_that_changes_midway_is_encoded_on(tmp_path: Path) -> None:
    for name, layout in (("a.ts", "stereo"), ("b.ts", "mono")):
        with av.open(str(tmp_path / name), "w") as out:
            video, sound = out.add_stream("libx264", rate=25), out.add_stream("aac", rate=48000)
            video.width, video.height, video.pix_fmt = 128, 72, "yuv420p"
            sound.layout = layout
            for i in range(25):
                picture = av.VideoFrame.from_ndarray(moving()(i), format="rgb24")
                picture.pts = i
                out.mux(video.encode(picture))
            for i in range(46):
                silence = np.zeros((len(sound.layout.channels), 1024), np.float32)
                heard = av.AudioFrame.from_ndarray(silence, "fltp", layout)
                heard.sample_rate, heard.pts = 48000, i * 1024
                out.mux(sound.encode(heard))
            out.mux(video.encode(None))
            out.mux(sound.encode(None))
    both = tmp_path / "both.ts"
    both.write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    through(both, tmp_path / "out.webm")
    with av.open(str(tmp_path / "out.webm")) as container:
        heard = sum(frame.samples for frame in container.decode(audio=0)) / 48000
    assert heard == pytest.approx(2, abs=0.15)


@pytest.mark.parametrize("rate", [6000, 22254])
def test_sound_at_rates_that_an_encoder_lacks_gets_the_next_one(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "in.avi"
    with av.open(str(path), "w") as out:
        video, sound = out.add_stream("mpeg4", rate=25), out.add_stream("pcm_u8", rate=rate)
        video.width, video.height, video.pix_fmt = 128, 72, "yuv420p"
        sound.layout = "mono"
        for i in range(25):
            picture = av.VideoFrame.from_ndarray(moving()(i), format="rgb24")
            picture.pts = i
            out.mux(video.encode(picture))
            heard = av.AudioFrame.from_ndarray(
                np.full((1, rate // 25), 128, np.uint8), "u8", "mono"
            )
            heard.sample_rate, heard.pts = rate, i * (rate // 25)
            out.mux(sound.encode(heard))
        out.mux(video.encode(None))
    through(path, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        found = container.streams.audio[0]
        assert found.codec_context.name == "aac"
        assert sum(f.samples for f in container.decode(audio=0)) / found.rate > 0.9


def test_slides_in_a_broadcast_stay_as_long_as_they_were(tmp_path: Path) -> None:
    slides = Film(times=tuple(range(0, 60 * 25, 15 * 25))).write(tmp_path / "in.ts")
    with VideoSource(slides) as source:
        times = [frame.time for frame in source]
    assert [round(float(b - a), 2) for a, b in pairwise(times)] == [15, 15, 15]


def test_sound_that_leaps_alone_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a camera's clock set back in mid-recording: its sound leaps, its pictures do not.

    Muxers refuse to write such a file, so its packets are turned back on the way.
    """
    film = Film(times=tuple(range(100)), languages=["eng"]).write(tmp_path / "in.mkv")
    as_written = Reader.packets

    def turned_back(reader: Reader) -> Iterator[av.Packet]:
        heard = 0
        for packet in as_written(reader):
            if packet.stream.type == "audio" and packet.pts is not None:
                heard += 1
                packet.pts -= 1500 if heard > 80 else 0
                packet.dts = packet.pts
            yield packet

    monkeypatch.setattr(Reader, "packets", turned_back)
    through(film, tmp_path / "out.mp4")
    assert len(packets(tmp_path / "out.mp4")[0]) == len(packets(film)[0])


def test_pictures_that_are_only_repeated_are_not_missed(tmp_path: Path) -> None:
    film = Film(
        times=(0, 1, 2, 40, 80, 99), codec="mpeg4", options={"q": "2"}, tagged=False
    ).write(tmp_path / "in.avi")  # fmt: skip
    with VideoSource(film, reading=Reading(strict=True)) as source:
        assert len(list(source)) == 6
        assert source.counts.missing == 0


@pytest.mark.parametrize("name", ["out.webm", "out.mp4"])
def test_sound_all_around_stays_so(tmp_path: Path, name: str) -> None:
    """Each of six channels has its own tone, and keeps it."""
    pitches = (220, 330, 440, 60, 550, 660)
    with av.open(str(tmp_path / "in.mkv"), "w") as out:
        video, sound = out.add_stream("libx264", rate=25), out.add_stream("pcm_s16le", rate=48000)
        video.width, video.height, video.pix_fmt = 128, 72, "yuv420p"
        sound.codec_context.layout = "5.1"
        t = np.arange(48000) / 48000
        waves = np.stack([np.sin(2 * np.pi * pitch * t) * 8000 for pitch in pitches], 1)
        for i in range(25):
            frame = av.VideoFrame.from_ndarray(moving()(i), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            out.mux(video.encode(frame.reformat(format="yuv420p")))
            part = waves[i * 1920 : (i + 1) * 1920].astype(np.int16).reshape(1, -1)
            heard = av.AudioFrame.from_ndarray(part, "s16", "5.1")
            heard.sample_rate, heard.pts = 48000, i * 1920
            out.mux(sound.encode(heard))
        out.mux(video.encode(None))
        out.mux(sound.encode(None))
    with (
        VideoSource(tmp_path / "in.mkv") as reader,
        VideoSink(tmp_path / name, reader.info, reader.companions) as writer,
    ):
        for frame in reader:
            writer.write(frame)
    assert not any("stereo" in notice for notice in writer.notices)
    with av.open(str(tmp_path / name)) as result:
        pieces = [f.to_ndarray() for f in result.decode(audio=0)]
        assert result.streams.audio[0].codec_context.layout.nb_channels == 6
    joined = np.concatenate(pieces, 1)
    channels = joined.reshape(-1, 6).T if joined.shape[0] == 1 else joined
    for wave, pitch in zip(channels, pitches, strict=True):
        loudest = np.abs(np.fft.rfft(wave[9600:33600])).argmax() * 2
        assert loudest == pytest.approx(pitch, abs=4)


def spoken(path: Path) -> list[tuple[float, float, str]]:
    """When words are shown, until when, and what; as a player has them."""
    with av.open(str(path)) as container:
        found = []
        for packet in container.demux(subtitles=0):
            data = bytes(packet)
            text = data[2:] if path.suffix == ".mp4" else data
            if packet.pts is not None and text:
                begin = float(packet.pts * packet.time_base)
                end = begin + float((packet.duration or 0) * packet.time_base)
                found.append((round(begin, 2), round(end, 2), text.decode()))
        return found


def test_words_end_when_they_should_in_mp4(tmp_path: Path) -> None:
    film = Film(times=range(50), subtitles=[(0.2, 0.4, "one"), (0.8, 1.0, "two"), (1.0, 1.2, "x")])
    through(film.write(tmp_path / "in.mkv"), tmp_path / "out.mp4")
    assert spoken(tmp_path / "out.mp4") == [(0.2, 0.4, "one"), (0.8, 1.0, "two"), (1.0, 1.2, "x")]


def test_words_shown_together_are_shown_together_in_mp4(tmp_path: Path) -> None:
    cues = [(0.2, 1.4, "long"), (0.4, 0.6, "short"), (0.4, 0.8, "same"), (1.6, 1.8, "last")]
    through(Film(times=range(50), subtitles=cues).write(tmp_path / "in.mkv"), tmp_path / "out.mp4")
    assert spoken(tmp_path / "out.mp4") == [
        (0.2, 0.4, "long"), (0.4, 0.6, "long\nshort\nsame"), (0.6, 0.8, "long\nsame"),
        (0.8, 1.4, "long"), (1.6, 1.8, "last"),
    ]  # fmt: skip


def test_words_out_of_order_or_without_end_do_not_stop_the_run(tmp_path: Path) -> None:
    from streamdream.copies import _Line

    line = _Line()
    samples = [s for cue in [(20, 30, "b"), (10, 25, "a")] for s in line.add(*cue)]
    samples += line.rest()
    assert samples == [(20, 25, "b\na"), (25, 30, "b"), (30, 30, "")]
    film = Film(times=range(10), subtitles=[(0.0, 0.3, "long " * 20_000)])
    through(film.write(tmp_path / "in.mkv"), tmp_path / "out.mp4")
    assert 65_000 < len(spoken(tmp_path / "out.mp4")[0][2]) <= 65_535


def test_marks_and_only_marks_are_taken_from_words() -> None:
    from streamdream.copies import PLAIN

    assert PLAIN["subrip"](b"x < 5 and y > 3 <b>bold</b>") == "x < 5 and y > 3 bold"
    assert PLAIN["webvtt"](b"<c.red>Tom</c> &amp; <00:01.500>Jerry") == "Tom & Jerry"
    drawn = b"0,0,D,,0,0,0,,{\\p1}m 0 0 l 9 9{\\p0}so\\hit"
    assert PLAIN["ass"](drawn) == "so it"


@pytest.mark.parametrize("codec", ["libx264", "libvpx-vp9"])
def test_half_a_file_is_told_whatever_its_codec(tmp_path: Path, codec: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (50, 72, 128, 3), np.uint8)
    film = Film(
        lambda i: noise[i], times=range(50), codec=codec, options={"g": "5", "b": "4M"},
        container_options={"movflags": "faststart"},
    )  # fmt: skip
    whole = film.write(tmp_path / "in.mp4").read_bytes()
    (tmp_path / "half.mp4").write_bytes(whole[: len(whole) // 2])
    with VideoSource(tmp_path / "half.mp4") as reader:
        seen = len(list(reader))
        assert 10 < seen < 40
        assert abs(seen + reader.counts.missing + reader.counts.skipped - 50) <= 3


def test_a_shorter_row_over_a_longer_one_is_told_and_loses_nothing(tmp_path: Path) -> None:
    for count in (8, 3):
        source = Film(times=range(count)).write(tmp_path / "in.mp4")
        with VideoSource(source) as reader:
            sink = RowSink(tmp_path / "%03d.jpg", reader.info, [])
            with sink:
                for frame in reader:
                    sink.write(frame)
    assert len(list(tmp_path.glob("*.jpg"))) == 8
    assert sink.notices == ["5 pictures of a longer row of before are left behind this one"]


@pytest.mark.parametrize(("name", "limit"), [("o.webp", 16383), ("o.jpg", 65500), ("o.gif", 65535)])
def test_pictures_too_large_for_their_kind_are_told_at_once(
    tmp_path: Path, name: str, limit: int
) -> None:
    with VideoSource(Film(times=(0,)).write(tmp_path / "in.mp4")) as reader:
        info = replace(reader.info, size=(2, limit + 1))
    kind = AnimationSink if name.endswith("gif") else PictureSink
    with pytest.raises(SinkError, match=f"ends at {limit}; use png or --size"):
        kind(tmp_path / name, info)


def test_more_pictures_than_a_header_told_of_are_no_bug(film: Path, tmp_path: Path) -> None:
    with VideoSource(film) as reader:
        sink = PictureSink(tmp_path / "o.png", reader.info)
        first, second = (frame for frame in list(reader)[:2])
        sink.write(first)
        with pytest.raises(SinkError, match="the input has more; add --frames 1"):
            sink.write(second)
