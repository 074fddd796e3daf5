"""Jobs: whatever interrupts them, the result is that of a run which nothing interrupted."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import faults
import numpy as np
import pytest
import torch
from media import Film, flat, frame_times, moving, packets, pictures
from running import Heard, typing

from streamdream import cli
from streamdream.errors import OptionError, SinkError, SourceError
from streamdream.frame import Pixels
from streamdream.governor import Governor
from streamdream.info import Counts, Reading
from streamdream.jobs import session
from streamdream.jobs.folder import JobFolder, read_sealed, write_sealed
from streamdream.jobs.manifest import command_of
from streamdream.jobs.points import packed, unpacked
from streamdream.jobs.rendering import missing
from streamdream.jobs.segments import record_of
from streamdream.options import Options
from streamdream.pipeline import Point, State
from streamdream.places import digest_of
from streamdream.run import Outcome, Silent, dream_file
from streamdream.settings import job_in, made, recorded
from streamdream.sinks import Stopped
from streamdream.sources import VideoSource

TINY = {
    "work_size": 32, "octaves": 1, "steps": 1, "warm_steps": 1, "layers": "block3", "segment": 3,
    "encoder_preset": "ultrafast",
}  # fmt: skip
COUNT = 11


def shots(size: tuple[int, int] = (48, 64)) -> Callable[[int], Pixels]:
    """Something that moves, a cut to something else behind frame 6."""
    one, other = moving(size), moving(size)
    return lambda i: one(i) if i < 7 else (255 - other(3 * i)[::-1, ::-1]) // 3


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shots at varying distances, with sound and subtitles."""
    times = [0, 40, 80, 130, 160, 200, 250, 280, 333, 360, 400]
    return Film(
        shots(), times=times, time_base=Fraction(1, 1000), languages=("eng",),
        subtitles=[(0.0, 0.1, "one"), (0.2, 0.3, "two")], chapters=[(0.0, 0.2, "First")],
    ).write(tmp_path_factory.mktemp("jobs") / "clip.mp4")  # fmt: skip


class Stopping(Silent):
    """Stops a run when it has come so far."""

    def __init__(self, frames: int, joining: bool = False) -> None:
        self.frames, self.joining = frames, joining
        self.notices: list[str] = []
        self.begun_at: int | None = None

    def notice(self, text: str) -> None:
        self.notices.append(text)

    def step(self, frames: int, counts: Counts) -> None:
        self.begun_at = frames if self.begun_at is None else self.begun_at
        if frames >= self.frames:
            raise Stopped

    def finish(self, what: str) -> None:
        if self.joining:
            raise Stopped


def run(source: Path, target: Path, listener: Silent | None = None, **given: object) -> Outcome:
    return dream_file(source, target, made(Options, {**TINY, "resume": True, **given}), listener)


def content(target: Path) -> object:
    if "%" in target.name:
        return [path.read_bytes() for path in sorted(target.parent.glob("*.png"))]
    if target.suffix in (".gif", ".webp", ".apng"):
        return target.read_bytes()
    return pictures(target), frame_times(target), packets(target), packets(target, "subtitle")


def same(one: object, other: object) -> bool:
    def digest(value: object) -> object:
        if isinstance(value, np.ndarray):
            return hashlib.sha256(value.tobytes()).hexdigest(), value.shape
        return [digest(v) for v in value] if isinstance(value, list | tuple) else value

    return digest(one) == digest(other)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("out.mp4", {"steps": 2, "strength": "0: 0.2, 100%: 1"}),
        ("out.mkv", {"codec": "ffv1", "recall": 0.2, "react": "strength: level 0.2..1"}),
        ("out.mov", {"codec": "prores", "start": "0.1", "view": "side"}),
        ("out.webm", {"frames": 8}),
        ("out.gif", {"codec": "auto"}),
        ("%03d.png", {"memory": 0}),
    ],
)
def test_a_job_that_is_stopped_again_and_again_gives_the_same(
    clip: Path, tmp_path: Path, name: str, given: dict[str, Any]
) -> None:
    targets = [tmp_path / kind / name for kind in ("plain", "whole", "stopped")]
    for target in targets:
        target.parent.mkdir()
    plain, whole, stopped = targets
    run(clip, plain, resume=False, **given)
    run(clip, whole, **given)
    began = []
    for frames in (5, 9):
        listener = Stopping(frames, joining=True)
        assert not run(clip, stopped, listener, **given).complete
        assert not list(stopped.parent.glob(name.replace("%03d", "0*")))
        began.append(listener.begun_at)
    assert began in ([0, 3], [0, 4])  # it did not begin anew; a shot may begin sooner
    done = run(clip, stopped, **given)
    assert done.complete
    assert done.frames == given.get("frames", COUNT - 3 * ("start" in given))
    assert same(content(stopped), content(whole))
    assert len(list(stopped.parent.iterdir())) == (done.frames if "%" in name else 1)
    if given.get("codec") in ("ffv1", "prores") or name in ("out.gif", "%03d.png"):
        # Segments that do not depend on each other anyway are those of one piece.
        assert same(content(whole), content(plain))
    else:
        assert same(content(whole)[1:], content(plain)[1:])  # pyright: ignore[reportIndexIssue]


