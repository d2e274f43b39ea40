"""Questions to one switch and their answers, matched by transaction id.

Event handlers hand answers over and never wait; the switch's own green thread asks and waits.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ryu_apps.codec.body import Assembler
from ryu_apps.codec.messages import join_messages
from ryu_apps.framework import hub, ofproto_v1_3_parser, serialize, take_xids

#: How long a barrier may take.
_BARRIER_S: Final = 5.0


class SwitchSilentError(Exception):
    """The switch did not answer in time."""


@dataclass
class Conversation:
    """What is asked of one switch, for as long as one connection lasts."""

    datapath: Any
    timeout_s: float
    _assembler: Assembler = field(default_factory=Assembler)
    _waiting: dict[int, Any] = field(default_factory=dict)

    def on_stats(self, message: Any) -> None:
        """A multipart reply, or a part of one."""
        if message.xid not in self._waiting:
            self._assembler.forget(message.xid)
            return
        body = message.body if isinstance(message.body, list) else [message.body]
        whole = self._assembler.add(message.xid, body, message.flags)
        if whole is not None:
            self.on_reply(message.xid, whole)

    def on_reply(self, xid: int, value: Any) -> None:
        """An answer to a request; None where the switch refused it. One that nobody awaits is dropped."""
        waiting = self._waiting.pop(xid, None)
        if waiting is not None:
            waiting.put(value)

    def ask(self, requests: Sequence[Any], timeout_s: float | None = None, after: bytes = b"") -> list[Any]:
        """The answers to some requests, sent as one buffer behind ``after``. Raises SwitchSilentError."""
        timeout_s = self.timeout_s if timeout_s is None else timeout_s
        xids = take_xids(self.datapath, len(requests)).tolist()
        queues = {xid: hub.Queue(1) for xid in xids}
        self._waiting.update(queues)
        deadline = time.monotonic() + timeout_s
        try:
            self.datapath.send(after + serialize(requests, xids))
            return [queues[xid].get(timeout=max(0.001, deadline - time.monotonic())) for xid in xids]
        except hub.QueueEmpty:
            names = ", ".join(type(request).__name__ for request in requests)
            raise SwitchSilentError(f"must answer {names} within {timeout_s:g} s, got nothing") from None
        finally:
            for xid in xids:
                self._waiting.pop(xid, None)
                self._assembler.forget(xid)

    def post(self, raw: Sequence[bytes]) -> None:
        """Send messages that are not answered, as one buffer; waits for nothing."""
        if raw:
            self.datapath.send(join_messages(raw, take_xids(self.datapath, len(raw))))

    def confirm(self, messages: bytes) -> None:
        """Send messages and wait until the switch has worked them off. Raises SwitchSilentError.

        The barrier is in the same buffer, so that it is not answered where the messages got lost.
        """
        self.ask([ofproto_v1_3_parser.OFPBarrierRequest(self.datapath)], _BARRIER_S, messages)

    def tell(self, raw: Sequence[bytes]) -> None:
        """As ``confirm``, of messages one by one."""
        if raw:
            self.confirm(join_messages(raw, take_xids(self.datapath, len(raw))))
