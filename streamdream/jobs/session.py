"""A job from its beginning, or from where it was interrupted, to its end."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from os.path import exists  # a name that is too long is told later
from pathlib import Path

from streamdream.animation import AnimationSink
from streamdream.codecs import is_video
from streamdream.companions import Companions
from streamdream.effects import effects_of
from streamdream.errors import SinkError, SourceError
from streamdream.files import is_row
from streamdream.info import Counts
from streamdream.inputs import locate
from streamdream.jobs.cluster import Cluster, Connection, connected
from streamdream.jobs.coders import RowCoder, coder_of
from streamdream.jobs.crew import Crew, Processes
from streamdream.jobs.folder import JobFolder, read_sealed, sync, write_sealed
from streamdream.jobs.joining import Film, check_free, join_animation, join_row, join_video
from streamdream.jobs.manifest import Manifest, StillThere, check_files, now_of
from streamdream.jobs.messages import Work
from streamdream.jobs.options import check_lasting
from streamdream.jobs.plan import shares_of
from streamdream.jobs.rendering import Share, missing, render
from streamdream.jobs.segments import BrokenSegment, fault_of, record_of
from streamdream.masks.options import mask_files
from streamdream.objectives.named import guide_files
from streamdream.options import Options
from streamdream.pipeline import Effect
from streamdream.processors import using_threads
from streamdream.run import (
    Listener,
    Outcome,
    Prepared,
    beside,
    dream_file,
    open_sink,
    prepared,
    read_settings,
    song_notices,
)
from streamdream.settings import job_in
from streamdream.sinks import Stopped
from streamdream.style.named import files_of
from streamdream.video_sink import VideoSink

IN_ROW = "row"  # pictures of a row get their names one by one


def dream_job(
    source: str | Path, target: Path | None, options: Options, listener: Listener
) -> Outcome:
    """Redraw a file into another as dream_file does, so that it can be interrupted at any time.

    Begins a job beside the target, or goes on with the one that is there. A listener that raises
    Stopped leaves it for another time; so does whatever kills the process.
    """
    given = locate(source, options.exact_rate)
    check_lasting(options, given, target)
    assert target is not None
    folder = JobFolder.of(target)
    finishing = folder.finishing
    there = not options.overwrite and exists(target) and not exists(folder.path)
    before = _job_of(target) if there else ""
    options = options.model_copy(update={"threads": _threads(options, folder)})
    free = finishing or there  # for prepared: what is at the target is looked at here
    with using_threads(options.threads), prepared(source, target, options, free) as ready:
        if ready.one and not is_video(target):  # there is nothing to go on with
            alone = {
                "resume": False, "workers": 1, "cluster": None, "storage": None, "split": None,
            }  # fmt: skip
            plain = options.model_copy(update=alone)
            return dream_file(source, target, plain, listener)
        if there:
            return _complete(source, target, options, ready, before, listener)
        open_sink(target, ready.info, Companions(), ready.options, "", ready.one)  # if it can be
        if is_row(target):
            with suppress(OSError):  # told when the job's folder is made
                target.absolute().parent.mkdir(exist_ok=True)
        with folder.held():
            session = _Session(source, target, options, listener, folder)
            if (ended := session.ended(ready)) is not None:
                return ended
            with connected(options) as session.cluster:
                session.begin(ready)
                done = session.go_on(ready)
                while not done:  # a source is read once, and anew for what is still missing
                    with prepared(source, target, options, finishing) as again:
                        done = session.go_on(again)
            return session.outcome


def _job_of(target: Path) -> str:
    """What a result says of the job that made it, see Manifest.mark; raises SinkError."""
    with suppress(SourceError):
        if job := job_in(read_settings(target)):
            return job
    raise _exists(target)


def _exists(target: Path) -> SinkError:
    cure = "give another name, or --overwrite"
    return SinkError(target, "exists already, and no job of it is unfinished", cure)


def _complete(
    source: str | Path,
    target: Path,
    options: Options,
    ready: Prepared,
    job: str,
    listener: Listener,
) -> Outcome:
    """The outcome of a `job` that has made all, and was only killed before it could say so.

    Raises SinkError where that was another one.
    """
    typed = source, target, options
    now = now_of(*typed, ready.options, ready.device, ready.info.frames)
    known = check_files(_files(ready, options), {}, JobFolder.of(target))
    if replace(now, files=known).mark != job:
        raise _exists(target)
    listener.notice("complete already, by the same command")
    return Outcome(ready.info.frames or 0, 0.0, target, True, Counts())


class _Session:
    def __init__(
        self,
        source: str | Path,
        target: Path,
        options: Options,
        listener: Listener,
        folder: JobFolder,
    ) -> None:
        self._source, self._target, self._options = source, target, options
        self._listener, self._folder = listener, folder
        self._effects: Sequence[Effect] | None = None
        self._told: set[str] = set()
        self.cluster: Connection | None = None
        self._began = time.perf_counter()
        self.outcome = Outcome(0, 0.0, target, True, Counts())

    def ended(self, ready: Prepared) -> Outcome | None:
        """The outcome of a job that was killed when all was done but giving the result its name.

        Raises an Error where that was another job than this one.
        """
        if not self._folder.finishing:
            return None
        finish = read_sealed(self._folder.finish)
        if finish["kind"] == IN_ROW:
            return None
        if Manifest.read(self._folder) is not None:  # it goes before the rest does
            self._now(ready)
        self._named()
        self._folder.remove()
        return Outcome(finish["frames"], 0.0, self._target, True, Counts(**finish["counts"]))

    def go_on(self, ready: Prepared) -> bool:
        """Do what is to be done next; whether that was the last."""
        try:
            share = missing(self._folder)
            if share is None:
                self._join(ready)
                return True
            self._render(ready, share)
        except BrokenSegment as fault:
            self._again(fault.path)
        except Stopped:
            self.outcome.complete, self.outcome.frames = False, self._done()
            self.outcome.seconds = time.perf_counter() - self._began
            return True
        return False

    def begin(self, ready: Prepared) -> None:
        """Look whether the job that is there is this one, or make it so."""
        folder = self._folder
        now = self._manifest = self._now(ready)
        self._still_there = StillThere(self._files, now.files, folder)
        # Animations and rows are those of a plain run to the byte.
        self._comment = ready.options.as_comment(now.mark if is_video(self._target) else "")
        try:
            folder.tidy()
            now.write(folder)
        except OSError as fault:
            raise fault_of(folder, fault) from None
        for notice in [
            *ready.source.notices,
            *song_notices(ready.options.audio, self._target, ready.info),
        ]:
            self._notice(notice)
        self._try_target(ready)
        for begin in list(folder.begun()):
            if record_of(folder.segment(begin)) is None:
                self._again(folder.segment(begin))
        self.outcome.again = now.line
        self._listener.begin(ready.info)

    def _now(self, ready: Prepared) -> Manifest:
        """The manifest of this job; raises an Error where the one that is there is of another."""
        folder = self._folder
        before = Manifest.read(folder)
        typed = self._source, self._target, self._options
        now = now_of(*typed, ready.options, ready.device, ready.info.frames)
        if before is not None:
            before.check(now, folder)
            now = replace(now, begun=before.begun)
        elif any(True for _ in folder.begun()):
            cure = f"remove {folder.path} to begin anew"
            raise SinkError(folder.manifest, "is missing, its segments are there", cure)
        self._files = _files(ready, self._options)
        known = before.files if before else {}
        return replace(now, files=check_files(self._files, known, folder))

    def _try_target(self, ready: Prepared) -> None:
        """See that the result can be written before the work of days, and tell what it lacks."""
        if is_row(self._target):
            also = [f"{s.type} stream {s.index}" for s in ready.source.companions.streams]
            for what in also:
                self._notice(f"{what} is left out: pictures hold none")
            for notice in RowCoder(self._target, ready.info, "").notices:
                self._notice(notice)
            return
        companions, _ = beside(ready.source.companions, ready.options, ready.song)
        try:
            sink = self._sink(ready, companions, lambda text: None)
            for notice in sink.notices:
                self._notice(notice)
            sink.close(complete=False)
        except SinkError as fault:
            raise self._unwritable(fault) from None
        companions.wanted = False

    def _sink(
        self, ready: Prepared, companions: Companions, tell: Callable[[str], None]
    ) -> VideoSink | AnimationSink:
        options, comment = ready.options, self._comment
        if is_video(self._target):
            how = options.codec, options.crf, options.encoder_preset
            return VideoSink(
                self._folder.result, ready.info, companions, *how, comment, options.hardware
            )
        also = [f"{s.type} stream {s.index}" for s in companions.streams]
        return AnimationSink(
            self._folder.result, ready.info, also, options.most_bytes, comment, tell
        )

    def _render(self, ready: Prepared, share: Share) -> None:
        options = ready.options
        if options.shared:
            self._share_out(ready)
            return
        if self._effects is None:
            self._effects = effects_of(options, ready.device)
        coder = coder_of(self._target, ready.info, options, self._comment)
        done = self._done()

        def step(frames: int) -> None:
            self.outcome.frames = done + frames
            self._listener.step(self.outcome.frames, ready.source.counts)

        render(ready, self._effects, coder, self._folder, share, step, self._still_there)

    def _share_out(self, ready: Prepared) -> None:
        done = self._done()
        # Options as they were given: each worker finds out the rest as this run did.
        known = self._manifest.files
        work = Work(self._source, self._target, self._options, self._files, known, self._comment)

        def step(frames: int) -> None:
            self.outcome.frames = done + frames
            self._listener.step(self.outcome.frames, ready.source.counts)

        workers, staff = self._options.workers, None
        if self.cluster is None:
            staff = Processes(work, workers)
        else:
            staff = Cluster(self.cluster, work, self._manifest.machine, self._folder)
            workers = staff.places
        with Crew(staff, self._folder, self._notice) as crew:
            split, there = self._options.split, self._still_there
            where = self._folder, ready.source, workers
            crew.render(partial(shares_of, *where, split=split, still_there=there), step)

    def _join(self, ready: Prepared) -> None:
        folder, target, options, outcome = self._folder, self._target, ready.options, self.outcome
        film = Film.of(folder)
        outcome.frames, outcome.counts = film.frames, film.counts
        tell = self._listener.finish
        kind = IN_ROW if is_row(target) else "file"
        finish = {"kind": kind, "frames": film.frames, "counts": vars(film.counts)}
        try:
            if is_row(target):
                write_sealed(folder.finish, finish)
                for notice in join_row(folder, target, tell):
                    self._notice(notice)
            else:
                companions, _ = beside(ready.source.companions, options, ready.song)
                sink = self._sink(ready, companions, tell)
                if isinstance(sink, VideoSink):
                    ends = options.frames == film.frames
                    join_video(folder, film, sink, ready.source, ends, tell)
                else:
                    join_animation(folder, sink, ready.info, tell)
                for notice in sink.notices:
                    self._notice(notice)
                self._still_there()  # sound is read only now
                write_sealed(folder.finish, finish)
        except SinkError as fault:
            raise self._unwritable(fault) from None
        except OSError as fault:
            raise fault_of(folder, fault) from None
        self._named()
        folder.remove()
        outcome.seconds = time.perf_counter() - self._began

    def _unwritable(self, fault: SinkError) -> SinkError:
        """What is wrong with the result, told of the file that a person has named."""
        cure = fault.cure or "what is done is kept, the same command goes on"
        return SinkError(self._target, fault.reason, cure)

    def _named(self) -> None:
        """Give the result its name, if it has not got it already; pictures of a row have."""
        if not self._folder.result.exists():
            sync(self._folder.target.parent)
            return
        check_free(self._target, self._options.overwrite)
        try:
            self._folder.result.replace(self._folder.target)
            sync(self._folder.target.parent)
        except OSError as fault:
            raise fault_of(self._folder, fault) from None

    def _again(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._listener.notice(f"the segment from frame {int(path.name)} on is damaged: made again")

    def _done(self) -> int:
        folder = self._folder
        records = (record_of(folder.segment(b), whole=False) for b in folder.begun())
        return sum(r.end - r.begin for r in records if r is not None)

    def _notice(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._listener.notice(text)


def _threads(options: Options, folder: JobFolder) -> int | None:
    """How many threads each process takes: as it was when the job began, if nothing is said."""
    if options.threads is not None:
        return options.threads
    with suppress(SinkError):  # told when the job begins
        if (before := Manifest.read(folder)) is not None:
            return before.options.get("threads")
    if options.cluster is not None:
        return 1
    cores = os.process_cpu_count() if sys.version_info >= (3, 13) else os.cpu_count()
    return max(1, (cores or 1) // options.workers) if options.workers > 1 else None


def _files(ready: Prepared, options: Options) -> dict[str, tuple[Path, ...]]:
    """What a job reads, as far as it are files, by what it is."""
    found = {
        "the input": ready.source.input.all_files,
        "a style": files_of(options),
        "a guide": guide_files(options),
        "a mask": mask_files(options),
    }
    if options.weights is not None:
        found["the weights"] = (options.weights,)
    if options.audio is not None:
        found["the sound"] = (options.audio,)
    return {name: files for name, files in found.items() if files}
