"""Open Sound Control: every option and action has an address, over UDP.

    /streamdream/strength 0.5        an option, in its own units
    /streamdream/slide/strength 0.3  the same, as a place on its slider from 0 to 1
    /streamdream/preset "eyes"       a preset
    /streamdream/blackout 1          an action; 0 switches off what toggles
    /streamdream/token "..."         comes first where another machine may control this one
    /streamdream/feedback 9001       values that change are sent back to this port; 0 ends it

Only messages are read by python-osc: its server sleeps until a bundle is due, which may be in
a hundred years, and a bundle with a negative length keeps it busy for ever. Here bundles count
at once.
"""

from __future__ import annotations

import hmac
import ipaddress
import math
import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from threading import Event, Thread
from typing import Any

from streamdream.errors import OptionError, near, words
from streamdream.live.controls import ACTIONS, Control, Controls
from streamdream.live.outputs import LEAVE, Tell

ROOT = "/streamdream/"
LARGEST = 4096  # bytes of a packet
DEEP = 4  # bundles in bundles
MOST = 2000  # messages a second; more are left lying
PATIENCE = 10.0  # seconds between two lines about what is wrong
STRANGERS = 60.0  # the same about who has no token
GUESS = 1.0  # seconds after a wrong token in which no other is looked at
TRUSTED, TRUST = 64, 12 * 3600.0  # clients whose token was right, and for how many seconds
LISTENERS, OFTEN = 8, 0.05  # clients that values are sent back to, seconds between two rounds

ADDRESS = re.compile(rb"/[!-~]{1,200}")
TAGS = re.compile(rb"(,[ifhdsTFN]{0,64})?")  # python-osc logs others, line after line
BUNDLE = b"#bundle\0"

Client = tuple[Any, ...]  # as sockets name it: the IP address, the port and what else there is


