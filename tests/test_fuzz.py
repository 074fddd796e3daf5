"""Damaged files are refused or dreamed in good order, and the checker of that is checked."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import fuzz
import pytest
from fuzz import Case, Verdict

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="cases run in forks")

ERROR = "streamdream: error: in.mp4: not a video"


@pytest.mark.slow
def test_damaged_files_are_dreamed_or_refused_in_good_order() -> None:
    """A shorter run of the command."""
    command = [sys.executable, fuzz.__file__, "--count", "100", "--jobs", "2"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    counts = re.search(r"^\| all \| (.+) \|$", ended.stdout, re.MULTILINE)
    assert counts
    cases, dreamed, refused, _unwritten, failed = map(int, counts[1].split(" | "))
    assert (cases, failed) == (100, 0)
    assert dreamed >= cases / 4
    assert refused >= 1


def judged(child: fuzz.Child, target: str = "out.mp4", **limits: float) -> Verdict:
    case = Case(7, "mp4", b"a film", ("none",), target)
    (verdict,) = fuzz.runs([case], child, **{"limit": 20.0, **limits})  # type: ignore[arg-type]
    return verdict


def writes(code: int, *names: str, say: str = "") -> fuzz.Child:
    def child(_file: Path, _case: Case) -> int:
        for name in names:
            Path(name).write_bytes(b"pictures")
        if say:
            print(say, file=sys.stderr)
        return code

    return child


@pytest.mark.parametrize(
    ("child", "target"),
    [
        (writes(0, "out.mp4", say="streamdream: out.mp4: 1 picture damaged"), "out.mp4"),
        (writes(0, "001.png", "002.png"), "%03d.png"),
        (writes(3, say=ERROR), "out.mp4"),
        (writes(3, "out.part.mp4", say=ERROR), "out.mp4"),
        (writes(3, "001.png", say=ERROR), "%03d.png"),
        (writes(4, say=f"streamdream: sound is left out\n{ERROR}"), "out.mp4"),
    ],
)
def test_good_order_is_no_fault(child: fuzz.Child, target: str) -> None:
    assert judged(child, target).faults == []


def raises(_file: Path, _case: Case) -> int:
    raise AttributeError("no such thing")


def hangs(_file: Path, _case: Case) -> int:
    time.sleep(60)
    return 0


def crashes(_file: Path, _case: Case) -> int:
    os.kill(os.getpid(), signal.SIGSEGV)
    return 0


def changes_the_input(file: Path, _case: Case) -> int:
    file.write_bytes(b"another")
    return writes(0, "out.mp4")(file, _case)


@pytest.mark.parametrize(
    ("child", "fault"),
    [
        (raises, "exit code 1; traceback: AttributeError: no such thing"),
        (crashes, "killed by SIGSEGV"),
        (writes(0, "out.mp4", say="a.py:9: UserWarning: old"), "a warning was said: .*: old"),
        (changes_the_input, "the input was changed"),
        (writes(2, say=ERROR), "exit code 2"),
        (writes(3), "0 lines of error"),
        (writes(3, say=f"{ERROR}\n{ERROR}"), "2 lines of error"),
        (writes(0, "out.mp4", say=ERROR), "1 lines of error"),
        (writes(0, "out.mp4", say="[mp4 @ 0x55] moov atom not found"), "something strange .*"),
        (writes(0, "out.mp4", say="fuzz: out.mp4 has no picture"), "out.mp4 has no picture"),
        (writes(0), "no output"),
        (writes(3, "out.mp4", say=ERROR), "left in the output's folder: out.mp4"),
        (writes(0, "out.mp4", "out.part.mp4"), "left in the output's folder: out.part.mp4"),
        (writes(0, "out.mp4", "../more"), "outside of the output's folder: more"),
    ],
)
def test_offenders_are_told(child: fuzz.Child, fault: str) -> None:
    faults = "; ".join(judged(child).faults)
    assert re.fullmatch(fault, faults), faults


def test_what_hangs_is_killed_and_told_where() -> None:
    verdict = judged(hangs, limit=0.5)
    assert verdict.faults == ["took more than 0.5 s"]
    assert verdict.seconds < 10
    assert "in hangs" in verdict.text


def test_memory_is_told() -> None:
    (fault,) = judged(writes(3, say=ERROR), most=1).faults
    assert re.fullmatch(r"took \d+ MiB", fault)


def test_a_case_depends_on_the_seed_and_its_number_alone() -> None:
    files = {ending: bytes(range(256)) * 20 for ending in fuzz.ENDINGS}
    cases = [fuzz.case(number, 1, files) for number in range(60)]
    assert fuzz.case(41, 1, files) == cases[41]
    assert fuzz.case(41, 2, files) != cases[41]
    assert {case.ending for case in cases} == set(fuzz.ENDINGS)
    assert all(case.data != files[case.ending] for case in cases)


def test_failures_are_told_so_that_they_can_be_repeated(tmp_path: Path) -> None:
    verdict = judged(raises)
    told = fuzz.report([verdict, judged(writes(3, say=ERROR))], seed=5, seconds=1)
    assert "| all | 2 | 0 | 1 | 0 | 1 |" in told
    assert "FAILED: case 7: exit code 1; traceback: AttributeError: no such thing" in told
    assert "again: python benchmarks/fuzz.py --seed 5 --only 7" in told
    fuzz.keep(verdict, 5, tmp_path)
    assert (tmp_path / "5-7.mp4").read_bytes() == b"a film"
    assert "raise AttributeError" in (tmp_path / "5-7.mp4.txt").read_text()
