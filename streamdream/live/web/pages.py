"""What the page's server answers: the page's files, the stream, and JSON to see and to change.

GET  /, /app.js and its parts, /style.css, /icon.svg
GET  /stream.mjpg, /snapshot.jpg
GET  /api/controls, /api/status
POST /api/set {"strength": 0.5, ...}, /api/preset {"name": ...}, /api/act {"name": ..., "value"}
"""

from __future__ import annotations

import asyncio
import json
import math
import socket
import zlib
from collections.abc import Awaitable, Callable, Collection
from dataclasses import asdict
from importlib import resources
from typing import Any

from aiohttp import web

from streamdream.errors import Error, OptionError, near
from streamdream.live.controls import ACTIONS, Controls
from streamdream.live.status import Status
from streamdream.live.web.door import BODY, Door, Refused
from streamdream.live.web.pictures import Pictures

VIEWERS = 8  # of the stream at once
BEAT = 1.0  # seconds after which the last picture is sent again, to see who is still there
PATIENCE = 10.0  # seconds that a viewer has for one picture, or a body to arrive
AHEAD = 256 * 1024  # bytes that the system may keep for a slow viewer: about one picture
BOUNDARY = "streamdream-picture"
LOGGED_IN = 30 * 24 * 3600  # seconds that a browser is let in

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

