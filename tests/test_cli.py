"""The command line as a person uses it: real processes, real files, real signals."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest
from av.error import FFmpegError
from media import Film, frame_times, packets, pictures

QUICK = ["--work-size", "96", "--octaves", "2", "--steps", "2", "--warm-steps", "1"]
QUICK += ["--layers", "block3"]


def streamdream(*arguments: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "streamdream", *map(str, arguments)],
        capture_output=True, text=True, timeout=timeout, check=False,
        env={k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")},
    )  # fmt: skip


Here = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def here(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    """The command in this process, which has loaded what takes a new one four seconds."""
    from streamdream import cli

    for variable in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(variable, raising=False)

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        capfd.readouterr()
        words = [*map(str, arguments)]
        with pytest.raises(SystemExit) as ended:
            cli.main(words)
        assert isinstance(ended.value.code, int)
        out, err = capfd.readouterr()
        return subprocess.CompletedProcess(words, ended.value.code, str(out), str(err))

    return run


def test_a_video_becomes_a_dream_and_keeps_the_rest(film: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    done = streamdream(film, "-o", target, *QUICK)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == ""  # nobody is watching
    assert frame_times(target) == frame_times(film)
    assert [len(p) for p in packets(target)] == [len(p) for p in packets(film)]
    before, after = pictures(film), pictures(target)
    change = [float(np.abs(a.astype(int) - b).mean()) for a, b in zip(after, before, strict=True)]
    assert min(change) > 1.5
    assert list(tmp_path.iterdir()) == [target]


def test_same_settings_same_pixels_and_like_repeats_them(
    film: Path, tmp_path: Path, here: Here
) -> None:
    first, second, third = (tmp_path / f"{n}.mp4" for n in "abc")
    assert streamdream(film, "-o", first, *QUICK, "--seed", 5).returncode == 0
    assert streamdream(film, "-o", second, *QUICK, "--seed", 5).returncode == 0
    assert streamdream(film, "-o", third, "--like", first).returncode == 0
    a, b, c = pictures(first), pictures(second), pictures(third)
    assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    assert all(np.array_equal(x, y) for x, y in zip(a, c, strict=True))
    other = tmp_path / "d.mp4"
    assert here(film, "-o", other, "--like", first, "--seed", 6).returncode == 0
    assert not np.array_equal(pictures(other)[0], a[0])
    with av.open(str(first)) as container:
        assert "made for tests" in container.metadata["comment"]


def test_a_picture_becomes_a_picture(tmp_path: Path, here: Here) -> None:
    from PIL import Image
    from skimage import data

    Image.fromarray(data.coffee()).save(tmp_path / "in.jpg")
    for name in ("out.png", "out.jpg"):
        done = here(tmp_path / "in.jpg", "-o", tmp_path / name, *QUICK)
        assert (done.returncode, done.stderr) == (0, "")
        with Image.open(tmp_path / name) as image:
            assert image.size == (600, 400)
    again = here(tmp_path / "in.jpg", "-o", tmp_path / "like.png", "--like", tmp_path / "out.png")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "like.png").read_bytes() == (tmp_path / "out.png").read_bytes()


def test_one_frame_of_a_video_becomes_a_picture(film: Path, tmp_path: Path, here: Here) -> None:
    done = here(film, "-o", tmp_path / "out.png", "--frames", 1, "--start", 0.2, *QUICK)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out.png").exists()


def test_strength_zero_gives_the_source_back(film: Path, tmp_path: Path, here: Here) -> None:
    target = tmp_path / "out.mp4"
    assert here(film, "-o", target, *QUICK, "--strength", 0, "--crf", 0).returncode == 0
    for a, b in zip(pictures(film), pictures(target), strict=True):
        assert np.abs(a.astype(int) - b).mean() < 1.5


def test_vgg19_dreams_too(film: Path, tmp_path: Path, here: Here) -> None:
    arguments = ["--model", "vgg19", "--layers", "relu3_1", "--steps", 1, "--octaves", 1]
    done = here(film, "-o", tmp_path / "out.mkv", "--frames", 2, *arguments)
    told = "subtitle stream 3 (mov_text) becomes subrip: .mkv cannot hold it; styles are lost"
    assert (done.returncode, done.stderr) == (0, f"streamdream: {told}\n")
    assert len(frame_times(tmp_path / "out.mkv")) == 2


def test_presets_and_files_and_flags_are_laid_over_each_other(
    film: Path, tmp_path: Path, here: Here
) -> None:
    config = tmp_path / "look.toml"
    config.write_text('layers = "block3"\nwork-size = 64\nsteps = 1\nwarm-steps = 1\noctaves = 1\n')
    target = tmp_path / "out.mp4"
    arguments = ["--preset", "whisper", "--config", config, "--octaves", 2, "--frames", 2]
    assert here(film, "-o", target, *arguments).returncode == 0
    with av.open(str(target)) as container:
        settings = container.metadata["comment"]
    assert '"layers": "block3"' in settings  # the file over the preset
    assert '"octaves": 2' in settings  # the flag over the file
    assert '"strength": 0.7' in settings  # the preset over the default


MISTAKES = {
    "missing file": (["gone.mp4", "-o", "out.mp4"], 3, "gone.mp4: no such file"),
    "not a video": (["words.mp4", "-o", "out.mp4"], 3, "not a video or picture"),
    "cut off": (["short.mp4", "-o", "out.mp4"], 3, "short.mp4: "),
    "folder": (["/", "-o", "out.mp4"], 3, "is a folder without pictures"),
    "wrong codec": (["film.mp4", "-o", "out.webm", "--codec", "h264"], 2, "use vp9 or av1"),
    "crf of a gif": (["film.mp4", "-o", "out.gif", "--crf", "20"], 2, "is for videos, not .gif"),
    "size of a video": (["film.mp4", "-o", "out.mp4", "--max-size", "8MB"], 2, "is for .gif"),
    "no such size": (["film.mp4", "-o", "out.gif", "--max-size", "big"], 2, "as 8MB"),
    "gif in a row": (["film.mp4", "-o", "a%d.gif"], 4, "holds all frames in one file; leave out"),
    "folder as output": (["film.mp4", "-o", "/tmp"], 4, "/tmp: is a folder; name a file in it"),
    "no such view": (["film.mp4", "-o", "out.mp4", "--view", "both"], 2, "--view both: should be"),
    "left frames": (["film.mp4", "-o", "gone.gif"], 4, "gone.gif.part.mkv: is left from an inte"),
    "no rate": (["film.mp4", "-o", "out.mp4", "--rate", "0"], 2, "a rate goes from 0.001"),
    "too large": (["film.mp4", "-o", "out.mp4", "--max-pixels", "2000"], 3, "--max-pixels"),
    "exists": (["film.mp4", "-o", "old.mp4"], 4, "exists already; give another name or --overw"),
    "left over": (["film.mp4", "-o", "half.mp4"], 4, "half.part.mp4: is left from an interrupted"),
    "no folder": (["film.mp4", "-o", "no/where/out.mp4"], 4, "there is no folder no/where"),
    "same file": (["film.mp4", "-o", "film.mp4", "--overwrite"], 4, "is the input itself"),
    "ending": (["film.mp4", "-o", "out.xyz"], 4, "files of kind .xyz cannot be written; use one"),
    "no ending": (["film.mp4", "-o", "out"], 4, "files without an ending"),
    "video to picture": (["film.mp4", "-o", "out.png"], 4, "a picture file holds one frame"),
    "bad value": (["film.mp4", "-o", "out.mp4", "--octaves", "0"], 2, "--octaves 0: should be"),
    "bad number": (["film.mp4", "-o", "out.mp4", "--steps", "many"], 2, '--steps many: "many" at'),
    "bad key": (["film.mp4", "-o", "out.mp4", "--strength", "0: 0.2, 3z: 1"], 2, '"3z" at char'),
    "keys collide": (
        ["film.mp4", "-o", "out.mp4", "--tile", "0: 999, 9s: 500, 20: 600"],
        2,
        "does not",
    ),
    "does not move": (["film.mp4", "-o", "out.mp4", "--crf", "0: 3, 9: 5"], 2, "holds for a whole"),
    "unknown option": (["film.mp4", "-o", "out.mp4", "--octavs", "3"], 2, "Did you mean --octaves"),
    "unknown layer": (["film.mp4", "-o", "out.mp4", "--layers", "blok9"], 5, "did you mean block9"),
    "unknown model": (["film.mp4", "-o", "out.mp4", "--model", "vgg91"], 5, "did you mean vgg19"),
    "no such preset": (["film.mp4", "-o", "out.mp4", "--preset", "eye"], 2, "did you mean eyes"),
    "no such config": (["film.mp4", "-o", "out.mp4", "--config", "c.toml"], 2, "No such file"),
    "not made by us": (["film.mp4", "-o", "out.mp4", "--like", "film.mp4"], 2, "no settings"),
    "no input": ([], 2, "input: no video or picture is named"),
    "two inputs": (["film.mp4", "old.mp4"], 2, "old.mp4: only one input is taken"),
    "start behind end": (["film.mp4", "-o", "out.mp4", "--start", "99"], 3, "no picture at or aft"),
    "like garbage": (["film.mp4", "-o", "out.mp4", "--like", "bad.png"], 3, "is not a picture"),
    "long name": (["x" * 300, "-o", "out.mp4"], 3, "name too long"),
    "long output": (["film.mp4", "-o", "x" * 300 + ".mp4"], 4, "name too long"),
    "endless start": (["film.mp4", "-o", "out.mp4", "--start", "9" * 20], 2, "a time is seconds"),
    "deep toml": (["film.mp4", "-o", "out.mp4", "--config", "deep.toml"], 2, "not valid TOML"),
    "negative toml": (["film.mp4", "-o", "out.mp4", "--config", "minus.toml"], 2, "a time is"),
    "no display": (["film.mp4"], 4, "no display here; name an output file with -o"),
}


@pytest.fixture(scope="module")
def place(film: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    (folder / "film.mp4").write_bytes(film.read_bytes())
    (folder / "short.mp4").write_bytes(film.read_bytes()[:3000])
    (folder / "words.mp4").write_text("words " * 500)
    (folder / "old.mp4").write_text("precious")
    (folder / "bad.png").write_text("garbage")
    (folder / "deep.toml").write_text("x = " + "[" * 3000)
    (folder / "minus.toml").write_text("start = -1")
    (folder / "half.part.mp4").write_text("hours of work")
    (folder / "gone.gif.part.mkv").write_text("hours of frames")
    return folder


# One of each exit code, and what libraries may speak of or the surroundings decide.
IN_A_PROCESS = ["missing file", "not a video", "cut off", "bad value", "exists", "no such config"]
IN_A_PROCESS += ["unknown layer", "like garbage", "no display", "no input"]


@pytest.mark.parametrize("name", IN_A_PROCESS)
def test_a_mistake_ends_the_process_with_its_exit_code(
    place: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.delenv("SDL_VIDEODRIVER", raising=False)
    told_in_one_line(name, streamdream(*MISTAKES[name][0]))


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_get_one_line_and_an_exit_code(
    place: Path, name: str, monkeypatch: pytest.MonkeyPatch, here: Here
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.delenv("SDL_VIDEODRIVER", raising=False)
    before = {p.name: p.read_bytes() for p in place.iterdir()}
    told_in_one_line(name, here(*MISTAKES[name][0]))
    assert {p.name: p.read_bytes() for p in place.iterdir()} == before


def told_in_one_line(name: str, done: subprocess.CompletedProcess[str]) -> None:
    _, code, message = MISTAKES[name]
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert done.stderr.startswith("streamdream: error: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["x.mp4", "--steps", "-1"],
        ["zoom", "nois", "--zoom", "0: 1, 3z: 2"],
    ],
)
def test_quick_answers_load_nothing_heavy(arguments: list[str]) -> None:
    """What takes seconds is importing these; the time itself depends on the machine."""
    code = (
        "import sys\nfrom streamdream import cli\n"
        f"try: cli.main({arguments!r})\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'av', 'cv2', 'numpy', 'pygame', 'PIL'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.endswith("heavy: []\n")


def test_help_is_grouped_and_tells_every_option(here: Here) -> None:
    from streamdream.options import Options

    text = here("--help").stdout
    for group in ("Input and output", "Dream", "Coherence", "Output", "Run"):
        assert group in text
    for name in [*Options.model_fields, "preset", "config", "like", "output"]:
        assert "--" + name.replace("_", "-") in text


def on_a_terminal(
    *arguments: object, interrupt_after: str = "", send: int = signal.SIGINT
) -> tuple[int, str]:
    """Run on a pseudo-terminal; send a signal when a text has appeared."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "streamdream", *map(str, arguments)],
        stdout=follower, stderr=follower, stdin=follower, close_fds=True,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )  # fmt: skip
    os.close(follower)
    text, sent, deadline = "", False, time.monotonic() + 120
    while time.monotonic() < deadline:
        if select.select([leader], [], [], 0.1)[0]:
            try:
                piece = os.read(leader, 65536)
            except OSError:
                break
            if not piece:
                break
            text += piece.decode("utf-8", "replace")
        if interrupt_after and not sent and interrupt_after in text:
            process.send_signal(send)
            sent = True
    code = process.wait(timeout=60)
    os.close(leader)
    return code, text


