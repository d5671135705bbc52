"""A real HTTP server that gives out bytes, and refuses what it is told to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class WebServer:
    """What it serves, and how often it was asked."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    """Path without its query -> content."""
    statuses: dict[str, int] = field(default_factory=dict)
    """Path -> status of the answer, where that is an error."""
    headers: dict[str, str] = field(default_factory=dict)
    """Of every answer."""
    num_requests: int = 0


@contextmanager
def serving() -> Iterator[WebServer]:
    state = WebServer()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(has_body=False)

        def do_GET(self) -> None:
            self._answer(has_body=True)

        def log_message(self, *_: object) -> None: ...

        def _answer(self, has_body: bool) -> None:
            state.num_requests += 1
            path = self.path.partition("?")[0]
            data = state.files.get(path, b"")
            self.send_response(state.statuses.get(path, 200 if path in state.files else 404))
            self.send_header("Content-Length", str(len(data)))
            for name, value in state.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if has_body:
                self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
