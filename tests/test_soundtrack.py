from __future__ import annotations

import tracemalloc
import wave
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import pytest
from av.audio.frame import AudioFrame
from av.stream import Disposition
from av.video.frame import VideoFrame
from media import Film, packets, pictures

from streamdream import backbone, run, soundtrack
from streamdream.cli import _main
from streamdream.companions import Companions
from streamdream.errors import Error
from streamdream.inputs import locate
from streamdream.options import Options
from streamdream.reactions import HEARD, driven
from streamdream.run import Silent, dream_file, drive_of, read_settings
from streamdream.settings import build, recorded
from streamdream.song import Song, companions_of, duration_of
from streamdream.soundtrack import Soundtrack
from streamdream.sources import VideoSource

RATE = 48000
TINY: dict[str, Any] = {
    "layers": ("block5",), "octaves": 1, "steps": 2, "work_size": 96, "encoder_preset": "ultrafast",
}  # fmt: skip


def silence(seconds: float) -> Any:
    return np.zeros(round(seconds * RATE), np.float32)


def tone(pitch: float, seconds: float, amplitude: float = 0.5) -> Any:
    t = np.arange(round(seconds * RATE)) / RATE
    return (amplitude * np.sin(2 * np.pi * pitch * t)).astype(np.float32)


def clicks(times: list[float], seconds: float) -> Any:
    found = silence(seconds)
    for time in times:
        found[round(time * RATE) :][:40] = 0.9
    return found


def write_wave(path: Path, samples: Any) -> Path:
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes((samples * 32767).astype("<i2").tobytes())
    return path


def write(
    path: Path,
    samples: Any,
    codec: str = "flac",
    delay: float = 0.0,
    frames: int = 0,
    fps: int = 24,
    begins: int = 0,
    cover: bool = False,
) -> Path:
    """A file with sound that starts `delay` seconds late, beside so many small pictures."""
    with av.open(str(path), "w") as out:
        video = None
        if frames or cover:
            video = cast(Any, out.add_stream("mjpeg" if cover else "libx264", rate=fps))
            video.width, video.height = 64, 64
            video.pix_fmt = "yuvj420p" if cover else "yuv420p"
            video.codec_context.time_base = Fraction(1, fps)
            if cover:
                video.disposition = Disposition.attached_pic
        sound = cast(Any, out.add_stream(codec, rate=RATE))
        sound.layout = "mono"
        for i in range(max(frames, int(cover))):
            noise = np.random.default_rng(0).integers(60, 190, (8, 8, 3))
            picture = VideoFrame.from_ndarray(
                np.kron(noise, np.ones((8, 8, 1))).astype(np.uint8), format="rgb24"
            )
            picture.pts, picture.time_base = begins + i, Fraction(1, fps)
            assert video is not None
            for packet in video.encode(picture):
                out.mux(packet)
        form = {"aac": "fltp", "libmp3lame": "fltp", "mp2": "s16"}.get(codec, "s16")
        resampler = av.AudioResampler(form, "mono", RATE, 1152)
        whole = AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        whole.sample_rate, whole.time_base = RATE, Fraction(1, RATE)
        whole.pts = round(delay * RATE)
        for piece in [*resampler.resample(whole), *resampler.resample(None)]:
            for packet in sound.encode(piece):
                out.mux(packet)
        for stream in filter(None, (sound, video)):
            for packet in stream.encode(None):
                out.mux(packet)
    return path


def heard(path: Path, start: Fraction | None = None) -> tuple[list[Fraction], Any]:
    """The times of a video's frames and what is heard at each of them (n, 5)."""
    with VideoSource(path, start) as source:
        track = Soundtrack.of(source.input, source.shift)
        usual = 1 / (source.info.rate or Fraction(25))
        seen = [(f.time, track.at(f.time, f.duration or usual)) for f in source]
    return [t for t, _ in seen], np.array([list(v.values()) for _, v in seen])


def begun(times: list[Fraction], pulses: Any) -> list[float]:
    """When an onset is shown first."""
    before = np.append(0.0, pulses[:-1])
    return [float(t) for t, new in zip(times, (pulses == 1) & (before < 1), strict=True) if new]


