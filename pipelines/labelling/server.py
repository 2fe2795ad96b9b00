"""The page of a sheet on this machine's loopback, which keeps every answer on the disk before it says so.

GET /?token=... opens the page and leaves the token in a cookie of this port, which every other request has to bring.
GET /answers/RATER gives what the rater has said, and the questions that others have settled; POST there takes
{"judgements": [...], "undone": [ids]}. A request for another host's name is refused, whoever has led a browser to it.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Callable
from dataclasses import replace
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from trimtab.pipelines.labelling import judgements, page
from trimtab.pipelines.labelling.folder import Folder
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.rewards import _foreign_json

HOST, LARGEST = "127.0.0.1", 1 << 24  # bytes of a request
NAMES = (HOST, "localhost")


class Refused(Exception):
    """A request that is not right, with the status that says how."""

    def __init__(self, status: HTTPStatus, message: str):
        self.status = status
        super().__init__(message)


class Server(ThreadingHTTPServer):
    """Serves one folder. `saved` is called with a rater and the number of their answers, after each is kept."""

    daemon_threads = True

    def __init__(self, folder: Folder, port: int = 0, saved: Callable[[str, int], None] = lambda rater, count: None):
        self.folder, self.saved = folder, saved
        self.token = secrets.token_urlsafe(16)
        self.page = page.render(folder.sheet).encode()
        super().__init__((HOST, port), Handler)
        self.cookie = f"trimtab-{self.server_port}"

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        return f"http://{HOST}:{self.server_port}/?token={self.token}"


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        self._answered(self._get)

    def do_POST(self) -> None:
        self._answered(self._post)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: the address of a request has the token."""

    def _get(self) -> None:
        there = urlsplit(self.path)
        if there.path == "/" and (sent := parse_qs(there.query).get("token")):
            self._require(sent[0])
            cookie = f"{self.server.cookie}={self.server.token}; HttpOnly; SameSite=Strict; Path=/"
            self._send(HTTPStatus.SEE_OTHER, b"", {"Location": "/", "Set-Cookie": cookie})
            return
        self._require(self._cookie())
        if there.path == "/":
            self._send(HTTPStatus.OK, self.server.page, {"Content-Type": "text/html; charset=utf-8"})
            return
        rater, folder = self._rater(there.path), self.server.folder
        open_to_them = set(folder.open(rater))
        settled = [question.id for question in folder.sheet.questions if question.id not in open_to_them]
        self._send_json({"judgements": [one.values() for one in folder.of_rater(rater)], "settled": settled})

    def _post(self) -> None:
        self._require(self._cookie())
        rater, folder = self._rater(urlsplit(self.path).path), self.server.folder
        if self.headers.get_content_type() != "application/json":
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send JSON")
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > LARGEST:
            self.close_connection = True
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"send at most {LARGEST} bytes, and say how many")
        try:
            body = _foreign_json.read(self.rfile.read(int(length)))
            questions = folder.questions
            given = [judgements.read(one, questions, folder.sheet.ranked) for one in body["judgements"]]
            undone = [str(question) for question in body.get("undone", ())]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from None
        count = folder.save(rater, [replace(one, rater=rater) for one in given], undone)
        self.server.saved(rater, count)
        self._send_json({"judgements": count})

    def _answered(self, method: Callable[[], None]) -> None:
        """Answers a request, whatever becomes of it; what is wrong is told in JSON."""
        try:
            host = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
            if host not in NAMES:
                raise Refused(HTTPStatus.FORBIDDEN, f"this is no server of {host!r}")
            method()
        except Refused as refused:
            self._send_json({"error": str(refused)}, refused.status)
        except (RecipeError, OSError) as error:
            if not isinstance(error, ConnectionError | TimeoutError):
                self._send_json({"error": str(error)}, HTTPStatus.INTERNAL_SERVER_ERROR)

    def _require(self, sent: str) -> None:
        if not hmac.compare_digest(sent.encode(), self.server.token.encode()):
            self.close_connection = True
            raise Refused(HTTPStatus.FORBIDDEN, "open the address that `trimtab label` prints, with its token")

    def _cookie(self) -> str:
        try:
            sent = SimpleCookie(self.headers.get("Cookie", "")).get(self.server.cookie)
        except CookieError:
            sent = None
        return sent.value if sent else ""

    def _rater(self, path: str) -> str:
        start, _, name = path.rpartition("/")
        rater = unquote(name).strip()
        if start != "/answers" or not 0 < len(rater) <= judgements.LONGEST:
            raise Refused(HTTPStatus.NOT_FOUND, f"a name has 1 to {judgements.LONGEST} characters")
        return rater

    def _send_json(self, value: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: HTTPStatus, body: bytes, headers: dict[str, str]) -> None:
        self.send_response_only(status)
        safe = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY"}
        for name, value in {**safe, **headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
