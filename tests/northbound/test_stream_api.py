"""GET /stream: what listeners are told, and how many and how slow they may be."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from northbound import stream_api
from northbound.stream_api import TOPICS, Full, Hub, changes
from tests.northbound.conftest import Ask
from tests.northbound.doubles import NOW, FakeOperations, make_snapshot

ALL = frozenset(TOPICS)


def fields(chunk: bytes) -> dict[str, str]:
    """One event's lines by name; a comment's is empty."""
    return dict(line.split(": ", 1) for line in chunk.decode().splitlines() if line)


async def next_event(told: AsyncGenerator[bytes]) -> dict[str, Any]:
    """The next event that is none of the comments."""
    async with asyncio.timeout(10):
        async for chunk in told:
            found = fields(chunk)
            if "event" in found:
                return {**found, "data": json.loads(found["data"])}
    raise AssertionError("the stream ended")


class Listening:
    """A hub over a fake planner, looked at by hand so that nothing depends on time."""

    def __init__(self) -> None:
        self.operations = FakeOperations()
        self.hub = Hub(self.operations, poll_s=3600)

    async def join(self, topics: frozenset[str] = ALL, last_id: str | None = None) -> AsyncGenerator[bytes]:
        told = self.hub.join(topics, last_id)
        assert b"retry:" in await anext(told)
        # The hub's own first look, after which changes are told.
        await self.hub._look()
        return told

    async def tick(self, **changed: Any) -> None:
        snapshot = self.operations.snapshot
        health = replace(snapshot.health, ticks=snapshot.health.ticks + 1)
        self.operations.snapshot = replace(snapshot, health=health, **changed)
        await self.hub._look()


def run(test: Callable[[Listening], Awaitable[None]]) -> None:
    asyncio.run(_run(test))


async def _run(test: Callable[[Listening], Awaitable[None]]) -> None:
    await test(Listening())


def test_tick_is_told():
    """Whoever listens learns of each tick, with what it is about."""

    async def check(at: Listening) -> None:
        told = await at.join()
        await at.tick(time=NOW + 5)
        event = await next_event(told)
        assert event["event"] == "state"
        assert event["data"] == {"time": NOW + 5, "ticks": 10, "status": "ok"}

    run(check)


def test_topics_that_were_not_asked_for_are_not_told():
    """A client of plans is not woken by ticks."""

    async def check(at: Listening) -> None:
        told = await at.join(frozenset({"plan"}))
        await at.tick()
        await at.tick(plan=replace(at.operations.snapshot.plan, version=8))
        assert (await next_event(told))["data"]["version"] == 8

    run(check)


def test_acknowledged_alarm_is_told_without_a_tick():
    """Another operator's click shows on every screen."""

    async def check(at: Listening) -> None:
        told = await at.join(frozenset({"alarms"}))
        at.operations.alarms.acknowledge(2, NOW)
        await at.hub._look()
        event = await next_event(told)
        assert event["data"] == {"sequence": 4, "open": 1, "unacknowledged": 0}
        # And nothing more of the same change.
        await at.hub._look()
        at.operations.alarms.acknowledge(1, NOW)
        await at.hub._look()
        assert (await next_event(told))["data"]["sequence"] == 5

    run(check)


def test_who_comes_back_gets_what_was_missed():
    """With the last id a browser goes on where it stopped: nothing twice, nothing left out."""

    async def check(at: Listening) -> None:
        told = await at.join()
        await at.tick(time=NOW + 5)
        first = await next_event(told)
        await told.aclose()
        await at.tick(time=NOW + 10)
        await at.tick(time=NOW + 15)
        again = at.hub.join(ALL, first["id"])
        times = [(await next_event(again))["data"]["time"] for _ in range(2)]
        assert times == [NOW + 10, NOW + 15]

    run(check)


@pytest.mark.parametrize("last_id", ["other-1", "rubbish", "", "-", "é-²"])
def test_id_of_another_planner_means_read_anew(last_id: str):
    """After a restart numbers mean something else: the client is told to read everything."""

    async def check(at: Listening) -> None:
        told = at.hub.join(ALL, last_id)
        assert (await next_event(told))["event"] == "reset"

    run(check)