def rows(path: Path) -> Any:
    """What is heard in a file every 10 ms (n, 5)."""
    track = Soundtrack.of(locate(path))
    times = [Fraction(i, 100) for i in range(round(float(duration_of(path)) * 100))]
    return np.array([list(track.at(t, Fraction(1, 100)).values()) for t in times])


class Ear(Silent):
    def __init__(self) -> None:
        self.notices: list[str] = []

    def notice(self, text: str) -> None:
        self.notices.append(text)


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(backbone, "load", load)


@pytest.mark.parametrize("fps", [24, 60])
@pytest.mark.parametrize("delay", [0.0, 0.37])
@pytest.mark.parametrize("start", [None, Fraction(13, 10)])
def test_an_onset_shows_on_its_frame(
    tmp_path: Path, fps: int, delay: float, start: Fraction | None
) -> None:
    told = [0.0, 0.511, 1.43, 1.777, 2.2]
    film = write(tmp_path / "a.mkv", clicks(told, 2.5), "flac", delay, 3 * fps, fps)
    times, values = heard(film, start)
    found = begun(times, values[:, HEARD.index("onset")])
    begin = float(start or 0)
    expected = [t + delay - begin for t in told if t + delay >= begin]
    assert len(found) == len(expected)
    for there, sounds in zip(found, expected, strict=True):
        assert -0.012 < sounds - there < 1 / fps + 0.012


def test_no_onset_is_missed_between_frames(tmp_path: Path) -> None:
    told = [0.3 + 0.217 * i for i in range(20)]
    track = Soundtrack.of(locate(write_wave(tmp_path / "a.wav", clicks(told, 5))))
    for phase in range(8):
        times = [Fraction(i, 24) + Fraction(phase, 192) for i in range(118)]
        pulses = np.array([track.at(t, Fraction(1, 24))["onset"] for t in times])
        assert len(begun(times, pulses)) == 20


@pytest.mark.parametrize(("pitch", "band"), [(80, "bass"), (700, "mid"), (5000, "treble")])
def test_a_tone_moves_its_band_alone(tmp_path: Path, pitch: float, band: str) -> None:
    values = rows(write_wave(tmp_path / "a.wav", np.append(silence(1), tone(pitch, 2))))
    assert not values[:95].any()
    after = values[120:280].mean(axis=0)
    for name, value in zip(HEARD, after, strict=True):
        if name in ("level", band):
            assert value > 0.9
        elif name != "onset":
            assert value < 0.1


def test_after_a_sound_everything_fades_to_nothing(tmp_path: Path) -> None:
    values = rows(write_wave(tmp_path / "a.wav", np.concatenate((tone(80, 1), silence(3)))))
    bass = values[:, HEARD.index("bass")]
    assert bass[50] > 0.9
    assert 0.1 < bass[125] < 0.9
    assert not values[240:].any()


def test_a_quiet_passage_moves_less_than_a_loud_one(tmp_path: Path) -> None:
    song = np.concatenate((tone(80, 20, 0.5), tone(80, 20, 0.5 / 10)))  # 20 dB
    level = rows(write_wave(tmp_path / "a.wav", song))[:, 0]
    assert level[1000] > 0.9
    assert 0.4 < level[3800] < 0.8


def test_noise_without_a_beat_has_no_onsets(tmp_path: Path) -> None:
    noise = np.random.default_rng(3).normal(0, 0.1, 5 * RATE).clip(-1, 1)
    onset = rows(write_wave(tmp_path / "a.wav", noise))[:, HEARD.index("onset")]
    assert not onset[150:].any()  # that of its beginning has faded


def test_outside_of_the_sound_there_is_nothing(tmp_path: Path) -> None:
    track = Soundtrack.of(locate(write_wave(tmp_path / "a.wav", tone(80, 1))))
    frame = Fraction(1, 24)
    assert track.at(Fraction(1, 2), frame)["level"] > 0.9
    for time in (Fraction(-5), Fraction(-1), Fraction(2), Fraction(5000)):
        assert set(track.at(time, frame).values()) == {0.0}


def test_blocks_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(1).normal(0, 0.1, 2 * RATE)
    path = write_wave(tmp_path / "a.wav", (noise + clicks([0.6, 1.1, 1.2], 2)).clip(-1, 1))
    whole = rows(path)
    monkeypatch.setattr(soundtrack, "BLOCK", 7)
    assert rows(path) == pytest.approx(whole, abs=1e-5)


