"""Switches that are out of reach: what they may still enforce counts against the pools they share.

A switch whose control channel is lost goes on forwarding and keeps its meters. Its part of
a pool cannot be taken back, so nobody else is given it: its shares are held until it is seen to
follow a plan again, is seen to be cut off, or the time for which they are held is over.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from planner.config import Config
from planner.fleet import Fleet
from planner.plan import Plan
from planner.report import AppliedReport
from planner.structure import Structure
from topology.network import Network

LOG = logging.getLogger("tidegate.planner")

I64 = npt.NDArray[np.int64]
#: A pool's path, and a direction.
Key = tuple[str, int]
PortKey = tuple[int, int]

#: Published plans that a switch may have stopped at; with ticks of 5 s more than a minute of them.
_PLANS: Final = 16
#: A switch is silent after so many polls without an answer: one may be lost.
_SILENT_POLLS: Final = 2.5
#: Instead of a share where none is held.
FREE: Final = -1


@dataclass(frozen=True, eq=False)
class HeldShares:
    """What switches out of reach hold, shape (n_entries,), bit/s; ``FREE`` where nothing is held."""

    #: What plans go on telling them, the least of what they may enforce: nobody knows which plan was the last that
    #: they made, and one that is back must not raise what another that is away may not have lowered.
    told_bps: I64
    #: The most that they may enforce.
    most_bps: I64


@dataclass(frozen=True)
class _Held:
    """What one switch held when it went out of reach."""

    since: float
    told_bps: dict[Key, int]
    most_bps: dict[Key, int]
    #: Since when it is within reach again, without having been seen to follow a plan. None: it is not.
    back_since: float | None = None


class AwaySwitches:
    """Who is out of reach, and what they hold meanwhile. ``now`` is given, in epoch seconds."""

    def __init__(self, hold_s: float, settled_s: float, silent_s: float) -> None:
        """Shares are held for ``hold_s``; of a switch that is back but never in step, for ``settled_s``.

        A switch that has not been heard for ``silent_s`` is out of reach however connected.
        """
        self.hold_s = hold_s
        self.settled_s = settled_s
        self.silent_s = silent_s
        #: The switches out of reach at the last step, whether or not they hold something.
        self.dpids: frozenset[int] = frozenset()
        self._plans: deque[Plan] = deque(maxlen=_PLANS)
        self._held: dict[int, _Held] = {}
        #: Of those, the ones whose shares count.
        self._counted: frozenset[int] = frozenset()
        #: The newest plan that each switch was seen to hold in full.
        self._confirmed: dict[int, int] = {}
        self._heard: dict[int, float] = {}
        #: Those that do not do as they are told, as their speakers say.
        self._behind: set[int] = set()
        #: The ports that lead to each switch, as they last were, and the network in which they were seen.
        self._ports_to: dict[int, frozenset[PortKey]] = {}
        self._network: Network | None = None
        #: The shares as reckoned for this structure; None: something changed since.
        self._shares: tuple[Structure, HeldShares] | None = None

    @classmethod
    def of(cls, config: Config) -> AwaySwitches:
        """None is away; the times are this configuration's."""
        polling, enforcement = config.polling, config.enforcement
        silent_s = _SILENT_POLLS * polling.interval_s * (1 + polling.jitter) + polling.timeout_s
        return cls(enforcement.hold_lost_s, enforcement.alarm_after_s, silent_s)

    # In.

    def polled(self, dpid: int, now: float) -> None:
        """A switch answered a poll."""
        self._heard[dpid] = now

    def applied(self, report: AppliedReport, now: float) -> None:
        """A speaker says how a switch stands."""
        if report.behind:
            self._behind.add(report.dpid)
            return
        self._heard[report.dpid] = now
        self._behind.discard(report.dpid)
        if report.in_step and report.plan_version is not None:
            self._confirmed[report.dpid] = report.plan_version
            self._free(report.dpid)

    def step(self, now: float, fleet: Fleet, published: Plan) -> None:
        """Look who is out of reach; ``published`` is the plan that stands."""
        self._note(published)
        self._look(fleet.network)
        connected = fleet.switches.keys()
        out = {dpid for dpid in fleet.max_meters if dpid not in connected or self._is_mute(dpid, now)}
        for dpid in out - self._held.keys():
            self._hold(dpid, now)
        for dpid, held in list(self._held.items()):
            if dpid in out:
                self._held[dpid] = replace(held, back_since=None)
            elif held.back_since is None:
                self._held[dpid] = replace(held, back_since=now)
            elif now - held.back_since > self.settled_s:
                self._free(dpid)
        # One that is back and has not yet followed a plan is bound to its old share: nobody needs to wait for it.
        self.dpids = frozenset(out | self._held.keys())
        counted = frozenset(dpid for dpid in self._held if self._counts(dpid, now, fleet.network))
        if counted != self._counted:
            self._counted, self._shares = counted, None

    # Out.

    @property
    def given_up(self) -> frozenset[int]:
        """Switches out of reach that hold nothing any more: they are cut off, or have been away for too long."""
        return self.dpids - self._counted

    def shares(self, s: Structure) -> HeldShares | None:
        """What is held of the pools of this structure; None: nothing."""
        if not self._counted:
            return None
        if self._shares is None or self._shares[0] is not s:
            self._shares = (s, self._shares_of(s))
        return self._shares[1]

    def problems(self, now: float) -> Iterator[str]:
        """One line for each switch that has been out of reach for long, with what becomes of its shares."""
        for dpid, held in sorted(self._held.items()):
            away_s = now - held.since
            if away_s > self.settled_s:
                what = (
                    f"its shares are held for it for another {max(0.0, self.hold_s - away_s):.0f} s"
                    if dpid in self._counted
                    else "its shares are given to others"
                )
                yield f"{dpid:016x} has been out of reach for {away_s:.0f} s: {what}"

    # Within.

    def _note(self, published: Plan) -> None:
        # What is only shown is followed by nobody.
        if published.mode == "shadow" or not published.meters:
            return
        if not self._plans or self._plans[-1].version != published.version:
            self._plans.append(published)

    def _look(self, network: Network) -> None:
        """Note which ports lead to which switch. Where none does any more, those of before stand."""
        if network is self._network:
            return
        self._network = network
        found: dict[int, set[PortKey]] = {}
        for link in network.links:
            found.setdefault(link.src_dpid, set()).add((link.dst_dpid, link.dst_port))
            found.setdefault(link.dst_dpid, set()).add((link.src_dpid, link.src_port))
        self._ports_to |= {dpid: frozenset(ports) for dpid, ports in found.items()}

    def _is_mute(self, dpid: int, now: float) -> bool:
        # Of one that was never heard, silence says nothing.
        return dpid in self._behind or now - self._heard.get(dpid, now) > self.silent_s

    def _hold(self, dpid: int, now: float) -> None:
        plans = [plan for plan in self._plans if dpid in plan.meters]
        if not plans:
            return
        confirmed = self._confirmed.get(dpid, -1)
        told: dict[Key, int] = {}
        most: dict[Key, int] = {}
        for plan in [plan for plan in plans if plan.version >= confirmed] or plans[-1:]:
            rates = plan.meters[dpid].rates()
            for owner in plan.layouts[dpid].owners:
                if owner.meter_id in rates:
                    key, bps = (owner.pool, owner.direction), rates[owner.meter_id][0] * 1000
                    told[key] = min(bps, told.get(key, bps))
                    most[key] = max(bps, most.get(key, bps))
        self._held[dpid] = _Held(now, told, most)
        self._shares = None
        LOG.warning("%016x is out of reach: nobody else is given its shares", dpid)

    def _free(self, dpid: int) -> None:
        if self._held.pop(dpid, None) is not None:
            self._counted -= {dpid}
            self._shares = None
            LOG.info("%016x follows the plan again: its shares are free", dpid)

    def _counts(self, dpid: int, now: float, network: Network) -> bool:
        """Whether what a switch holds can still let traffic through that others feel."""
        held = self._held[dpid]
        if held.back_since is None and now - held.since > self.hold_s:
            return False
        ports_to = self._ports_to.get(dpid, frozenset())
        return (
            held.back_since is not None or not ports_to or not all(_is_down(network, at) for at in ports_to)
        )

    def _shares_of(self, s: Structure) -> HeldShares:
        e = s.entries
        told = np.full(len(e.pool), FREE, np.int64)
        most = np.full(len(e.pool), FREE, np.int64)
        for number, dpid in enumerate(s.dpids):
            if dpid not in self._counted:
                continue
            held = self._held[dpid]
            for row in np.flatnonzero(e.switch == number).tolist():
                key = (s.path[e.pool[row]], int(e.direction[row]))
                # What was planned for it only after it was lost is not there.
                if key in held.told_bps:
                    told[row], most[row] = held.told_bps[key], held.most_bps[key]
        return HeldShares(told, most)


def _is_down(network: Network, at: PortKey) -> bool:
    """Whether the switch that the port is on says that it is down. A switch that is away says nothing."""
    port = network.ports.get(at)
    return at[0] in network.switches and (port is None or not port.up)
