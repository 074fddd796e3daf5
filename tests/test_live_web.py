from __future__ import annotations

import gc
import http.client
import io
import os
import socket
import threading
import time
import weakref
from collections.abc import Generator
from contextlib import ExitStack, closing
from fractions import Fraction
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from served import Served

from streamdream.errors import SinkError
from streamdream.live.controls import ACTIONS, Controls
from streamdream.live.options import LiveOptions
from streamdream.live.outputs import Shown
from streamdream.live.status import Status
from streamdream.live.web import pages as web_pages
from streamdream.live.web.pages import VIEWERS
from streamdream.live.web.server import CONNECTIONS, TOLD, Web

TOKEN = "correct-horse"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def shared() -> Generator[Served]:
    with Served() as page:
        yield page


@pytest.fixture
def page() -> Generator[Served]:
    with Served() as page:
        yield page


@pytest.fixture
def locked() -> Generator[Served]:
    with Served(TOKEN) as page:
        yield page


class Viewer:
    """Reads the stream part by part."""

    def __init__(self, page: Served, headers: dict[str, str] | None = None) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=5)
        self.connection.request("GET", "/stream.mjpg", headers=headers or {})
        self.answer = self.connection.getresponse()
        self.status = self.answer.status

    def picture(self) -> bytes:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = self.answer.read(1)
            if not byte:
                raise EOFError
            head += byte
        length = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
        data = b""
        while len(data) < length:
            data += self.answer.read(length - len(data)) or b""
        return data

    def close(self) -> None:
        self.answer.close()
        self.connection.close()


def until(true: object, seconds: float = 5) -> bool:
    assert callable(true)
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def test_the_page_and_its_files_come_with_headers_that_keep_others_out(shared: Served) -> None:
    kinds = {
        "/": "text/html",
        "/app.js": "text/javascript",
        "/rows.js": "text/javascript",
        "/picture.js": "text/javascript",
        "/status.js": "text/javascript",
        "/style.css": "text/css",
        "/icon.svg": "image/svg+xml",
        "/api/status": "application/json",
        "/api/none": "application/json",
    }
    for path, kind in kinds.items():
        answer = shared.ask(path)
        assert answer.status == (404 if path == "/api/none" else 200)
        assert answer.headers["Content-Type"].partition(";")[0] == kind
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cache-Control"] == "no-store"
        assert not [name for name in answer.headers if name.startswith("Access-Control")]


def test_pages_load_nothing_from_elsewhere_and_hold_no_inline_script_or_style() -> None:
    folder = Path(web_pages.__file__).parent / "page"
    for path in folder.iterdir():
        text = path.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text
        assert "https:" not in text
        if path.suffix == ".html":
            assert " style=" not in text
            assert "<style" not in text
            assert "onclick" not in text
            assert text.count("<script") == text.count('<script type="module" src="/app.js">')


def test_controls_tell_all_that_can_be_changed_and_done(shared: Served) -> None:
    found = shared.ask("/api/controls").json
    assert [control["name"] for control in found["controls"]] == list(shared.controls.table)
    assert found["values"] == shared.controls.values()
    assert [action["name"] for action in found["actions"]] == list(ACTIONS)
    assert tuple(found["presets"]) == shared.controls.presets


def test_status_is_json_even_with_numbers_that_are_none(shared: Served) -> None:
    found = shared.ask("/api/status").json
    assert found["camera"] == "a test camera"
    assert found["latency"] == [41.0, None]
    assert found["outputs"][0]["trouble"] == "connection refused"


def test_the_tag_changes_with_values_and_only_then(page: Served) -> None:
    tags = [page.ask("/api/status").json["tag"] for _ in range(2)]
    page.controls.set("strength", 0.3)
    assert tags[0] == tags[1] != page.ask("/api/status").json["tag"]


def test_values_are_set(page: Served) -> None:
    answer = page.ask("/api/set", {"strength": 0.25, "mirror": True, "octaves": 3})
    assert answer.status == 200
    values = page.controls.values()
    assert (values["strength"], values["mirror"], values["octaves"]) == (0.25, True, 3)
    assert answer.json["values"] == values