def test_a_long_song_takes_the_memory_of_its_values_only(tmp_path: Path) -> None:
    peaks = []
    for minutes in (1, 8):
        path = write_wave(tmp_path / f"{minutes}.wav", np.tile(tone(100, 1), 60 * minutes))
        tracemalloc.start()
        Soundtrack.of(locate(path))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    hops = 7 * 60 * RATE / 512
    assert peaks[1] - peaks[0] < hops * 200  # bytes; its samples would be 2048 a hop


def test_joined_recordings_are_heard_one_behind_the_other(tmp_path: Path) -> None:
    part = write(tmp_path / "a.ts", clicks([0.5], 1), "mp2", frames=24)
    (tmp_path / "two.ts").write_bytes(part.read_bytes() * 2)
    times, values = heard(tmp_path / "two.ts")
    found = begun(times, values[:, HEARD.index("onset")])
    assert [t - float(times[0]) for t in found] == pytest.approx([0.5, 1.5], abs=0.1)


def test_reactions_stay_in_their_options_range() -> None:
    chosen = build({"react": "strength: bass -3..9, octaves: level 1..2.6, jitter: onset 9..0"})
    loud, quiet = (driven(chosen, chosen.reactions, dict.fromkeys(HEARD, v)) for v in (1.0, 0.0))
    assert (quiet.strength, quiet.octaves, quiet.jitter) == (0, 1, 9)
    assert (loud.strength, loud.octaves, loud.jitter) == (4, 3, 0)
    assert isinstance(loud.octaves, int)
    assert driven(chosen, chosen.reactions, {}) is chosen


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("strength: beat", "beat is a signal of live runs only; here there are level, bass"),
        ("strength: motion", "motion is a signal of live runs only"),
        ("strength: base", "base is no signal; did you mean bass"),
        ("strenght: bass", "strenght cannot follow a signal; did you mean strength"),
        ("flow: bass", "flow cannot follow"),
        ("crf: bass", "crf cannot follow"),
        ("strength bass", 'it is "option: signal"'),
        ("strength: bass 1-2", 'it is "option: signal"'),
    ],
)
def test_wrong_reactions_are_told(text: str, message: str) -> None:
    with pytest.raises(Error, match="--react") as found:
        build({"react": text})
    assert message in str(found.value)
    assert "\n" not in str(found.value)


def test_strength_follows_the_bass_of_the_video(tmp_path: Path) -> None:
    sound = np.concatenate((silence(0.5), tone(80, 0.5)))
    film = write(tmp_path / "film.mkv", sound, frames=24)
    for name, react in (("a.mkv", "strength: bass 0..0"), ("b.mkv", "strength: bass 0..1")):
        chosen = build(TINY, {"react": react, "codec": "ffv1"})
        dream_file(film, tmp_path / name, chosen)
    pairs = zip(pictures(tmp_path / "a.mkv"), pictures(tmp_path / "b.mkv"), strict=True)
    changes = [np.abs(a.astype(float) - b).mean() for a, b in pairs]
    assert changes[:11] == [0] * 11
    assert min(changes[13:]) > 1


def test_any_slider_can_follow_the_sound(tmp_path: Path) -> None:
    film = write(tmp_path / "a.mkv", clicks([0.1, 0.2], 0.3), frames=7)
    names = ["octaves", "octave-scale", "steps", "warm-steps", "jitter", "seed", "memory"]
    react = [f"{name}: onset 0..3" for name in names] + ["work-size: onset 64..80"]
    outcome = dream_file(film, tmp_path / "b.mkv", build(TINY, {"react": react}))
    assert (outcome.frames, outcome.complete) == (7, True)


def test_the_same_song_gives_the_same_dream(tmp_path: Path) -> None:
    film = write(tmp_path / "a.mkv", clicks([0.1], 0.2), frames=4)
    chosen = build(TINY, {"react": "step-size: onset, strength: level"})
    for name in ("b.mkv", "c.mkv"):
        dream_file(film, tmp_path / name, chosen)
    b, c = (pictures(tmp_path / name) for name in ("b.mkv", "c.mkv"))
    assert np.array_equal(b, c)


