from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest
from media import Film, flat, moving, packets, pictures
from PIL import Image
from rich.console import Console
from running import Command, typing

from streamdream import backbone
from streamdream.batch import commands, session
from streamdream.batch.display import Display
from streamdream.batch.plan import endings, planned
from streamdream.batch.report import Entry
from streamdream.errors import Error
from streamdream.run import dream_file
from streamdream.settings import build

QUICK = ["--work-size", "32", "--octaves", "1", "--steps", "1", "--layers", "block3"]
LOOK = {"work_size": 32, "octaves": 1, "steps": 1, "layers": "block3"}


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Command:
    return typing(capfd, "batch")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos and a photo that are well, one that is not, and what is none of these."""
    folder = tmp_path_factory.mktemp("batch") / "in"
    (folder / "deeper" / ".hidden").mkdir(parents=True)
    Film(moving((48, 64)), times=(0, 1, 2)).write(folder / "clip2.mp4")
    Film(moving((48, 80)), times=(0, 1), languages=("eng",)).write(folder / "clip10.mkv")
    Film(flat((90, 120, 40), (48, 64)), times=(0, 1)).write(folder / "deeper" / "clip2.avi")
    Image.fromarray(moving((48, 64))(3)).save(folder / "photo.jpg")
    (folder / "broken.mp4").write_text("words " * 300)
    (folder / "notes.txt").write_text("words")
    (folder / "deeper" / ".hidden" / "secret.mp4").write_text("words")
    (folder / "clip2.part.mp4").write_text("words")
    return folder


def told(folder: Path, *inputs: str, to: str = "same", recursive: bool = False) -> list[str]:
    items = planned([str(folder / i) for i in inputs], folder.parent / "out", to, recursive)
    return [str(item.target.relative_to(folder.parent / "out")) for item in items]


def test_a_plan_keeps_names_and_avoids_that_they_meet(folder: Path) -> None:
    assert told(folder, "") == ["broken.mp4", "clip2.mp4", "clip10.mkv", "photo.jpg"]
    deep = told(folder, "", recursive=True)
    assert deep == ["broken.mp4", "clip2.mp4", "clip10.mkv", "deeper/clip2.mp4", "photo.jpg"]
    # A folder that is named twice is read once; capitals do not tell files apart everywhere.
    assert told(folder, "deeper", "deeper") == ["clip2.mp4"]
    assert told(folder, "deeper", "clip2.mp4") == ["clip2.mp4", "clip2-2.mp4"]
    assert told(folder, "*.m[pk][4v]", to="mov")[-2:] == ["clip2.mov", "clip10.mov"]
    assert told(folder, "clip2.mp4", "photo.jpg", to="webm,png") == ["clip2.webm", "photo.png"]
    assert told(folder, "clip2.mp4", "photo.jpg", to="png") == ["clip2.mp4", "photo.png"]
    assert endings("same") == ("same", "same")


@pytest.mark.parametrize(
    ("inputs", "to", "reason"),
    [
        (["nothing.mp4"], "same", "no such file"),
        (["*.xyz"], "same", "matches no file"),
        (["deeper/.hidden"], "same", ""),
        (["clip2.mp4"], "doc", "doc cannot be written"),
        (["clip2.mp4"], "mp4,mov", "names one kind twice"),
        (["clip2.mp4"], "mp4,", "nothing cannot be written"),
    ],
    ids=str,
)
def test_a_wrong_plan_is_told(folder: Path, inputs: list[str], to: str, reason: str) -> None:
    if not reason:
        assert told(folder, *inputs, to=to) == ["secret.mp4"]
        return
    with pytest.raises(Error, match=reason):
        told(folder, *inputs, to=to)


def test_results_never_lie_among_the_inputs(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(Error, match="is the folder that is read"):
        planned([str(folder)], folder)
    with pytest.raises(Error, match=r"clip2\.mp4 in it is an input"):
        planned([str(folder / "clip2.mp4")], folder)
    (tmp_path / "file").write_text("words")
    with pytest.raises(Error, match="is a file"):
        planned([str(folder)], tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(Error, match="holds no videos or pictures"):
        planned([str(tmp_path / "empty")], tmp_path / "out")
    with pytest.raises(Error, match="a batch reads files"):
        planned(["rtsp://camera/1"], tmp_path / "out")
    # Results inside the folder that is read are not read the next time.
    (tmp_path / "out").mkdir()
    for name in ("one.mp4", "out/one.mp4"):
        (tmp_path / name).write_text("words")
    (item,) = planned([str(tmp_path)], tmp_path / "out", recursive=True)
    assert item.source == tmp_path / "one.mp4"


def test_each_result_is_that_of_a_single_run_and_networks_are_loaded_once(
    folder: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    real = backbone.load
    monkeypatch.setattr(backbone, "load", lambda *a: loaded.append(a[0]) or real(*a))
    report = tmp_path / "report.json"
    words = (folder, "-o", tmp_path / "out", "--recursive", "--json", report, *QUICK)
    code, out, err = command(*words)
    assert (code, out) == (3, "")
    assert len(loaded) == 1
    # The bad one stops none of the others, and is told at the end.
    lines = err.splitlines()
    assert re.match(r"streamdream: error: .*broken\.mp4: not a video", lines[-2])
    assert lines[-1] == "streamdream: 5 files: 4 dreamed, 1 failed"
    found = json.loads(report.read_text())
    assert found["finished"] is True
    assert found["files"] == {
        "done": 4, "skipped": 0, "failed": 1, "interrupted": 0, "running": 0, "waiting": 0, "all": 5
    }  # fmt: skip
    assert found["options"]["work_size"] == 32
    assert [(Path(e["input"]).name, e["status"], e["frames"]) for e in found["batch"]] == [
        ("broken.mp4", "failed", 0), ("clip2.mp4", "done", 3), ("clip10.mkv", "done", 2),
        ("clip2.avi", "done", 2), ("photo.jpg", "done", 1),
    ]  # fmt: skip
    assert found["batch"][0]["exit_code"] == 3
    assert "not a video" in found["batch"][0]["error"]
    assert all(e["seconds"] > 0 for e in found["batch"] if e["status"] == "done")
    for entry in found["batch"][1:]:
        made, alone = Path(entry["output"]), tmp_path / f"alone{Path(entry['output']).suffix}"
        dream_file(entry["input"], alone, build({**LOOK, "overwrite": True}))
        if made.suffix == ".mkv":  # has a random number of its own
            got, wanted = (packets(p, "video") + packets(p) for p in (made, alone))
        else:
            got, wanted = made.read_bytes(), alone.read_bytes()
        assert got == wanted, made
    assert not list(tmp_path.rglob("*.part*"))

    # Again: what is there is left as it is, or told, or replaced.
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.*")}
    (tmp_path / "out" / "clip10.mkv").unlink()
    (tmp_path / "out" / "clip10.part.mkv").write_text("left by a batch that was killed")
    code, _, err = command(*words, "--skip-existing")
    assert (code, err.splitlines()[-1]) == (
        3, "streamdream: 5 files: 1 dreamed, 3 there already, 1 failed"
    )  # fmt: skip
    for path, when in before.items():
        assert path.name == "clip10.mkv" or path.stat().st_mtime_ns == when
    code, _, err = command(folder / "photo.jpg", "-o", tmp_path / "out", *QUICK)
    assert (code, "photo.jpg: exists already" in err) == (4, True)
    code, _, err = command(folder / "photo.jpg", "-o", tmp_path / "out", *QUICK, "--overwrite")
    assert (code, err) == (0, "")
    assert (tmp_path / "out" / "photo.jpg").stat().st_mtime_ns > before[
        tmp_path / "out" / "photo.jpg"
    ]


def test_a_bug_that_one_file_brings_out_does_not_stop_the_others(
    folder: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(source: Path, *rest: object) -> object:
        if source.name == "clip2.mp4":
            raise RuntimeError("no luck")
        return dream_file(source, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(session, "dream_file", failing)
    given = (folder / "clip2.mp4", folder / "photo.jpg")
    code, _, err = command(*given, "-o", tmp_path / "out", *QUICK)
    assert code == 1
    assert "Traceback" in err
    assert "clip2.mp4: RuntimeError: no luck" in err
    assert err.splitlines()[-1] == "streamdream: 2 files: 1 dreamed, 1 failed"


def test_an_interrupted_batch_ends_in_good_order(
    folder: Path, tmp_path: Path, command: Command
) -> None:
    film = Film(moving((48, 64)), times=tuple(range(400))).write(tmp_path / "long.mp4")
    report, seen = tmp_path / "report.json", list[str]()

    def interrupt() -> None:
        for _ in range(600):
            time.sleep(0.1)
            text = report.read_text() if report.exists() else "{}"
            running = [e for e in json.loads(text).get("batch", []) if e["status"] == "running"]
            if running and running[0]["frames"] > 3:
                seen.append(running[0]["input"])
                os.kill(os.getpid(), signal.SIGINT)
                return

    thread = threading.Thread(target=interrupt)
    thread.start()
    given = (folder / "photo.jpg", film, folder / "clip2.mp4")
    words = (*given, "-o", tmp_path / "out", "--json", report, *QUICK)
    code, _, err = command(*words)
    thread.join(timeout=60)
    assert seen == [str(film)]
    assert code == 130
    told = "interrupted: 3 files: 1 dreamed, 2 left; --skip-existing goes on"
    assert err.splitlines()[-1] == f"streamdream: {told}"
    found = json.loads(report.read_text())
    assert [e["status"] for e in found["batch"]] == ["done", "interrupted", "waiting"]
    frames = found["batch"][1]["frames"]
    assert 3 < frames < 400
    # What was done of it can be played; and the batch goes on where it was.
    assert len(pictures(tmp_path / "out" / "long.part.mp4")) == frames
    code, _, _ = command(*words, "--skip-existing", "--frames", "2")
    assert code == 0
    statuses = [e["status"] for e in json.loads(report.read_text())["batch"]]
    assert statuses == ["skipped", "done", "done"]
    assert not list((tmp_path / "out").glob("*.part.*"))


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        ((), 2, "inputs: no file or folder is named"),
        (("IN",), 2, "--output"),
        (
            ("IN", "-o", "OUT", "--skip-existing", "--overwrite"),
            2,
            "--skip-existing: means nothing",
        ),
        (("IN", "-o", "OUT", "--json", "report.txt"), 4, "report.txt: a report is a file of kind"),
        (("IN", "-o", "OUT", "--json", "nowhere/r.json"), 4, "there is no folder nowhere"),
        (("IN", "-o", "OUT", "--to", "mkv", "--codec", "vp9", "--crf", "70"), 2, "--crf 70"),
        (("IN", "-o", "OUT", "--preset", "nothing"), 2, "no such preset"),
        (("IN", "-o", "IN/photo.jpg"), 4, "is a file; name a folder"),
        (("IN/photo.jpg", "-o", "IN/photo.jpg/out"), 4, "cannot be made"),
        (("IN", "-o", "OUT", "--audio", "nothing.mp3"), 3, "nothing.mp3: no such file"),
        (("IN", "-o", "OUT", "--device", "cuda"), 5, "no such device"),
    ],
    ids=str,
)
def test_what_is_wrong_is_told_before_anything_is_dreamed(
    folder: Path, tmp_path: Path, command: Command, words: tuple[str, ...], code: int, reason: str
) -> None:
    import torch

    if "cuda" in words and torch.cuda.is_available():
        pytest.skip("there is such a device here")
    place = [w.replace("IN", str(folder)).replace("OUT", str(tmp_path / "out")) for w in words]
    found, out, err = command(*place)
    assert (found, out) == (code, "")
    assert re.fullmatch(rf"streamdream: error: .*{re.escape(reason)}.*\n", err), err
    assert not list(tmp_path.rglob("*.*"))


def test_a_terminal_shows_all_files_and_each(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from io import StringIO

    text = StringIO()
    console = Console(file=text, force_terminal=True, width=110, soft_wrap=True, highlight=False)
    monkeypatch.setattr("streamdream.batch.display.Console", lambda **_: console)
    (item,) = planned([str(folder / "clip2.mp4")], tmp_path / "out")
    entry = Entry(item, frames=3, seconds=1.5, status="done")
    with Display(4) as display:
        display.file(1, entry)
        display.begin(3)
        display.step(2)
        display._progress.refresh()
        display.over(entry)
    shown = text.getvalue()
    assert "clip2.mp4" in shown
    assert "2/3" in shown
    assert "0/4" in shown
    assert "3 frames in 1.5 s" in shown
    assert commands.FILES.name == "The files"
