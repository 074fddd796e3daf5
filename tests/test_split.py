"""Long shots dreamed in parts: where they are split, and that nothing is seen of it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from media import Film, frame_times, moving, packets
from torch import Tensor

from streamdream import cli
from streamdream.effects import effects_of
from streamdream.frame import Frame, Pixels
from streamdream.jobs.folder import JobFolder
from streamdream.jobs.plan import shares_of
from streamdream.jobs.rendering import Share
from streamdream.jobs.seams import Seam
from streamdream.motion import OpticalFlow
from streamdream.pipeline import Settle, Step, steps
from streamdream.run import Silent, dream_file
from streamdream.settings import build
from streamdream.sinks import Stopped
from streamdream.sources import VideoSource

RATE, SPLIT = 5, 4  # frames a second; seconds
LENGTH = RATE * SPLIT
SHOTS = (70, 12)
SHARES = [
    Share(0, 20, seam=10), Share(20, 40, lead=10, seam=10), Share(40, 70, lead=10), Share(70, None),
]  # fmt: skip
QUICK = {
    "work_size": 64, "octaves": 1, "steps": 3, "segment": 6, "encoder_preset": "ultrafast",
    "crf": 8, "threads": 1,
}  # fmt: skip


def _other(_: int) -> Pixels:
    noise = np.random.default_rng(5).integers(0, 256, (9, 16, 3), np.uint8)
    return np.kron(noise, np.ones((8, 8, 1), np.uint8))


def _paint(index: int) -> Pixels:
    return moving()(index) if index < SHOTS[0] else _other(index)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A long shot and a short one, slow enough that seconds are few frames; with sound."""
    path = tmp_path_factory.mktemp("split") / "film.mp4"
    times = range(0, 25 // RATE * sum(SHOTS), 25 // RATE)
    return Film(_paint, times, languages=("eng",)).write(path)


@pytest.fixture(scope="module")
def whole(film: Path) -> Path:
    """The film in one go."""
    target = film.with_name("whole.mp4")
    dream_file(film, target, build({**QUICK, "resume": True}))
    return target


@pytest.fixture(scope="module")
def split(film: Path) -> Path:
    """The film in parts, by one process."""
    target = film.with_name("split.mp4")
    dream_file(film, target, build({**QUICK, "split": SPLIT}))
    return target


def test_long_shots_are_split_and_short_ones_are_not(film: Path, tmp_path: Path) -> None:
    folder = JobFolder.of(tmp_path / "out.mp4")
    folder.path.mkdir()
    for workers in (1, 7):  # found, and read from what is kept
        with VideoSource(film) as source:
            found = list(shares_of(folder, source, workers, split=SPLIT))
            told = [Share(s.begin, s.end, lead=s.lead, seam=s.seam) for s in found]
            assert told == SHARES
            for share in found[1:]:
                place = share.place
                assert next(source.skim(place)).index == share.begin - share.lead
    with VideoSource(film) as source:
        folder.plan.unlink()
        assert [s.begin for s in shares_of(folder, source, 1)] == [0, 70]


def test_seconds_are_the_films_own_however_its_rate_changes(tmp_path: Path) -> None:
    times = [*range(0, 150, 5), *range(150, 900, 25)]  # six seconds at 5 frames each, then at one
    film = Film(times=times).write(tmp_path / "slower.mp4")
    folder = JobFolder.of(tmp_path / "out.mp4")
    folder.path.mkdir()
    with VideoSource(film) as source:
        shares = list(shares_of(folder, source, 1, split=SPLIT))
    begins = [times[share.begin] / 25 for share in shares]
    lengths = [b - a for a, b in pairwise([*begins, 36])]
    assert lengths[0] == SPLIT
    # Where four frames take more than two seconds, parts are longer by that.
    assert all(SPLIT <= length <= SPLIT + 4 for length in lengths[:-1])
    assert [share.lead for share in shares[2:]] == [4] * (len(shares) - 2)


def test_a_flash_puts_the_split_off(tmp_path: Path) -> None:
    white = Film(lambda i: 255 - _other(0) if i == 19 else moving()(i), range(0, 5 * 60, 5))
    folder = JobFolder.of(tmp_path / "out.mp4")
    folder.path.mkdir()
    with VideoSource(white.write(tmp_path / "flash.mp4")) as source:
        begins = [share.begin for share in shares_of(folder, source, 1, split=SPLIT)]
    assert begins == [0, 29, 49]  # the first two seconds behind the flash


def test_it_is_the_same_film_whoever_makes_its_parts(
    film: Path, split: Path, tmp_path: Path
) -> None:
    two = tmp_path / "two.mp4"
    assert dream_file(film, two, build({**QUICK, "split": SPLIT, "workers": 2})).complete
    assert two.read_bytes() == split.read_bytes()
    assert frame_times(two) == frame_times(film)
    assert packets(two) == packets(film)


def test_after_a_stop_it_goes_on_to_the_same_film(film: Path, split: Path, tmp_path: Path) -> None:
    target = tmp_path / "stopped.mp4"
    options = build({**QUICK, "split": SPLIT})

    class Stops(Silent):
        until = 0

        def step(self, frames: int, counts: object) -> None:
            if any(begin > self.until for begin in JobFolder.of(target).begun()):
                raise Stopped

    stops = Stops()
    for stops.until in (0, 10, 40):  # within the first part, behind its seam, within the last
        assert not dream_file(film, target, options, stops).complete
    assert dream_file(film, target, options).complete
    assert target.read_bytes() == split.read_bytes()


def _pixels(path: Path) -> list[Pixels]:
    with VideoSource(path) as source:
        return [frame.pixels for frame in source]


def _jumps(frames: list[Pixels]) -> np.ndarray:
    """How much each picture differs from the one before, as the texture has moved."""
    found = [
        np.abs(now[4:, 8:].astype(float) - before[3:-1, 6:-2]).mean()
        for before, now in pairwise(frames)
    ]
    return np.array(found)


def test_nothing_jumps_where_a_shot_is_split(film: Path, whole: Path, split: Path) -> None:
    one, parts, source = _pixels(whole), _pixels(split), _pixels(film)
    jumps = _jumps(parts[: SHOTS[0]])
    usual = _jumps(one[10 : SHOTS[0]])
    for begin in (LENGTH, 2 * LENGTH):
        # Without a seam one dream would end here and another begin.
        apart = _jumps([one[begin - 1], parts[begin]])[0]
        assert apart > 2 * np.median(usual)
        assert jumps[begin - 1] < 1.25 * usual.max()
    assert jumps[10:].max() < 1.5 * usual.max()
    # Neither does the dream get weaker on the way from one to the other.
    strength = [np.abs(a.astype(float) - b).mean() for a, b in zip(parts, source, strict=True)]
    still = strength[10 : SHOTS[0]]
    assert min(still) > 0.8 * np.median(still)


@pytest.mark.parametrize("look", [{}, {"style": "starry-night"}])
@pytest.mark.parametrize("flash", [None, 17])
def test_both_parts_dream_the_same_lead_in(look: dict[str, str], flash: int | None) -> None:
    options = build({"work_size": 64, "octaves": 1, "steps": 2}, look)
    effect = effects_of(options, torch.device("cpu"))
    frames = [Frame(moving()(i), Fraction(i, RATE), i) for i in range(24)]
    if flash is not None:
        frames[flash] = Frame(255 - _other(0), Fraction(flash, RATE), flash)

    def dreamed(stream: Iterable[Frame], settle: Settle | None = None):
        return steps(stream, options, effect, OpticalFlow(), settle=settle)

    others: list[Tensor] = []

    def noting(stream: Iterable[Frame]):
        for step in dreamed(stream):
            others.append(_delta(step))
            yield step

    first, end = 10, 20
    with closing(Seam(first, end, noting)) as seam:
        before = list(dreamed(seam.seen(iter(frames[:end])), seam))
    alone = list(dreamed(frames[first:]))
    assert len(others) == end - first
    for one, other in zip(alone, others, strict=False):
        assert torch.equal(_delta(one), other)
    # The part before is as it would be alone, up to where it begins to become the other.
    plain = list(dreamed(frames[:end]))
    middle = (first + end) // 2
    for one, other in zip(before[:middle], plain, strict=False):
        assert torch.equal(_delta(one), _delta(other))
    apart = [
        float((_delta(step) - other).square().mean())
        for step, other in zip(before[first:], others, strict=True)
    ]
    assert apart[-1] < 0.2 * apart[middle - first - 1]


def _delta(step: Step) -> Tensor:
    state = None if step.point is None else step.point.past[step.point.number][0]
    return torch.zeros(1) if state is None else state.delta


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--split", "3"], "--split 3: "),
        (["--split", "10"], "--split: a window cannot be gone on with; name a file with -o"),
        (["--workers", "2"], "--workers: a window cannot be gone on with"),
        (["--split", "10", "--loop", "-o", "out.mp4"], "--split: --loop reads its source twice"),
    ],
)
def test_what_cannot_be_split_is_told(
    film: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([str(film), *words])
    assert ended.value.code == 2
    assert told in capsys.readouterr().err
