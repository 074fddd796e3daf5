"""One run: a file in, a file or a window out, by the options."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Protocol

import torch

from streamdream.animation import AnimationSink
from streamdream.chunks import SETTINGS_TAG
from streamdream.codecs import STDOUT, check_codec, is_video
from streamdream.companions import Companions
from streamdream.effects import effects_of, idle, precision_of
from streamdream.errors import ModelError, OptionError, SinkError, SourceError
from streamdream.files import ANIMATIONS, check_size, check_target, is_picture, is_row
from streamdream.frame import Frame, Size
from streamdream.info import Counts, Reading, VideoInfo
from streamdream.inputs import Input, check_file, locate
from streamdream.jobs.folder import JobFolder
from streamdream.loops import ASTRAY, CURE, Loop, check_loop
from streamdream.masks.masking import Masks
from streamdream.masks.options import check_mask, mask_files
from streamdream.masks.parts import FOLLOWING
from streamdream.motion import OpticalFlow
from streamdream.objectives.named import check_guides, guide_files
from streamdream.options import Options, Written
from streamdream.pictures import PictureSink, RowSink
from streamdream.piece import Piece
from streamdream.ping_pong import there_and_back
from streamdream.pipeline import Drive, Effect, Picture, Settle, redraw, undriven
from streamdream.processors import using_threads
from streamdream.reactions import driven
from streamdream.schedule import Clock
from streamdream.sinks import Sink, Stopped
from streamdream.song import Song, duration_of
from streamdream.soundtrack import Soundtrack
from streamdream.sources import VideoSource
from streamdream.style.named import check_styles, files_of
from streamdream.style.passes import check_passes, in_passes
from streamdream.threads import Behind
from streamdream.video_sink import VideoSink
from streamdream.views import arranged_info

BACKWARDS = "on the way back the pictures do not follow the sound"


class Listener(Protocol):
    """Is told how a run goes, and may stop it."""

    def notice(self, text: str) -> None:
        """Something a person should know."""
        ...

    def begin(self, info: VideoInfo) -> None:
        """The frames begin: from here on only Stopped ends the run in good order."""
        ...

    def step(self, frames: int, counts: Counts) -> None:
        """A gradient step was made, after so many finished frames; raise Stopped to stop."""
        ...

    def finish(self, what: str) -> None:
        """The frames are done, and `what` goes on; raise Stopped to stop."""
        ...


class Silent:
    """A listener that does not listen."""

    def notice(self, text: str) -> None:
        """Ignore it."""

    def begin(self, info: VideoInfo) -> None:
        """Ignore it."""

    def step(self, frames: int, counts: Counts) -> None:
        """Ignore it."""

    def finish(self, what: str) -> None:
        """Ignore it."""


@dataclass
class Outcome:
    """What a run did: `frames` written in `seconds`, to `path` (None: a window).

    `led` frames were dreamed before the first, for a loop to begin where it ends; `again` is what
    goes on with a run that was stopped, "" where nothing can.
    """

    frames: int
    seconds: float
    path: Path | None
    complete: bool
    counts: Counts
    led: int = 0
    again: str = ""


def loop_notices(options: Options, loop: Loop | None, left_out: list[str]) -> Iterator[str]:
    """What a person should know of a loop that leaves these out."""
    if loop is not None and loop.rough:
        yield f"{ASTRAY} without a jump; {CURE} to have none"
    if options.ping_pong and options.react:
        yield BACKWARDS
    if left_out:
        yield f"left out, as it does not fit {options.loop_kind}: {', '.join(left_out)}"


def unfinished_notices(target: Path | None) -> Iterator[str]:
    """What a person should know of a job that lies beside a target, and is not gone on with."""
    if target is not None and target != STDOUT and JobFolder.of(target).manifest.exists():
        yield f"{JobFolder.of(target).path.name} is an unfinished render: --resume goes on with it"


def check_length(options: Options, source: VideoSource) -> None:
    """Raise OptionError where a source has not the length that an option needs."""
    check_loop(options, source)
    one = 1 in (options.frames, source.info.frames) or source.info.still
    if options.fourier and not one:
        reason = "is for a single picture: nothing of it could be carried to the next frame"
        raise OptionError("--fourier", reason, "name a picture, or add --frames 1")
    following = next((part for part in options.mask_parts if part.kind in FOLLOWING), None)
    if following is not None and one:
        reason = "tells by what was before, and this is a single picture"
        raise OptionError(f"--mask {following.text}", reason, "name a video, or another mask")


def frames_to_come(info: VideoInfo, options: Options, loop: Loop | None) -> int | None:
    """How many frames a run dreams and writes, about; None if that is unknown."""
    if loop is not None:
        lead = loop.lead(options) / loop.period
        return loop.length + round(lead * loop.length)
    if info.frames is None:
        return None
    there = info.frames * options.style_passes
    return there + max(0, info.frames - 2) if options.ping_pong else there


def choose_device(name: str) -> torch.device:
    """The device for "auto", "cpu", "cuda" or "mps"; raises ModelError if it is not there."""
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(device for device, found in there.items() if found))
    if not there[name]:
        raise ModelError(f"--device {name}", "PyTorch finds no such device here", "use auto or cpu")
    return torch.device(name)


def dream_file(
    source: str | Path,
    target: str | Path | None,
    options: Options | None = None,
    listener: Listener | None = None,
) -> Outcome:
    """Redraw a video or picture file into another, or into a window if `target` is None.

    Raises errors.Error before the model is loaded if input or output are unfit. A listener
    that raises Stopped ends the run early with a playable `name.part.ext`.
    """
    options, listener = options or Options(), listener or Silent()
    target = STDOUT if str(target) == "-" else None if target is None else Path(target)
    if options.lasts:
        from streamdream.jobs.session import dream_job

        return dream_job(source, target, options, listener)
    with using_threads(options.threads), prepared(source, target, options) as ready:
        _tell(listener, unfinished_notices(target))
        frames, options, device = ready.source, ready.options, ready.device
        info = ready.info
        companions, left_out = beside(frames.companions, options, ready.song)
        one, title = ready.one, Path(frames.input.label).name
        told = one, listener.finish, options.threads
        opened = open_sink(target, info, companions, options, title, *told)
        motion, loop = OpticalFlow(options.flow), None
        if options.loop or options.loop_blend is not None:
            loop = Loop.of(partial(VideoSource, source, *ready.part), options, motion)
            options = options.clocked(Clock(frames.info.rate, loop.length))
        since = Fraction(0) if loop is None else loop.shift
        drive = drive_of(options, frames, ready.song, since)
        masks = Masks.of(options, since + (options.start or 0))
        notices = [*frames.notices, *song_notices(options.audio, target, info)]
        _tell(listener, [*notices, *loop_notices(options, loop, left_out)])
        effects = effects_of(options, device)
        _tell(listener, idle(effects, options))
        outcome = Outcome(0, 0.0, target, True, frames.counts)
        # From here on there is something to lose, so the listener may no longer just exit.
        listener.begin(replace(info, frames=frames_to_come(info, options, loop)))
        sink = opened()

        def watch(frame: Frame, picture: Picture) -> None:
            sink.watch(frame, picture)
            waiting()

        def waiting() -> None:
            listener.step(outcome.led + outcome.frames, frames.counts)

        def leading() -> None:
            outcome.led += 1
            waiting()

        def dreamed(
            stream: Iterable[Frame], settle: Settle | None = None
        ) -> Generator[Frame, None, None]:
            return redraw(
                stream, options, effects, motion, device, watch, waiting, drive, settle, masks
            )

        def painted(
            stream: Iterable[Frame], effects: Sequence[Effect], drive: Drive, settle: Settle | None
        ) -> Generator[Frame, None, None]:
            # Masks, and what they cost, are for the pass that is shown.
            last = settle is None
            look = options if last else options.model_copy(update={"mask": ()})
            where = masks if last else None
            how = motion, device, watch, waiting, drive, settle, where
            return redraw(stream, look, effects, *how)

        folder = None if target in (None, STDOUT) else target.absolute().parent
        if loop is not None:
            redrawn = loop.redrawn(frames, options, dreamed, folder, leading)
        elif options.style_passes > 1:
            redrawn = in_passes(iter(frames), options, effects, painted, drive, folder, leading)
        else:
            redrawn = dreamed(frames)
        if options.ping_pong:
            redrawn = there_and_back(redrawn, 1 / (info.rate or Fraction(25)), folder)
        return write_all(redrawn, sink, outcome, listener, device)


def _tell(listener: Listener, notices: Iterable[str]) -> None:
    for notice in notices:
        listener.notice(notice)


@dataclass(frozen=True)
class Prepared:
    """What a run has before it loads a network.

    `options` are clocked, with the precision that is used; `part` is what the `source` was
    opened with besides its name; `info` tells of the frames that come out, `one` that there
    will be a single one.
    """

    source: VideoSource
    song: Song | None
    options: Options
    device: torch.device
    part: tuple[Fraction | None, Fraction | None, int | None, Size | None, Reading]
    info: VideoInfo
    one: bool


@contextmanager
def prepared(
    source: str | Path, target: Path | None, options: Options, overwrite: bool = False
) -> Generator[Prepared, None, None]:
    """Open what a run reads, and look at all that can be wrong before a network is loaded.

    With `overwrite` what is at the target does not matter. Raises errors.Error.
    """
    given = locate(source, options.exact_rate)
    reading = reading_of(options)
    check_styles(options)
    check_passes(options)
    check_guides(options)
    check_mask(options)
    if target is not None:
        check_target(target, read_files(given, options), options.overwrite or overwrite)
        check_codec(target, options.codec, options.crf)
        check_size(target, options.most_bytes)
        reading = replace(reading, profiled=is_picture(target))
    part = options.start, options.end, options.frames, options.fitted_size, reading
    with VideoSource(source, *part) as frames, song_of(options, frames.begins) as song:
        options = options.clocked(Clock(frames.info.rate, frames.info.frames))
        check_length(options, frames)
        device = choose_device(options.device)
        # What is recorded in the result is what was used: other precisions give other bits.
        options = options.model_copy(update={"precision": precision_of(options, device)})
        info = arranged_info(frames.info, options.view)
        one = 1 in (options.frames, info.frames) or info.still
        yield Prepared(frames, song, options, device, part, info, one)


def beside(
    companions: Companions, options: Options, song: Song | None
) -> tuple[Companions, list[str]]:
    """What goes along with the pictures of a run, and the names of what does not fit them."""
    left_out: list[str] = []
    if options.ping_pong or options.loop_blend is not None:
        companions, left_out = companions.apart()
    if song is not None:
        companions.sing(song)
        left_out = [name for name in left_out if not name.startswith("audio")]
    return companions, left_out


def write_all(
    frames: Generator[Frame, None, None],
    sink: Sink,
    outcome: Outcome,
    listener: Listener,
    device: torch.device,
) -> Outcome:
    """Write all frames, and tell what became of them; a listener may stop it between two.

    Raises SinkError, and ModelError where the `device` has too little memory.
    """
    began = time.perf_counter()
    try:
        with enough_memory(device), sink:
            told = list(sink.notices)
            for notice in told:
                listener.notice(notice)
            with closing(frames):
                for frame in frames:
                    sink.write(frame)
                    outcome.frames += 1
                    listener.step(outcome.led + outcome.frames, outcome.counts)
        for notice in sink.notices[len(told) :]:
            listener.notice(notice)
    except Stopped:
        outcome.complete = False
        outcome.path = sink.part
    outcome.seconds = time.perf_counter() - began
    return outcome


@contextmanager
def enough_memory(device: torch.device) -> Generator[None, None, None]:
    """Raises ModelError in place of what PyTorch says where a `device` has too little memory."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError, RuntimeError) as fault:
        # PyTorch says so on the CPU with a RuntimeError that nothing but its words tells.
        if type(fault) is RuntimeError and "allocate memory" not in str(fault):
            raise
        cure = "use a smaller --work-size, or --tile for a dream"
        raise ModelError("memory", f"there is not enough ({device})", cure) from None


