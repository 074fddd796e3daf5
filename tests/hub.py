"""A hub of weights on loopback, for tests: it serves files, with the faults that hubs have."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self


@dataclass
class Hub:
    """Serves `files` by name. Use it as a context manager.

    `breaks` tells, request by request, after how many bytes the connection is cut; `ranges`
    whether parts can be asked for; `moved` that everything is elsewhere. `asked` collects the
    Range headers of all requests, "" where there was none.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    breaks: list[int] = field(default_factory=list)
    ranges: bool = True
    moved: bool = False
    pause: float = 0.0  # seconds between two pieces
    asked: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.answer(self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def add(self, data: bytes, name: str = "net") -> str:
        """Serve a file under a name with its proof; returns the name."""
        file = f"{name}-{hashlib.sha256(data).hexdigest()[:8]}.pth"
        self.files[file] = data
        return file

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range", "")
        self.asked.append(asked)
        name = request.path.rsplit("/", 1)[1]
        if self.moved and not request.path.startswith("/there/"):
            request.send_response(302)
            request.send_header("Location", f"{self.url}/there/{name}")
            request.end_headers()
            return
        data = self.files.get(name)
        if data is None:
            request.send_error(404)
            return
        begin = re.fullmatch(r"bytes=(\d+)-", asked) if self.ranges else None
        start = int(begin[1]) if begin else 0
        if begin and start >= len(data):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(data)}")
            request.end_headers()
            return
        request.send_response(206 if begin else 200)
        if begin:
            request.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        request.send_header("Content-Length", str(len(data) - start))
        request.end_headers()
        end = min(len(data), start + self.breaks.pop(0)) if self.breaks else len(data)
        for at in range(start, end, 100_000):
            try:
                request.wfile.write(data[at : min(end, at + 100_000)])
            except OSError:
                return  # whoever asked was killed
            time.sleep(self.pause)
        request.close_connection = True
