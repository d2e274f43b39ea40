"""One webhook: its queue, its thread, tries with growing pauses, and what it did not take.

Headers and signature are those of Standard Webhooks (standardwebhooks.com): receivers check them with
its libraries.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import heapq
import hmac
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import httpx

from planner.config_remediation import Webhook
from planner.remediation.views import DeadLetter, WebhookView
from planner.secret import read_or_make

LOG = logging.getLogger("tidegate.planner")

#: The first pause after a failure, and the longest; each is drawn between half and the whole.
FIRST_PAUSE_S: Final = 2.0
LONGEST_PAUSE_S: Final = 600.0
#: Put aside, the newest ones, of each webhook.
KEPT_DEAD: Final = 1000
#: Answers that may be another one later; all others are final.
_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_BASE64_MARK: Final = "whsec_"


@dataclass(frozen=True)
class Message:
    """One message to one webhook."""

    id: str
    event: str
    #: Epoch seconds at which it happened.
    time: float
    body: str
    attempts: int = 0
    error: str = ""
    #: Epoch seconds at which it was given up; 0: it was not.
    given_up: float = 0.0


class Undelivered(Exception):
    """It was not taken; ``final`` if it never will be. The text holds nothing of the URL."""

    def __init__(self, reason: str, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


def key_of(secret: str) -> bytes:
    """The key that a secret means: base64 after ``whsec_``, or its own bytes."""
    if secret.startswith(_BASE64_MARK):
        try:
            return base64.b64decode(secret.removeprefix(_BASE64_MARK), validate=True)
        except binascii.Error:
            pass
    return secret.encode()


def signature(key: bytes, message_id: str, timestamp: int, body: str) -> str:
    """What ``webhook-signature`` carries."""
    digest = hmac.new(key, f"{message_id}.{timestamp}.{body}".encode(), hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def pause_s(attempts: int, draw: Callable[[], float] = random.random) -> float:
    """How long to wait after so many failures: twice as long each time, and never in step with others."""
    longest: float = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(attempts - 1, 30))
    return longest * (0.5 + 0.5 * draw())


class Channel:
    """One webhook: its queue, its thread, and what it did not take."""

    def __init__(self, number: int, hook: Webhook, pause: Callable[[int], float]) -> None:
        self.hook = hook
        self.number = number
        self.digest = hashlib.sha256(hook.url.encode()).hexdigest()[:16]
        self.revision = 0
        self._key = key_of(read_or_make(hook.secret_file))
        self._pause = pause
        self._changed = threading.Condition()
        #: By the monotonic time at which each is due, and its order.
        self._waiting: list[tuple[float, int, Message]] = []
        self._order = 0
        self._dead: deque[Message] = deque(maxlen=KEPT_DEAD)
        #: What is under way: it waits too, as far as a successor is concerned.
        self._current: Message | None = None
        self._delivered = self._failed = 0
        self._last_success: float | None = None
        self._error = ""
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"webhook-{number}", daemon=True)

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def stop(self) -> None:
        """End it. An answer that is waited for is not waited for long."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout=1)

    def put(self, message: Message) -> None:
        """Queue it; with no room left the one that waits longest is put aside."""
        with self._changed:
            while len(self._waiting) >= self.hook.queue:
                oldest = min(self._waiting, key=lambda entry: entry[2].time)
                self._waiting.remove(oldest)
                heapq.heapify(self._waiting)
                self._bury(replace(oldest[2], error="the queue was full"))
            self._push(message, 0.0)

    def _push(self, message: Message, delay_s: float) -> None:
        self._order += 1
        self.revision += 1
        heapq.heappush(self._waiting, (time.monotonic() + delay_s, self._order, message))
        self._changed.notify()

    def _bury(self, message: Message) -> None:
        self.revision += 1
        self._dead.append(replace(message, given_up=time.time()))
        LOG.warning(
            "webhook %d %s: %s %s not delivered after %d attempts: %s",
            self.number, self.hook.address, message.event, message.id, message.attempts, message.error,
        )  # fmt: skip

    def _run(self) -> None:
        while True:
            message = self._next()
            if message is None:
                return
            try:
                self._settle(message, self._deliver(message))
            except Exception as error:
                LOG.exception("webhook %d failed, going on", self.number)
                self._settle(message, Undelivered(type(error).__name__, final=True))

    def _next(self) -> Message | None:
        """The next that is due, waited for; None: stop."""
        with self._changed:
            while not self._stopping:
                due_in = self._waiting[0][0] - time.monotonic() if self._waiting else None
                if due_in is not None and due_in <= 0:
                    self._current = heapq.heappop(self._waiting)[2]
                    return self._current
                self._changed.wait(due_in)
        return None

    def _deliver(self, message: Message) -> Undelivered | None:
        try:
            self._post(message)
        except Undelivered as error:
            return error
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
            # Its text may name the whole URL; the kind of error is enough.
            return Undelivered(type(error).__name__)
        return None

    def _post(self, message: Message) -> None:
        timestamp = int(time.time())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "tidegate",
            "webhook-id": message.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(self._key, message.id, timestamp, message.body),
        }
        # Proxies of the environment are for the world outside, not for the loopback.
        outside = self.hook.url.startswith("https")
        with (
            httpx.Client(timeout=self.hook.timeout_s, follow_redirects=False, trust_env=outside) as client,
            # Streamed: what it answers beyond its status is never read.
            client.stream("POST", self.hook.url, content=message.body, headers=headers) as response,
        ):
            if not response.is_success:
                status = response.status_code
                raise Undelivered(f"must answer 2xx, got {status}", final=status not in _AGAIN)

    def _settle(self, message: Message, fault: Undelivered | None) -> None:
        with self._changed:
            self._current = None
            self.revision += 1
            if fault is None:
                self._delivered += 1
                self._last_success, self._error = time.time(), ""
                return
            self._failed += 1
            self._error = str(fault)
            tried = replace(message, attempts=message.attempts + 1, error=str(fault))
            if fault.final or tried.attempts >= self.hook.attempts:
                self._bury(tried)
            else:
                self._push(tried, self._pause(tried.attempts))

    def view(self) -> WebhookView:
        """How it stands."""
        with self._changed:
            return WebhookView(
                self.number, self.hook.address, self.hook.events,
                len(self._waiting) + (self._current is not None), self._delivered, self._failed,
                len(self._dead), self._last_success, self._error,
            )  # fmt: skip

    def dead_letters(self) -> list[DeadLetter]:
        """What it did not take."""
        with self._changed:
            return [
                DeadLetter(m.id, self.number, self.hook.address, m.event, m.time, m.given_up, m.attempts, m.error)
                for m in self._dead
            ]  # fmt: skip

    def retry(self, letter_id: str) -> bool:
        """Queue a dead letter anew, under its old id. False if it is not here."""
        with self._changed:
            found = next((message for message in self._dead if message.id == letter_id), None)
            if found is None:
                return False
            self._dead.remove(found)
            self._push(replace(found, attempts=0, error="", given_up=0.0), 0.0)
        return True

    def state(self) -> dict[str, Any]:
        """What waits and what was put aside."""
        with self._changed:
            waiting = [message for _, _, message in sorted(self._waiting, key=lambda entry: entry[1])]
            under_way = [] if self._current is None else [self._current]
            return {
                "waiting": [asdict(message) for message in under_way + waiting],
                "dead": [asdict(message) for message in self._dead],
            }

    def restore(self, waiting: Iterable[Message], dead: Iterable[Message]) -> None:
        """Go on with these."""
        with self._changed:
            self._dead.extend(dead)
        for message in waiting:
            self.put(message)