def test_a_song_is_copied_in_place_of_the_sound(tmp_path: Path, film: Path) -> None:
    song = write(tmp_path / "song.m4a", tone(500, 3), "aac")
    dream_file(film, tmp_path / "b.mp4", build(TINY, {"audio": song}))
    (there,) = packets(tmp_path / "b.mp4")
    (whole,) = packets(song)
    assert [data for _, data in there] == [data for _, data in whole[: len(there)]]
    assert [time for time, _ in there] == [time for time, _ in whole[: len(there)]]
    assert 0.37 < there[-1][0] < 0.4  # ten frames of 25 a second
    assert packets(tmp_path / "b.mp4", "subtitle") != []


@pytest.mark.parametrize(("ending", "codec"), [("mp3", "libmp3lame"), ("flac", "flac")])
def test_a_song_is_encoded_anew_where_it_must(tmp_path: Path, ending: str, codec: str) -> None:
    film = Film(times=tuple(range(50))).write(tmp_path / "a.mp4")
    song = write(tmp_path / f"song.{ending}", clicks([0.4, 1.1], 3), codec)
    ear = Ear()
    quick = {"steps": 0, "warm_steps": 0}
    dream_file(film, tmp_path / "b.webm", build(TINY, quick, {"audio": song}), ear)
    assert any("becomes opus" in told for told in ear.notices)
    times, values = heard(tmp_path / "b.webm")
    found = begun(times, values[:, HEARD.index("onset")])
    assert found == pytest.approx([0.4, 1.1], abs=0.05)
    (there,) = packets(tmp_path / "b.webm")
    assert -0.03 <= there[0][0] <= 0.01
    assert 1.95 < there[-1][0] < 2.05


def test_a_song_begins_with_the_pictures(tmp_path: Path) -> None:
    film = write(tmp_path / "a.mkv", tone(100, 3), frames=24, begins=36)
    song = write_wave(tmp_path / "song.wav", clicks([0.5], 2))
    chosen = build(TINY, {"audio": song, "react": "strength: onset 0..1", "steps": 0})
    dream_file(film, tmp_path / "b.mkv", chosen)
    times, values = heard(tmp_path / "b.mkv")
    assert times[0] == Fraction(3, 2)
    assert begun(times, values[:, -1]) == pytest.approx([2.0], abs=0.05)
    with VideoSource(film) as source, Song(song, source.begins) as open_song:
        drive = drive_of(chosen, source, open_song)
        strengths = [drive(chosen, frame).strength for frame in source]
    assert strengths.index(1) == 12


def test_a_short_song_is_told_of_and_just_ends(tmp_path: Path, film: Path) -> None:
    song = write_wave(tmp_path / "song.wav", tone(500, 0.1))
    ear = Ear()
    outcome = dream_file(film, tmp_path / "b.mp4", build(TINY, {"audio": song}), ear)
    told = f"{song}: lasts 0.1 s, the pictures about 0.4 s; the rest is silent"
    assert told in ear.notices
    assert outcome.complete
    assert packets(tmp_path / "b.mp4")[0][-1][0] < 0.11


def test_a_gif_says_that_the_song_is_left_out(tmp_path: Path, film: Path) -> None:
    song = write_wave(tmp_path / "song.wav", tone(500, 1))
    ear = Ear()
    dream_file(film, tmp_path / "b.gif", build(TINY, {"audio": song, "frames": 2}), ear)
    assert [told for told in ear.notices if "audio" in told] == [
        "audio stream 0 is left out: .gif holds none"
    ]


def test_a_picture_says_that_the_song_is_left_out(tmp_path: Path, film: Path) -> None:
    song = write_wave(tmp_path / "song.wav", tone(500, 1))
    ear = Ear()
    dream_file(film, tmp_path / "b.png", build(TINY, {"audio": song, "frames": 1}), ear)
    assert f"{song}: is not in the result, a picture holds no sound" in ear.notices


def test_a_cover_is_no_trouble(tmp_path: Path) -> None:
    song = write(tmp_path / "song.mp3", clicks([0.3], 1), "libmp3lame", cover=True)
    with av.open(str(song)) as opened:
        assert opened.streams.video
    assert float(duration_of(song)) == pytest.approx(1, abs=0.06)
    with Song(song) as opened_song:
        offered = companions_of(opened_song)
        assert isinstance(offered, Companions)
        assert [s.type for s in offered.streams] == ["audio"]
        assert {p.stream.type for p in offered.take(Fraction(1, 2))} == {"audio"}
        assert offered.take() == []  # what comes after the pictures is cut


