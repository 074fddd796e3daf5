"""Scenes dreamed by several processes: the same film, whoever makes which part, and when."""

from __future__ import annotations

import os
import signal
import threading
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from media import Film, frame_times, moving, packets
from running import Heard, stop

from streamdream.errors import ModelError, SinkError, SourceError
from streamdream.frame import Pixels
from streamdream.jobs import crew, plan, segments
from streamdream.jobs.folder import JobFolder
from streamdream.jobs.rendering import Share, missing
from streamdream.run import Outcome, dream_file
from streamdream.settings import build
from streamdream.sources import VideoSource

LENGTHS = (9, 14, 5, 12)
QUICK = {
    "work_size": 48, "octaves": 1, "steps": 2, "segment": 4, "encoder_preset": "ultrafast",
}  # fmt: skip


def _scene(number: int) -> Pixels:
    """A picture of its own, which no motion makes of another."""
    noise = np.random.default_rng(number).integers(0, 256, (9, 16, 3), np.uint8)
    return np.kron(noise, np.ones((8, 8, 1), np.uint8))


def _paint(index: int) -> Pixels:
    for number, length in enumerate(LENGTHS):
        if index < length:
            return np.roll(_scene(number), 2 * index, 1) // 2 + moving()(index) // 2
        index -= length
    raise AssertionError