def read_files(given: Input, options: Written) -> tuple[Path, ...]:
    """The files that a run reads, as far as they are files."""
    songs = () if options.audio is None else (options.audio,)
    named = (*files_of(options), *guide_files(options), *mask_files(options))
    return (*given.all_files, *songs, *named)


def song_of(options: Written, begins: Fraction) -> AbstractContextManager[Song | None]:
    """The sound file that goes in, if there is one, with pictures that begin at a time.

    Raises SourceError.
    """
    return nullcontext() if options.audio is None else Song(options.audio, begins)


def drive_of(
    options: Options, source: VideoSource, song: Song | None, since: Fraction = Fraction(0)
) -> Drive:
    """What moves the options that follow the sound: the song's, else the source's own.

    The result begins `since` seconds after the source.

    Raises OptionError where there is none, SourceError where it cannot be heard.
    """
    if not options.react:
        return undriven
    cure = 'give it with --audio, or --react "" to go without'
    if song is None and source.input.piped:
        raise OptionError("--react", "what is piped in cannot be heard before it is dreamed", cure)
    if song is None and all(s.type != "audio" for s in source.companions.streams):
        raise OptionError("--react", f"{source.input.label} has no sound to follow", cure)
    given, zero = source.input, source.shift + since
    if song is not None:
        given, zero = song.input, song.zero
    heard, reactions = Soundtrack.of(given, zero), options.reactions
    usual = 1 / (source.info.rate or Fraction(25))

    def drive(options: Options, frame: Frame) -> Options:
        return driven(options, reactions, heard.at(frame.time, frame.duration or usual))

    return drive