def test_faults_of_every_kind_change_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    assert faults.main(["--count", "1"]) == 0
    told = capfd.readouterr().out
    for kind in faults.COUNTS:
        assert f"{kind:8}   1 faults" in told
    assert told.count("all identical") == 4


def test_the_container_tells_what_a_plain_run_tells(clip: Path, tmp_path: Path) -> None:
    told = []
    for name, resume in (("plain.mp4", False), ("whole.mp4", True)):
        run(clip, tmp_path / name, resume=resume)
        with av.open(str(tmp_path / name)) as film:
            video = film.streams.video[0]
            context = video.codec_context
            comment = film.metadata["comment"]
            assert bool(job_in(comment)) == resume
            tags = {**film.metadata, "comment": recorded(comment, name)}
            told.append([
                tags, film.chapters(), film.duration, context.codec_tag,
                context.extradata, video.time_base, video.start_time, video.duration,
                video.average_rate, video.sample_aspect_ratio, [s.metadata for s in film.streams],
            ])  # fmt: skip
    assert told[0] == told[1]


def test_segments_end_at_cuts_and_never_behind_a_flash(tmp_path: Path) -> None:
    white = flat((255, 255, 255), (48, 64))
    paint = shots()
    film = Film(lambda i: white(i) if i == 2 else paint(i), times=range(9))
    run(film.write(tmp_path / "in.mp4"), tmp_path / "out.mp4", Stopping(99, joining=True))
    folder = JobFolder.of(tmp_path / "out.mp4")
    records = [record_of(folder.segment(begin)) for begin in folder.begun()]
    ends = [(r.begin, r.end, r.point == "", r.last) for r in records if r is not None]
    assert ends == [
        (0, 4, False, False), (4, 7, True, False), (7, 9, True, True),
    ]  # fmt: skip


