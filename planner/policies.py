"""Policies: rules that change what pools may have, by time of day, by date, or while capacity is short.

Values and arithmetic only; ``planner.policies_file`` reads them, ``planner.policy`` applies them.
A pool is named ``user:NAME``, ``user:NAME/CLASS``, ``group:NAME`` or ``region:NAME``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

Pair = tuple[float, float]
NO_CEILING: Final = (float("inf"), float("inf"))

#: Priority classes: 0 is served first. A pool without one is in its parent's, the root in this.
NORMAL_PRIORITY: Final = 4
LAST_PRIORITY: Final = 7


@dataclass(frozen=True)
class PoolPolicy:
    """Guarantee, ceiling (bit/s, upload and download), weight and priority class of one pool."""

    guarantee_bps: Pair = (0.0, 0.0)
    ceiling_bps: Pair = NO_CEILING
    weight: float = 1.0
    #: None: the parent's.
    priority: int | None = None


@dataclass(frozen=True)
class Lift:
    """What a rule gives to a pool. It only ever helps, so the order of rules does not matter."""

    #: At least this.
    guarantee_bps: Pair | None = None
    #: At least this; a pool without a ceiling stays so.
    ceiling_bps: Pair | None = None
    weight_factor: float = 1.0
    #: In this class or one that is served earlier.
    priority: int | None = None

    def over(self, below: PoolPolicy) -> PoolPolicy:
        """The policy with this lift applied."""
        priorities = [one for one in (self.priority, below.priority) if one is not None]
        return PoolPolicy(
            _larger(below.guarantee_bps, self.guarantee_bps),
            _larger(below.ceiling_bps, self.ceiling_bps),
            below.weight * self.weight_factor,
            min(priorities, default=None),
        )


def _larger(below: Pair, least: Pair | None) -> Pair:
    return below if least is None else (max(below[0], least[0]), max(below[1], least[1]))


@dataclass(frozen=True)
class Dated:
    """From one moment to another, epoch seconds; the end is outside."""

    start: float
    end: float

    def active(self, now: float) -> bool:
        """Whether it is on."""
        return self.start <= now < self.end

    def next_change(self, now: float) -> float:
        """When it next goes on or off; infinity: never again."""
        return min((moment for moment in (self.start, self.end) if moment > now), default=float("inf"))


@dataclass(frozen=True)
class Daily:
    """A time of day in local time, on some days of the week; one that ends before it begins runs past midnight."""

    begin: time
    end: time
    zone: ZoneInfo
    #: Monday is 0. The day on which it begins counts.
    days: frozenset[int] = frozenset(range(7))

    def active(self, now: float) -> bool:
        """Whether it is on."""
        return any(start <= now < end for start, end in self._around(now))

    def next_change(self, now: float) -> float:
        """When it next goes on or off."""
        return min(moment for span in self._around(now) for moment in span if moment > now)

    def _around(self, now: float) -> list[tuple[float, float]]:
        """The spans that begin from yesterday on, as far as the same day of next week."""
        today = datetime.fromtimestamp(now, self.zone).date()
        days = (today + timedelta(days=n) for n in range(-1, 9))
        return [self._span(day) for day in days if day.weekday() in self.days]

    def _span(self, day: date) -> tuple[float, float]:
        until = day if self.end > self.begin else day + timedelta(days=1)
        # By the calendar and not by adding hours: a day on which clocks change has 23 or 25.
        start, end = (
            datetime.combine(*at, self.zone).timestamp() for at in ((day, self.begin), (until, self.end))
        )
        return start, end


@dataclass(frozen=True)
class Rule:
    """A lift for some pools, always or for a time."""

    name: str
    pools: tuple[str, ...]
    lift: Lift
    when: Dated | Daily | None = None

    def active(self, now: float) -> bool:
        """Whether it is on."""
        return self.when is None or self.when.active(now)


@dataclass(frozen=True)
class ClawBack:
    """When a burst is taken back: while its region is asked for more than this share of its capacity."""

    above: float
    #: Given again below this share, and not before ``hold_s`` is over: who was cut sends less.
    below: float
    hold_s: float


@dataclass(frozen=True)
class ServicePlan:
    """What is sold: a rate that is always there, and a burst above it while there is room."""

    name: str
    pools: tuple[str, ...]
    commit_bps: Pair
    burst_bps: Pair
    claw_back: ClawBack | None = None

    def over(self, below: PoolPolicy, clawed: tuple[bool, bool]) -> PoolPolicy:
        """The policy of a pool that was sold this; ``clawed`` for upload and download."""
        ceiling = tuple(
            commit if back else burst
            for commit, burst, back in zip(self.commit_bps, self.burst_bps, clawed, strict=True)
        )
        return replace(below, guarantee_bps=self.commit_bps, ceiling_bps=(ceiling[0], ceiling[1]))


#: A plan's name, a region and a direction, with the time since which the burst is taken back.
Clawed = Mapping[tuple[str, str, int], float]


@dataclass(frozen=True)
class RegionTerms:
    """What balance between regions means for one of them."""

    weight: float
    guarantee_bps: Pair

    def over(self, below: PoolPolicy) -> PoolPolicy:
        """The region's policy with its terms."""
        return replace(
            below, weight=self.weight, guarantee_bps=_larger(below.guarantee_bps, self.guarantee_bps)
        )


