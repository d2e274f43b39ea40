"""The policy file: rules in YAML, and the cases that show what they mean.

``tidegate policy test`` and the planner read it with the same ``load_policies``.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BeforeValidator, Field, StringConstraints, ValidationError, model_validator

from planner.config import CapacityField, Config, Pool, RatesField
from planner.config_block import Block
from planner.config_events import MomentField, epoch_s
from planner.config_faults import ConfigError, fault_lines
from planner.config_fields import (
    MAX_WEIGHT,
    MIN_WEIGHT,
    NAME_PATTERN,
    Fraction,
    NotNegative,
    Positive,
    number,
)
from planner.config_yaml import read_yaml
from planner.policies import (
    LAST_PRIORITY,
    NO_CEILING,
    NORMAL_PRIORITY,
    ClawBack,
    Daily,
    Dated,
    InForce,
    Lift,
    Pair,
    PolicySet,
    PoolPolicy,
    RegionTerms,
    Rule,
    ServicePlan,
)

_NAME: Final = NAME_PATTERN.strip("^$")
POOL_PATTERN: Final = rf"^((user|group|region):{_NAME}|user:{_NAME}/{_NAME})$"
_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

PoolName = Annotated[str, StringConstraints(pattern=POOL_PATTERN)]
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
PoolNames = Annotated[tuple[PoolName, ...], Field(min_length=1, max_length=10_000)]
Priority = Annotated[int, BeforeValidator(number), Field(ge=0, le=LAST_PRIORITY)]
Factor = Annotated[float, BeforeValidator(number), Field(ge=1, le=MAX_WEIGHT)]


def _parse_clock(value: object) -> dt.time:
    try:
        return value if isinstance(value, dt.time) else dt.time.fromisoformat(str(value))
    except ValueError:
        raise ValueError('must be a time of day such as "18:00"') from None


Clock = Annotated[dt.time, BeforeValidator(_parse_clock)]


class LiftBlock(Block):
    """What pools are given: at least one of these."""

    guarantee_mbps: RatesField | None = Field(default=None, description="at least this guarantee")
    ceiling_mbps: CapacityField | None = Field(default=None, description="at least this ceiling")
    weight_factor: Factor = Field(default=1.0, description="times the weight, >= 1")
    priority: Priority | None = Field(
        default=None,
        description=f"this class or an earlier one; 0 is served first, {NORMAL_PRIORITY} is normal",
    )

    def lift(self) -> Lift:
        """The value that is meant."""
        guarantee, ceiling = self.guarantee_mbps, self.ceiling_mbps
        return Lift(
            guarantee.bps if guarantee else None,
            ceiling.bps if ceiling else None,
            self.weight_factor,
            self.priority,
        )

    @model_validator(mode="after")
    def _some(self) -> LiftBlock:
        if self.lift() == Lift():
            raise ValueError(
                "must give at least one of guarantee_mbps, ceiling_mbps, weight_factor, priority"
            )
        return self


class Critical(LiftBlock):
    """A service that is served first, always."""

    pools: PoolNames = Field(description="`user:NAME`, `user:NAME/CLASS`, `group:NAME` or `region:NAME`")
    priority: Priority | None = Field(default=0, description="0 is served first")


class DailyBlock(Block):
    """A time of day, in the file's time zone."""

    begin: Clock = Field(alias="from", description='such as "18:00"')
    end: Clock = Field(alias="to", description="not included; before `from`: on the next day")
    days: Annotated[tuple[Literal[_DAYS], ...], Field(min_length=1)] = Field(  # type: ignore[valid-type]
        default=_DAYS, description="the days on which it begins"
    )

    def when(self, zone: ZoneInfo) -> Daily:
        """The value that is meant."""
        return Daily(self.begin, self.end, zone, frozenset(_DAYS.index(day) for day in self.days))


class Boost(LiftBlock):
    """More for some pools, for a time: `daily`, or from `start` to `end`. It ends by itself."""

    pools: PoolNames = Field(description="`user:NAME`, `user:NAME/CLASS`, `group:NAME` or `region:NAME`")
    daily: DailyBlock | None = Field(default=None, description="a time of day")
    start: MomentField | None = Field(default=None, description="when it begins")
    end: MomentField | None = Field(default=None, description="when it ends; a day is meant with all of it")

    @model_validator(mode="after")
    def _bounded(self) -> Boost:
        if self.daily is not None:
            if self.start is not None or self.end is not None:
                raise ValueError("must have either daily, or start and end: it has both")
        elif self.start is None or self.end is None:
            raise ValueError("must have an end: daily, or start and end")
        return self

    def when(self, zone: ZoneInfo) -> Dated | Daily:
        """The value that is meant. Raises ValueError when it ends before it begins."""
        if self.daily is not None:
            return self.daily.when(zone)
        assert self.start is not None
        assert self.end is not None
        return dated(self.start, self.end, zone)