class Osc:
    """Listens in a thread of its own; nothing that comes over the network ends it."""

    def __init__(
        self, controls: Controls, host: str, port: int, token: str | None, tell: Tell
    ) -> None:
        """Listen on a port (0: any free one) of a host's; other machines need the token.

        `tell` is called from the thread. Raises OptionError if that cannot be.
        """
        self._controls, self._tell = controls, tell
        self._socket = _bound(host, port)
        self._token = token
        ip, bound, *rest = self._socket.getsockname()
        where = ipaddress.ip_address(ip.partition("%")[0])
        self._open = where.is_loopback
        if not self._open and not token:
            self._socket.close()
            raise OptionError(f"--host {host}", "OSC from other machines needs a token")
        self.address = f"[{ip}]:{bound}" if where.version == 6 else f"{ip}:{bound}"
        loopback = "127.0.0.1" if where.version == 4 else "::1"
        self._myself = (loopback if where.is_unspecified else ip, bound, *rest)
        self._guessed: dict[str, float] = {}
        self._trusted: dict[str, float] = {}  # until when; the oldest come first
        self._listeners: dict[Client, dict[str, object]] = {}  # what they know
        self._wrong = Seldom("OSC", tell, PATIENCE)
        self._strange = Seldom("OSC", tell, STRANGERS)
        self._left, self._filled = float(MOST), time.monotonic()  # messages that may come
        self._due = 0.0
        self._stopping = Event()
        self._thread = Thread(target=self._work, name="streamdream-osc", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether messages are listened to."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Stop listening and free the port."""
        self._stopping.set()
        with suppress(OSError):  # this only wakes the thread
            self._socket.sendto(b"", self._myself)
        self._thread.join(LEAVE)

    def _work(self) -> None:
        with self._socket:
            while not self._stopping.is_set():
                try:
                    self._receive()
                    self._send_back()
                    self._wrong.pass_on()
                    self._strange.pass_on()
                except Exception as fault:  # what it is, nobody can know; the next one may do
                    self._wrong.add(words(fault))

    def _receive(self) -> None:
        now = time.monotonic()
        self._left = min(float(MOST), self._left + (now - self._filled) * MOST)
        self._filled = now
        if self._left < 1:
            self._stopping.wait(2 * OFTEN / 5)
            return
        self._socket.settimeout(OFTEN if self._listeners else 0.5)
        try:
            packet, client = self._socket.recvfrom(LARGEST + 1)
        except (TimeoutError, ConnectionError):  # of a listener that is gone, on Windows
            return
        except OSError as fault:  # the network is down, or on Windows the packet too large
            self._wrong.add(words(fault))
            self._stopping.wait(OFTEN)
            return
        if self._stopping.is_set():
            return
        try:
            self._take(packet, client)
        except Exception as fault:
            self._wrong.add(f"{client[0]}: {fault}")

    def _take(self, packet: bytes, client: Client) -> None:
        self._left -= 1
        if len(packet) > LARGEST:
            raise ValueError(f"a packet of more than {LARGEST} bytes")
        for number, (address, given) in enumerate(messages(packet)):
            if number and self._left < 1:
                raise ValueError(f"more than {MOST} messages a second")
            self._left -= number > 0
            if self._known(address, given, client):
                self._obey(address, given, client)

    def _known(self, address: str, given: list[Any], client: Client) -> bool:
        """Whether a message is to be obeyed; one with the right token makes its client known."""
        ip, now = client[0], time.monotonic()
        if address == f"{ROOT}token":
            text = given[0] if len(given) == 1 and isinstance(given[0], str) else ""
            if self._guessed.get(ip, -GUESS) + GUESS > now:
                return False  # nobody tries a thousand a second
            if self._token and hmac.compare_digest(text.encode(), self._token.encode()):
                self._trusted.pop(ip, None)
                self._trusted[ip] = now + TRUST
                if len(self._trusted) > TRUSTED:
                    del self._trusted[next(iter(self._trusted))]
            elif not self._open:
                self._guessed.pop(ip, None)
                self._guessed[ip] = now
                if len(self._guessed) > TRUSTED:
                    del self._guessed[next(iter(self._guessed))]
                self._strange.add(f"{ip}: that is not the token")
            return False
        if self._open or self._trusted.get(ip, now) > now:
            return True
        self._strange.add(f"{ip}: has to send {ROOT}token first")
        return False

    def _obey(self, address: str, given: list[Any], client: Client) -> None:
        """Do what a message says; raises Error if it makes no sense."""
        name = address.removeprefix(ROOT)
        option = name.removeprefix("slide/")
        table = self._controls.table
        if not address.startswith(ROOT):
            raise OptionError(address, "no such address", f"all begin with {ROOT}")
        if name == "feedback":
            self._listen_to(client, _only(address, given))
        elif name == "preset":
            preset = _only(address, given)
            if preset not in self._controls.presets:
                cure = near(str(preset), self._controls.presets, "presets")
                raise OptionError(address, "no such preset", cure)
            self._controls.take_preset(str(preset))
        elif name != option:
            place = _only(address, given)
            if not isinstance(place, int | float) or not math.isfinite(place):
                raise OptionError(address, "a place is a number from 0 to 1")
            self._controls.slide(option, place)
        elif name in ACTIONS and not (name in table and given and isinstance(given[0], str)):
            self._act(name, given)
        elif name in table and table[name].kind == "names" and given:
            self._controls.set(name, given)
        else:
            self._controls.set(name, _only(address, given))

    def _act(self, name: str, given: list[Any]) -> None:
        wanted = _only(name, given) if given else None
        if wanted is not None and not isinstance(wanted, int | float):
            raise OptionError(name, "takes 1, 0 or nothing")
        if ACTIONS[name].toggles:
            self._controls.act(name, None if wanted is None else bool(wanted))
        elif wanted is None or wanted:  # 0 comes when a button is let go
            self._controls.act(name)

    def _listen_to(self, client: Client, port: object) -> None:
        if isinstance(port, float) and port.is_integer():
            port = int(port)
        if not isinstance(port, int) or not 0 <= port <= 65535:
            raise OptionError(f"{ROOT}feedback", "a port is 1 to 65535, 0 ends it")
        if not port:
            for known in [known for known in self._listeners if known[0] == client[0]]:
                del self._listeners[known]
            return
        listener = (client[0], port, *client[2:])
        self._listeners.pop(listener, None)  # all that there is comes anew
        self._listeners[listener] = {}
        if len(self._listeners) > LISTENERS:
            del self._listeners[next(iter(self._listeners))]

    def _send_back(self) -> None:
        from pythonosc.osc_message_builder import build_msg

        now = time.monotonic()
        if not self._listeners or now < self._due:
            return
        self._due = now + OFTEN
        values = self._values()
        for client, sent in self._listeners.items():
            with suppress(OSError):  # it cannot be reached now; the rest is sent next time
                for address, value in values.items():
                    if address not in sent or sent[address] != value:
                        self._socket.sendto(build_msg(address, [value]).dgram, client)
                        sent[address] = value

    def _values(self) -> dict[str, object]:
        found: dict[str, object] = {f"{ROOT}preset": self._controls.preset or ""}
        for name, value in self._controls.values().items():
            found[ROOT + name] = int(value) if isinstance(value, bool) else value
            place = place_of(self._controls.table[name], value)
            if place is not None:
                found[f"{ROOT}slide/{name}"] = place
        return found


class Seldom:
    """Counts what goes wrong, and tells the last of it once in so many `seconds`."""

    def __init__(self, subject: str, tell: Tell, seconds: float) -> None:
        """Tell lines that begin with `subject`."""
        self._subject, self._tell, self._seconds = subject, tell, seconds
        self._count, self._last, self._due = 0, "", 0.0

    def add(self, line: str) -> None:
        """Something went wrong; `line` may hold what strangers wrote."""
        self._count += 1
        self._last = line

    def pass_on(self) -> None:
        """Tell, if it is time."""
        now = time.monotonic()
        if self._count and now >= self._due:
            line = "".join(c if c.isprintable() else "?" for c in self._last[:200])
            more = f" (and {self._count - 1} more)" if self._count > 1 else ""
            self._count, self._due = 0, now + self._seconds
            self._tell(f"{self._subject}: {line}{more}")


def place_of(control: Control, value: object) -> float | None:
    """Where a control's slider stands at a value, 0 to 1; None if no place says so."""
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, int | float) and control.low is not None and control.high is not None:
        return min(1.0, max(0.0, (value - control.low) / (control.high - control.low)))
    if isinstance(value, str) and value in control.choices:
        return control.choices.index(value) / max(1, len(control.choices) - 1)
    return None


