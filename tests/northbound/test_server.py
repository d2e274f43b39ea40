"""The planner process's two web servers, for real, on free ports."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from northbound.server import CannotListen, listen, serve
from planner.config import parse
from planner.secret import SecretError, read_or_make
from tests.northbound.doubles import TOKEN, FakeOperations, make_snapshot

BEARER = {"Authorization": f"Bearer {TOKEN}"}
CONFIG = parse({"capacity_mbps": 10, "regions": {"a": {"dpids": [1], "capacity_mbps": 10}}})


class FakePlanner:
    """A planner whose seam answers at once, or holds a long poll."""

    def __init__(self) -> None:
        snapshot = make_snapshot()
        self.operations = FakeOperations(
            replace(snapshot, health=replace(snapshot.health, last_tick=time.time()))
        )
        self.seam_app = Starlette(routes=[Route("/", self._now), Route("/poll", self._poll)])

    async def _now(self, _request: Request) -> PlainTextResponse:
        return PlainTextResponse("seam")

    async def _poll(self, _request: Request) -> PlainTextResponse:
        await asyncio.sleep(60)
        return PlainTextResponse("late")

    def start(self) -> None:
        """Nothing to start."""

    def stop(self) -> None:
        """Nothing to stop."""


def while_serving(
    body: Callable[[str, str, httpx.AsyncClient], Awaitable[None]], parent_pid: int | None = None
) -> float:
    """Run ``body`` against both servers; seconds that they took to end after it."""

    async def go() -> float:
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        rest, seam = listen("127.0.0.1", 0), listen("127.0.0.1", 0)
        serving = asyncio.create_task(
            serve(FakePlanner(), CONFIG, TOKEN, rest, seam, parent_pid=parent_pid, announce=ready.set_result)
        )
        line = await asyncio.wait_for(ready, 10)
        assert line.startswith("tidegate planner ready rest=http://127.0.0.1:")
        urls = dict(part.split("=", 1) for part in line.split()[3:])
        async with httpx.AsyncClient(headers=BEARER, trust_env=False) as client:
            await body(urls["rest"], urls["seam"], client)
            asked = time.monotonic()
            await asyncio.wait_for(serving, 10)
        return time.monotonic() - asked

    return asyncio.run(go())


def test_both_apps_listen_and_sigterm_ends_them():
    """One loop serves REST and the seam on ports of their own, and one signal ends both."""

    async def body(rest: str, seam: str, client: httpx.AsyncClient) -> None:
        assert (await client.get(f"{rest}/health")).json()["status"] == "ok"
        assert (await client.get(seam)).text == "seam"
        answer = await client.put(
            f"{rest}/groups/g1/bandwidth", json={"weight": 2}, headers={"Authorization": ""}
        )
        assert answer.status_code == 401
        os.kill(os.getpid(), signal.SIGTERM)

    while_serving(body)


def test_long_poll_does_not_hold_up_the_end():
    """An OpenFlow process that waits for the next plan is cut off, not waited for."""

    async def body(_rest: str, seam: str, client: httpx.AsyncClient) -> None:
        poll = asyncio.create_task(client.get(f"{seam}/poll", timeout=30))
        await asyncio.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)
        # The task is not awaited here: it ends with the server.
        poll.add_done_callback(lambda task: task.exception())

    assert while_serving(body) < 5


def test_child_ends_with_its_parent():
    """A planner whose parent was killed makes room for the next one, also while nobody reaps the parent."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as parent:

        async def body(_rest: str, _seam: str, _client: httpx.AsyncClient) -> None:
            parent.kill()

        assert while_serving(body, parent_pid=parent.pid) < 2


def test_child_of_a_dead_parent_ends_at_once():
    """The parent may die while the planner starts."""
    with subprocess.Popen([sys.executable, "-c", ""]) as parent:
        parent.wait()

    async def go() -> None:
        rest, seam = listen("127.0.0.1", 0), listen("127.0.0.1", 0)
        await asyncio.wait_for(
            serve(FakePlanner(), CONFIG, TOKEN, rest, seam, parent_pid=parent.pid, announce=lambda _: None),
            10,
        )

    asyncio.run(go())


def test_answers_are_sent_at_once():
    """Without TCP_NODELAY an answer waits 40 ms for the client's delayed acknowledgement."""
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_taken_port_is_told_in_one_line():
    """Address and port are in the message."""
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotListen, match=rf"^cannot listen on 127.0.0.1 port {port}: .*in use$"):
            listen("127.0.0.1", port)


def test_token_is_made_once_for_the_owner_alone(tmp_path: Path):
    """The first start makes the token, later ones read it."""
    path = tmp_path / "var" / "token"
    token = read_or_make(path)
    assert read_or_make(path) == token
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(token) >= 32


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
def test_token_that_others_may_read_is_refused(tmp_path: Path, mode: int):
    """It may have been read already; and the message does not repeat it."""
    path = tmp_path / "token"
    token = read_or_make(path)
    path.chmod(mode)
    with pytest.raises(SecretError, match=f"{mode:o}") as refusal:
        read_or_make(path)
    assert token not in str(refusal.value)
