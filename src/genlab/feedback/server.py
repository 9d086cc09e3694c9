"""The page on which people judge, served to this machine alone.

Every address begins with a token that only whoever started the page knows. What models wrote is sent as JSON, which the
page's script sets as text; the policy (CSP) lets nothing run or load but the page's own files. A judgment is answered
when it is on disk.
"""

import hmac
import json
import re
import secrets
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from genlab.errors import ResourceError, StorageError
from genlab.feedback.session import LONGEST_REMARK, RATINGS, TYPES, Session
from genlab.feedback.statistics import lines, self_agreement

ADDRESS = "127.0.0.1"
LARGEST = 32 << 10  # bytes of a request's body: a remark, escaped
_PATIENCE = 30.0  # seconds, for a slow client
_FILES = {
    "": ("page.html", "text/html; charset=utf-8"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
    "page.js": ("page.js", "text/javascript; charset=utf-8"),
}
_PATHS = {"image": "picture", "video": "video"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Refused(Exception):
    """A request is refused: the status, and why."""

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status = status


class Page(ThreadingHTTPServer):
    """``port`` 0: any free one. Raises ResourceError: the port is taken."""

    daemon_threads = True

    def __init__(self, session: Session, port: int = 0):
        self.session, self.turn = session, threading.Lock()
        self.token = secrets.token_urlsafe(24)
        try:
            super().__init__((ADDRESS, port), _Request)
        except (OSError, OverflowError) as error:
            cause = getattr(error, "strerror", None) or str(error)
            raise ResourceError(
                f"port={port} cannot be used ({cause.lower()}). Use port=0, which takes any free one."
            ) from error

    @property
    def hosts(self) -> tuple[str, str]:
        return f"{ADDRESS}:{self.server_port}", f"localhost:{self.server_port}"

    @property
    def url(self) -> str:
        return f"http://{self.hosts[0]}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is no error of ours."""

    def state(self) -> dict[str, Any]:
        """What the page shows next; whose it is, it never learns."""
        session = self.session
        agreed = self_agreement(session)
        told: dict[str, Any] = {
            "done": len(session.judgments),
            "of": len(session.showings),
            "agreed": [agreed.part, agreed.count],
            "rate": session.rate,
        }
        if (showing := session.next) is None:
            return told | {"showing": None, "report": lines(session)}
        item, number = session.items[showing.item], len(session.judgments)
        where = _PATHS.get(session.kind)
        sides = [
            {where: f"{where}/{number}/{place}"} if where else {"text": item.outputs[side].text}
            for place, side in enumerate(showing.sides)
        ]
        return told | {"showing": number, "prompt": item.prompt, "sides": sides}


def part_of(content: bytes, asked: str | None) -> tuple[int, bytes, dict[str, str]]:
    """Status, bytes and headers for the header ``Range``, which players of videos send. Other ranges than one of bytes
    are not heeded (RFC 9110, 14.2)."""
    found = re.fullmatch(r"bytes=(\d{0,12})-(\d{0,12})", asked or "", re.ASCII)
    if not found or not (found[1] or found[2]):
        return 200, content, {"Accept-Ranges": "bytes"}
    size = len(content)
    start = int(found[1]) if found[1] else max(0, size - int(found[2]))
    end = min(size, int(found[2]) + 1) if found[1] and found[2] else size
    if start >= end:
        return 416, b"", {"Content-Range": f"bytes */{size}"}
    return 206, content[start:end], {"Content-Range": f"bytes {start}-{end - 1}/{size}", "Accept-Ranges": "bytes"}


class _Request(BaseHTTPRequestHandler):
    server: Page
    server_version, sys_version = "genlab", ""
    timeout = _PATIENCE

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def _answer(self, act: Callable[[str], tuple[int, str, bytes]]) -> None:
        try:
            status, kind, content = act(self._checked())
        except Refused as error:
            status, kind, content = error.status, "text/plain; charset=utf-8", str(error).encode()
        more: dict[str, str] = {}
        if status == 200 and kind.startswith("video/"):
            status, content, more = part_of(content, self.headers.get("Range"))
        self._send(status, kind, content, more)

    def _checked(self) -> str:
        """The address below the token. A name that leads here, which is not this machine's, is another site's; so is
        another origin."""
        if self.headers.get_all("Host") not in [[host] for host in self.server.hosts]:
            raise Refused(403, "another host")
        origin = self.headers.get("Origin")
        own = [f"http://{host}" for host in self.server.hosts]
        if origin not in own and (origin is not None or self.command == "POST"):
            raise Refused(403, "another origin")
        before, token, *path = [*self.path.split("/", 2), "", ""][:3]
        if before or not hmac.compare_digest(token.encode(), self.server.token.encode()) or self.path.count("/") < 2:
            raise Refused(404, "no such page")
        return path[0]

    def _get(self, path: str) -> tuple[int, str, bytes]:
        if path in _FILES:
            name, kind = _FILES[path]
            return 200, kind, files("genlab.feedback.page").joinpath(name).read_bytes()
        if path == "state":
            return self._state()
        session, (first, *rest) = self.server.session, path.split("/")
        if first == _PATHS.get(session.kind) and len(rest) == 2 and all(r.isascii() for r in rest):
            number, place = (int(r) if r.isdigit() and len(r) < 10 else -1 for r in rest)
            showing = session.next
            if showing is not None and number == len(session.judgments) and 0 <= place < len(showing.sides):
                output = session.items[showing.item].outputs[showing.sides[place]]
                try:
                    return 200, TYPES[output.suffix], session.file(output)
                except OSError as error:
                    raise Refused(404, f"the {first} cannot be read") from error
        raise Refused(404, "no such page")

    def _post(self, path: str) -> tuple[int, str, bytes]:
        if path not in ("judge", "undo"):
            raise Refused(404, "no such page")
        answer = self._body()
        number = answer.pop("showing", None)
        if type(number) is not int or number < 0:
            raise Refused(400, "showing is not a number")
        try:
            with self.server.turn:
                if path == "undo":
                    self.server.session.take_back(number)
                else:
                    self.server.session.judge(number, answer)
        except ValueError as error:
            raise Refused(400, str(error)) from error
        except StorageError as error:
            raise Refused(507, f"not saved: {error}") from error
        return self._state()

    def _body(self) -> dict[str, Any]:
        if self.headers.get_content_type() != "application/json" or "Transfer-Encoding" in self.headers:
            raise Refused(415, "not JSON")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit() and len(length) < 10):
            raise Refused(411, "no length")
        if int(length) > LARGEST:
            raise Refused(413, f"too large: a remark has at most {LONGEST_REMARK:,} characters")
        try:
            answer = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError) as error:
            raise Refused(400, "not JSON") from error
        if not isinstance(answer, dict):
            raise Refused(400, "not an object")
        return answer

    def _state(self) -> tuple[int, str, bytes]:
        with self.server.turn:
            told = self.server.state()
        return 200, "application/json", json.dumps(told | {"ratings": [*RATINGS], "longest": LONGEST_REMARK}).encode()

    def _send(self, status: int, kind: str, content: bytes, more: Mapping[str, str] = MappingProxyType({})) -> None:
        self.send_response(status)
        for name, value in {**_HEADERS, "Content-Type": kind, "Content-Length": str(len(content)), **more}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """For requests that are not understood, and methods that nothing here has."""
        if not hasattr(self, "headers"):
            self.request_version = self.request_version or "HTTP/1.0"
        self._send(405 if code == 501 else code, "text/plain; charset=utf-8", b"refused")

    def log_message(self, format: str, *args: Any) -> None:
        """The terminal shows the address, and at the end the report."""
