"""A real HTTP server on loopback that takes webhooks, and answers as the test says."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DEADLINE_S = 30.0


@dataclass
class Got:
    """One request."""

    path: str
    headers: dict[str, str]
    body: str

    @property
    def message(self) -> dict[str, Any]:
        """What it says."""
        said: dict[str, Any] = json.loads(self.body)
        return said


@dataclass
class Receiver:
    """What came, and what is answered: a status, and how long the answer takes."""

    port: int = 0
    got: list[Got] = field(default_factory=list)
    #: Status for each request in turn; then 204.
    statuses: list[int] = field(default_factory=list)
    #: Set: answers hang until it is cleared.
    hanging: threading.Event = field(default_factory=threading.Event)
    location: str = ""

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}/hook/secret-path"

    def messages(self, kind: str) -> list[dict[str, Any]]:
        """The data of all messages of a kind."""
        return [one.message["data"] for one in list(self.got) if one.message["type"] == f"tidegate.{kind}"]


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A server for as long as the test needs it."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.got.append(Got(self.path, headers, body))
            while receiver.hanging.is_set():
                time.sleep(0.01)
            self.send_response(receiver.statuses.pop(0) if receiver.statuses else 204)
            if receiver.location:
                self.send_header("Location", receiver.location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.hanging.clear()
        server.shutdown()
        server.server_close()
        thread.join(10)


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Poll until it holds."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.005)