def test_a_terminal_shows_progress_and_a_summary(film: Path, tmp_path: Path) -> None:
    code, text = on_a_terminal(film, "-o", tmp_path / "out.mp4", *QUICK)
    assert code == 0
    assert "10/10" in text
    assert "fps" in text
    assert "10 frames in" in text.splitlines()[-1]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_leaves_a_playable_part(tmp_path: Path, number: int, code: int) -> None:
    source = Film(times=tuple(range(400)), languages=("eng",)).write(tmp_path / "in.mp4")
    target = tmp_path / "out.mp4"
    found, text = on_a_terminal(source, "-o", target, *QUICK, interrupt_after="fps", send=number)
    assert found == code
    assert "interrupted" in text
    assert "out.part.mp4" in text
    assert not target.exists()
    part = tmp_path / "out.part.mp4"
    times = frame_times(part)
    assert 1 <= len(times) < 400
    assert times == frame_times(source)[: len(times)]
    assert packets(part)[0][-1][0] <= times[-1] + 1


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    film = Film(times=tuple(range(2000)), languages=("eng",), options={"preset": "ultrafast"})
    return film.write(tmp_path_factory.mktemp("endless") / "in.mp4")


@pytest.mark.parametrize(
    ("name", "part", "codec"),
    [
        ("out.mp4", "out.part.mp4", "auto"), ("out.mkv", "out.part.mkv", "auto"),
        ("out.mp4", "out.part.mp4", "hevc"), ("out.webm", "out.part.webm", "vp9"),
        ("out.mkv", "out.part.mkv", "av1"), ("out.mov", "out.part.mov", "prores"),
        ("out.gif", "out.gif.part.mkv", "auto"),
    ],
)  # fmt: skip
def test_a_killed_run_leaves_what_was_done(
    endless: Path, tmp_path: Path, name: str, part: str, codec: str
) -> None:
    arguments = ["--strength", 0, "--steps", 1, "--warm-steps", 0, "--octaves", 1]
    process = subprocess.Popen(
        [sys.executable, "-m", "streamdream", endless, "-o", tmp_path / name,
         "--encoder-preset", "ultrafast", "--work-size", "32", "--codec", codec,
         *map(str, arguments)],
    )  # fmt: skip
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        if (tmp_path / part).exists() and (tmp_path / part).stat().st_size > 60_000:
            break
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not (tmp_path / name).exists()
    with av.open(str(tmp_path / part)) as left:
        found = 0
        with suppress(FFmpegError):  # the last picture may be half
            for _ in left.decode(video=0):
                found += 1
    assert found >= (5 if "prores" in codec or "gif" in name else 25)  # each a key frame