FILES = {
    "/": ("index.html", "text/html"),
    "/app.js": ("app.js", "text/javascript"),
    "/rows.js": ("rows.js", "text/javascript"),
    "/picture.js": ("picture.js", "text/javascript"),
    "/status.js": ("status.js", "text/javascript"),
    "/style.css": ("style.css", "text/css"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "streamdream",
}


class Pages:
    """Answers requests; all of it runs on the server's loop.

    Paths are keys of a table, so that none of them leads to a file.
    """

    def __init__(
        self,
        controls: Controls,
        status: Callable[[], Status],
        pictures: Pictures,
        door: Door,
        fault: Callable[[BaseException], None],
        hidden: Collection[str],
    ) -> None:
        """Answer from these; what a handler raises goes to `fault`, `hidden` actions nowhere."""
        self._controls, self._status, self._pictures = controls, status, pictures
        self._door, self._fault = door, fault
        self._actions = [asdict(act) for act in ACTIONS.values() if act.name not in hidden]
        self._ending = False
        page = resources.files("streamdream.live.web") / "page"
        self._asking = (page / "token.html").read_text("utf-8")
        self._handlers: dict[str, tuple[str, Handler]] = {
            "/stream.mjpg": ("GET", self._stream),
            "/snapshot.jpg": ("GET", self._snapshot),
            "/api/controls": ("GET", self._get_controls),
            "/api/status": ("GET", self._get_status),
            "/api/set": ("POST", self._set),
            "/api/preset": ("POST", self._preset),
            "/api/act": ("POST", self._act),
        }
        for path, (name, kind) in FILES.items():
            self._handlers[path] = ("GET", _file((page / name).read_text("utf-8"), kind))

    def end(self) -> None:
        """Let go of whoever watches."""
        self._ending = True

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, whatever it asks."""
        response = await self._answered(request)
        if not response.prepared:
            response.headers.update(HEADERS)
        return response

    async def _answered(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            if self._door.check(request):
                return self._entered(request)
            if request.path not in self._handlers:
                raise Refused(404, "there is nothing here")
            method, handler = self._handlers[request.path]
            if request.method != method:
                raise Refused(405, f"this takes {method}")
            return await handler(request)
        except Refused as refused:
            return self._refusal(request, refused)
        except Error as fault:
            return _json({"error": str(fault)}, 400)
        except ConnectionError:  # gone before its answer
            raise
        except Exception as fault:
            self._fault(fault)
            return _json({"error": "something went wrong here; it was told"}, 500)

    def _entered(self, request: web.BaseRequest) -> web.Response:
        """Exchange the token in a URL for a cookie."""
        path = request.path if request.path in self._handlers else "/"
        if request.headers.get("Sec-Fetch-Site", "").lower() in ("cross-site", "same-site"):
            # browsers send no strict cookie along a redirection that another site began
            response = _html(f'<meta http-equiv="refresh" content="0; url={path}">', 200)
        else:
            response = web.Response(status=303, headers={"Location": path})
        response.set_cookie(
            self._door.cookie,
            self._door.pass_,
            max_age=LOGGED_IN,
            httponly=True,
            samesite="Strict",
            path="/",
        )
        return response

    def _refusal(self, request: web.BaseRequest, refused: Refused) -> web.Response:
        asking = refused.status in (401, 429) and request.path == "/"
        if asking and "text/html" in request.headers.get("Accept", ""):
            reason = refused.reason[:1].upper() + refused.reason[1:]
            response = _html(self._asking.replace("REASON", reason), refused.status)
        else:
            response = _json({"error": refused.reason}, refused.status)
        if refused.status == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
            if self._door.cookie in request.cookies:
                response.del_cookie(self._door.cookie, path="/")
        if refused.wait:
            response.headers["Retry-After"] = str(math.ceil(refused.wait))
        return response

    async def _stream(self, request: web.BaseRequest) -> web.StreamResponse:
        if self._pictures.viewers >= VIEWERS:
            raise Refused(503, f"{VIEWERS} watch already; that is as many as can", 5)
        kind = f"multipart/x-mixed-replace; boundary={BOUNDARY}"
        response = web.StreamResponse(headers={**HEADERS, "Content-Type": kind})
        with self._pictures.watched():
            transport = request.transport
            try:
                if transport is not None:
                    transport.get_extra_info("socket").setsockopt(
                        socket.SOL_SOCKET, socket.SO_SNDBUF, AHEAD
                    )
                await response.prepare(request)
                await self._feed(response, request)
            except OSError:  # gone, or too slow
                if transport is not None:
                    transport.abort()
        return response

    async def _feed(self, response: web.StreamResponse, request: web.BaseRequest) -> None:
        line = f"--{BOUNDARY}\r\n".encode()
        await response.write(line)
        number = max(0, self._pictures.number - 1)
        last = None
        while not self._ending and request.transport is not None:
            last = await self._pictures.after(number, BEAT) or last
            if last is None:
                continue
            number, data = last
            head = f"Content-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n".encode()
            async with asyncio.timeout(PATIENCE):
                # the boundary comes at once: browsers show a picture when they see its end
                await response.write(head + data + b"\r\n" + line)

    async def _snapshot(self, _request: web.BaseRequest) -> web.Response:
        with self._pictures.watched():
            jpeg = await self._pictures.now()
        if jpeg is None:
            raise Refused(503, "there is no picture yet", 1)
        return web.Response(body=jpeg.data, content_type="image/jpeg")

    async def _get_controls(self, _request: web.BaseRequest) -> web.Response:
        return _json(
            {
                "controls": [control.as_dict() for control in self._controls.table.values()],
                "actions": self._actions,
                "presets": self._controls.presets,
                **self._state(),
            }
        )

    async def _get_status(self, _request: web.BaseRequest) -> web.Response:
        return _json({**self._status().as_dict(), "tag": self._state()["tag"]})

    def _state(self) -> dict[str, Any]:
        """What can change, and a `tag` that says whether it did."""
        found = {"values": self._controls.values(), "preset": self._controls.preset}
        return {**found, "tag": zlib.crc32(json.dumps(found).encode())}

    async def _set(self, request: web.BaseRequest) -> web.Response:
        self._controls.set_all(await _body(request))
        return _json(self._state())

    async def _preset(self, request: web.BaseRequest) -> web.Response:
        name = (await _body(request)).get("name")
        if not isinstance(name, str) or name not in self._controls.presets:
            raise OptionError(
                "preset", "no such preset", near(str(name)[:100], self._controls.presets, "presets")
            )
        self._controls.take_preset(name)
        return _json(self._state())

    async def _act(self, request: web.BaseRequest) -> web.Response:
        body = await _body(request)
        name, value = body.get("name"), body.get("value")
        if not isinstance(name, str) or len(name) > 100:
            raise OptionError("name", "say which action")
        if value is not None and not isinstance(value, bool):
            raise OptionError(name, "its value is true or false, or none")
        self._controls.act(name, value)
        return _json(self._state())


async def _body(request: web.BaseRequest) -> dict[str, Any]:
    try:
        async with asyncio.timeout(PATIENCE):
            data = b""
            while len(data) <= BODY and (piece := await request.content.read(BODY)):
                data += piece
    except TimeoutError:
        raise Refused(408, "the body did not arrive") from None
    except (web.RequestPayloadError, ConnectionError):
        raise Refused(400, "the body did not arrive") from None
    if len(data) > BODY:
        raise Refused(413, f"a body has at most {BODY} bytes")
    try:
        found = json.loads(data, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError):
        raise Refused(400, "the body is not JSON with finite numbers") from None
    if not isinstance(found, dict):
        raise Refused(400, "the body is not a JSON object")
    return found


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(text)
    return value


def _json(found: dict[str, Any], status: int = 200) -> web.Response:
    try:
        text = json.dumps(found, allow_nan=False)
    except ValueError:
        text = json.dumps(_without_nan(found))
    return web.Response(text=text, status=status, content_type="application/json")


def _without_nan(found: Any) -> Any:
    """Browsers read no NaN: what is not a number becomes null."""
    if isinstance(found, dict):
        return {key: _without_nan(value) for key, value in found.items()}
    if isinstance(found, list | tuple):
        return [_without_nan(value) for value in found]
    return None if isinstance(found, float) and not math.isfinite(found) else found


def _html(text: str, status: int) -> web.Response:
    return web.Response(text=text, status=status, content_type="text/html")


def _file(text: str, kind: str) -> Handler:
    async def answer(_request: web.BaseRequest) -> web.Response:
        return web.Response(text=text, content_type=kind)

    return answer