def messages(packet: bytes, deep: int = DEEP) -> Iterator[tuple[str, list[Any]]]:
    """The messages of a packet: address and arguments. Raises some Exception at garbage."""
    if not packet.startswith(BUNDLE):
        yield _message(packet)
        return
    if not deep:
        raise ValueError("a bundle in too many bundles")
    start = len(BUNDLE) + 8  # bytes of the time at which it is due
    while start < len(packet):
        size = int.from_bytes(packet[start : start + 4], "big")
        start += 4
        if not 0 < size <= len(packet) - start:
            raise ValueError("a bundle that is cut off")
        yield from messages(packet[start : start + size], deep - 1)
        start += size


def _message(packet: bytes) -> tuple[str, list[Any]]:
    from pythonosc.osc_message import OscMessage

    address = packet.partition(b"\0")[0]
    tags = packet[len(address) // 4 * 4 + 4 :].partition(b"\0")[0]
    if not ADDRESS.fullmatch(address) or not TAGS.fullmatch(tags):
        raise ValueError("not an OSC message")
    message = OscMessage(packet)
    return message.address, message.params


def _only(address: str, given: list[Any]) -> Any:
    if len(given) != 1:
        raise OptionError(address, "takes one value")
    return given[0]


def _bound(host: str, port: int) -> socket.socket:
    opened = None
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        opened = socket.socket(found[0], socket.SOCK_DGRAM)
        opened.bind(found[4])
    except (OSError, UnicodeError) as fault:
        if opened is not None:
            opened.close()
        cure = "take another port, or 0 for a free one" if opened is not None else ""
        raise OptionError(f"--osc {port} on {host}", words(fault), cure) from None
    return opened