def test_a_part_that_is_the_input_is_not_overwritten(
    film: Path, tmp_path: Path, here: Here
) -> None:
    part = tmp_path / "out.part.mp4"
    part.write_bytes(film.read_bytes())
    done = here(part, "-o", tmp_path / "out.mp4", "--overwrite", *QUICK)
    assert done.returncode == 4
    assert "is the input itself" in done.stderr
    assert part.read_bytes() == film.read_bytes()


@pytest.mark.alone
@pytest.mark.parametrize("after", [1.0, 1.6, 2.5])
def test_an_interruption_while_loading_leaves_nothing(
    film: Path, tmp_path: Path, after: float
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "streamdream", film, "-o", tmp_path / "out.mp4", "--steps", "500"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 130
    assert text.startswith("streamdream: interrupted: nothing was written")
    assert list(tmp_path.iterdir()) == []


def test_without_an_output_a_window_shows_the_result(
    film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On SDL's dummy display; the window is closed by the event a person would cause."""
    import pygame

    from streamdream import window
    from streamdream.run import dream_file
    from streamdream.settings import build

    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    shown: list[np.ndarray] = []
    flip = pygame.display.flip

    def looking() -> None:
        flip()
        surface = pygame.display.get_surface()
        assert surface is not None
        shown.append(pygame.surfarray.array3d(surface).swapaxes(0, 1))
        if len(shown) == 4:
            pygame.event.post(pygame.event.Event(pygame.QUIT))

    monkeypatch.setattr(window.pygame.display, "flip", looking)
    options = build({
        "work_size": 96, "octaves": 1, "steps": 1, "warm_steps": 1, "layers": "block3"
    })  # fmt: skip
    outcome = dream_file(film, None, options)
    assert len(shown) == 4
    assert outcome.frames == 4
    assert not outcome.complete
    original = pictures(film)
    for picture, source in zip(shown, original, strict=False):
        assert picture.shape == source.shape
        assert 0.5 < np.abs(picture.astype(int) - source).mean() < 40


def test_what_is_piped_in_is_dreamed(film: Path, tmp_path: Path) -> None:
    import av

    with av.open(str(film)) as source, av.open(str(tmp_path / "in.mkv"), "w") as copy:
        stream = copy.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                copy.mux(packet)
    result = subprocess.run(
        [sys.executable, "-m", "streamdream", "-", "-o", "out.mkv", "--frames", "2", *QUICK],
        input=(tmp_path / "in.mkv").read_bytes(),
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert len(frame_times(tmp_path / "out.mkv")) == 2


def test_what_is_piped_on_is_a_video_and_nothing_else(film: Path, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "streamdream", str(film), "-o", "-", "--frames", "4", *QUICK],
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    (tmp_path / "out.mkv").write_bytes(result.stdout)
    assert len(frame_times(tmp_path / "out.mkv")) == 4
    assert len(packets(tmp_path / "out.mkv")) == 2
    assert all(line.startswith(b"streamdream: subtitle") for line in result.stderr.splitlines())


def test_a_reader_that_leaves_is_told_in_one_line(endless: Path) -> None:
    arguments = ["--strength", "0", "--steps", "1", "--warm-steps", "0", "--octaves", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "streamdream", endless, "-o", "-",
         "--work-size", "32", "--encoder-preset", "ultrafast", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.read(1000)
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr as stream:
        told = stream.read().decode()
    assert process.wait(timeout=60) == 4
    assert "standard output: cannot be written (nobody reads it any more)" in told
    assert told.count("\n") == 1


def test_a_terminal_gets_no_video(film: Path) -> None:
    code, text = on_a_terminal(film, "-o", "-", *QUICK)
    assert code == 4
    assert "standard output: is a terminal; pipe it into a program" in text


@pytest.mark.parametrize("view", ["side", "split"])
def test_views_show_the_source_too(film: Path, tmp_path: Path, view: str, here: Here) -> None:
    target = tmp_path / "out.mp4"
    done = here(film, "-o", target, "--view", view, "--frames", 3, *QUICK)
    assert done.returncode == 0, done.stderr
    shown, was = pictures(target), pictures(film)[:3]
    h, w = was[0].shape[:2]
    assert shown[0].shape == (h, w * (2 if view == "side" else 1), 3)
    half = w if view == "side" else w // 2 - 4
    for a, b in zip(shown, was, strict=True):
        dreamed = a[:, -half:].astype(int) - b[:, -half:]
        assert np.abs(a[:, :half].astype(int) - b[:, :half]).mean() < 2.3
        assert np.abs(dreamed).mean() > 2


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_whose_input_stalls_ends_with_what_is_done(
    sample: Path, tmp_path: Path, number: int
) -> None:
    whole = tmp_path / "whole.ts"
    with av.open(str(sample)) as source, av.open(str(whole), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    process = subprocess.Popen(
        [sys.executable, "-m", "streamdream", "-", "-o", str(tmp_path / "out.mkv"),
         "--work-size", "48", "--steps", "1", "--octaves", "1"],
        stdin=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    data = whole.read_bytes()
    process.stdin.write(data[: len(data) * 3 // 4])
    process.stdin.flush()  # and then nothing comes
    part = tmp_path / "out.part.mkv"
    until = time.monotonic() + 60
    while time.monotonic() < until and not part.exists():
        time.sleep(0.1)
    time.sleep(5)
    process.send_signal(number)
    began = time.monotonic()
    process.wait(40)
    assert time.monotonic() - began < 20
    process.stdin.close()
    assert process.stderr is not None
    text = process.stderr.read().decode()
    process.stderr.close()
    assert process.returncode == 128 + number, text
    assert "can be played" in text
    assert len(frame_times(part)) > 3
