"""Server-sent events: that something changed, so that clients need not poll.

An event says what changed and where to stop reading old news; what it is, is read by
the routes that own it. So nothing here depends on who listens, and one event serves all.
The loop is not involved: the newest snapshot is compared with the one before.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from contextvars import Context
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Header, Query, Response
from fastapi.sse import EventSourceResponse, format_sse_event
from starlette.types import Message, Receive, Scope, Send

from northbound import problems, views
from planner.snapshot import Operations, Snapshot

LOG = logging.getLogger(__name__)

Topic = Literal["state", "plan", "alarms", "groups"]
TOPICS: Final[tuple[Topic, ...]] = ("state", "plan", "alarms", "groups")
MAX_CLIENTS: Final = 100
#: Events that wait for one client; one that lets more pile up is dropped.
MAX_WAITING: Final = 64
#: Events kept for those who come back. With a tick in five seconds that is half an hour.
KEPT: Final = 1000
POLL_S: Final = 0.5
HEARTBEAT_S: Final = 15.0
#: A client whose connection takes nothing for so long is gone.
SEND_TIMEOUT_S: Final = 20.0
#: How long changes are noted after the last client left, for those who come back.
LINGER_S: Final = 300.0
_RETRY_MS: Final = 2000
#: More alarms than are ever kept: the page's sequence is then the newest.
_ALL: Final = 1 << 31


class Full(Exception):
    """As many clients listen as may."""


@dataclass(frozen=True)
class Event:
    """One change."""

    number: int
    topic: str
    data: Mapping[str, Any]


@dataclass(eq=False)
class _Client:
    topics: frozenset[str]
    waiting: deque[Event] = field(default_factory=deque)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    dropped: bool = False

    def put(self, event: Event) -> None:
        if event.topic not in self.topics or self.dropped:
            return
        if len(self.waiting) >= MAX_WAITING:
            # What waits is old by now; the client reads the state anew when it comes back.
            self.dropped = True
            self.waiting.clear()
        else:
            self.waiting.append(event)
        self.news.set()


class Hub:
    """Notes changes while somebody listens and hands them to all. Lives in one asyncio loop."""

    def __init__(
        self,
        operations: Operations,
        *,
        poll_s: float = POLL_S,
        heartbeat_s: float = HEARTBEAT_S,
        linger_s: float = LINGER_S,
    ) -> None:
        self._operations = operations
        self._poll_s, self._heartbeat_s, self._linger_s = poll_s, heartbeat_s, linger_s
        self._clients: set[_Client] = set()
        self._watch: asyncio.Task[None] | None = None
        #: New with every watch: numbers of an earlier one mean nothing.
        self._epoch = ""
        self._number = 0
        self._kept: deque[Event] = deque(maxlen=KEPT)
        self._snapshot: Snapshot | None = None
        self._alarms = -1

    def join(self, topics: frozenset[str], last_id: str | None) -> AsyncGenerator[bytes]:
        """The bytes of the events from now on, those missed since ``last_id`` first. Raises Full."""
        if len(self._clients) >= MAX_CLIENTS:
            raise Full
        if self._watch is None or self._watch.done():
            self._epoch, self._number = secrets.token_hex(4), 0
            self._kept.clear()
            self._snapshot, self._alarms = None, -1
            # Of nobody's context: what it sees must not depend on who came first.
            self._watch = asyncio.create_task(self._watching(), name="event stream", context=Context())
        return self._told(_Client(topics), last_id)

    def _missed(self, last_id: str | None) -> list[Event] | None:
        """What came after this id; None if that is not known."""
        epoch, _, number = (last_id or "").partition("-")
        if epoch != self._epoch or not number.isdecimal():
            return None
        oldest = self._kept[0].number if self._kept else self._number + 1
        missed = [event for event in self._kept if event.number > int(number)]
        return None if int(number) + 1 < oldest or len(missed) > MAX_WAITING else missed

    async def _told(self, client: _Client, last_id: str | None) -> AsyncGenerator[bytes]:
        # Noted here and not by join: what was never begun is never closed either.
        missed = self._missed(last_id)
        for event in missed or ():
            client.put(event)
        self._clients.add(client)
        try:
            yield format_sse_event(comment="connected", retry=_RETRY_MS)
            if last_id is not None and missed is None:
                yield self._event("reset", {"reason": "events between are not kept: read the state anew"})
            while not client.dropped:
                client.news.clear()
                while client.waiting:
                    event = client.waiting.popleft()
                    yield self._event(event.topic, event.data, event.number)
                try:
                    async with asyncio.timeout(self._heartbeat_s):
                        await client.news.wait()
                except TimeoutError:
                    yield format_sse_event(comment="heartbeat")
            yield self._event("dropped", {"reason": f"more than {MAX_WAITING} events waited for this client"})
        finally:
            self._clients.discard(client)

    def _event(self, name: str, data: Mapping[str, Any], number: int | None = None) -> bytes:
        # Without a number the client keeps the id it has, and comes back with that.
        event_id = None if number is None else f"{self._epoch}-{number}"
        return format_sse_event(event=name, data_str=json.dumps(data), id=event_id)

    async def _watching(self) -> None:
        loop = asyncio.get_running_loop()
        left_at = loop.time()
        while True:
            if self._clients:
                left_at = loop.time()
            elif loop.time() - left_at > self._linger_s:
                return
            try:
                await self._look()
            except Exception:
                LOG.exception("event stream: a look at the planner failed, going on")
            await asyncio.sleep(self._poll_s)

    async def _look(self) -> None:
        before, now = self._snapshot, self._operations.snapshot
        if now is not before:
            self._snapshot = now
            if before is not None:
                for topic, data in changes(before, now):
                    self._publish(topic, data)
        # In a thread: the loop may hold the stream for a moment.
        page = await asyncio.to_thread(self._operations.alarms.view, max(self._alarms, 0), limit=_ALL)
        if self._alarms >= 0 and page.sequence != self._alarms:
            counts = {"open": page.open, "unacknowledged": page.unacknowledged}
            self._publish("alarms", {"sequence": page.sequence, **counts})
        self._alarms = page.sequence

    def _publish(self, topic: str, data: Mapping[str, Any]) -> None:
        self._number += 1
        event = Event(self._number, topic, data)
        self._kept.append(event)
        for client in self._clients:
            client.put(event)


def changes(before: Snapshot, now: Snapshot) -> list[tuple[Topic, dict[str, Any]]]:
    """What a client would want to know of a new snapshot, by topic."""
    found: list[tuple[Topic, dict[str, Any]]] = []
    if now.plan.version != before.plan.version:
        plan = {"version": now.plan.version, "time": now.plan.time, "mode": now.plan.mode}
        found.append(("plan", plan))
    if now.groups is not before.groups and now.groups != before.groups:
        known = {group.id: group for group in before.groups}
        changed = sum(known.pop(group.id, None) != group for group in now.groups)
        found.append(("groups", {"groups": len(now.groups), "changed": changed, "gone": len(known)}))
    # Last: whoever redraws on it finds the rest done.
    state = {"time": views.plain(now.time), "ticks": now.health.ticks, "status": now.health.status}
    found.append(("state", state))
    return found


class _Stream(EventSourceResponse):
    """Gives up on a client whose connection takes nothing, and ends in order when the server does."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def in_time(message: Message) -> None:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await send(message)

        try:
            await super().__call__(scope, receive, in_time)
        except TimeoutError:
            LOG.info("event stream: a client's connection took nothing for %g s, given up", SEND_TIMEOUT_S)
        except asyncio.CancelledError:
            # Only the server's end does this; a stream that is open then is no fault to log.
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def stream_router(operations: Operations, make_hub: Callable[[Operations], Hub] = Hub) -> APIRouter:
    """The route."""
    router = APIRouter(tags=["state"])
    hub = make_hub(operations)

    @router.get(
        "/stream",
        response_class=Response,
        responses={
            200: {"content": {"text/event-stream": {}}, "description": "Events until the client leaves."},
            **problems.documented(421, 422, 503),
        },
    )
    async def stream(
        topics: Annotated[
            str, Query(pattern=r"^[a-z,]{1,100}$", description=f"of {', '.join(TOPICS)}, joined by commas")
        ] = ",".join(TOPICS),
        last_event_id: Annotated[
            str | None, Header(max_length=64, description="the id of the last event that came through")
        ] = None,
    ) -> Response:
        """Changes as server-sent events. `state`: a tick ended; `plan`: a new plan; `alarms`, `groups`: read them.

        `reset`: events are missing, read everything anew. `dropped`: the client was too slow; come back.
        """
        asked = frozenset(topics.split(","))
        if not asked <= set(TOPICS):
            return problems.problem(422, f"topics must be of {', '.join(TOPICS)}, got {topics!r}")
        try:
            told = hub.join(asked, last_event_id)
        except Full:
            full = f"at most {MAX_CLIENTS} clients may listen, and so many do"
            return problems.problem(503, full, headers={"Retry-After": "30"})
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return _Stream(told, headers=headers)

    return router