def dated(start: dt.datetime | dt.date, end: dt.datetime | dt.date, zone: ZoneInfo) -> Dated:
    """The span between two moments. Raises ValueError when it ends before it begins."""
    last = end if isinstance(end, dt.datetime) else end + dt.timedelta(days=1)
    span = Dated(epoch_s(start, zone), epoch_s(last, zone))
    if span.end <= span.start:
        raise ValueError(f"end must be after start {start}, got {end}")
    return span


class ClawBackBlock(Block):
    """When a burst is taken back."""

    above: Fraction = Field(default=0.95, description="share of the region's capacity that is asked for")
    below: Fraction = Field(default=0.8, description="given again below this share")
    hold_s: NotNegative = Field(default=60.0, description="not given again within so long")

    @model_validator(mode="after")
    def _ordered(self) -> ClawBackBlock:
        if self.below > self.above:
            raise ValueError(f"must have below <= above {self.above:g}: {self.below:g} is more")
        return self


class PlanBlock(Block):
    """What is sold: a commit that is always there, and a burst while there is room."""

    pools: Annotated[tuple[PoolName, ...], Field(max_length=100_000)] = Field(description="who bought it")
    commit_mbps: RatesField = Field(description="the guarantee")
    burst_mbps: CapacityField = Field(description="the ceiling, >= commit")
    claw_back: ClawBackBlock | None = Field(default=None, description="absent: the burst is never taken back")

    @model_validator(mode="after")
    def _ordered(self) -> PlanBlock:
        for direction in ("up", "down"):
            low, high = getattr(self.commit_mbps, direction), getattr(self.burst_mbps, direction)
            if low > high:
                raise ValueError(f"must have commit_mbps.{direction} <= its burst {high:g}: {low:g} is more")
            if low <= 0 and self.claw_back is not None:
                raise ValueError(
                    f"must have commit_mbps.{direction} > 0 where the burst is taken back: it is 0"
                )
        return self

    def plan(self, name: str) -> ServicePlan:
        """The value that is meant."""
        back = self.claw_back
        return ServicePlan(
            name,
            self.pools,
            self.commit_mbps.bps,
            self.burst_mbps.bps,
            ClawBack(back.above, back.below, back.hold_s) if back else None,
        )


class Balance(Block):
    """How regions share what is scarce."""

    by: Literal["equal", "capacity", "shares"] = Field(description="what a region's weight is taken from")
    shares: dict[Name, Annotated[Positive, Field(ge=MIN_WEIGHT, le=MAX_WEIGHT)]] = Field(
        default_factory=dict, description="weight by region, for `by: shares`; a region not named: 1"
    )
    least_share: Fraction = Field(
        default=0.0, description="of what its weight entitles it to, so much is guaranteed to each region"
    )

    def terms(self, capacity_bps: Pair, regions: Mapping[str, Pair]) -> dict[str, RegionTerms]:
        """The terms of each region, by name and its own capacity (bit/s, upload and download)."""
        weight = {name: self._weight(name, own) for name, own in regions.items()}
        total = sum(weight.values())
        terms = {}
        for name, own in regions.items():
            part = self.least_share * weight[name] / total
            up, down = (min(part * all_bps, bps) for all_bps, bps in zip(capacity_bps, own, strict=True))
            terms[name] = RegionTerms(weight[name], (up, down))
        return terms

    def _weight(self, name: str, own: Pair) -> float:
        if self.by == "capacity":
            return sum(own) / 2e6
        return self.shares.get(name, 1.0) if self.by == "shares" else 1.0


class CasePool(Pool):
    """What the configuration says of a pool, for a case."""

    region: Name | None = Field(default=None, description="where the pool is, for claw-back")
    capacity_mbps: CapacityField | None = Field(default=None, description="of a region")


class Expectation(Block):
    """What a pool should have. What is absent is not looked at."""

    guarantee_mbps: RatesField | None = None
    ceiling_mbps: CapacityField | None = None
    weight: Positive | None = None
    priority: Priority | None = None


