"""The server of the live page: this machine alone reaches it, it answers questions and changes nothing."""

import errno
import functools
import json
import socketserver
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from steppe.core import checks
from steppe.watch.snapshot import StudyReader

ADDRESS = "127.0.0.1"
"""The only interface that is listened on."""

PORT = 8765
"""Where the page is, unless another program is there."""

HOSTS = {"127.0.0.1", "localhost"}
"""What a browser on this machine calls it. A page elsewhere whose name was made to lead here has another name."""

PATIENCE = 90.0
"""Seconds without a question after which no page is open: browsers let hidden pages ask once a minute."""

DELIVERY = 6.0
"""Seconds that a study which has ended waits for an open page to fetch the report."""

ASSETS = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/watch.css": ("watch.css", "text/css; charset=utf-8"),
    "/watch.js": ("watch.js", "text/javascript; charset=utf-8"),
}
"""The files of the page."""

REPORTS = ("report.html", "landscape.html", "measures.html")
"""Pages of a study's folder that are shown; nothing else of it can be asked for."""

LARGEST = 200_000_000
"""Bytes of such a page."""

POLICY = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src data:; connect-src 'self'; \
frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""Of the page: everything comes from here."""

REPORT_POLICY = "sandbox allow-scripts allow-downloads allow-popups; default-src 'none'; img-src data: blob:; \
style-src 'unsafe-inline'; script-src 'unsafe-inline'; frame-ancestors 'self'"
"""Of reports: what they hold can ask nobody anything."""


class LivePage:
    """The live page of one study, served by threads of this process until it is closed.

    Parameters
    ----------
    directory : Path
        The study's folder.
    port : int, optional
        Where to listen on 127.0.0.1; 0 for any that is free. Without it that is 8765, or any if another program has it.

    Raises
    ------
    InputError
        A port that cannot be had.
    """

    def __init__(self, directory: Path, port: int | None = None):
        self.reader = StudyReader(directory)
        self.directory = directory
        self.delivered = False
        self.last_asked: float | None = None
        self._lock = threading.Lock()
        handler = functools.partial(_Handler, self)
        self._server = _listening(handler, PORT if port is None else port, or_any=port is None)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True, name="live page")
        self._thread.start()

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        return f"http://{ADDRESS}:{self._server.server_address[1]}/"

    def snapshot(self, shown: list[int] | None = None) -> dict[str, Any]:
        """The state of the study; one look at a time."""
        with self._lock:
            return self.reader.snapshot(shown)

    def wait(self, patience: float = PATIENCE, every: float = 2.0) -> None:
        """Return when the study is finished and no page has asked for so many seconds."""
        began = time.monotonic()
        while True:
            asked = began if self.last_asked is None else self.last_asked
            if time.monotonic() - asked > patience and self.snapshot()["stage"] == "finished":
                return
            time.sleep(every)

    def deliver(self, patience: float = DELIVERY) -> None:
        """Wait until an open page has fetched the report; at once where none is open."""
        until = time.monotonic() + patience
        if self.last_asked is None or time.monotonic() - self.last_asked > patience:
            return
        while not self.delivered and time.monotonic() < until:
            time.sleep(0.1)

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> "LivePage":
        """The page."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()


class _Server(ThreadingHTTPServer):
    """Threads that end with the process."""

    daemon_threads = True

    def server_bind(self) -> None:
        """Bind without asking a name server what this machine is called."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = ADDRESS, int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no error of the command."""


def _listening(handler: Any, port: int, *, or_any: bool) -> _Server:
    """A server at a port, or at any where that is taken.

    Raises
    ------
    InputError : the port is taken, or the system does not give it.
    """
    try:
        return _Server((ADDRESS, port), handler)
    except OSError as error:
        if or_any:
            return _Server((ADDRESS, 0), handler)
        got = f"{port}, where another program listens"
        if error.errno != errno.EADDRINUSE:
            got = f"{port}, which the system does not give ({error.strerror})"
        checks.fail("watch", "--port", "a free port", got, "Choose another one, or 0 for any that is free.")


class _Handler(BaseHTTPRequestHandler):
    """Answers one question of a browser on this machine."""

    timeout = 10.0
    server_version, sys_version = "Steppe", ""

    def __init__(self, page: LivePage, *rest: Any):
        self.page = page
        super().__init__(*rest)

    def do_GET(self) -> None:
        """Give the page, the state of the study, or a report."""
        if not self._is_local():
            self._send(HTTPStatus.FORBIDDEN, b"Ask for http://127.0.0.1 or http://localhost.", "text/plain")
            return
        asked = urlsplit(self.path)
        if asked.path in ASSETS:
            name, kind = ASSETS[asked.path]
            content = (resources.files("steppe.watch") / "page" / name).read_bytes()
            self._send(HTTPStatus.OK, content, kind)
        elif asked.path == "/state":
            self.page.last_asked = time.monotonic()
            state = self.page.snapshot(_places(asked.query))
            self._send(HTTPStatus.OK, json.dumps(state, allow_nan=False).encode(), "application/json")
        elif asked.path.removeprefix("/") in REPORTS:
            self._send_report(asked.path.removeprefix("/"))
        else:
            self._send(HTTPStatus.NOT_FOUND, b"There is nothing here.", "text/plain")

    do_HEAD = do_GET

    def _is_local(self) -> bool:
        """Whether the browser asked for this machine by its own name."""
        try:
            host = urlsplit(f"//{self.headers.get('Host', '')}")
            return host.hostname in HOSTS and (host.port is None or host.port > 0)
        except ValueError:
            return False

    def _send_report(self, name: str) -> None:
        path = self.page.directory / name
        try:
            regular = path.is_file() and not path.is_symlink() and path.stat().st_size <= LARGEST
            content = path.read_bytes() if regular else None
        except OSError:
            content = None
        if content is None:
            self._send(HTTPStatus.NOT_FOUND, b"It is not written yet.", "text/plain")
            return
        self._send(HTTPStatus.OK, content, "text/html; charset=utf-8", REPORT_POLICY)
        self.page.delivered = True

    def _send(self, status: HTTPStatus, content: bytes, kind: str, policy: str = POLICY) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            "Content-Security-Policy": policy,
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the terminal is the command's."""


def _places(query: str) -> list[int] | None:
    """Places of conditions in a question such as ``show=0,3``; None for what is no such list."""
    text = parse_qs(query).get("show", [""])[0]
    words = text.split(",")[:1000]
    return (
        [int(word) for word in words]
        if text and all(w.isascii() and w.isdigit() and len(w) < 7 for w in words)
        else None
    )