def test_a_model_and_its_layers_can_be_set_together_in_any_order(page: Served) -> None:
    assert page.ask("/api/set", {"layers": "relu4_1", "model": "vgg19"}).status == 200
    values = page.controls.values()
    assert (values["model"], values["layers"]) == ("vgg19", "relu4_1")


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"strength": 0.5, "wings": 2}, "wings"),
        ({"strength": 0.5, "octaves": 99}, "octaves"),
        ({"strength": 0.5, "octaves": "many"}, "octaves"),
        ({"strength": 0.5, "memory": None}, "memory"),
        ({"strength": 0.5, "step-size": [1]}, "step-size"),
        ({"strength": 0.5, "step-size": {"a": 1}}, "step-size"),
        ({"strength": 0.5, "layers": "nowhere"}, "nowhere"),
        ({"strength": 0.5, "flow": "x" * 2000}, "flow"),
        ({"strength": 0.5, "seed": 10**400}, "seed"),
        ({"strength": 0.5, "memory": 10**400}, "memory"),
        ({"strength": 0.5, "token": "12345678"}, "token"),
        ({"strength": 0.5, "record": "/etc/passwd"}, "record"),
        ({"strength": 0.5, "": 1}, ""),
    ],
)
def test_one_bad_value_changes_nothing(page: Served, body: dict[str, object], named: str) -> None:
    before = page.controls.values()
    answer = page.ask("/api/set", body)
    assert answer.status == 400
    assert named in answer.json["error"]
    assert "\n" not in answer.json["error"]
    assert page.controls.values() == before
    assert page.told == []


@pytest.mark.parametrize(
    "body",
    [
        b'{"strength": NaN}',
        b'{"strength": Infinity}',
        b'{"strength": -Infinity}',
        b'{"strength": 1e999}',
        b'{"strength": ' + b"9" * 5000 + b"}",
        b'{"strength": 1',
        b'{"a": ' + b"[" * 9000 + b"]" * 9000 + b"}",
        b"[1, 2]",
        b"null",
        b"\xff\xfe",
        b"",
    ],
)
def test_what_is_not_an_object_of_finite_numbers_is_refused(shared: Served, body: bytes) -> None:
    before = shared.controls.values()
    for path in ("/api/set", "/api/act", "/api/preset"):
        answer = shared.ask(path, body)
        assert answer.status in (400, 413)
        assert answer.json["error"]
    assert shared.controls.values() == before
    assert shared.told == []


