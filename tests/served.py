"""Serves the page with moving pictures and a status that follows the actions, for tests."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from media import moving

from streamdream.live.controls import Controls
from streamdream.live.options import LiveOptions
from streamdream.live.outputs import Shown
from streamdream.live.status import OutputStatus, Status
from streamdream.live.web.server import Web

SIZE = (90, 160)


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Served:
    """A page, on a free port of the loopback, fed with 40 pictures a second."""

    def __init__(
        self,
        token: str | None = None,
        host: str = "127.0.0.1",
        status: Callable[[], Status] | None = None,
        size: tuple[int, int] = SIZE,
        pictures: bool = True,
        port: int = 0,
        hidden: Collection[str] = (),
    ) -> None:
        self.told: list[str] = []
        self.controls = Controls(LiveOptions(), "eyes")
        self.states: set[str] = set()
        self.acts: list[tuple[str, object]] = []
        self.camera = "a test camera"
        self.signals: dict[str, float] = {}
        self.seconds = 3700.0
        self.web = Web(
            self.controls, status or self.status, host, port, token, self.told.append, hidden
        )
        self.port = urlsplit(self.web.address).port or 0
        self._ending = threading.Event()
        self._paint = moving(size)
        self._feeder = threading.Thread(target=self._feed if pictures else lambda: None)
        self._feeder.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop feeding and serving."""
        self._ending.set()
        self._feeder.join()
        self.web.close()

    def status(self) -> Status:
        """As a stage would tell it: toggles are on once they were asked for."""
        for name, value in self.controls.actions():
            self.acts.append((name, value))
            on = name not in self.states if value is None else bool(value)
            (self.states.add if on else self.states.discard)(name)
        return Status(
            camera=self.camera,
            connected=True,
            shown=24.5,
            wanted=25.0,
            latency=(41.0, float("nan")),
            states=tuple(sorted(self.states)),
            outputs=(OutputStatus("rtmp", 1, 0, 2, "connection refused"),),
            notices=("the camera came back",),
            signals=self.signals,
            dropped=6,
            seconds=self.seconds,
        )

    def ask(
        self,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        method: str = "",
    ) -> Answer:
        """One request over a connection of its own; a body is sent as JSON unless it is bytes."""
        sent = {"Host": f"127.0.0.1:{self.port}"}
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        if data is not None:
            sent["Content-Type"] = "application/json"
        sent |= headers or {}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method or ("GET" if data is None else "POST"), path, data, sent)
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def _feed(self) -> None:
        index = 0
        while not self._ending.wait(1 / 40):
            index += 1
            self.web.offer(Shown(self._paint(index), Fraction(index, 40), index))
