import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mininet_scenarios.client import ApiError, Client

ANSWERS = {
    "/health": (503, json.dumps({"status": "degraded"})),
    "/plan": (200, json.dumps({"version": 3, "switches": {}})),
    "/metrics/global": (200, "not json"),
}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        status, body = ANSWERS.get(self.path, (404, "{}"))
        if self.headers["Authorization"] != "Bearer a-token":
            status, body = 401, json.dumps({"status": 401})
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def client(server, tmp_path):
    (tmp_path / "token").write_text("a-token\n")
    client = Client(f"http://127.0.0.1:{server.server_port}", tmp_path / "token")
    yield client
    client.close()


def test_answers_are_objects(client):
    """What the API answers comes out as it is."""
    assert client.plan()["version"] == 3


def test_bad_health_is_an_answer(client):
    """A degraded planner answers with an error status; the answer still tells what is wrong."""
    assert client.health() == {"status": "degraded"}


def test_what_is_not_json_is_named(client):
    """The error names the path."""
    with pytest.raises(ApiError, match="GET /metrics/global must give JSON"):
        client.pools()


def test_nobody_there_is_an_api_error(tmp_path):
    """A refused connection is the same kind of error, and so is a token that is not there yet."""
    client = Client("http://127.0.0.1:9", tmp_path / "token", timeout_s=0.5)
    for _ in range(2):
        with pytest.raises(ApiError, match="GET /plan"):
            client.plan()
        (tmp_path / "token").write_text("a-token")
