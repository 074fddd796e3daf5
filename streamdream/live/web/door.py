"""Who may come in to the page: what a request says of itself, before anything is done for it.

A page of somebody else's, open in a browser on this machine, reaches a loopback address as
well as we do. So a name that is not ours is refused (it may have been made to point here), as
is whatever another site's page asks for, token or no token.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from aiohttp.web import BaseRequest

BODY = 16 * 1024  # bytes of a request
PUBLIC = ("/style.css", "/icon.svg")  # what the page that asks for a token needs
FREE = 3  # wrong tokens from one address, said in one way, before that has to wait
LONGEST_WAIT = 30.0  # seconds
FORGOTTEN = 600.0  # seconds after which wrong tokens count no more
ADDRESSES = 1024  # addresses remembered, with the way

_HOST = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([^\s:/?#@\[\]]+))(?::\d{1,5})?")

IP = ipaddress.IPv4Address | ipaddress.IPv6Address


class Refused(Exception):
    """A request is refused, with this HTTP status, told in one line."""

    def __init__(self, status: int, reason: str, wait: float = 0.0) -> None:
        """`wait` says after how many seconds another try makes sense."""
        super().__init__(reason)
        self.status, self.reason, self.wait = status, reason, wait


def ip_of(text: str) -> IP | None:
    """The address that a text is, None if it is a name."""
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


class Door:
    """Lets requests in or raises Refused; for one thread."""

    def __init__(self, host: str, bound: str, port: int, token: str | None) -> None:
        """`host` as it was asked for, `bound` the address that came of it."""
        address = ip_of(bound)
        self._names = {"localhost", host.lower()}
        self._addresses = {address} if address is not None else set()
        self._all = address is not None and address.is_unspecified
        self._token = None if token is None else _bytes(token)
        self.cookie = f"streamdream-{port}"  # cookies know no ports
        # how many, and when the last was, by address and by where the token was said
        self._wrong: dict[tuple[str, str], tuple[int, float]] = {}

    @property
    def pass_(self) -> str:
        """What the cookie holds: it opens this door and says nothing of the token."""
        return hmac.new(self._token or b"", b"streamdream's page", hashlib.sha256).hexdigest()

    def check(self, request: BaseRequest) -> bool:
        """Raise Refused for who may not come in; True if a token in the URL let them in."""
        self._check_host(request)
        self._check_site(request)
        entering = self._check_token(request)
        if request.method == "POST":
            if request.content_type != "application/json":
                raise Refused(415, "Content-Type must be application/json")
            if (request.content_length or 0) > BODY:
                raise Refused(413, f"a body has at most {BODY} bytes")
        return entering

    def _check_host(self, request: BaseRequest) -> None:
        given = request.headers.getall("Host", [])
        found = _HOST.fullmatch(given[0]) if len(given) == 1 else None
        name = (found[1] or found[2]).lower() if found else ""
        address = ip_of(name)
        if address is None:
            known = name in self._names
        else:
            known = address.is_loopback or address in self._addresses
            if self._all and not known and request.transport is not None:
                here = request.transport.get_extra_info("sockname")
                known = here is not None and address == ip_of(str(here[0]))
        if not known:
            raise Refused(403, "this name is not known here; use the address that was printed")

    def _check_site(self, request: BaseRequest) -> None:
        fetch = request.headers.get
        site = fetch("Sec-Fetch-Site", "same-origin").lower()
        opened = (
            request.method == "GET"
            and fetch("Sec-Fetch-Mode", "").lower() == "navigate"
            and fetch("Sec-Fetch-Dest", "").lower() == "document"
        )
        if site not in ("same-origin", "none") and not opened:
            raise Refused(403, "another site's page asked for this")
        origins = request.headers.getall("Origin", [])
        for origin in origins:
            try:
                same = urlsplit(origin).netloc.lower() == request.headers["Host"].lower()
            except ValueError:
                same = False
            if not same:
                raise Refused(403, "another site's page asked for this")

    def _check_token(self, request: BaseRequest) -> bool:
        if self._token is None or request.path in PUBLIC:
            return False
        found = self._said(request, self._token)
        if not found:
            raise Refused(401, "a token is asked for: open the address that was printed")
        who, now = _who(request), time.monotonic()
        pauses = {way: self._pause(who, way, now) for way in found}
        good = [way for way, right in found.items() if right and not pauses[way]]
        for way in good:
            self._wrong.pop((who, way), None)
        if good:
            return "url" in good
        for way in found:
            if not pauses[way]:
                self._count(who, way, now)
        if any(pauses.values()):
            raise Refused(429, "too many wrong tokens; wait a moment", max(pauses.values()))
        raise Refused(401, "this is not the token")

    def _said(self, request: BaseRequest, token: bytes) -> dict[str, bool]:
        """Whether what a request says is right, by where it says it."""
        found: dict[str, bool] = {}
        typed = request.query.get("token") if request.method == "GET" else None
        if typed is not None:
            found["url"] = hmac.compare_digest(_bytes(typed), token)
        if header := request.headers.get("Authorization", ""):
            kind, _, value = header.partition(" ")
            right = hmac.compare_digest(_bytes(value.strip()), token)
            found["header"] = right and kind.lower() == "bearer"
        if (cookie := request.cookies.get(self.cookie)) is not None:
            found["cookie"] = hmac.compare_digest(_bytes(cookie), _bytes(self.pass_))
        return found

    def _pause(self, who: str, way: str, now: float) -> float:
        """Seconds for which an address that guessed is not listened to, right or wrong.

        Each way has its own: another site's page can make a browser open a URL here, but not
        send a header or a cookie, so that it cannot keep out who has one of them.
        """
        count, last = self._wrong.get((who, way), (0, now))
        pause = min(LONGEST_WAIT, 2.0 ** min(count - FREE, 10)) if count >= FREE else 0.0
        return max(0.0, last + pause - now)

    def _count(self, who: str, way: str, now: float) -> None:
        count, last = self._wrong.pop((who, way), (0, now))  # the newest is the last
        self._wrong[who, way] = (1 if now - last > FORGOTTEN else count + 1, now)
        if len(self._wrong) > ADDRESSES:
            del self._wrong[next(iter(self._wrong))]


def _who(request: BaseRequest) -> str:
    """The address of a request; of IPv6 the network, since a machine has all of its addresses."""
    text = request.remote or ""
    address = ip_of(text)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address or text)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