def test_id_that_is_too_old_means_read_anew(monkeypatch: pytest.MonkeyPatch):
    """Not everything is kept; a client that missed more than that is told so."""
    monkeypatch.setattr(stream_api, "KEPT", 3)

    async def check(at: Listening) -> None:
        told = await at.join()
        await at.tick(time=NOW + 1)
        first = await next_event(told)
        for _ in range(4):
            await at.tick()
        again = at.hub.join(ALL, first["id"])
        assert (await next_event(again))["event"] == "reset"

    run(check)


def test_slow_client_is_dropped_and_told_so():
    """One that does not read costs a bounded queue, then it is out; others lose nothing."""

    async def check(at: Listening) -> None:
        slow, quick = await at.join(), await at.join()
        for number in range(stream_api.MAX_WAITING + 5):
            await at.tick(time=NOW + number)
            assert (await next_event(quick))["data"]["time"] == NOW + number
        event = await next_event(slow)
        assert event["event"] == "dropped"
        assert "id" not in event
        with pytest.raises(StopAsyncIteration):
            await anext(slow)

    run(check)


def test_no_more_clients_than_may():
    """Each costs memory: the one too many is refused, and has room once another left."""

    async def check(at: Listening) -> None:
        all_of = [await at.join() for _ in range(stream_api.MAX_CLIENTS)]
        with pytest.raises(Full):
            at.hub.join(ALL, None)
        await all_of[0].aclose()
        await at.join()

    run(check)


def test_quiet_stream_beats():
    """Proxies cut connections on which nothing comes."""

    async def check(_: Listening) -> None:
        hub = Hub(FakeOperations(), poll_s=3600, heartbeat_s=0.01)
        told = hub.join(ALL, None)
        async with asyncio.timeout(10):
            chunks = [await anext(told) for _ in range(3)]
        assert chunks[1:] == [b": heartbeat\n\n"] * 2

    run(check)


def test_look_that_fails_does_not_end_the_stream():
    """The planner may fail to answer once; the next look tells."""

    async def check(_: Listening) -> None:
        operations = FakeOperations()
        hub = Hub(operations, poll_s=0.01)
        told = hub.join(ALL, None)
        await anext(told)
        alarms, operations.alarms = operations.alarms, None  # type: ignore[assignment]
        await asyncio.sleep(0.05)
        operations.alarms = alarms
        await asyncio.sleep(0.05)
        operations.snapshot = replace(operations.snapshot, time=NOW + 5)
        assert (await next_event(told))["data"]["time"] == NOW + 5

    run(check)


def test_watch_ends_some_time_after_the_last_client():
    """Nobody listens: nothing is looked at; and the ids of then are not mistaken for those of now."""

    async def check(_: Listening) -> None:
        operations = FakeOperations()
        hub = Hub(operations, poll_s=0.001, linger_s=0)
        told = hub.join(ALL, None)
        await anext(told)
        await asyncio.sleep(0.05)
        operations.snapshot = replace(operations.snapshot, time=NOW + 5)
        event = await next_event(told)
        await told.aclose()
        async with asyncio.timeout(10):
            while hub._watch is not None and not hub._watch.done():
                await asyncio.sleep(0.01)
        assert (await next_event(hub.join(ALL, event["id"])))["event"] == "reset"

    run(check)


def test_changed_groups_are_counted():
    """One changed, one is new, one is gone."""
    before = make_snapshot()
    (group,) = before.groups
    one, other = replace(group, id="g2"), replace(group, id="g3")
    before = replace(before, groups=(group, one))
    now = replace(before, groups=(replace(group, state="dissolving"), other))
    assert dict(changes(before, now))["groups"] == {"groups": 2, "changed": 2, "gone": 1}
    assert "groups" not in dict(changes(before, replace(before, groups=tuple(before.groups))))


def test_unknown_topic_is_refused(ask: Ask):
    """A misspelt topic would be a stream on which nothing ever comes."""
    answer = ask("GET", "/stream?topics=plan,nonsense")
    assert answer.status_code == 422
    assert "nonsense" in answer.json()["title"]
