"""What is plugged in around a session: its outputs, and the surfaces that it is controlled by."""

from __future__ import annotations

import ipaddress
import os
import secrets
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

from streamdream.live.controls import Controls
from streamdream.live.devices import (
    check_ndi,
    check_spout,
    check_syphon,
    check_virtual_camera,
    ndi,
    spout,
    syphon,
    virtual_camera,
)
from streamdream.live.options import LiveOptions
from streamdream.live.outputs import Opening, Shown
from streamdream.live.recording import check_folder as check_place
from streamdream.live.recording import check_recording
from streamdream.live.signals import Signals
from streamdream.live.status import Status
from streamdream.live.streams import check_folder, check_stream, hls, stream
from streamdream.live.watchdog import TOKEN

if TYPE_CHECKING:
    from streamdream.live.midi import Midi
    from streamdream.live.web.server import Web


def check(options: LiveOptions) -> None:
    """Raise what can be known to be wrong with the outputs, before anything is loaded."""
    if options.record is not None:
        check_recording(options.record)
    check_place(options.folder)
    if options.hls is not None:
        check_folder(options.hls)
    for url in options.stream:
        check_stream(url)
    if options.virtual_camera is not None:
        check_virtual_camera(options.virtual_camera)
    if options.ndi is not None:
        check_ndi(options.ndi)
    if options.spout is not None:
        check_spout(options.spout)
    if options.syphon is not None:
        check_syphon(options.syphon)


def openings(options: LiveOptions) -> list[tuple[str, Opening]]:
    """The outputs that run all the time, by name; not the window, not recordings."""
    found: list[tuple[str, Opening]] = []
    if options.hls is not None:
        found.append((f"hls {options.hls}", hls(options.hls)))
    for number, url in enumerate(options.stream, start=1):
        found.append((f"stream {number}", stream(url)))
    if options.virtual_camera is not None:
        found.append(("virtual camera", virtual_camera(options.virtual_camera)))
    for name, made in (("ndi", ndi), ("spout", spout), ("syphon", syphon)):
        given: str | None = getattr(options, name)
        if given is not None:
            found.append((name, made(given)))
    return found


class Telling(Protocol):
    """Says something, and what is secret about it only where nobody else looks."""

    def __call__(self, text: str, secret: str = "") -> None: ...


class Desk:
    """The page, OSC, MIDI and sound, as far as the options ask for them."""

    def __init__(
        self,
        controls: Controls,
        signals: Signals,
        status: Callable[[], Status],
        options: LiveOptions,
        tell: Telling,
    ) -> None:
        """Open them; raises Error for what cannot be."""
        self._controls, self._tell = controls, tell
        self._stack = ExitStack()
        self._web: Web | None = None
        self._midi: Midi | None = None
        try:
            self._open(signals, status, options)
        except BaseException:
            self.close()
            raise

    def _open(self, signals: Signals, status: Callable[[], Status], options: LiveOptions) -> None:
        controls, tell, token = self._controls, self._tell, options.token
        if token is None and not is_loopback(options.host):
            # A watchdog makes one, so that whoever knows it still does after a new start.
            token = os.environ.get(TOKEN) or secrets.token_urlsafe(12)
        if options.http is not None:
            from streamdream.live.web.server import Web

            hidden = () if options.midi is not None else ("learn",)
            self._web = Web(controls, status, options.host, options.http, token, tell, hidden)
            self._stack.callback(self._web.close)
            tell(f"page: {self._web.place}", self._web.address.removeprefix(self._web.place))
        if options.osc is not None:
            from streamdream.live.osc import Osc

            osc = Osc(controls, options.host, options.osc, token, tell)
            self._stack.callback(osc.close)
            tell(f"osc: {osc.address}", f" (token {token})" if token else "")
        if options.midi is not None:
            from streamdream.live.midi import Midi, mapping_file

            self._midi = Midi(controls, options.midi, mapping_file(), tell, signals)
            self._stack.callback(self._midi.close)
        if options.sound is not None:
            from streamdream.live.sound import Sound

            self._stack.callback(Sound(options.sound, signals, tell).close)

    def offer(self, picture: Shown) -> None:
        """Let the page have a picture."""
        if self._web is not None:
            self._web.offer(picture)

    @property
    def learning(self) -> bool:
        """Whether the next knob that moves is bound to something."""
        return self._midi is not None and self._midi.learning is not None

    def learn(self, wanted: bool | None) -> None:
        """Bind the option changed last to the next knob, or give that up; None is the other one."""
        if self._midi is None:
            self._tell("learn: begin with --midi auto to learn a knob")
        elif self.learning if wanted is None else not wanted:
            self._midi.learn(None)
        else:
            self._midi.learn(self._controls.touched)
            self._tell(f"learn: move a knob for {self._controls.touched}")

    def close(self) -> None:
        """Close them all."""
        self._stack.close()


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own, which no other reaches."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