def test_what_is_damaged_is_made_again(clip: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole.mp4", tmp_path / "broken.mp4"
    run(clip, whole)
    run(clip, broken, Stopping(99, joining=True))
    folder = JobFolder.of(broken)
    assert missing(folder) is None
    begun = list(folder.begun())
    for path in (folder.segment(begun[1]), *folder.points.iterdir()):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(bytes(data))
    folder.segment(begun[-1]).write_bytes(folder.segment(begun[-1]).read_bytes()[:-40])
    listener = Stopping(99)
    assert run(clip, broken, listener).complete
    assert sum("made again" in notice for notice in listener.notices) == 2
    assert same(content(broken), content(whole))


def test_a_job_that_was_killed_when_all_was_done_only_gets_its_name(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.mp4"

    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(session._Session, "_named", kill)
        with pytest.raises(Killed):
            run(clip, target)
    with pytest.raises(OptionError, match=r"--strength was .* when this job began"):
        run(clip, target, strength=0.5)
    assert not target.exists()
    result = JobFolder.of(target).result.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(JobFolder, "remove", kill)
        with pytest.raises(Killed):
            run(clip, target)
    assert target.read_bytes() == result
    with pytest.raises(OptionError, match=r"--strength was .* when this job began"):
        run(clip, target, strength=0.5)
    monkeypatch.setattr(session, "effects_of", kill)  # nothing is dreamed any more
    assert run(clip, target).frames == COUNT
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    assert target.read_bytes() == result


def test_points_come_back_to_the_last_bit_and_stride() -> None:
    image = torch.rand(5, 7, 3).permute(2, 0, 1)
    delta, age = torch.randn(3, 5, 7), torch.rand(5, 7, 1).permute(2, 0, 1)
    delta[0, 0, 0] = float("nan")
    one = torch.tensor(0.3)
    governor = Governor.begin(image, delta, one, one, Fraction(1, 3))
    states = State(Fraction(2, 3), image, delta, age, governor), None
    small = np.arange(108 * 192, dtype=np.uint8).reshape(108, 192)
    point = Point(4, image, small, (10, 14, 3), {3: states, 4: states}, ((3, Fraction(1), image),))
    back = unpacked(packed(point))
    assert packed(back) == packed(point)
    state = back.past[4][0]
    assert state is not None
    for tensor, was in ((state.delta, delta), (state.age, age), (back.image, image)):
        assert tensor.stride() == was.stride()
        assert tensor.numpy().tobytes() == was.numpy().tobytes()
    assert state.image is back.image  # what was one is kept once
    assert (back.small == small).all()
    assert back.past[3][0] == state
    for data in (b"", b"nothing of the kind", packed(point)[:-9]):
        with pytest.raises(ValueError, match="is no point"):
            unpacked(data)


def source_kinds() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "in.mp4", {}
    yield "in.avi", {"codec": "mpeg4", "options": {"bf": "2"}}
    yield "in.ts", {}
    yield "in.mkv", {"options": {"g": "100", "preset": "fast"}}
    yield "in.gif", {"codec": "gif", "pixel_format": "rgb8"}
    yield "%03d.png", {"codec": "png", "pixel_format": "rgb24"}


@pytest.mark.parametrize(("name", "kind"), list(source_kinds()))
def test_a_source_is_read_on_at_every_place(
    tmp_path: Path, name: str, kind: dict[str, Any]
) -> None:
    path = Film(moving((48, 64)), **kind).write(tmp_path / name)
    reading = Reading()

    def opened() -> VideoSource:
        return VideoSource(path, reading=reading)

    with opened() as source:
        frames = [*source]
        places = [source.place_behind(frame) for frame in frames]
    told = [(f.index, f.time, f.duration, digest_of(f)) for f in frames]
    for place in places[::4]:
        with opened() as source:
            rest = [glimpse.frame() for glimpse in source.skim(place)]
            assert source.counts == Counts()
        found = [(f.index, f.time, f.duration, digest_of(f)) for f in rest]
        assert found == told[place.index :]
    other = Film(flat((9, 9, 9), (48, 64)), **kind).write(tmp_path / name)
    with VideoSource(other) as source, pytest.raises(SourceError, match="has it changed"):
        next(source.skim(places[4]))


def test_the_companions_of_a_source_come_without_decoding(clip: Path) -> None:
    found = []
    for decoded in (True, False):
        with VideoSource(clip) as source:
            source.companions.wanted = True
            for _ in source.skim() if decoded else source.undecoded():
                pass
            taken = source.companions.take()
            found.append(sorted((p.stream.index, p.pts, bytes(p)) for p in taken))
    assert found[0] == found[1]
    assert len(found[0]) > 10


@pytest.fixture
def begun(clip: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A source, and the target of a job that was stopped."""
    source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
    source.write_bytes(clip.read_bytes())
    run(source, target, Stopping(5))
    return source, target


def test_changed_options_refuse_to_go_on(begun: tuple[Path, Path]) -> None:
    with pytest.raises(OptionError, match=r"--strength was 1.0 .* now it is 0.5; .*remove"):
        run(*begun, strength=0.5)
    with pytest.raises(OptionError, match=r"--strength was 1.0 .* now it is 0: 0, 3: 1"):
        run(*begun, strength="0: 0, 3: 1")
    with pytest.raises(OptionError, match=r"--segment was 3 .* now it is 4"):
        run(*begun, segment=4)
    assert run(*begun, overwrite=True).complete


def test_a_changed_input_refuses_to_go_on(begun: tuple[Path, Path]) -> None:
    source, target = begun
    told = source.stat()
    data = bytearray(source.read_bytes())
    data[len(data) // 2] ^= 1  # as long as before, and by its time as old
    source.write_bytes(bytes(data))
    os.utime(source, ns=(told.st_atime_ns, told.st_mtime_ns))
    with pytest.raises(SourceError, match="the input has changed since this job began"):
        run(source, target)
    data[len(data) // 2] ^= 1
    source.write_bytes(bytes(data))  # newer, and the same
    assert run(source, target).complete


def test_nothing_is_kept_of_an_input_that_changes_meanwhile(tmp_path: Path) -> None:
    source, target, whole = (tmp_path / name for name in ("in.avi", "out.mp4", "whole.mp4"))
    plain: dict[str, Any] = {"times": range(24), "codec": "rawvideo", "options": {}}
    Film(moving((48, 64)), **plain).write(source)
    one, other = (
        source.read_bytes(),
        Film(flat((90, 60, 30), (48, 64)), **plain).write(tmp_path / "b.avi"),
    )
    run(source, whole)

    class Changing(Silent):
        def step(self, frames: int, counts: Counts) -> None:
            if frames == 5:
                source.write_bytes(other.read_bytes())

    with pytest.raises(SourceError, match="the input has changed since this job began"):
        run(source, target, Changing())
    assert list(JobFolder.of(target).begun()) in ([], [0])
    source.write_bytes(one)
    run(source, target)
    assert same(content(target), content(whole))


def test_other_versions_and_threads_refuse_to_go_on(
    begun: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = JobFolder.of(begun[1])
    told = read_sealed(folder.manifest)
    threads = torch.get_num_threads()
    write_sealed(folder.manifest, {**told, "machine": {**told["machine"], "PyTorch": "1.0"}})
    with pytest.raises(OptionError, match=r"PyTorch: 1.0 when this job began, now \d"):
        run(*begun)
    write_sealed(folder.manifest, told)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads + 1)
    with pytest.raises(OptionError, match=f"PyTorch's threads: {threads} .* now {threads + 1}"):
        run(*begun)


def test_a_damaged_manifest_is_told(begun: tuple[Path, Path]) -> None:
    manifest = JobFolder.of(begun[1]).manifest
    text = manifest.read_bytes()
    for broken in (text[:50], text.replace(b"work_size", b"work_sise"), b"", b"{}\n0\n"):
        manifest.write_bytes(broken)
        with pytest.raises(SinkError, match=r"is damaged; remove .*out.mp4.job to begin anew"):
            run(*begun)
    manifest.unlink()
    with pytest.raises(SinkError, match="is missing, its segments are there"):
        run(*begun)
    manifest.write_bytes(text)
    assert run(*begun).complete


def test_who_forgets_resume_is_told_of_the_job(begun: tuple[Path, Path]) -> None:
    heard = Heard()
    run(*begun, heard, resume=False)
    assert "out.mp4.job is an unfinished render: --resume goes on with it" in heard.notices


def test_two_processes_do_not_work_on_one_job(begun: tuple[Path, Path]) -> None:
    folder = JobFolder.of(begun[1])
    assert not folder.is_held()
    with folder.held():
        assert folder.is_held()
        with pytest.raises(SinkError, match="another process works on this job"):
            run(*begun)
    assert run(*begun).complete


def test_a_folder_that_another_process_made_anew_is_left_alone(tmp_path: Path) -> None:
    folder = JobFolder.of(tmp_path / "out.mp4")
    with ExitStack() as later, ExitStack() as first:
        first.enter_context(folder.held())
        folder.remove()  # as a job does when all is done
        later.enter_context(JobFolder.of(tmp_path / "out.mp4").held())
        first.close()
        assert folder.segments.exists()
    assert not folder.path.exists()


def test_where_no_job_can_be(clip: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    loops: list[tuple[dict[str, Any], str]] = [
        ({"loop": True}, "--loop reads its source twice"),
        ({"loop_blend": 0.1}, "--loop-blend 0.1 reads its source twice"),
        ({"ping_pong": True}, "--ping-pong reads"),
    ]
    for given, told in loops:
        with pytest.raises(OptionError, match=told):
            run(clip, target, **given)
    for nowhere, told in ((None, "a window"), (Path("-"), "standard output")):
        with pytest.raises(OptionError, match=told):
            dream_file(clip, nowhere, Options(resume=True))
    with pytest.raises(OptionError, match="comes only once"):
        dream_file("-", target, Options(resume=True))
    target.write_bytes(b"something")
    with pytest.raises(SinkError, match="exists already, and no job of it is unfinished"):
        run(clip, target)
    target.with_name("other.mp4.job").write_bytes(b"no folder")
    with pytest.raises(SinkError, match=r"other.mp4.job: cannot be written \(not a directory\)"):
        run(clip, target.with_name("other.mp4"))
    for length in (249, 300):
        with pytest.raises(SinkError, match=r"nnn\.mp4: file name too long"):
            run(clip, tmp_path / f"{'n' * length}.mp4")
    with pytest.raises(SinkError, match="a picture file holds one frame"):
        run(clip, tmp_path / "out.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.mp4.job", "out.mp4"]


def test_a_photo_has_nothing_to_go_on_with(clip: Path, tmp_path: Path) -> None:
    assert run(clip, tmp_path / "out.png", frames=1).complete
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]


def test_a_file_that_came_meanwhile_is_not_replaced(clip: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"

    class Placing(Silent):
        def finish(self, what: str) -> None:
            target.write_bytes(b"mine")

    with pytest.raises(SinkError, match=r"exists already; move it away"):
        run(clip, target, Placing())
    assert target.read_bytes() == b"mine"
    target.unlink()
    assert run(clip, target).complete


def test_the_command_line_tells_how_to_go_on(
    begun: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    typed = typing(capfd)
    code, out, _ = typed("jobs", tmp_path)
    assert code == 0
    state, command = out.splitlines()
    assert state.startswith(f"{begun[1]}: 3 of 11 frames, begun 20")
    cd, _, rest = command.partition(" && ")
    place, words = shlex.split(cd)[1], shlex.split(rest)
    monkeypatch.chdir(place)
    assert words[0] == "streamdream"
    assert typed(*words[1:]) == (0, "", "")
    assert begun[1].exists()
    assert typed("jobs", tmp_path)[1] == "no unfinished jobs\n"
    code, _, told = typed("jobs", tmp_path / "nowhere")
    assert (code, "is no folder" in told) == (3, True)
    code, _, told = typed(begun[0], "--resume")
    assert (code, "a window cannot be gone on with" in told) == (2, True)
    # The same once more, as whatever starts killed programs anew would type it.
    code, _, told = typed(*words[1:])
    assert (code, told.strip()) == (0, "streamdream: complete already, by the same command")
    assert typed(*words[1:], "--threads", "1")[0] == 0  # however many there are now
    for other in (["--strength", "0.5"], ["--frames", "3"]):
        code, _, told = typed(*words[1:], *other)
        assert (code, "no job of it is unfinished" in told) == (4, True)
    code, _, told = typed(begun[0], "-o", begun[1], "--resume")
    assert (code, "no job of it is unfinished" in told) == (4, True)
    assert list(tmp_path.rglob("*.job")) == []


def test_ctrl_c_leaves_a_job_and_names_the_command(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import signal

    from streamdream import run as runs

    plain = runs.dream_file

    def interrupted(*arguments: Any) -> Outcome:
        listener = arguments[-1]
        step = listener.step

        def kill(frames: int, counts: Counts) -> None:
            if frames == 4:
                os.kill(os.getpid(), signal.SIGINT)
            step(frames, counts)

        listener.step = kill
        return plain(*arguments)

    monkeypatch.setattr(runs, "dream_file", interrupted)
    monkeypatch.chdir(tmp_path)
    words = [f"--{k.replace('_', '-')}={v}" for k, v in TINY.items()]
    with pytest.raises(SystemExit) as ended:
        cli.main([str(clip), "-o", "out.mp4", "--resume", *words])
    assert ended.value.code == 130
    told = capfd.readouterr().err
    assert "interrupted: 3 frames are done; go on with: cd " in told
    assert f"&& streamdream {clip} -o out.mp4" in told
    assert told.rstrip().endswith("--resume")


@pytest.mark.parametrize(
    "given",
    [
        {"strength": "0: 0.2, 50%: 1 ease", "layers": "block5,block9*0.5", "start": "1:02.125"},
        {"style": "a b.jpg*0.7,c.jpg*0.3", "style_mask": "m.png", "deinterlace": False},
        {"react": "strength: bass 0.4..1.2, step-size: onset", "audio": "s'g.mp3", "strict": True},
    ],
)
def test_a_job_is_made_again_by_its_command(given: dict[str, Any]) -> None:
    from streamdream import settings

    options = made(Options, {**TINY, **given, "resume": True})
    words = shlex.split(command_of("in put.mp4", Path("out.mp4"), options))
    found: list[Options] = []

    def taken(source: str, /, *, output: Path, flags: settings.Flags | None = None) -> None:
        assert (source, output) == ("in put.mp4", Path("out.mp4"))
        found.append(settings.chosen(Options, flags))

    from typing import Annotated

    from cyclopts import App, Parameter

    taken.__annotations__ = {
        "source": str,
        "output": Annotated[Path, Parameter(alias="-o")],
        "flags": Annotated[settings.Flags | None, Parameter(name="*")],
    }
    App(default_command=taken)(words[1:], exit_on_error=False, result_action="return_value")
    assert found[0].given() == options.given() or (
        found[0].model_dump() == options.model_dump()
        and {k: v.text for k, v in found[0].schedules.items()}
        == {k: v.text for k, v in options.schedules.items()}
    )