def test_presets_are_taken_by_name_and_never_from_a_path(page: Served, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("strength = 0.1\n")
    before = page.controls.values()
    for name in (str(file), "../presets/eyes", "eyes.toml", "", None, ["eyes"], 1, "x" * 9000):
        answer = page.ask("/api/preset", {"name": name})
        assert answer.status == 400
        assert len(answer.json["error"]) < 300
    assert page.controls.values() == before
    assert page.ask("/api/preset", {"name": "whisper"}).json["preset"] == "whisper"
    assert page.controls.preset == "whisper"


def test_actions_are_asked_for(page: Served) -> None:
    assert page.ask("/api/act", {"name": "record", "value": True}).status == 200
    assert page.ask("/api/act", {"name": "snapshot"}).status == 200
    assert page.ask("/api/status").json["states"] == ["record", "snapshot"]
    assert page.acts == [("record", True), ("snapshot", None)]
    for body in ({"name": "explode"}, {}, {"name": ["quit"]}, {"name": "record", "value": "on"}):
        assert page.ask("/api/act", body).status == 400
    assert page.controls.actions() == []


@pytest.mark.parametrize(
    "path",
    [
        "/../web.py",
        "/page/index.html",
        "/%2e%2e/web.py",
        "/..%2f..%2fpyproject.toml",
        "//etc/passwd",
        "/style.css/../../web.py",
        "/style.css%00.html",
        "/\\..\\web.py",
        "/index.html",
        "/token.html",
    ],
)
def test_no_path_leads_to_other_files(shared: Served, path: str) -> None:
    assert shared.ask(path).status in (400, 404)


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:8000"},
        {"Host": "localhost.evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "192.0.2.7"},
        {"Host": "127.0.0.1@evil.example"},
        {"Host": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://[::"},
    ],
)
def test_what_other_sites_ask_for_is_refused(shared: Served, headers: dict[str, str]) -> None:
    before = shared.controls.values()
    assert shared.ask("/api/set", {"strength": 1.7}, headers).status == 403
    assert shared.ask("/snapshot.jpg", headers=headers).status == 403
    assert shared.controls.values() == before


def test_a_request_without_or_with_two_hosts_is_refused(shared: Served) -> None:
    for hosts in (b"", b"Host: localhost\r\nHost: evil.example\r\n"):
        with socket.create_connection(("127.0.0.1", shared.port), timeout=5) as line:
            line.sendall(b"GET /api/status HTTP/1.1\r\n" + hosts + b"Connection: close\r\n\r\n")
            assert line.makefile("rb").readline().split()[1] in (b"400", b"403")


def test_loopback_names_and_the_own_origin_come_in(shared: Served) -> None:
    for host in ("localhost", f"localhost:{shared.port}", "127.0.0.1", f"[::1]:{shared.port}"):
        headers = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
        assert shared.ask("/api/set", {}, headers).status == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_only_json_is_taken(shared: Served, kind: str) -> None:
    assert shared.ask("/api/set", {"strength": 1}, {"Content-Type": kind}).status == 415


def test_what_is_too_large_is_refused(shared: Served) -> None:
    body = b'{"layers": "' + b"x" * 20000 + b'"}'
    assert shared.ask("/api/set", body).status == 413
    with closing(http.client.HTTPConnection("127.0.0.1", shared.port, timeout=5)) as connection:
        headers = {"Content-Type": "application/json"}
        pieces = (b"x" * 1000 for _ in range(40))
        connection.request("POST", "/api/set", pieces, headers, encode_chunked=True)
        assert connection.getresponse().status == 413
    long = {"Cookie": "a=" + "x" * 100_000}
    assert shared.ask("/api/status", headers=long).status in (400, 431)
    assert shared.ask("/api/status").status == 200


def test_other_methods_are_refused(shared: Served) -> None:
    for method in ("PUT", "DELETE", "OPTIONS", "PATCH"):
        assert shared.ask("/api/set", {}, method=method).status in (403, 405)
    assert shared.ask("/api/set").status == 405


def test_without_the_token_nothing_is_shown_or_done(locked: Served) -> None:
    before = locked.controls.values()
    for path in ("/", "/app.js", "/stream.mjpg", "/snapshot.jpg", "/api/status", "/api/none"):
        answer = locked.ask(path)
        assert answer.status == 401
        assert TOKEN not in answer.body.decode()
    wrong = {"Authorization": "Bearer wrong-horse"}
    for path in ("/api/set", "/api/preset", "/api/act"):
        assert locked.ask(path, {"strength": 1.5, "name": "eyes"}).status == 401
    assert locked.ask("/api/set?token=" + TOKEN, {"strength": 1.5}).status == 401
    assert locked.ask("/api/set", {"strength": 1.5}, wrong).status == 401
    assert locked.controls.values() == before


def test_the_token_in_the_url_becomes_a_cookie_that_opens(locked: Served) -> None:
    assert locked.web.address.endswith(f"/?token={TOKEN}")
    answer = locked.ask(f"/?token={TOKEN}")
    assert answer.status == 303
    assert answer.headers["Location"] == "/"
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert TOKEN not in cookie
    given = {"Cookie": cookie.partition(";")[0]}
    assert locked.ask("/", headers=given).status == 200
    assert locked.ask("/api/set", {"strength": 0.2}, given).status == 200
    assert locked.controls.values()["strength"] == 0.2
    assert locked.ask("/", headers={"Cookie": given["Cookie"] + "0"}).status == 401


def test_the_token_leads_to_no_other_site(locked: Served) -> None:
    assert locked.ask(f"//evil.example/?token={TOKEN}").headers.get("Location") in (None, "/")


def test_the_token_opens_as_bearer(locked: Served) -> None:
    assert locked.ask("/api/status", headers=BEARER).status == 200
    assert locked.ask("/api/set", {"strength": 0.2}, BEARER).status == 200
    other = {"Authorization": f"Basic {TOKEN}"}
    assert locked.ask("/api/status", headers=other).status == 401


def test_whoever_guesses_has_to_wait_even_with_the_right_token(locked: Served) -> None:
    found = [locked.ask(f"/api/status?token=guess-{i}").status for i in range(6)]
    assert found[0] == 401
    assert found[-1] == 429
    answer = locked.ask(f"/?token={TOKEN}")
    assert answer.status == 429
    assert int(answer.headers["Retry-After"]) >= 1
    assert until(lambda: locked.ask(f"/?token={TOKEN}").status == 303)
    assert locked.ask("/api/status?token=guess").status == 401  # counted from the start again


def test_guesses_in_urls_keep_nobody_out_who_has_a_cookie_or_sends_the_token(
    locked: Served,
) -> None:
    cookie = locked.ask(f"/?token={TOKEN}").headers["Set-Cookie"].partition(";")[0]
    while locked.ask("/snapshot.jpg?token=guess").status != 429:
        pass
    for headers in (BEARER, {"Cookie": cookie}):
        for path in ("/api/status", "/api/status?token=guess"):
            assert locked.ask(path, headers=headers).status == 200
    assert locked.ask("/snapshot.jpg?token=guess").status == 429


def test_guesses_in_headers_wait_as_well_and_leave_cookies_alone(locked: Served) -> None:
    cookie = locked.ask(f"/?token={TOKEN}").headers["Set-Cookie"].partition(";")[0]
    wrong = {"Authorization": "Bearer guess"}
    found = [locked.ask("/api/status", headers=wrong).status for _ in range(5)]
    assert found[-1] == 429
    assert locked.ask("/api/status", headers={"Cookie": cookie}).status == 200
    assert locked.ask("/api/status", headers=wrong | {"Cookie": cookie}).status == 200


def test_browsers_are_asked_for_the_token(locked: Served) -> None:
    answer = locked.ask("/", headers={"Accept": "text/html"})
    assert answer.status == 401
    assert b'name="token"' in answer.body
    assert locked.ask("/style.css").status == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_beyond_the_loopback_there_always_is_a_token(host: str) -> None:
    try:
        page = Served(host=host)
    except SinkError:
        pytest.skip(f"{host} cannot be listened on here")
    with page:
        token = page.web.address.partition("?token=")[2]
        assert len(token) >= 12
        assert page.ask("/api/status").status == 401
        given = {"Authorization": f"Bearer {token}"}
        assert page.ask("/api/status", headers=given).status == 200
        for name in ("evil.example", "192.0.2.7"):
            assert page.ask("/api/status", headers=given | {"Host": name}).status == 403


def test_the_stream_shows_pictures_that_differ_to_several_viewers(page: Served) -> None:
    with ExitStack() as stack:
        viewers = [stack.enter_context(closing(Viewer(page))) for _ in range(3)]
        assert page.web.watching
        for viewer in viewers:
            seen = {viewer.picture() for _ in range(5)}
            assert len(seen) >= 4
            for data in seen:
                with Image.open(io.BytesIO(data)) as image:
                    assert image.size == (160, 90)
                    assert np.asarray(image).std() > 10
    assert until(lambda: not page.web.watching)


def test_a_picture_that_stands_still_is_sent_again() -> None:
    with Served(pictures=False) as page, closing(Viewer(page)) as viewer:
        pixels = np.full((90, 160, 3), (200, 40, 90), np.uint8)
        page.web.offer(Shown(pixels, Fraction(0), 0))
        first = viewer.picture()
        assert viewer.picture() == first
        with Image.open(io.BytesIO(first)) as image:
            assert np.abs(np.asarray(image).astype(int) - pixels).max() <= 4


def test_nothing_is_encoded_for_nobody(page: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    from streamdream.live.web import pictures as web_pictures

    made: list[int] = []
    real = web_pictures.encoded

    def counted(picture: Shown) -> bytes:
        made.append(picture.index)
        return real(picture)

    monkeypatch.setattr(web_pictures, "encoded", counted)
    time.sleep(0.3)
    assert made == []
    with ExitStack() as stack:
        viewers = [stack.enter_context(closing(Viewer(page))) for _ in range(4)]
        for _ in range(5):
            for viewer in viewers:
                viewer.picture()
    assert made
    assert len(made) == len(set(made))


def test_more_than_eight_viewers_are_turned_away_and_may_come_later(page: Served) -> None:
    with ExitStack() as stack:
        for _ in range(VIEWERS):
            assert stack.enter_context(closing(Viewer(page))).status == 200
        answer = page.ask("/stream.mjpg")
        assert answer.status == 503
        assert str(VIEWERS) in answer.json["error"]
        assert page.ask("/api/status").status == 200
    assert until(lambda: not page.web.watching)
    with closing(Viewer(page)) as viewer:
        assert viewer.picture()


@pytest.mark.alone
def test_a_slow_viewer_slows_nobody_and_skips_to_the_newest() -> None:
    with Served(size=(720, 1280)) as page, closing(socket.socket()) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", page.port))
        slow.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert slow.recv(1)
        with closing(Viewer(page)) as viewer:
            viewer.picture()
            began = time.monotonic()
            seen = {viewer.picture() for _ in range(10)}
            took = time.monotonic() - began
        assert len(seen) >= 9
        assert took < 4


@pytest.mark.alone
def test_a_viewer_that_never_reads_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_pages, "PATIENCE", 0.5)
    with Served(size=(720, 1280)) as page, closing(socket.socket()) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", page.port))
        slow.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert until(lambda: page.web.watching)
        assert until(lambda: not page.web.watching)
        assert page.told == []


def test_a_snapshot_is_the_present_picture() -> None:
    with Served(pictures=False) as page:
        assert page.ask("/snapshot.jpg").status == 503
        for level in (60, 180):
            pixels = np.full((90, 160, 3), level, np.uint8)
            page.web.offer(Shown(pixels, Fraction(level), level))
            answer = page.ask("/snapshot.jpg")
            assert answer.headers["Content-Type"] == "image/jpeg"
            with Image.open(io.BytesIO(answer.body)) as image:
                assert abs(np.asarray(image).mean() - level) < 2
        assert not page.web.watching


def test_a_picture_that_cannot_be_encoded_is_told_once_and_the_next_is_shown() -> None:
    with Served(pictures=False) as page, closing(Viewer(page)) as viewer:
        for index in range(3):
            page.web.offer(Shown(np.zeros((0, 0, 3), np.uint8), Fraction(index), index))
            time.sleep(0.1)
        page.web.offer(Shown(np.zeros((90, 160, 3), np.uint8), Fraction(4), 4))
        assert viewer.picture()
        assert len(page.told) == 1
        assert "\n" not in page.told[0]


def test_a_port_in_use_is_told_in_one_line(shared: Served) -> None:
    with pytest.raises(SinkError) as caught:
        Web(Controls(LiveOptions()), Status, "127.0.0.1", shared.port, None, print)
    assert str(shared.port) in str(caught.value)
    assert "in use" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("host", ["no such host", "192.0.2.7", "a" * 300, "\ud800", "1.2.3.4.5"])
def test_a_bad_host_is_told_in_one_line(host: str) -> None:
    with pytest.raises(SinkError) as caught:
        Web(Controls(LiveOptions()), Status, host, 0, None, print)
    assert "\n" not in str(caught.value)


def test_a_fault_in_a_handler_is_told_once_and_the_server_goes_on() -> None:
    def broken() -> Status:
        raise RuntimeError("no status today")

    with Served(status=broken) as page:
        for _ in range(3):
            answer = page.ask("/api/status")
            assert answer.status == 500
            assert b"today" not in answer.body
        assert page.ask("/api/controls").status == 200
        assert [line for line in page.told if "no status today" in line] == page.told
        assert len(page.told) == 1


def test_a_fault_that_always_differs_is_not_told_for_ever() -> None:
    calls = count()

    def broken() -> Status:
        raise RuntimeError(f"fault {next(calls)}")

    with Served(status=broken, pictures=False) as page:
        for _ in range(TOLD + 20):
            assert page.ask("/api/status").status == 500
        assert len(page.told) == TOLD + 1
        assert "no other" in page.told[-1]


def test_the_place_is_the_address_without_the_token(locked: Served, shared: Served) -> None:
    assert locked.web.address == f"{locked.web.place}?token={TOKEN}"
    assert TOKEN not in locked.web.place
    assert shared.web.place == shared.web.address


def test_hidden_actions_are_left_out() -> None:
    with Served(hidden={"learn"}, pictures=False) as page:
        names = [action["name"] for action in page.ask("/api/controls").json["actions"]]
        assert names == [name for name in ACTIONS if name != "learn"]


def test_garbage_ends_a_connection_and_not_the_server(page: Served) -> None:
    random = np.random.default_rng(0)
    pieces = [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /?token=%zz%ff HTTP/1.1\r\nHost: localhost\r\nCookie: \xff=;;=\r\n\r\n",
        b"POST /api/set HTTP/1.1\r\nHost: localhost\r\nContent-Type: ;;;=\r\n\r\n",
        b"POST /api/set HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /api/set HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 100\r\n\r\n{",
        b"POST /api/set HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
        b"GET " + b"x" * 100_000,
        *(random.bytes(200) for _ in range(20)),
    ]
    for piece in pieces:
        with socket.create_connection(("127.0.0.1", page.port), timeout=5) as line:
            line.sendall(piece)
            line.shutdown(socket.SHUT_WR)
            try:
                while line.recv(65536):
                    pass
            except ConnectionError:
                pass
    assert page.ask("/api/status").status == 200
    assert page.told == []


@pytest.mark.alone
def test_connections_are_bounded_and_idle_ones_end(monkeypatch: pytest.MonkeyPatch) -> None:
    from streamdream.live.web import server as web

    monkeypatch.setattr(web, "IDLE", 1.0)
    with Served() as page, ExitStack() as stack:
        idle = []
        for _ in range(CONNECTIONS):
            line = socket.create_connection(("127.0.0.1", page.port), timeout=5)
            idle.append(stack.enter_context(line))
            line.sendall(b"GET / HTTP/1.1\r\nHost: ")  # and never more
        time.sleep(0.2)
        assert page.ask("/api/status").status == 503
        assert all(line.recv(100) == b"" for line in idle)
        assert page.ask("/api/status").status == 200


@pytest.mark.alone
def test_closing_ends_soon_with_viewers_and_half_requests_connected() -> None:
    before = set(threading.enumerate())
    page = Served(size=(720, 1280))
    with ExitStack() as stack:
        viewers = [stack.enter_context(closing(Viewer(page))) for _ in range(3)]
        for start in (b"", b"GET / HT", b"POST /api/set HTTP/1.1\r\nHost: localhost\r\n"):
            line = stack.enter_context(socket.create_connection(("127.0.0.1", page.port)))
            line.sendall(start)
        stuck = stack.enter_context(socket.create_connection(("127.0.0.1", page.port)))
        stuck.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
        posting = stack.enter_context(socket.create_connection(("127.0.0.1", page.port)))
        posting.sendall(
            b"POST /api/set HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 9\r\n\r\n{"
        )
        viewers[0].picture()
        began = time.monotonic()
        page.close()
        assert time.monotonic() - began < 3
        assert set(threading.enumerate()) <= before
        page.web.close()
        page.web.offer(Shown(np.zeros((9, 16, 3), np.uint8), Fraction(9), 9))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", page.port), timeout=1)
    assert page.told == []


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
def test_coming_and_going_leaves_nothing_behind(page: Served) -> None:
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    def asked_once() -> weakref.ref[Web]:
        with Served(pictures=False) as other:
            other.ask("/api/status")
            return weakref.ref(other.web)

    with closing(Viewer(page)) as viewer:
        viewer.picture()
    assert until(lambda: not page.web.watching)
    webs: list[weakref.ref[Web]] = []
    files, threads = open_files(), threading.active_count()
    for turn in range(200):
        if turn % 2:
            with closing(Viewer(page)) as viewer:
                viewer.picture()
        else:
            page.ask("/api/status")
        if turn % 10 == 0:
            webs.append(asked_once())
    gc.collect()
    assert [web for web in webs if web() is not None] == []
    assert until(lambda: open_files() <= files + 1)
    assert threading.active_count() <= threads
    assert page.told == []
