"""How each user's traffic splits into application classes, and with how many peers, step by step.

Switches account for what passed from one endpoint to another by class, once, where it entered.
Their figures come poll by poll and are gathered here until a step is complete.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from telemetry.samples import EdgeSamples, SampleBatch
from topology.identity import Resolution

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

#: Steps that polls are gathered for: the one under way, and the one before.
_OPEN_STEPS: Final = 2
NOBODY: Final = -1
#: Below this demand, bit/s, no account means no traffic; above it, that the account is missing.
IDLE_BPS: Final = 1e3


@dataclass(frozen=True)
class Split:
    """What was accounted for in one step. Users are in the configuration's order.

    Zero is also what stands for users of whom no account came: beside their demand it shows.
    """

    #: shape (2, n_users, n_classes), bits: sent, and received before the receiver's meters.
    bits: F32
    #: shape (2, n_users): mean number of endpoints that were sent to, and received from.
    peers: F32

    @classmethod
    def nothing(cls, n_users: int, n_classes: int) -> Split:
        """Nothing was heard."""
        return cls(np.zeros((2, n_users, n_classes), np.float32), np.zeros((2, n_users), np.float32))


def shares(split: Split, demand_bps: F32) -> F32:
    """The classes' shares of each user's traffic, shape (2, n_users, n_classes).

    0 for an idle user; NaN where demand is a gap, or where there is demand but no account of it.
    demand_bps : shape (2, n_users).
    """
    total = split.bits.sum(axis=2)
    whole = np.where(total > 0, total, np.float32(np.nan))
    whole[demand_bps < IDLE_BPS] = np.inf
    whole[np.isnan(demand_bps)] = np.nan
    return np.asarray(split.bits / whole[:, :, None], np.float32)


@dataclass(frozen=True)
class _Poll:
    """One switch's accounts, with whose its endpoints are."""

    time: float
    edges: EdgeSamples
    #: shape (n_endpoints,): number of the user, or ``NOBODY``.
    user: I64


class ApplicationTraffic:
    """Accounts by step, of users that are numbered as the configuration has them."""

    def __init__(self, users: Sequence[str], n_classes: int, step_s: float) -> None:
        self.n_classes = n_classes
        self._number = {name: number for number, name in enumerate(users)}
        self._step_s = step_s
        self._polls: list[_Poll] = []
        #: By number of the step.
        self._open: dict[int, Split] = {}
        #: Numbers by MAC, as long as no MAC becomes another's.
        self._of_mac: dict[str, int] = {}
        self._under: Resolution | None = None

    def observe(self, batch: SampleBatch, resolution: Resolution) -> None:
        """Note one poll; ``gather`` makes something of it."""
        if not len(batch.edges.src) or not math.isfinite(batch.time):
            return
        if self._under is not resolution:
            self._under = resolution
            self._of_mac = {mac: self._number.get(name, NOBODY) for mac, name in resolution.user_of.items()}
        get = self._of_mac.get
        user = np.array([get(mac, NOBODY) for mac in batch.endpoints], np.int64)
        self._polls.append(_Poll(batch.time, batch.edges, user))

    def gather(self, now: float) -> None:
        """Add what was noted to the steps that it lies in: all polls of a tick at once."""
        current = math.floor(now / self._step_s)
        # After a clock was set back, what is now in the future did not happen.
        self._open = {step: kept for step, kept in self._open.items() if step <= current}
        polls, self._polls = self._polls, []
        if polls:
            accounts = _joined(polls, self.n_classes)
            for step in range(current - _OPEN_STEPS + 1, current + 1):
                self._add(step, accounts)

    def take(self, end_time: float) -> Split:
        """What was accounted for in the step that ended then; it and all before it are forgotten."""
        step = round(end_time / self._step_s) - 1
        found = self._open.get(step) or Split.nothing(len(self._number), self.n_classes)
        self._open = {other: kept for other, kept in self._open.items() if other > step}
        return found

    def _add(self, step: int, accounts: _Accounts) -> None:
        start, end = step * self._step_s, (step + 1) * self._step_s
        seconds = _overlap(accounts.time, accounts.interval_s, start, end)
        at = np.flatnonzero(seconds > 0)
        if not len(at):
            return
        split = self._open.get(step)
        if split is None:
            split = self._open[step] = Split.nothing(len(self._number), self.n_classes)
        bits = (accounts.rate_bps[at] * seconds[at]).astype(np.float32)
        for d, user in enumerate((accounts.sender[at], accounts.receiver[at])):
            known = user != NOBODY
            cell = user[known] * self.n_classes + accounts.app[at][known]
            np.add.at(split.bits[d].reshape(-1), cell, bits[known])
        seconds = _overlap(accounts.pair_time, accounts.pair_interval_s, start, end) / self._step_s
        for d, user in enumerate((accounts.pair_sender, accounts.pair_receiver)):
            known = user != NOBODY
            np.add.at(split.peers[d], user[known], seconds[known].astype(np.float32))


@dataclass(frozen=True)
class _Accounts:
    """Accounts of several polls: columns by account, and by pair of endpoints with traffic."""

    time: F64
    interval_s: F64
    rate_bps: F64
    app: I64
    sender: I64
    receiver: I64
    pair_time: F64
    pair_interval_s: F64
    pair_sender: I64
    pair_receiver: I64


def _joined(polls: Sequence[_Poll], n_classes: int) -> _Accounts:
    """All polls as one, without what says nothing: gaps, and what no counter can give."""
    edges = [poll.edges for poll in polls]
    n_edges = [len(one.src) for one in edges]
    n_endpoints = [len(poll.user) for poll in polls]
    # An endpoint's row among those of all polls.
    first = np.repeat(np.cumsum([0, *n_endpoints[:-1]]), n_edges)
    source = np.concatenate([one.src for one in edges]).astype(np.int64) + first
    target = np.concatenate([one.dst for one in edges]).astype(np.int64) + first
    app = np.concatenate([one.app for one in edges]).astype(np.int64)
    rate = np.concatenate([one.rate_bps for one in edges])
    interval = np.concatenate([one.interval_s for one in edges])
    time: F64 = np.repeat(np.array([poll.time for poll in polls]), n_edges)
    user = np.concatenate([poll.user for poll in polls])
    # Infinity and NaN fail one of these.
    sound = (rate > 0) & (rate < np.inf) & (interval > 0) & (interval < np.inf) & (app < n_classes)
    source, target, app = source[sound], target[sound], app[sound]
    rate, interval, time = rate[sound], interval[sound], time[sound]
    # Several applications to one peer are one peer.
    order = np.argsort(source * len(user) + target, kind="stable")
    pair = source[order] * len(user) + target[order]
    once = order[np.diff(pair, prepend=-1) > 0]
    return _Accounts(
        time, interval, rate, app, user[source], user[target],
        time[once], interval[once], user[source[once]], user[target[once]],
    )  # fmt: skip


def _overlap(time: F64, interval_s: F64, start: float, end: float) -> F64:
    """Seconds of the interval before each time that lie between start and end."""
    seconds: F64 = np.minimum(time, end) - np.maximum(time - interval_s, start)
    return np.maximum(seconds, 0.0)
