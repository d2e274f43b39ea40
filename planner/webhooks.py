"""Outbound webhooks: who is told what, and what becomes of it.

Each webhook has a thread of its own, so none delays the loop or another.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from planner.config_remediation import EventName, Webhook
from planner.remediation.views import DeadLetter, WebhookView
from planner.snapshot import NotThere
from planner.webhook_channel import Channel, Message, pause_s


class Webhooks:
    """All webhooks of the configuration. ``send`` only queues and may be called from any thread."""

    def __init__(
        self,
        hooks: Iterable[Webhook],
        written: Callable[[], None] = lambda: None,
        pause: Callable[[int], float] = pause_s,
    ) -> None:
        """``written`` is called when an operator's order has to outlive the planner. Raises SecretError."""
        self._channels = [Channel(at, hook, pause) for at, hook in enumerate(hooks)]
        self.written = written

    def start(self) -> None:
        """Begin to deliver."""
        for channel in self._channels:
            channel.start()

    def stop(self) -> None:
        """End it; what waits is in ``state``."""
        for channel in self._channels:
            channel.stop()

    def send(self, event: EventName, data: Mapping[str, Any], now: float) -> None:
        """Tell whom it concerns. ``data`` are JSON-able values without NaN."""
        for channel in self._channels:
            if channel.hook.wants(event):
                body = json.dumps(
                    {"type": f"tidegate.{event}", "timestamp": now, "data": data}, allow_nan=False
                )
                channel.put(Message(f"msg_{secrets.token_hex(12)}", event, now, body))

    def view(self) -> tuple[WebhookView, ...]:
        """See ``WebhookOperations``."""
        return tuple(channel.view() for channel in self._channels)

    def dead_letters(self) -> tuple[DeadLetter, ...]:
        """See ``WebhookOperations``."""
        found = [letter for channel in self._channels for letter in channel.dead_letters()]
        return tuple(sorted(found, key=lambda letter: (letter.given_up, letter.id)))

    def retry(self, letter_id: str) -> None:
        """See ``WebhookOperations``."""
        if not any(channel.retry(letter_id) for channel in self._channels):
            raise NotThere(f"letterID must be the id of a dead letter, got {letter_id!r}")
        self.written()

    @property
    def revision(self) -> int:
        """Grows with every change of what ``state`` gives."""
        return sum(channel.revision for channel in self._channels)

    def state(self) -> bytes:
        """What waits and what was put aside, for ``restore``; no secrets, and URLs only as digests."""
        return json.dumps({channel.digest: channel.state() for channel in self._channels}).encode()

    def restore(self, body: bytes) -> None:
        """Go on with a predecessor's messages; those for URLs that are gone are dropped. Raises ValueError."""
        try:
            kept = {
                str(digest): tuple([Message(**raw) for raw in entry[part]] for part in ("waiting", "dead"))
                for digest, entry in json.loads(body).items()
            }
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"bytes are no webhooks' state: {error!r}") from None
        for channel in self._channels:
            if channel.digest in kept:
                channel.restore(*kept[channel.digest])