@pytest.fixture(scope="module")
def cut_film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four scenes, with sound."""
    path = tmp_path_factory.mktemp("workers") / "film.mp4"
    return Film(_paint, range(sum(LENGTHS)), languages=("eng",)).write(path)


@pytest.fixture(scope="module")
def alone(cut_film: Path) -> Path:
    """The film as one process makes it, with one thread."""
    return _made(cut_film, cut_film.with_name("alone.mp4"), resume=True, threads=1)


def _made(film: Path, target: Path, **options: object) -> Path:
    assert dream_file(film, target, build({**QUICK, **options})).complete
    return target


@pytest.fixture(autouse=True)
def _short_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "SHORTEST", 1)


def test_shares_begin_where_scenes_do(cut_film: Path, tmp_path: Path) -> None:
    folder = JobFolder.of(tmp_path / "out.mp4")
    folder.path.mkdir()
    with VideoSource(cut_film) as source:
        found = list(plan.shares_of(folder, source, workers=2))
    begins = [0, *np.cumsum(LENGTHS)[:-1]]
    assert [share.begin for share in found] == begins
    assert [share.end for share in found] == [*begins[1:], None]
    with VideoSource(cut_film) as source:  # from what is kept, without looking through the film
        assert list(plan.shares_of(folder, source, workers=2)) == found
        for share in found[1:]:
            assert share.place is not None
            assert next(source.skim(share.place)).index == share.begin


def test_a_plan_that_cannot_be_kept_is_told(cut_film: Path, tmp_path: Path) -> None:
    folder = JobFolder.of(tmp_path / "out.mp4")
    folder.plan.mkdir(parents=True)
    with VideoSource(cut_film) as source, pytest.raises(SinkError, match=r"out.mp4: cannot be wri"):
        list(plan.shares_of(folder, source, workers=2))


def test_few_long_shares_are_made_of_many_short_scenes(
    cut_film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "SHORTEST", 20)
    folder = JobFolder.of(tmp_path / "out.mp4")
    folder.path.mkdir()
    with VideoSource(cut_film) as source:
        found = [(share.begin, share.end) for share in plan.shares_of(folder, source, 2)]
    assert found == [(0, 23), (23, None)]


def test_two_workers_make_the_same_film_as_one_process(
    cut_film: Path, alone: Path, tmp_path: Path
) -> None:
    heard = Heard()
    target = tmp_path / "two.mp4"
    options = build({**QUICK, "workers": 2, "threads": 1})
    outcome = dream_file(cut_film, target, options, heard)
    assert outcome.frames == sum(LENGTHS)
    assert target.read_bytes() == alone.read_bytes()
    assert packets(target) == packets(cut_film)
    assert frame_times(target) == frame_times(cut_film)
    assert sorted(heard.frames) == heard.frames
    assert not JobFolder.of(target).path.exists()


def test_what_a_killed_worker_had_not_finished_is_done_again(
    cut_film: Path, alone: Path, tmp_path: Path
) -> None:
    heard = Heard(act=_kill_one_worker, after=8)
    target = tmp_path / "killed.mp4"
    dream_file(cut_film, target, build({**QUICK, "workers": 2, "threads": 1}), heard)
    assert heard.acted
    assert any("a worker ended (exit code -9)" in notice for notice in heard.notices)
    assert target.read_bytes() == alone.read_bytes()


def test_it_goes_on_after_a_stop_and_with_another_number_of_workers(
    cut_film: Path, alone: Path, tmp_path: Path
) -> None:
    target = tmp_path / "stopped.mp4"
    stopped = dream_file(
        cut_film, target, build({**QUICK, "workers": 2}), Heard(act=stop, after=24)
    )
    assert not stopped.complete
    # The first two shares have 23 frames, so one of them is whole.
    assert min(LENGTHS[:2]) <= stopped.frames < sum(LENGTHS)
    assert JobFolder.of(target).plan.exists() or JobFolder.of(target).segments.exists()
    went_on: Outcome = dream_file(cut_film, target, build({**QUICK, "resume": True}))
    assert went_on.complete
    if (os.cpu_count() or 1) // 2 <= 1:  # then both are made with one thread
        assert target.read_bytes() == alone.read_bytes()


def test_a_fault_that_a_worker_meets_is_told_as_ever(cut_film: Path, tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    film.write_bytes(cut_film.read_bytes())

    def vanish() -> None:
        film.rename(tmp_path / "elsewhere.mp4")

    options = build({**QUICK, "workers": 2, "threads": 1})
    with pytest.raises(SourceError, match=r"film\.mp4: no such file"):
        dream_file(film, tmp_path / "out.mp4", options, Heard(act=vanish, after=4))
    (tmp_path / "elsewhere.mp4").rename(film)
    assert dream_file(film, tmp_path / "out.mp4", options).complete


def test_a_share_at_which_workers_always_end_is_given_up(
    cut_film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os\nos._exit(7)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(crew, "_environment", lambda number: dict(os.environ))
    options = build({**QUICK, "workers": 2})
    with pytest.raises(ModelError, match=r"a worker ended \(exit code 7\).* 3 times"):
        dream_file(cut_film, tmp_path / "out.mp4", options)
    # Or it would go on reading a film that is closed by now.
    assert crew.SEARCHER not in {thread.name for thread in threading.enumerate()}


def test_who_comes_for_another_takes_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    began: list[int] = []

    class Silent:
        returncode = 7

        def __init__(self, *_: object, env: int, **more: object) -> None:
            began.append(env)
            self.stdin, self.stdout = BytesIO(), BytesIO()

        def wait(self, timeout: float) -> None:
            pass

    monkeypatch.setattr(crew, "_environment", lambda number: number)
    monkeypatch.setattr(crew.subprocess, "Popen", Silent)
    work: Any = None
    staff = crew.Processes(work, 3)
    hands = [staff.hire(lambda hand, told: None) for _ in range(4)]
    assert hands.pop() is None
    assert hands[1] is not None
    hands[1].leave()
    assert staff.hire(lambda hand, told: None) is not None
    assert began == [0, 1, 2, 1]


def test_what_is_missing_of_a_share_begins_behind_what_is_there(
    cut_film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "SHARE", 1e9)  # a point behind every segment
    target = tmp_path / "part.mp4"
    dream_file(cut_film, target, build({**QUICK, "resume": True}), Heard(act=stop, after=20))
    folder = JobFolder.of(target)
    assert missing(folder, Share(0, 9)) is None
    there = [b for b in folder.begun() if b >= 9]
    rest = missing(folder, Share(9, 23))
    assert rest is not None
    assert rest.begin > there[0]
    assert rest.end == 23
    assert missing(folder, Share(23, 28)) == Share(23, 28)


def _kill_one_worker() -> None:
    own, found = os.getpid(), []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = path.read_text().rpartition(")")[2].split()
            line = (path.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(words[1]) == own and b"streamdream.jobs.worker" in line:
            found.append(int(path.parent.name))
    os.kill(min(found), signal.SIGKILL)