class Case(Block):
    """One moment, what is asked for, and what that should mean."""

    name: str = Field(min_length=1, max_length=200)
    at: MomentField
    capacity_mbps: CapacityField | None = Field(default=None, description="of the whole network")
    pools: dict[PoolName, CasePool] = Field(default_factory=dict)
    demand_mbps: dict[PoolName, RatesField] = Field(default_factory=dict)
    expect: Annotated[dict[PoolName, Expectation], Field(min_length=1)]


class PolicyFile(Block):
    """The whole file."""

    time_zone: str = Field(default="UTC", description="for times that name none, such as Europe/Berlin")
    critical: dict[Name, Critical] = Field(default_factory=dict)
    boosts: dict[Name, Boost] = Field(default_factory=dict)
    plans: dict[Name, PlanBlock] = Field(default_factory=dict)
    balance: Balance | None = None
    cases: tuple[Case, ...] = ()

    @property
    def zone(self) -> ZoneInfo:
        """The file's time zone."""
        return ZoneInfo(self.time_zone)

    def policies(self, capacity_bps: Pair | None, regions: Mapping[str, Pair]) -> PolicySet:
        """The rules, for regions of these capacities. Raises ValueError as ``Boost.when`` does."""
        rules = [Rule(f"critical {name}", one.pools, one.lift()) for name, one in self.critical.items()]
        rules += [
            Rule(f"boost {name}", one.pools, one.lift(), one.when(self.zone))
            for name, one in self.boosts.items()
        ]
        plans = tuple(one.plan(name) for name, one in self.plans.items())
        balanced = self.balance is not None and regions
        total = capacity_bps or _sum(regions.values())
        terms = self.balance.terms(total, regions) if self.balance and balanced else {}
        return PolicySet(tuple(rules), plans, terms)


def _sum(pairs: Any) -> Pair:
    up, down = zip(*pairs, strict=True) if pairs else ((), ())
    return float(sum(up)), float(sum(down))


def load_policies(path: Path) -> PolicyFile:
    """The policies in a file.

    Raises
    ------
    ConfigError : with one line a fault, each with the file's path first.
    """
    raw = read_yaml(path)
    if not isinstance(raw, Mapping):
        raise ConfigError([f"{path}: the file must be a mapping of blocks, got {type(raw).__name__}"])
    try:
        found = PolicyFile.model_validate(raw)
    except ValidationError as error:
        raise ConfigError([f"{path}: {line}" for line in fault_lines(error.errors(), raw)]) from None
    faults = list(_broken_rules(found))
    if faults:
        raise ConfigError([f"{path}: {fault}" for fault in faults])
    return found


def _broken_rules(found: PolicyFile) -> Iterator[str]:
    try:
        zone = found.zone
    except (ZoneInfoNotFoundError, ValueError, OSError):
        yield f"time_zone must be a name such as Europe/Berlin, got {found.time_zone!r}"
        return
    for name, boost in found.boosts.items():
        try:
            boost.when(zone)
        except ValueError as error:
            yield f"boosts.{name}.{error}"
    sold: dict[str, str] = {}
    for name, plan in found.plans.items():
        for pool in plan.pools:
            if sold.setdefault(pool, name) != name:
                yield f"plans.{name}.pools must not hold what plans.{sold[pool]} holds, got {pool}"
            if pool.startswith("region:"):
                yield f"plans.{name}.pools must be users or groups, got {pool}"
    if found.balance is not None and found.balance.shares and found.balance.by != "shares":
        yield f"balance.shares must be given with by: shares only, got by: {found.balance.by}"


def policies_for(config: Config, path: Path) -> PolicySet:
    """The rules in a file, for this configuration.

    Groups are not checked: which there are is found from traffic.

    Raises
    ------
    ConfigError : as ``load_policies`` does, and for users and regions that the configuration does not know.
    """
    found = load_policies(path)
    policies = found.policies(
        config.capacity_mbps.bps, {name: region.capacity_mbps.bps for name, region in config.regions.items()}
    )
    named = [(f"critical.{name}.pools", one.pools) for name, one in found.critical.items()]
    named += [(f"boosts.{name}.pools", one.pools) for name, one in found.boosts.items()]
    named += [(f"plans.{name}.pools", one.pools) for name, one in found.plans.items()]
    if found.balance is not None:
        named.append(("balance.shares", tuple(f"region:{name}" for name in found.balance.shares)))
    faults = [
        fault for where, pools in named for pool in pools for fault in unknown_pool(config, where, pool)
    ]
    if faults:
        raise ConfigError([f"{path}: {fault}" for fault in faults])
    return policies