@dataclass(frozen=True)
class PolicySet:
    """All rules of one file."""

    rules: tuple[Rule, ...] = ()
    plans: tuple[ServicePlan, ...] = ()
    balance: Mapping[str, RegionTerms] = field(default_factory=dict)

    @property
    def watches_load(self) -> bool:
        """Whether a rule depends on how much is asked for."""
        return any(plan.claw_back for plan in self.plans)

    def clawed(self, before: Clawed, load: Mapping[str, Pair], now: float) -> Clawed:
        """The bursts that are taken back, given those that were.

        ``load`` is what each region is asked for as a share of its capacity, upload and
        download; where it is NaN or absent nothing changes.
        """
        after = dict(before)
        for plan in self.plans:
            if plan.claw_back is None:
                continue
            for region, shares in load.items():
                for direction, share in enumerate(shares):
                    key = (plan.name, region, direction)
                    if share > plan.claw_back.above:
                        after.setdefault(key, now)
                    elif share < plan.claw_back.below:
                        since = after.get(key, now)
                        if not 0 <= now - since < plan.claw_back.hold_s:
                            after.pop(key, None)
        return after


@dataclass(frozen=True)
class InForce:
    """What the rules mean at one moment, by pool. Changes at ``until`` at the latest."""

    lifts: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict)
    plans: Mapping[str, ServicePlan] = field(default_factory=dict)
    balance: Mapping[str, RegionTerms] = field(default_factory=dict)
    clawed: Clawed = field(default_factory=dict)
    until: float = float("inf")

    @classmethod
    def at(cls, policies: PolicySet, now: float, clawed: Clawed | None = None) -> InForce:
        """What holds at this moment."""
        return cls(
            by_pool(policies.rules, now),
            {pool: plan for plan in policies.plans for pool in plan.pools},
            policies.balance,
            dict(clawed or {}),
            next_change(policies.rules, now),
        )

    def over(self, pool: str, below: PoolPolicy, region: str | None = None) -> PoolPolicy:
        """The pool's policy under these rules; ``region`` is where it is, None: not known or several."""
        policy = below
        plan = self.plans.get(pool)
        if plan is not None:
            up, down = ((plan.name, region or "", d) in self.clawed for d in (0, 1))
            policy = plan.over(policy, (up, down))
        if pool.startswith("region:") and (terms := self.balance.get(pool.removeprefix("region:"))):
            policy = terms.over(policy)
        for rule in self.lifts.get(pool, ()):
            policy = rule.lift.over(policy)
        return policy

    def names(self, pool: str) -> tuple[str, ...]:
        """The rules that concern a pool now, for people."""
        plan = self.plans.get(pool)
        sold = (f"plan {plan.name}",) if plan else ()
        balanced = ("balance",) if pool.removeprefix("region:") in self.balance and pool[0] == "r" else ()
        return sold + balanced + tuple(rule.name for rule in self.lifts.get(pool, ()))


def by_pool(rules: Iterable[Rule], now: float) -> dict[str, tuple[Rule, ...]]:
    """The rules that are on, by pool."""
    found: dict[str, tuple[Rule, ...]] = {}
    for rule in rules:
        if rule.active(now):
            for pool in dict.fromkeys(rule.pools):
                found[pool] = (*found.get(pool, ()), rule)
    return found


def next_change(rules: Iterable[Rule], now: float) -> float:
    """When the first of them goes on or off; infinity: never."""
    moments = (rule.when.next_change(now) for rule in rules if rule.when is not None)
    return min(moments, default=float("inf"))
