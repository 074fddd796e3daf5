"""A page with the live picture and all controls, served over HTTP from a thread of its own.

`door` decides who may come in, `pages` answers, `pictures` makes the JPEGs; here
are the socket, the thread and its end.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from streamdream.errors import SinkError, words
from streamdream.live.controls import Controls
from streamdream.live.status import Status
from streamdream.live.web.door import Door, ip_of
from streamdream.live.web.pictures import Pictures

if TYPE_CHECKING:
    from streamdream.live.outputs import Shown

CONNECTIONS = 64  # at once; more are turned away
IDLE = 15.0  # seconds without a whole request after which a connection is closed
LEAVE = 3.0  # seconds that closing takes at most
TOLD = 100  # kinds of faults that are told


class Web:
    """The page, from the moment this is made until it is closed."""

    def __init__(
        self,
        controls: Controls,
        status: Callable[[], Status],
        host: str,
        port: int,
        token: str | None,
        tell: Callable[[str], None],
        hidden: Collection[str] = (),
    ) -> None:
        """Serve on this address; port 0 is a free one.

        A token that is given is asked for; beyond the loopback one is made up if none is.
        `address` has it, `place` is the same without it, for logs. `hidden` names actions that
        the page leaves out. `status` and `tell` are called from the server's thread. Raises
        SinkError.
        """
        from streamdream.live.web.pages import Pages

        self._socket = _bound(host, port)
        bound, port = self._socket.getsockname()[:2]
        address = ip_of(bound)
        if token is None and not (address is not None and address.is_loopback):
            token = secrets.token_urlsafe(12)
        shown = _own_address() if address is not None and address.is_unspecified else host
        shown = f"[{shown}]" if ":" in shown else shown
        query = "" if token is None else f"?token={quote(token, safe='')}"
        self.place = f"http://{shown}:{port}/"
        self.address = self.place + query
        self._tell = tell
        self._told: set[str] = set()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._pictures = Pictures(self._loop, tell)
        door = Door(host, bound, port, token)
        self._pages = Pages(controls, status, self._pictures, door, self._fault, hidden)
        self._thread = Thread(target=self._work, name="streamdream-web", daemon=True)
        self._thread.start()

    @property
    def watching(self) -> bool:
        """Whether somebody looks at the picture right now."""
        return self._pictures.viewers > 0

    def offer(self, picture: Shown) -> None:
        """Take the newest picture, without waiting; only what is watched costs anything."""
        self._pictures.offer(picture)

    def close(self) -> None:
        """End, with whoever is connected, within 3 s; more than once does no harm."""
        until = time.monotonic() + LEAVE
        self._pictures.end()
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(LEAVE)
        self._pictures.join(max(0.0, until - time.monotonic()))

    def _work(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve())
        except Exception as fault:  # the picture goes on without a page
            self._fault(fault)
        finally:
            self._socket.close()

    async def _serve(self) -> None:
        from aiohttp.web import Server

        self._loop.set_exception_handler(self._stray)
        quiet = logging.Logger("streamdream.web")  # what matters is told
        quiet.disabled = True
        serving = Server(
            self._pages.answer,
            handler_cancellation=True,  # who leaves makes room at once
            access_log=None,
            logger=quiet,
            keepalive_timeout=IDLE,
            lingering_time=1.0,
        )

        def connection() -> asyncio.Protocol:
            return _Full() if len(serving.connections) >= CONNECTIONS else serving()

        server = await self._loop.create_server(connection, sock=self._socket)
        await self._stop.wait()
        server.close()
        self._pages.end()
        await serving.shutdown(0.5)

    def _stray(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What no handler saw, as a socket that cannot be accepted."""
        self._fault(context.get("exception") or Exception(str(context.get("message"))))

    def _fault(self, fault: BaseException) -> None:
        """Tell about each kind of fault once."""
        line = " ".join(f"page: {type(fault).__name__}: {words(fault)}".split())
        if line in self._told or len(self._told) >= TOLD:
            return
        self._told.add(line)
        self._tell(line)
        if len(self._told) == TOLD:
            self._tell("page: no other kinds of faults are told from now on")


class _Full(asyncio.Protocol):
    """Turns a connection away."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(
            b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\n"
            b"Connection: close\r\n\r\n"
        )
        transport.close()


def _bound(host: str, port: int) -> socket.socket:
    """A listening socket."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        both = family == socket.AF_INET6 and host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server(
            (str(address[0]), int(address[1])), family=family, backlog=128, dualstack_ipv6=both
        )
    except (OSError, UnicodeError, OverflowError) as fault:
        cure = "take another --http or --host" if port else "take another --host"
        raise SinkError(f"--http {port} --host {host}", words(fault), cure) from None


def _own_address() -> str:
    """The address of this machine in its network, for others to type; loopback if it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing; only asks which way it would go
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"