def unknown_pool(config: Config, where: str, pool: str) -> Iterator[str]:
    """The fault of naming a user or region that is not there."""
    kind, _, name = pool.partition(":")
    user, _, application = name.partition("/")
    if kind == "user" and application and user in config.users:
        # Without classes of its own a user has none that could be given more.
        if application not in (own := config.users[user].applications) and (
            application != "other" or not own
        ):
            yield f"{where} must be applications of users.{user}, got {application!r}"
        return
    blocks: dict[str, Mapping[str, object]] = {"user": config.users, "region": config.regions}
    if name not in blocks.get(kind, {name: None}):
        yield f"{where} must be {kind}s of the configuration, got {name!r}"


# Cases.


@dataclass(frozen=True)
class CaseResult:
    """What came of one case: a line for each value that is not as expected, as (pool, expected, found)."""

    name: str
    differences: tuple[tuple[str, str, str], ...]

    @property
    def passed(self) -> bool:
        """Whether everything is as expected."""
        return not self.differences


def run_cases(found: PolicyFile, config: Config | None = None) -> list[CaseResult]:
    """Each case of the file in turn; pools that a case does not describe are taken from ``config``."""
    return [_run(found, case, config) for case in found.cases]


def _run(found: PolicyFile, case: Case, config: Config | None) -> CaseResult:
    regions = {} if config is None else {name: r.capacity_mbps.bps for name, r in config.regions.items()}
    regions |= {
        pool.removeprefix("region:"): one.capacity_mbps.bps
        for pool, one in case.pools.items()
        if pool.startswith("region:") and one.capacity_mbps is not None
    }
    total = case.capacity_mbps or (config.capacity_mbps if config else None)
    policies = found.policies(total.bps if total else None, regions)
    now = epoch_s(case.at, found.zone)
    load = {
        name: _shares(case.demand_mbps[f"region:{name}"].bps, capacity)
        for name, capacity in regions.items()
        if f"region:{name}" in case.demand_mbps
    }
    rules = InForce.at(policies, now, policies.clawed({}, load, now))
    differences = []
    for pool, expected in case.expect.items():
        described = case.pools.get(pool)
        base = pool_policy(described) if described else _configured(config, pool)
        policy = rules.over(pool, base, described.region if described else None)
        differences += [(pool, *pair) for pair in _differences(expected, policy)]
    return CaseResult(case.name, tuple(differences))


def _shares(demand_bps: Pair, capacity_bps: Pair) -> Pair:
    return demand_bps[0] / capacity_bps[0], demand_bps[1] / capacity_bps[1]


def pool_policy(pool: Pool) -> PoolPolicy:
    """The policy that a block of the configuration describes."""
    ceiling = NO_CEILING if pool.ceiling_mbps is None else pool.ceiling_mbps.bps
    return PoolPolicy(pool.guarantee_mbps.bps, ceiling, pool.weight, pool.priority)


def _configured(config: Config | None, pool: str) -> PoolPolicy:
    if config is None:
        return PoolPolicy()
    kind, _, name = pool.partition(":")
    user, _, application = name.partition("/")
    if application:
        named = config.users[user].applications.get(application) if user in config.users else None
        return pool_policy(named) if named is not None else PoolPolicy()
    blocks: Mapping[str, Mapping[str, Pool]] = {
        "user": config.users,
        "group": config.groups,
        "region": config.regions,
    }
    found = blocks[kind].get(name, config.group_defaults if kind == "group" else None)
    return pool_policy(found) if found is not None else PoolPolicy()


def _differences(expected: Expectation, policy: PoolPolicy) -> Iterator[tuple[str, str]]:
    for name in ("guarantee", "ceiling"):
        wanted = getattr(expected, f"{name}_mbps")
        given: Pair = getattr(policy, f"{name}_bps")
        if wanted is not None and tuple(map(round_bps, given)) != wanted.bps:
            yield f"{name}_mbps: {_mbps(wanted.bps)}", f"{name}_mbps: {_mbps(given)}"
    if expected.weight is not None and abs(expected.weight - policy.weight) > 1e-9 * policy.weight:
        yield f"weight: {expected.weight:g}", f"weight: {policy.weight:g}"
    priority = NORMAL_PRIORITY if policy.priority is None else policy.priority
    if expected.priority is not None and expected.priority != priority:
        yield f"priority: {expected.priority}", f"priority: {priority}"


def round_bps(rate: float) -> float:
    """Whole bit/s; infinity as it is."""
    return rate if rate == float("inf") else round(rate)


def _mbps(pair: Pair) -> str:
    up, down = (f"{rate / 1e6:.12g}" if rate != float("inf") else "none" for rate in pair)
    return up if up == down else f"{{up: {up}, down: {down}}}"
