"""The seam to the planner: a real connection to a small real server."""

import hashlib
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from planner.plan import Plan, decode_plan, encode_plan
from planner.seam_auth import ANSWER_HEADER, Requests, seal
from ryu_apps import link as link_module
from ryu_apps.framework import hub
from ryu_apps.link import NETWORK_PATH, Connection, PlannerAwayError, PlannerLink
from tests.ryu_apps.networks import config


class TinyPlanner:
    """An HTTP server that remembers what it was told, and answers as a test says."""

    def __init__(self, port: int = 0):
        self.told: list[tuple[str, bytes, dict[str, str]]] = []
        self.asked: list[str] = []
        self.status = 200
        self.answer = b"7"
        self.plans: list[bytes] = []
        self.connections = 0
        #: None: it has none, and answers all the same.
        self.secret: str | None = "s3cret"
        planner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                planner.connections += 1
                super().setup()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                planner.told.append((self.path, body, dict(self.headers)))
                self.reply(planner.answer)

            def do_GET(self) -> None:
                planner.asked.append(self.path)
                # Away when it has no more: only then does an unpatched green thread let others run.
                if planner.plans:
                    self.reply(planner.plans.pop(0))
                else:
                    self.reply(b"", 503)

            def reply(self, body: bytes, status: int | None = None) -> None:
                status = status or planner.status
                self.send_response(status)
                nonce = self.headers["Authorization"].split("nonce=")[1].split(",")[0]
                if planner.secret is not None:
                    self.send_header(ANSWER_HEADER, seal(planner.secret, nonce, status, body))
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.port: int = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def planner():
    planner = TinyPlanner()
    yield planner
    planner.stop()


def test_requests_prove_the_secret_and_name_the_speaker(planner):
    """So the planner knows who speaks, over one connection, and a stranger there learns no secret."""
    connection = Connection(planner.url, "s3cret", 5.0, "me")
    assert [connection.request("POST", "/v1/x", b"body") for _ in range(3)] == [b"7"] * 3
    path, body, headers = planner.told[0]
    assert (path, body) == ("/v1/x", b"body")
    _, digest = Requests("s3cret").check(headers["authorization"], "POST", path, "me", time.time())
    assert (headers["tidegate-speaker"], digest) == ("me", hashlib.sha256(body).hexdigest())
    assert "s3cret" not in str(headers)
    assert planner.connections == 1
    connection.close()


@pytest.mark.parametrize("status", [401, 404, 500, 503])
def test_an_answer_that_is_an_error_means_away(planner, status):
    """The error says where and what."""
    planner.status = status
    with pytest.raises(PlannerAwayError, match=f"must answer 200, got {status}"):
        Connection(planner.url, "s3cret", 5.0).request("POST", "/v1/samples", b"")


def test_what_the_planner_refuses_to_understand_is_not_sent_again(planner):
    """It would be refused again, and hold up all that waits behind it."""
    planner.status, planner.answer = 422, b"no such column"
    assert Connection(planner.url, "s3cret", 5.0).request("POST", "/v1/samples", b"x") == b""


def test_a_planner_that_is_not_there_is_away_and_one_that_returns_is_found():
    """The connection is opened anew after a failure."""
    first = TinyPlanner()
    connection = Connection(first.url, "s3cret", 5.0)
    connection.request("POST", "/", b"")
    connection.close()
    first.stop()
    with pytest.raises(PlannerAwayError, match="must answer"):
        connection.request("POST", "/", b"")
    second = TinyPlanner(first.port)
    assert connection.request("POST", "/", b"") == b"7"
    connection.close()
    second.stop()


class Owner:
    """What the link calls."""

    def __init__(self) -> None:
        self.plans: list[Plan] = []
        self.versions: list[int] = []


def make_link(tmp_path, url: str | None) -> tuple[PlannerLink, Owner]:
    owner = Owner()
    settings = config(planner={"url": url, "secret_file": str(tmp_path / "secret")})
    link = PlannerLink(settings, tmp_path / "c.yaml", "me", owner.plans.append, owner.versions.append)
    link._url, link._secret = url or "", "s3cret"
    return link, owner


