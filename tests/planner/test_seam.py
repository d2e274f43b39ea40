"""The seam: only who knows the secret gets in, nonsense is told so, and a plan is there when it is made."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from planner import seam
from planner.plan import decode_plan
from planner.report import AppliedReport, encode_applied, encode_network
from planner.seam import PlanBoard, seam_app
from planner.seam_auth import ANSWER_HEADER, REQUEST_HEADER, check_seal, sign
from telemetry.samples import SampleBatch, encode_batch
from tests.planner.networks import START, Running, network, samples, small

SECRET = "s" * 43


class Signed(httpx.Auth):
    """What a speaker does: it signs each request, and takes no answer that is not sealed."""

    requires_request_body = True
    requires_response_body = True

    def __init__(self, secret: str) -> None:
        self.secret = secret

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        target = request.url.raw_path.decode()
        speaker = request.headers["tidegate-speaker"]
        header, nonce = sign(self.secret, request.method, target, speaker, request.content, time.time())
        request.headers[REQUEST_HEADER] = header
        answer = yield request
        if answer.status_code not in (401, 413):
            check_seal(
                self.secret, nonce, answer.status_code, answer.content, answer.headers.get(ANSWER_HEADER)
            )


class Seam:
    """A planner behind its seam, and a speaker that calls it."""

    def __init__(self) -> None:
        self.running = Running(small())
        self.board = PlanBoard()
        self.reported = 0
        self.app = seam_app(self.running.planner, SECRET, self.board, self._on_network)

    def _on_network(self) -> None:
        self.reported += 1

    @asynccontextmanager
    async def speaker(self, secret: str | None = SECRET) -> AsyncIterator[httpx.AsyncClient]:
        auth = Signed(secret) if secret is not None else None
        headers = {"tidegate-speaker": "speaker"}
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://seam", headers=headers, auth=auth
        ) as client:
            yield client

    def run(self, talk: Callable[[httpx.AsyncClient], Coroutine[Any, Any, Any]]) -> Any:
        async def main() -> Any:
            async with self.speaker() as client:
                return await asyncio.wait_for(talk(client), 30)

        return asyncio.run(main())


@pytest.fixture
def at_seam() -> Seam:
    return Seam()


@pytest.mark.parametrize("secret", [None, "", "wrong", SECRET[:-1], SECRET + "s"])
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/samples"), ("POST", "/v1/network"), ("POST", "/v1/applied"), ("GET", "/v1/plan"), ("GET", "/")],
)  # fmt: skip
def test_strangers_are_kept_out(at_seam: Seam, secret: str | None, method: str, path: str):
    """Without the secret every path is 401, and nothing is queued."""

    async def main() -> httpx.Response:
        async with at_seam.speaker(secret) as client:
            return await client.request(method, path, content=b"x" if method == "POST" else None)

    assert asyncio.run(main()).status_code == 401
    assert not at_seam.running.planner._inbox


@pytest.mark.parametrize("path", ["/v1/samples", "/v1/network", "/v1/applied"])
@pytest.mark.parametrize("body", [b"", b"\xc1", b"nonsense", b"\x80", b"\x91\x01", b"\x81\x90\x01"])
def test_malformed_bodies_are_told(at_seam: Seam, path: str, body: bytes):
    """A body that is no report is 422 with the reason, and is not queued."""
    answer = at_seam.run(lambda client: client.post(path, content=body))
    assert answer.status_code == 422
    assert answer.text
    assert not at_seam.running.planner._inbox


@pytest.mark.parametrize("query", ["after=x", "layout=1.5", "wait_s=soon", "wait_s=nan", "wait_s=-1"])
def test_malformed_questions_are_told(at_seam: Seam, query: str):
    """Numbers that are none, or no waiting time, are 422."""
    assert at_seam.run(lambda client: client.get(f"/v1/plan?{query}")).status_code == 422


def test_body_that_is_too_large_is_refused(at_seam: Seam, monkeypatch: pytest.MonkeyPatch):
    """More than the largest switch could say is 413, not memory."""
    monkeypatch.setattr(seam, "MAX_BODY_BYTES", 100)
    answer = at_seam.run(lambda client: client.post("/v1/samples", content=b"x" * 101))
    assert (answer.status_code, answer.text) == (413, "body must be <= 100 bytes")
    assert at_seam.run(lambda client: client.post("/v1/samples", content=b"x" * 100)).status_code == 422


def test_answers_tell_which_network_is_known(at_seam: Seam):
    """A planner that has just started answers -1, so that the speaker tells it its network again."""

    async def talk(client: httpx.AsyncClient) -> list[str]:
        batch = encode_batch(SampleBatch(0x11, START))
        applied = encode_applied(AppliedReport("speaker", 0x11, 1, True, 3, 0))
        first = await client.post("/v1/samples", content=batch)
        report = await client.post("/v1/network", content=encode_network(network(small(), version=7)))
        second = await client.post("/v1/samples", content=batch)
        third = await client.post("/v1/applied", content=applied)
        other = await client.post("/v1/samples", content=batch, headers={"tidegate-speaker": "other"})
        return [answer.text for answer in (first, report, second, third, other)]

    assert at_seam.run(talk) == ["-1", "7", "7", "7", "-1"]
    assert at_seam.reported == 1


def test_what_a_speaker_says_reaches_the_plan(at_seam: Seam):
    """Network and samples over the seam, a tick, and the plan comes back with what was offered planned for."""
    running = at_seam.running

    async def talk(client: httpx.AsyncClient) -> bytes:
        await client.post("/v1/network", content=encode_network(network(running.config)))
        running.planner.tick(START)
        plan = decode_plan((await client.get("/v1/plan")).content)
        for dpid in plan.layouts:
            body = encode_batch(samples(plan, dpid, START + 5, lambda _path, _direction: 2e6))
            assert (await client.post("/v1/samples", content=body)).status_code == 200
        running.planner.tick(START + 5)
        return (await client.get("/v1/plan", params={"after": plan.version})).content

    plan = decode_plan(at_seam.run(talk))
    assert plan.version == 2
    assert set(plan.meters) == {0x11, 0x12, 0x21}
    assert running.planner.snapshot.pools.offered_bps[:, 0].tolist() == [10e6, 10e6]


def test_layout_is_left_out_where_it_is_known(at_seam: Seam):
    """Who names the layout it has gets rates only; who names another gets all."""
    at_seam.running.connect()
    plan = at_seam.running.tick()

    async def talk(client: httpx.AsyncClient) -> list[bytes]:
        known = [plan.layout_version, plan.layout_version - 1]
        return [(await client.get("/v1/plan", params={"layout": v})).content for v in known]

    short, full = at_seam.run(talk)
    assert decode_plan(short, plan).layouts == decode_plan(full).layouts == plan.layouts
    with pytest.raises(ValueError, match="not known here"):
        decode_plan(short)


def test_question_without_waiting_is_answered_at_once(at_seam: Seam):
    """No plan yet, or none newer: an empty answer."""
    assert at_seam.run(lambda client: client.get("/v1/plan")).content == b""
    at_seam.running.connect()
    plan = at_seam.running.tick()
    assert at_seam.run(lambda client: client.get(f"/v1/plan?after={plan.version}")).content == b""


def test_caller_that_is_ahead_is_told_the_truth(at_seam: Seam):
    """It knew another planner: it gets this one's plan without waiting."""
    at_seam.running.connect()
    plan = at_seam.running.tick()
    answer = at_seam.run(lambda client: client.get(f"/v1/plan?after={plan.version + 5000}&wait_s=20"))
    assert decode_plan(answer.content).version == plan.version