def test_packets_of_a_song_come_in_pieces(tmp_path: Path) -> None:
    song = write(tmp_path / "song.mp3", tone(300, 2), "libmp3lame")
    with Song(song, Fraction(5)) as opened:
        pieces = [opened.take(Fraction(n, 4)) for n in range(30)]
    times = [[p.pts * p.time_base for p in piece if p.pts is not None] for piece in pieces]
    assert not any(times[:20])
    assert all(t < Fraction(n, 4) for n, piece in enumerate(times) for t in piece)
    assert min(t for piece in times for t in piece) == pytest.approx(5, abs=0.03)
    (whole,) = packets(song)
    assert sum(map(len, pieces)) == len(whole)


def test_reactions_are_repeated_by_like(tmp_path: Path, film: Path) -> None:
    chosen = build(TINY, {"react": "strength: bass, step-size: onset 0.5..3", "frames": 1})
    dream_file(film, tmp_path / "b.mp4", chosen)
    again = build(recorded(read_settings(tmp_path / "b.mp4"), "here"))
    assert again.react == ("strength: bass", "step-size: onset 0.5..3")
    assert "react" not in recorded(Options().as_comment(), "here")


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("audio", "message"),
    [
        ("none.mp3", "no such file"),
        ("folder", "is a folder"),
        ("empty.mp3", "is empty"),
        ("words.mp3", "cannot be played"),
        ("mute.mp4", "holds no sound"),
        ("broken.mp4", "cannot be played"),
    ],
)
def test_songs_that_are_none_are_refused(
    tmp_path: Path, film: Path, audio: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.mp3").touch()
    (tmp_path / "words.mp3").write_text("la la la " * 100)
    Film().write(tmp_path / "mute.mp4")
    (tmp_path / "broken.mp4").write_bytes(film.read_bytes()[:1000])
    song, target = str(tmp_path / audio), tmp_path / "b.mp4"
    assert _main([str(film), "-o", str(target), "--audio", song]) in (2, 3)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"streamdream: error: {song}: ")
    assert message in line
    assert not target.exists()


def test_a_song_damaged_in_its_middle_is_played(tmp_path: Path, film: Path) -> None:
    song = write(tmp_path / "song.mp3", tone(80, 2), "libmp3lame")
    data = bytearray(song.read_bytes())
    data[2000:2600] = bytes(600)
    song.write_bytes(data)
    chosen = build(TINY, {"audio": song, "react": "strength: bass", "frames": 3})
    assert dream_file(film, tmp_path / "b.mp4", chosen).complete


@pytest.mark.usefixtures("no_model")
def test_reactions_without_sound_are_refused(tmp_path: Path) -> None:
    mute = Film().write(tmp_path / "mute.mp4")
    with pytest.raises(Error) as found:
        dream_file(mute, tmp_path / "b.mp4", build(TINY, {"react": "strength: bass"}))
    assert f"--react: {mute} has no sound to follow; give it with --audio" in str(found.value)
    assert not list(tmp_path.glob("b*"))


@pytest.mark.usefixtures("no_model")
def test_what_is_piped_in_cannot_be_followed(
    tmp_path: Path, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    piped = Film(languages=("eng",)).write(tmp_path / "a.mkv")
    with VideoSource(piped) as source:
        monkeypatch.setattr(source, "input", locate("-"))
        with pytest.raises(Error, match="what is piped in cannot be heard before"):
            drive_of(build({"react": "strength: bass"}), source, None)


@pytest.mark.usefixtures("no_model")
def test_the_song_is_never_written_over(tmp_path: Path, film: Path) -> None:
    song = write(tmp_path / "song.mp4", tone(80, 1), "aac")
    with pytest.raises(Error, match="is the input itself"):
        dream_file(film, song, build({"audio": song, "overwrite": True}))
    assert float(duration_of(song)) == pytest.approx(1, abs=0.05)


def test_a_window_says_that_it_plays_nothing(
    tmp_path: Path, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    song = write_wave(tmp_path / "song.wav", tone(80, 1))
    with VideoSource(film) as source:
        assert run.song_notices(song, None, source.info) == [
            f"{song}: is not in the result, a window plays no sound"
        ]
        assert run.song_notices(None, None, source.info) == []