def until(condition, deadline_s: float = 5.0) -> None:
    """Let green threads run until something is so."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be in time"
        hub.sleep(0.005)


@pytest.fixture
def threads(monkeypatch):
    """Green threads that end with the test."""
    monkeypatch.setattr(link_module, "_RETRY_S", 0.01)
    started: list[Any] = []
    yield lambda *what: started.append(hub.spawn(*what))
    for thread in started:
        hub.kill(thread)


def test_reports_arrive_in_order_and_the_answer_is_the_known_network(tmp_path, planner, threads):
    """Each once; the planner says which network version it knows, -1 for none."""
    link, owner = make_link(tmp_path, planner.url)
    threads(link._forever, link._upload)
    for body in (b"1", b"2", b"3"):
        link.send("/v1/samples", body)
    until(lambda: len(owner.versions) == 3)
    assert [body for _, body, _ in planner.told] == [b"1", b"2", b"3"]
    planner.answer = b"-1"
    link.send("/v1/samples", b"4")
    until(lambda: owner.versions[-1] == -1)


def test_reports_wait_while_the_planner_is_away(tmp_path, planner, threads):
    """The first one that failed is sent again, and told once that it was away and back."""
    link, _ = make_link(tmp_path, planner.url)
    planner.status = 503
    threads(link._forever, link._upload)
    link.send("/v1/samples", b"1")
    link.send("/v1/samples", b"2")
    until(lambda: link._away_since is not None and len(planner.told) >= 2)
    assert {body for _, body, _ in planner.told} == {b"1"}
    planner.status = 200
    until(lambda: not link._outbox)
    assert [body for _, body, _ in planner.told][-2:] == [b"1", b"2"]
    assert link._away_since is None


def test_the_backlog_is_bounded_and_drops_the_oldest(tmp_path):
    """The next sample is worth more than an old one; what was dropped is counted."""
    link, _ = make_link(tmp_path, "http://127.0.0.1:1")
    for number in range(link_module._BACKLOG + 10):
        link.send("/v1/samples", str(number).encode())
    assert link.dropped == 10
    assert len(link._outbox) == link_module._BACKLOG
    assert link._outbox[0][1] == b"10"
    assert link._outbox[-1][1] == str(link_module._BACKLOG + 9).encode()


def test_only_the_newest_network_waits(tmp_path):
    """Told at each change while the planner is away it would push the samples out."""
    link, _ = make_link(tmp_path, "http://127.0.0.1:1")
    link.send("/v1/samples", b"s")
    for number in range(20):
        link.send(NETWORK_PATH, str(number).encode())
    assert link._outbox == [("/v1/samples", b"s"), (NETWORK_PATH, b"19")]


def test_a_plan_comes_down_and_the_next_is_asked_after_it(tmp_path, planner, threads):
    """The layout travels once; later plans lean on it."""
    first = Plan(4, 1.0, layout_version=2)
    second = Plan(5, 2.0, layout_version=2)
    planner.plans = [encode_plan(first), encode_plan(second, known_layout=2)]
    link, owner = make_link(tmp_path, planner.url)
    threads(link._forever, link._download)
    until(lambda: len(owner.plans) == 2)
    assert [plan.version for plan in owner.plans] == [4, 5]
    until(lambda: len(planner.asked) >= 3)
    assert planner.asked[0].startswith("/v1/plan?after=-1&layout=-1")
    assert planner.asked[2].startswith("/v1/plan?after=5&layout=2")


def test_a_plan_that_is_not_understood_is_asked_for_whole(tmp_path, planner, threads):
    """Nonsense, and a plan whose layout is not known here."""
    good = Plan(9, 1.0, layout_version=3)
    planner.plans = [b"\x93nonsense", encode_plan(good, known_layout=3), encode_plan(good)]
    link, owner = make_link(tmp_path, planner.url)
    threads(link._forever, link._download)
    until(lambda: owner.plans)
    assert owner.plans == [decode_plan(encode_plan(good))]
    assert planner.asked[2].startswith("/v1/plan?after=-1&layout=-1")


def test_a_fault_in_a_thread_does_not_end_it(tmp_path, planner, threads):
    """A dead thread would look like a quiet planner."""
    link, owner = make_link(tmp_path, planner.url)
    faults = [RuntimeError("ours")]

    def take(plan: Plan) -> None:
        if faults:
            raise faults.pop()
        owner.plans.append(plan)

    link.on_plan = take
    planner.plans = [encode_plan(Plan(1, 1.0)), encode_plan(Plan(2, 1.0))]
    threads(link._forever, link._download)
    until(lambda: owner.plans)
    assert owner.plans[0].version == 2


def test_a_child_that_dies_is_started_again_and_ends_with_us(tmp_path, threads, monkeypatch):
    """A kill -9 of the planner costs a second, not the planner."""
    script = tmp_path / "child"
    script.write_text("#!/bin/sh\nexec sleep 60\n", encoding="utf-8")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    link, _ = make_link(tmp_path, None)
    threads(link._forever, link._keep_child)
    until(lambda: link._child is not None)
    first = link._child
    assert first is not None
    os.kill(first.pid, signal.SIGKILL)
    until(lambda: link._child is not first)
    second = link._child
    assert second is not None
    link.stop()
    until(lambda: second.poll() is not None)
    assert second.returncode == -signal.SIGTERM


@pytest.mark.parametrize("secret", [None, "another-secret"])
def test_a_stranger_on_the_planners_port_feeds_no_plan(tmp_path, planner, threads, secret):
    """Whoever has not the secret is away, whatever it answers: switches keep their meters."""
    link, owner = make_link(tmp_path, planner.url)
    planner.secret = secret
    planner.plans = [encode_plan(Plan(version=number, time=1.0), -1) for number in range(1, 4)]
    threads(link._forever, link._download)
    until(lambda: len(planner.asked) > 3)
    assert owner.plans == []
    planner.secret = "s3cret"
    planner.plans = [encode_plan(Plan(version=9, time=1.0), -1)]
    until(lambda: owner.plans)
    assert [plan.version for plan in owner.plans] == [9]


@pytest.mark.parametrize("status", [200, 422])
def test_a_strangers_answer_takes_no_report_away(planner, status):
    """A report that a stranger took, or refused, is still to be sent."""
    planner.secret, planner.status = None, status
    with pytest.raises(PlannerAwayError, match="must be sealed with the seam's secret"):
        Connection(planner.url, "s3cret", 5.0).request("POST", "/v1/samples", b"x")
