"""One live run: camera, stage, outputs and controls put together, and kept alive.

`Session.run` is the loop; a picture's own journey is in `stage`.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Protocol

import cv2

from streamdream.errors import Error, SinkError
from streamdream.live.camera import Camera
from streamdream.live.capture import Capture, Upright
from streamdream.live.controls import Controls
from streamdream.live.dreamer import Dreamer
from streamdream.live.hours import Hours
from streamdream.live.options import USUAL_RATE, LiveOptions
from streamdream.live.outputs import Output, Shown
from streamdream.live.pacing import Latencies, Pacing, Rate
from streamdream.live.recording import recording, snapshot
from streamdream.live.rig import Desk, check, openings
from streamdream.live.signals import Signals
from streamdream.live.stage import Stage
from streamdream.live.status import OutputStatus, Status
from streamdream.live.watchdog import Heart
from streamdream.masks.masking import Masks
from streamdream.threads import Newest

PATIENCE = 0.05  # seconds that a window waits for a picture before it looks for keys
LINGER = 0.1  # seconds without a picture after which the last one goes on
TOLD = 0.5  # seconds between two looks at how it goes
REPORT = 60.0  # seconds between two lines in the log
WINDOW_AGAIN = 1.0, 30.0  # seconds between two tries to open a lost window
SLACK = 0.25  # of the time between two pictures; one that comes that much early is shown
RECORDED_LATE = 30  # pictures that a recording may be late before one is dropped
RECORD_PAUSE = 1.0  # seconds between the beginnings of two recordings
MOST_ASIDE = 3  # snapshots and recordings being finished
LEAVE = 5.0  # seconds that each of them has at the end
HANGS = 15.0, 300.0  # seconds without a look at the window, or a step of a dream
NOTHING = 360, 640  # (h, w) of black while there is no picture
TELLER = logging.getLogger("streamdream.live")

Tell = Callable[[str], None]


class Screen(Protocol):
    """What a window does for a session, all in the main thread."""

    def poll(self) -> None: ...
    def show(self, picture: Shown, status: Status) -> None: ...
    def act(self, name: str, value: object = None) -> None: ...
    @property
    def shown_states(self) -> tuple[str, ...]: ...
    def close(self) -> None: ...


@dataclass
class Summary:
    """What a run did, in `seconds`: pictures `shown`, `dreams` finished, times `reconnected`."""

    seconds: float
    shown: int
    dreams: int
    reconnected: int
    faults: int
    wants_restart: bool


class Session:
    """A live run."""

    def __init__(
        self,
        camera: Camera,
        options: LiveOptions,
        tell: Tell,
        preset: str | None = None,
        heart: Heart | None = None,
    ) -> None:
        """Put it together. Raises Error for what cannot be opened at all.

        What can come and go (a camera, a server, a device) is no error: it is waited for.
        """
        check(options)
        self._said = tell
        self._notices: deque[str] = deque(maxlen=8)
        self._options, self._heart = options, heart
        self.signals = Signals()
        self.controls = Controls(options, preset, self.signals)
        self.status = Status()
        self._stack = ExitStack()
        self._outputs: dict[str, Output] = {}
        self._hours = Hours(options.spans)
        self._paused = self._frozen = self._records_again = False
        self._quits = False
        self._shown: Shown | None = None
        self._window: Screen | None = None
        self._window_states: tuple[str, ...] = ()
        self._to_window: Newest[Shown] = Newest()
        self._for_window: deque[tuple[str, bool | None]] = deque(maxlen=16)
        self._window_pause, self._window_due = WINDOW_AGAIN[0], 0.0
        self._latencies, self._shown_rate = Latencies(), Rate()
        self._steps, self._dreams = Rate(), Rate()
        self._count = 0
        self._began = self._presented = self._reported = time.monotonic()
        self._stepped = 0, self._began
        self._looked = 0.0
        self._blackout = self._closed = False
        self._recorded = -RECORD_PAUSE
        self._ending: list[threading.Thread] = []  # what finishes recordings and snapshots
        try:
            self._open(camera)
        except BaseException:
            self.close()
            raise

    def _open(self, camera: Camera) -> None:
        options = self._options
        from streamdream.run import choose_device

        # Every thread counts here, and OpenCV's would wait for each other.
        cv2.setNumThreads(max(1, (os.cpu_count() or 1) // 2))
        sys.setswitchinterval(0.001)
        self.desk = Desk(self.controls, self.signals, lambda: self.status, options, self.tell)
        self._stack.callback(self.desk.close)
        if options.window:
            self._open_window()
        self.dreamer = Dreamer(options, choose_device(options.device), self.tell)
        self._stack.callback(self.dreamer.close)
        self.capture = Capture(camera, self.tell)
        self._stack.callback(self.capture.close)
        rate = options.fps or USUAL_RATE
        self.pacing = Pacing(1 / rate)
        masks = Masks.of(options, moves=False)
        if masks is not None:
            self._stack.callback(masks.close)
        limit = options.flash_limit
        self.stage = Stage(self.controls, self.dreamer, self.pacing, options.attract, limit, masks)
        self._upright = Upright(options.rotate, options.fitted_size)
        for name, opening in openings(options):
            self._outputs[name] = Output(name, opening, rate, self.tell)
            self.tell(f"{name}: begins with the first picture")
        if options.record is not None:
            self._record(True)

    def _open_window(self) -> None:
        from streamdream.live.window import Window

        self._window = Window("live", self.controls, self._options)

    def tell(self, text: str, secret: str = "") -> None:
        """Something a person should know: on the console, the overlay, the page and in the log.

        What is `secret` about it is added on the console only. Never raises: threads that must
        not end say things here.
        """
        self._notices.append(f"{datetime.now():%H:%M:%S} {text}")
        TELLER.info(text)
        with suppress(Exception, SystemExit):  # a console that is gone, or whose disk is full
            self._said(text + secret)

    def run(self, stopping: Callable[[], bool] = lambda: False) -> Summary:
        """Go on until somebody quits, or `stopping` is true. To be called in the main thread.

        A window belongs to that; the stage then has a thread of its own, so that a slow screen
        does not hold it up.
        """
        if not self._options.window:
            self._perform(stopping)
            return self._summary()
        faults: list[BaseException] = []

        def perform() -> None:
            try:
                self._perform(stopping)
            except BaseException as fault:  # raised where the run was asked for
                faults.append(fault)

        worker = threading.Thread(target=perform, name="streamdream-stage", daemon=True)
        worker.start()
        while worker.is_alive():
            self._present()
        for fault in faults:
            raise fault
        return self._summary()

    def _perform(self, stopping: Callable[[], bool]) -> None:
        options = self._options
        due = time.monotonic()
        while not self._quits and not stopping():
            now = time.monotonic()
            if options.seconds is not None and now - self._began >= options.seconds:
                break
            if not self._lives(now):
                break
            for name, value in self.controls.actions():
                self._do(name, value)
            self._keep_hours()
            captured = self.capture.newest(LINGER)
            if captured is not None and options.fps is not None:
                period = 1 / options.fps
                now = time.monotonic()
                if now < due - period * SLACK:
                    continue  # the camera gives more than is wanted
                due = max(due + period, now - period)
            begun = time.monotonic()
            if captured is not None and not self._paused and not self._frozen:
                pixels = self._upright(captured.frame, self.controls.at(begun).mirror)
                shown = self.stage.show(pixels, arrived=captured.arrived)
                self.pacing.showed(time.monotonic() - begun)
            else:
                shown = self.stage.again() if self._frozen else self.stage.show(None)
            self._give(shown or self.stage.nothing(options.fitted_size or NOTHING))
            self.signals.movement(self.stage.presence.movement if captured is not None else 0.0)
            self._look(time.monotonic())

    def _lives(self, now: float) -> bool:
        """Give a sign of life if there is some in all that matters; whether to go on."""
        if self.dreamer.steps != self._stepped[0] or self.dreamer.idle:
            self._stepped = self.dreamer.steps, now
        hangs = now - self._presented > HANGS[0] if self._options.window else False
        hangs = hangs or now - self._stepped[1] > HANGS[1]
        if self._heart is not None and not hangs:
            self._heart.beat(f"{self.status.shown:.0f} pictures a second")
        return not (
            (self._heart is not None and self._heart.orphaned)
            or self.capture.hopeless
            or not self.dreamer.alive
        )

    def _give(self, shown: Shown) -> None:
        """Hand a picture to everything that shows it."""
        self._shown = shown
        for output in self._outputs.values():
            output.offer(shown)
        self.desk.offer(shown)
        if self._options.window:
            self._to_window.put(shown)
        else:
            self._was_shown(shown)

    def _was_shown(self, shown: Shown) -> None:
        self._count += 1
        if shown.arrived is not None:
            self._latencies.add(time.monotonic() - shown.arrived)

    def _present(self) -> None:
        """Show the newest picture in the window, or wait for it a moment."""
        shown = self._to_window.take(PATIENCE)
        self._presented = time.monotonic()
        try:
            if self._window is None:
                if time.monotonic() < self._window_due:
                    return
                self._open_window()
                self.tell("window: there again")
            assert self._window is not None
            while self._for_window:
                self._window.act(*self._for_window.popleft())
            self._window.poll()
            self._window_states = self._window.shown_states
            if shown is not None:
                self._window.show(shown, self.status)
                self._was_shown(shown)
        except SinkError as fault:
            self._lost_window(fault)

    def _lost_window(self, fault: SinkError) -> None:
        if self._window is not None:
            self.tell(f"{fault}; tried again for ever")
            self._window.close()
            self._window_pause = WINDOW_AGAIN[0]
        self._window = None
        self._window_due = time.monotonic() + self._window_pause
        self._window_pause = min(WINDOW_AGAIN[1], self._window_pause * 2)

    def _do(self, name: str, value: object) -> None:
        """Do what somebody asked for."""
        wanted = None if value is None else value not in (False, 0, 0.0, "0", "false", "off")
        if name == "pause":
            self._paused = not self._paused if wanted is None else wanted
        elif name == "freeze":
            self._frozen = not self._frozen if wanted is None else wanted
        elif name == "blackout":
            self._blackout = not self._blackout if wanted is None else wanted
            self.stage.black = self._blackout or self._closed
        elif name == "record":
            on = "record" not in self._outputs if wanted is None else wanted
            # Who holds the key down does not begin twenty files a second.
            if not on or time.monotonic() - self._recorded >= RECORD_PAUSE:
                self._recorded = time.monotonic() if on else self._recorded
                self._record(on)
        elif name == "snapshot":
            self._snapshot()
        elif name == "reset":
            self.stage.reset()
        elif name == "tap":
            self.signals.tap(value if isinstance(value, float) else None)
        elif name == "learn":
            self.desk.learn(wanted)
        elif name == "quit":
            self._quits = True
        elif self._options.window:
            self._for_window.append((name, wanted))

    def _record(self, on: bool) -> None:
        if on == ("record" in self._outputs):
            return
        if not on:
            # Finishing a file takes a while, and the picture does not wait for it.
            self._aside(self._outputs.pop("record").close)
            return
        named = self._options.record or self._options.folder / "streamdream.mp4"
        comment = self.controls.goal.as_comment()
        opening = recording(named, self._options.segment, comment, self.tell)
        rate = self.capture.captured_rate or 1 / self.pacing.period
        self._outputs["record"] = Output("record", opening, rate, self.tell, RECORDED_LATE)
        self.tell(f"recording into files named after {named}")

    def _snapshot(self) -> None:
        shown = self._shown
        if shown is None or sum(thread.is_alive() for thread in self._ending) > MOST_ASIDE:
            return
        save = partial(snapshot, shown, self._options.folder, self.controls.at().as_comment())

        def saved() -> None:
            try:
                self.tell(f"snapshot: {save()}")
            except Error as fault:
                self.tell(f"snapshot: {fault}")

        self._aside(saved)

    def _aside(self, work: Callable[[], None]) -> None:
        """Do something that the picture does not wait for, but the end does."""
        self._ending = [thread for thread in self._ending if thread.is_alive()]
        self._ending.append(threading.Thread(target=work, name="streamdream-aside", daemon=True))
        self._ending[-1].start()

    def _keep_hours(self) -> None:
        """Outside of opening hours let the camera go and be black."""
        if not self._options.spans:
            return
        is_open = self._hours.open()
        if not is_open and self.capture.state != "closed":
            self.tell(f"closed; opens in {str(self._hours.until()).split('.')[0]}")
            self._closed = self.stage.black = True
            self.capture.pause()
            self._records_again = "record" in self._outputs
            self._record(False)
        elif is_open and self.capture.state == "closed":
            self.tell("open")
            self._closed, self.stage.black = False, self._blackout
            self.stage.reset()
            self.capture.resume()
            if self._records_again:
                self._record(True)

    def _look(self, now: float) -> None:
        """See how it goes, twice a second."""
        if now - self._looked < TOLD:
            return
        self._looked = now
        self._shown_rate.count(self._count, now)
        self._steps.count(self.dreamer.steps, now)
        self._dreams.count(self.dreamer.dreams, now)
        captured = self.capture.captured_rate
        if self._options.fps is None and captured > 1:
            self.pacing.period = 1 / captured
        toggles = {
            "pause": self._paused, "freeze": self._frozen, "blackout": self.stage.black,
            "record": "record" in self._outputs,
        }  # fmt: skip
        states = [name for name, on in toggles.items() if on]
        states += self._window_states
        states += ["learn"] * self.desk.learning
        if self.stage.limiter is not None and self.stage.limiter.damping:
            states.append("damped")
        self.status = Status(
            camera=self.capture.state,
            connected=self.capture.connected,
            size=(0, 0) if self._shown is None else self._shown.size,
            shown=self._shown_rate.now,
            wanted=1 / self.pacing.period,
            captured=captured,
            dropped=self.capture.dropped,
            latency=self._latencies.milliseconds,
            dreams=self._dreams.now,
            steps=self._steps.now,
            lines=self.stage.lines,
            share=min(self.pacing.share, self.dreamer.ceiling),
            gate=self.stage.let_through,
            movement=self.stage.presence.movement,
            preset=self.controls.preset,
            states=tuple(states),
            outputs=tuple(
                OutputStatus(o.name, o.written, o.dropped, o.failures, o.trouble)
                for o in self._outputs.values()
            ),
            notices=tuple(self._notices),
            signals=dict(self.signals()),
            seconds=now - self._began,
            memory=resident(),
        )
        if now - self._reported >= REPORT:
            self._reported = now
            s = self.status
            TELLER.info(
                "%.1f pictures, %.1f steps a second, %.0f ms late, %d lines, %.0f MiB, %s",
                s.shown, s.steps, s.latency[1], s.lines, s.memory, s.camera,
            )  # fmt: skip

    def _summary(self) -> Summary:
        return Summary(
            time.monotonic() - self._began,
            self._count,
            self.dreamer.dreams,
            self.capture.reconnects,
            self.dreamer.faults + sum(o.failures for o in self._outputs.values()),
            self.capture.hopeless or not self.dreamer.alive,
        )

    def close(self) -> None:
        """Finish every output, and let everything go."""
        for output in self._outputs.values():
            output.end()  # all at once: each may take its time
        records_first = sorted(self._outputs.values(), key=lambda output: output.name != "record")
        for output in records_first:
            output.close()
            if self._heart is not None:
                self._heart.beat("ending")
        self._outputs.clear()
        for thread in self._ending:
            thread.join(LEAVE)
        self._stack.close()
        if self._window is not None:
            self._window.close()
            self._window = None


def resident() -> float:
    """MiB of memory that this process holds, 0 where that is not known."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