async def published(at_seam: Seam) -> None:
    """The loop's thread makes a plan and says so."""
    await asyncio.to_thread(at_seam.running.tick)
    await asyncio.to_thread(at_seam.board.published)


def test_stale_plan_is_handed_to_nobody(at_seam: Seam):
    """While the loop stands still a speaker that asks is told nothing, and leaves its switches as they are."""
    at_seam.running.connect()
    at_seam.running.tick()
    clock = at_seam.running.planner.clock

    async def talk(client: httpx.AsyncClient) -> bytes:
        return (await client.get("/v1/plan")).content

    fresh = at_seam.run(talk)
    at_seam.running.planner.clock = lambda: clock() + 31.0
    stale = at_seam.run(talk)
    assert (decode_plan(fresh).version, stale) == (at_seam.running.planner.snapshot.plan.version, b"")
    at_seam.running.tick()
    assert at_seam.run(talk) != b""


def test_long_poll_returns_when_a_plan_is_published(at_seam: Seam):
    """All who wait get the new plan as soon as it is there, not when their time is over."""
    at_seam.running.connect()
    plan = at_seam.running.tick()

    async def talk(client: httpx.AsyncClient) -> list[bytes]:
        url = f"/v1/plan?after={plan.version}&wait_s=30"
        waiting: list[asyncio.Task[httpx.Response]] = [asyncio.create_task(client.get(url)) for _ in range(5)]
        while at_seam.board._changed is None or len(at_seam.board._changed._waiters) < 5:
            await asyncio.sleep(0.01)
        started = asyncio.get_running_loop().time()
        await published(at_seam)
        answers = [(await task).content for task in waiting]
        assert asyncio.get_running_loop().time() - started < 15
        return answers

    versions = {decode_plan(body).version for body in at_seam.run(talk)}
    assert versions == {plan.version + 1}


def test_long_poll_ends_when_its_time_is_over(at_seam: Seam):
    """Without a newer plan the answer is empty after the time asked for."""
    at_seam.running.connect()
    plan = at_seam.running.tick()

    async def talk(client: httpx.AsyncClient) -> tuple[bytes, float]:
        loop = asyncio.get_running_loop()
        started = loop.time()
        answer = await client.get(f"/v1/plan?after={plan.version}&wait_s=0.2")
        return answer.content, loop.time() - started

    body, waited_s = at_seam.run(talk)
    assert body == b""
    assert waited_s >= 0.19


def test_publishing_to_nobody_is_fine(at_seam: Seam):
    """Before anybody waits, and after the server is gone, publishing does nothing."""
    at_seam.board.published()

    async def wait() -> None:
        await at_seam.board.wait(0.01)

    asyncio.run(wait())
    at_seam.board.published()


def test_overheard_request_is_refused(at_seam: Seam):
    """Played again as it was, it is not taken; and with another body neither."""
    batch = encode_batch(SampleBatch(0x11, START))

    async def main() -> list[int]:
        header, _ = sign(SECRET, "POST", "/v1/samples", "speaker", batch, time.time())
        headers = {"tidegate-speaker": "speaker", REQUEST_HEADER: header}
        fresh, _ = sign(SECRET, "POST", "/v1/samples", "speaker", b"another body", time.time())
        transport = httpx.ASGITransport(at_seam.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://seam") as client:
            answers = [await client.post("/v1/samples", content=batch, headers=headers) for _ in range(2)]
            headers[REQUEST_HEADER] = fresh
            answers.append(await client.post("/v1/samples", content=batch, headers=headers))
        return [answer.status_code for answer in answers]

    assert asyncio.run(main()) == [200, 401, 401]
    assert len(at_seam.running.planner._inbox) == 1
