"""README's commands run as they stand there."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from media import frame_times
from PIL import Image
from tour import furnished

from streamdream.style.network import read_card

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = [
    line for kind, block in BLOCKS if kind == "sh" for line in block.splitlines()
    if line.startswith("streamdream ")
]  # fmt: skip
# What makes a command quick without changing what it shows.
QUICK = {"--work-size": "64", "--steps": "1", "--warm-steps": "1", "--octaves": "1"}
QUICK_STYLE = {"--style-steps": "1", "--style-warm-steps": "1"}
OTHERS: dict[str, dict[str, str]] = {
    "train": {"--steps": "2", "--crop": "64", "--overwrite": ""},
    "atlas": {"--work-size": "32", "--steps": "1", "--octaves": "1"},
    "scenes": {},
    "jobs": {},
    "models": {},
    "presets": {},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, sample: Path) -> Path:
    return furnished(tmp_path_factory.mktemp("readme"), sample)


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 9
    assert [kind for kind, _ in BLOCKS[:2]] == ["sh", "sh"]


LIVE = [command for command in COMMANDS if command.startswith("streamdream live")]


@pytest.mark.alone
def test_live_commands_work(place: Path) -> None:
    running = {command: _begun(place, command) for command in LIVE}  # they mostly wait
    for command, process in running.items():
        _, text = process.communicate(timeout=200)
        assert process.returncode == 0, (command, text)
        assert "pictures in" in text, (command, text)
    (made,) = place.glob("show-*.mp4")
    assert len(frame_times(made)) > 3
    assert (place / "web" / "live.m3u8").exists()


def _begun(place: Path, command: str) -> subprocess.Popen[str]:
    words = shlex.split(command)[1:]
    if len(words) < 2 or words[1].startswith("-") or words[1] == "screen" or "://" in words[1]:
        words[1:2] = ["test", *[w for w in words[1:2] if w.startswith("-")]]  # no camera here
    # One screen, no opening hours that the test would have to wait for, any port.
    for option, value in (
        ("--monitor", "0"),
        ("--hours", "00:00-24:00"),
        ("--http", "0"),
        ("--osc", "0"),
    ):
        if option in words:
            words[words.index(option) + 1] = value
    return subprocess.Popen(
        [sys.executable, "-m", "streamdream", *words, "--seconds", "20", "--work-size", "64"],
        cwd=place, env={**os.environ, "SDL_VIDEODRIVER": "dummy"}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in LIVE])
def test_the_tour_works(place: Path, command: str) -> None:
    words = shlex.split(command.partition("|")[0])[1:]
    for maker in COMMANDS:  # of what this one reads: another process may have made it, elsewhere
        made = maker.partition(" -o ")[2].partition(" ")[0]
        read = made and made in words and f"-o {made}" not in command
        if read and not (place / made.replace("%05d", "00001")).exists():
            test_the_tour_works(place, maker)
    quick = QUICK
    whole = {"photo.jpg", "--loop-blend", "--preset", "--strength", "--layers"} & set(words)
    if words[0] == "zoom":
        quick = {"--work-size": "64", "--octaves": "1", "--rate": "4"}
        size = words.index("--size") + 1 if "--size" in words else None
        words += [] if size else ["--size", "128x72"]
        words = [w if i != size else "96x96" for i, w in enumerate(words)]
    elif words[0] in OTHERS:
        quick = OTHERS[words[0]]
    elif "--frames" not in words and "-o" in words and not whole:
        words += ["--frames", "3"]
    if "--style" in words:
        quick = {**quick, **QUICK_STYLE}
    if "--config" not in words:
        words += [w for pair in quick.items() if pair[0] not in words for w in pair if w]
    target = place / words[words.index("-o") + 1] if "-o" in words else None
    with open(place / "piped.mkv", "wb") as piped:
        process = subprocess.Popen(
            [sys.executable, "-m", "streamdream", *words], cwd=place, stdout=piped,
            stderr=subprocess.PIPE, text=True, env={**os.environ, "SDL_VIDEODRIVER": "dummy"},
        )  # fmt: skip
    shows = target is None and words[0] not in (
        "probe",
        "scenes",
        "jobs",
        "atlas",
        "models",
        "presets",
    )
    if shows:
        # A window stays until somebody closes it.
        time.sleep(15)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
    _, text = process.communicate(timeout=120)
    assert process.returncode == (130 if shows else 0), text
    if target:
        made = place / "piped.mkv" if target.name == "-" else target
        _check_made(made.parent / made.name.replace("%05d", "00003"))


def _check_made(shown: Path) -> None:
    if shown.is_dir():
        assert any(shown.iterdir())
    elif shown.suffix == ".html":
        assert "</html>" in shown.read_text("utf-8")
    elif shown.suffix == ".safetensors":
        assert read_card(shown).steps == 2
    elif shown.suffix == ".webp":  # which libav does not read when it moves
        with Image.open(shown) as moving:
            assert getattr(moving, "n_frames", 1) > 1
    else:
        assert len(frame_times(shown)) >= 1


def test_the_python_example_works(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    (code,) = [block for kind, block in BLOCKS if kind == "python"]
    exec(compile(code, "README.md", "exec"), {})
    assert len(frame_times(place / "python.mp4")) == 5


def test_the_docstring_of_the_package_names_what_there_is() -> None:
    import streamdream as sd

    for name in sd.__all__:
        assert getattr(sd, name) is not None
    for name in set(re.findall(r"\bsd\.(\w+)", (sd.__doc__ or "") + TEXT)):
        assert hasattr(sd, name)
    with pytest.raises(AttributeError):
        sd.nothing_of_the_kind  # type: ignore[attr-defined]  # noqa: B018


def test_presets_named_in_the_readme_are_all_presets() -> None:
    from streamdream.options import Options
    from streamdream.settings import preset_names
    from streamdream.zoom.options import ZoomOptions

    for begin, kind in (("Presets are", Options), ("Looks for it are", ZoomOptions)):
        sentence = TEXT[TEXT.index(begin) :].split(".", 1)[0]
        assert tuple(re.findall(r"`([\w-]+)`", sentence)) == preset_names(kind)