def song_notices(path: Path | None, target: Path | None, info: VideoInfo) -> list[str]:
    """What a person should know of the sound file that goes in, beside frames as `info` tells."""
    if path is None:
        return []
    one = target is not None and is_picture(target) and not is_row(target)
    if target is None or (one and target.suffix.lower() not in ANIMATIONS):
        what = "a window plays" if target is None else "a picture holds"
        return [f"{path}: is not in the result, {what} no sound"]
    lasts, seconds = duration_of(path), info.frames and info.frames / (info.rate or Fraction(25))
    if seconds and lasts < seconds - Fraction(1, 4):
        told = f"lasts {float(lasts):.1f} s, the pictures about {float(seconds):.1f} s"
        return [f"{path}: {told}; the rest is silent"]
    return []


def reading_of(options: Piece) -> Reading:
    """How the options want a source to be read."""
    return Reading(
        options.video_stream,
        options.exact_rate,
        options.max_pixels,
        options.strict,
        options.deinterlace,
        options.tone_map,
    )


def open_sink(
    target: Path | None,
    info: VideoInfo,
    companions: Companions,
    options: Written,
    title: str,
    one: bool = False,
    tell: Callable[[str], None] | None = None,
    threads: int | None = None,
) -> Callable[[], Sink]:
    """What opens the sink for frames as `info` tells; what is wrong with it is found before.

    `title` is a window's, `one` that there will be a single frame, `tell` as AnimationSink's,
    `threads` as VideoSink's.
    """
    comment = options.as_comment()
    also = [f"{s.type} stream {s.index}" for s in companions.streams]
    if target is None:
        from streamdream.window import Window

        window = Window(title, info)
        return lambda: window
    if is_video(target):
        how = options.codec, options.crf, options.encoder_preset
        also_how = comment, options.hardware, threads
        return lambda: Behind(VideoSink(target, info, companions, *how, *also_how))
    if is_row(target):
        check_size(target, options.most_bytes, moving=False)
        return lambda: Behind(RowSink(target, info, also, comment))
    if target.suffix.lower() in ANIMATIONS and not (one and is_picture(target)):
        return lambda: Behind(AnimationSink(target, info, also, options.most_bytes, comment, tell))
    if not one:
        cure = "add --frames 1, name a video file, or pictures in a row: %05d.png"
        raise SinkError(target, "a picture file holds one frame, these are more", cure)
    check_size(target, options.most_bytes, moving=False)
    return lambda: PictureSink(target, info, comment)


def read_settings(path: Path) -> str:
    """The text in a file's metadata in which the settings of its making are looked for."""
    check_file(path)
    if not is_video(path):
        return _picture_comment(path)
    with VideoSource(path, frames=1) as source:
        return source.companions.metadata.get("comment", "") or source.companions.metadata.get(
            "COMMENT", ""
        )


def _picture_comment(path: Path) -> str:
    from PIL import Image
    from PIL.PngImagePlugin import PngImageFile

    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            if isinstance(image, PngImageFile):
                return str(image.text.get("Comment", ""))  # it may come last
            found = image.info.get("comment", b"")
            if SETTINGS_TAG in (data := image.getexif()):
                found = str(data[SETTINGS_TAG]).encode("latin-1", "replace")
    except (OSError, ValueError, Image.DecompressionBombError):
        raise SourceError(path, "is not a picture") from None
    return found.decode("utf-8", "replace") if isinstance(found, bytes) else str(found)
