"""What could be done about a signal: the options of each rung, mildest first.

A full region is already shared so that nobody gains without a poorer one losing: nothing
there can be reallocated, and its ladder begins at the groups.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from planner.config_fields import UNGROUPED
from planner.config_remediation import Congestion
from planner.policies import Lift, Pair
from planner.policy import Policies
from planner.remediation.ladder import at_most
from planner.remediation.signals import METER_DROPS, UNMET_DEMAND, Sight, has_room, port_of
from planner.remediation.steps import Measures, Option, Rung, Signal
from planner.snapshot import Level
from telemetry.samples import DIRECTIONS, UP
from topology.identity import Attachment

#: A group of fewer is none once one has left it.
_LEAST_GROUP = 3


@dataclass(frozen=True)
class Ground:
    """What levers rest on, besides what was seen."""

    rules: Congestion
    policies: Policies
    attachments: Mapping[str, tuple[Attachment, ...]]
    #: Ports between switches, by dpid and number.
    inner_ports: Collection[tuple[int, int]]
    #: Ids of groups that were found, as opposed to made.
    discovered: Collection[str]
    #: Whether groups are looked for at all.
    regroups: bool
    #: Users that nothing is taken from.
    protected: Collection[str]
    #: No rate is set below this.
    least_bps: float
    #: Bits of frames for each bit that is promised.
    frame_bits: float = 1.0


def options(signal: Signal, sight: Sight, ground: Ground) -> tuple[Option, ...]:
    """What could be done about it."""
    port = port_of(signal.place)
    found = _of_pool(signal, sight, ground) if port is None else _of_port(signal, port, sight, ground)
    return (*found, Option(Rung.SCALE, Measures(), _call(signal)))


def _of_pool(signal: Signal, sight: Sight, ground: Ground) -> Iterator[Option]:
    s = sight.decided.structure
    row = sight.row_of[signal.place]
    if s.level[row] == Level.GROUP:
        _, region, group = signal.place.split("/")
        lifted = _lifted(signal, sight, ground, row, group)
        if lifted is not None:
            words = (
                f"raise the ceiling of group {group} {DIRECTIONS[signal.direction]} to {_mbps(lifted)} Mbit/s"
            )
            measures = Measures(
                {f"group:{group}": Lift(ceiling_bps=lifted)}, groups=(group,), regions=(region,)
            )
            yield Option(Rung.REALLOCATE, measures, words)
        user = _largest_member(signal, sight, ground, row) if group in ground.discovered else None
        if user is not None:
            words = f"take {user}, who uses most, out of group {group}, and look for groups anew"
            measures = Measures(apart=(user,), regroup=True, groups=(group,), regions=(region,))
            yield Option(Rung.RECOMPOSE, measures, words)
            return
    if ground.regroups and ground.discovered:
        yield Option(Rung.RECOMPOSE, Measures(regroup=True), "look for groups anew")


def _lifted(signal: Signal, sight: Sight, ground: Ground, row: int, group: str) -> Pair | None:
    """A higher ceiling for a group whose own stands in the way while there is room above it."""
    s, d = sight.decided.structure, signal.direction
    own_up, own_down = ground.policies.group(group).ceiling_bps
    own = own_up / ground.frame_bits, own_down / ground.frame_bits
    if group == UNGROUPED or math.isinf(own[d]) or ground.rules.ceiling_factor <= 1:
        return None
    needs = sight.needs
    if not needs.unmet_bps[d, row] > 0 or not has_room(needs, s, row, d):
        return None
    raised = math.floor(own[d] * ground.rules.ceiling_factor)
    return (raised, own[1]) if d == UP else (own[0], raised)


def _largest_member(signal: Signal, sight: Sight, ground: Ground, row: int) -> str | None:
    s = sight.decided.structure
    rows = np.flatnonzero(s.parent == row)
    if len(rows) < _LEAST_GROUP:
        return None
    use = np.nan_to_num(sight.decided.observed.offered_bps[signal.direction, rows], nan=-1.0)
    users = [s.users[at - s.first_user] for at in rows.tolist()]
    free = [
        (rate, user) for rate, user in zip(use.tolist(), users, strict=True) if user not in ground.protected
    ]
    rate, user = max(free, default=(-1.0, ""))
    return user if rate > 0 else None


def _of_port(signal: Signal, port: tuple[int, int], sight: Sight, ground: Ground) -> Iterator[Option]:
    held = _held(signal, port, sight, ground)
    if held:
        s = sight.decided.structure
        path = dict(zip(s.users, s.path[s.user_rows], strict=True))
        regions = tuple(sorted({path[user].split("/")[1] for user in held}))
        shown = ", ".join(f"{user} at {_mbps(pair)} Mbit/s" for user, pair in sorted(held.items()))
        yield Option(Rung.REALLOCATE, Measures(limits=held, regions=regions), f"hold {shown}")
    if ground.regroups and ground.discovered:
        yield Option(Rung.RECOMPOSE, Measures(regroup=True), "look for groups anew")


def _held(signal: Signal, port: tuple[int, int], sight: Sight, ground: Ground) -> dict[str, Pair]:
    """The largest users behind a port, held far enough together that it is well, and nobody below its guarantee."""
    s, dpid = sight.decided.structure, port[0]
    inner = port in ground.inner_ports
    # What a host's port takes in is upload; what a port between switches takes in is download.
    direction = 1 - signal.direction if inner else signal.direction
    excess = signal.evidence.get("rate_bps", math.nan) * (1 - signal.low / max(signal.value, signal.low))
    row_of = {user: s.first_user + at for at, user in enumerate(s.users)}
    use = sight.decided.observed.offered_bps[direction]
    behind = sorted(
        (
            (float(use[row_of[user]]), user)
            for user, devices in ground.attachments.items()
            if user in row_of
            and user not in ground.protected
            and any(one.dpid == dpid and (inner or one.port_no == port[1]) for one in devices)
            and use[row_of[user]] > 0
        ),
        reverse=True,
    )
    held: dict[str, Pair] = {}
    for rate, user in behind[: at_most(ground.rules.max_users, len(s.users))]:
        if not excess > 0:
            break
        promised = float(s.guarantee_bps[direction, row_of[user]])
        least = max(ground.rules.least_share * rate, promised, ground.least_bps)
        cut = min(rate - least, excess)
        if cut > 0:
            limit = round(rate - cut)
            held[user] = (limit, math.inf) if direction == UP else (math.inf, limit)
            excess -= cut
    return held


def _call(signal: Signal) -> str:
    d = DIRECTIONS[signal.direction]
    if signal.kind == UNMET_DEMAND:
        return f"{signal.place} needs more capacity {d}: {_rate(signal, 'unmet_bps')} Mbit/s are wanted and not there"
    if signal.kind == METER_DROPS:
        return (
            f"{signal.place} needs more capacity {d}: its meters drop {_rate(signal, 'dropped_bps')} Mbit/s"
        )
    way = "into the switch" if signal.direction == UP else "out of the switch"
    return f"{signal.place} needs more capacity {way}: it carries {_rate(signal, 'rate_bps')} Mbit/s"


def _rate(signal: Signal, name: str) -> str:
    return f"{signal.evidence[name] / 1e6:.3g}"


def _mbps(pair: Pair) -> str:
    return "/".join("-" if math.isinf(rate) else f"{rate / 1e6:.3g}" for rate in pair)
