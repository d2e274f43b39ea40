"""What each pool may have: the file's words, the policies of now, and an operator's overrides above them."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from planner.config import Config, Pool
from planner.config_fields import MAX_WEIGHT, MIN_WEIGHT, UNGROUPED
from planner.policies import Dated, InForce, Lift, Pair, PolicySet, PoolPolicy, Rule, by_pool, next_change
from planner.policies_file import policies_for, pool_policy, unknown_pool
from planner.shaping import TrafficShape
from planner.snapshot import NotThere, Refused


@dataclass(frozen=True)
class Override:
    """What an operator set by REST; None where the value below holds."""

    guarantee_bps: tuple[int, int] | None = None
    ceiling_bps: tuple[int, int] | None = None
    weight: float | None = None

    def over(self, below: PoolPolicy) -> PoolPolicy:
        """The policy with this override applied."""
        return PoolPolicy(
            self.guarantee_bps if self.guarantee_bps is not None else below.guarantee_bps,
            self.ceiling_bps if self.ceiling_bps is not None else below.ceiling_bps,
            self.weight if self.weight is not None else below.weight,
            below.priority,
        )

    def updated(self, changes: dict[str, Any]) -> Override:
        """This override with some values replaced."""
        return Override(**{**vars(self), **changes})


@dataclass(frozen=True)
class TemporaryBoost:
    """A lift that an operator gave by REST until a moment of the future."""

    id: str
    pools: tuple[str, ...]
    lift: Lift
    #: Epoch seconds.
    start: float
    end: float
    reason: str = ""

    @property
    def rule(self) -> Rule:
        """The rule that it is."""
        return Rule(f"boost {self.id}", self.pools, self.lift, Dated(self.start, self.end))


@dataclass
class Policies:
    """Every pool's policy by name: configuration, then policies, then overrides, then temporary boosts.

    Overrides and boosts outlive restarts. What holds is reckoned anew by ``step``, and only when a
    rule goes on or off.
    """

    config: Config
    overrides: dict[str, Override] = field(default_factory=dict)
    boosts: dict[str, TemporaryBoost] = field(default_factory=dict)
    #: The rules of the policy file.
    rules: PolicySet = field(default_factory=PolicySet)
    in_force: InForce = field(default_factory=InForce)
    #: The boosts that are on, by pool.
    _boosted: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict, repr=False)
    #: The traffic shapes of each user that is shaped by itself, the narrowest last; and of groups made of a range.
    _shaped: Mapping[str, tuple[TrafficShape, ...]] = field(default_factory=dict, repr=False)
    _shaped_groups: Mapping[str, TrafficShape] = field(default_factory=dict, repr=False)
    #: What remediation gives to pools, and the most it leaves to users, until it takes that back.
    _remedies: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict, repr=False)
    _limits: Mapping[str, Pair] = field(default_factory=dict, repr=False)
    _remedied: bool = field(default=False, repr=False)
    #: When the next rule or boost goes on or off, and when that was reckoned.
    _until: float = field(default=float("-inf"), repr=False)
    _since: float = field(default=float("inf"), repr=False)
    #: The file's words on users, read once: they are asked for at every rebuild.
    _users: dict[str, PoolPolicy] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.config.policies.file is not None:
            self.rules = policies_for(self.config, self.config.policies.file)

    def step(self, now: float, load: Mapping[str, Pair]) -> bool:
        """Take the rules of this moment. True if what a pool may have has changed.

        ``load`` is what each region is asked for as a share of its capacity; see ``PolicySet.clawed``.
        """
        clawed = self.rules.clawed(self.in_force.clawed, load, now)
        remedied, self._remedied = self._remedied, False
        # A clock that was set back may lie before the last boundary.
        if not remedied and self._since <= now < self._until and clawed.keys() == self.in_force.clawed.keys():
            return False
        before = (self.in_force, self._boosted)
        # Replaced and not changed, here and below: readers do not wait for the loop.
        self.boosts = {name: one for name, one in self.boosts.items() if one.end > now}
        rules = [boost.rule for boost in self.boosts.values()]
        self.in_force, self._boosted = InForce.at(self.rules, now, clawed), by_pool(rules, now)
        self._since, self._until = now, min(self.in_force.until, next_change(rules, now))
        same = (replace(before[0], until=self.in_force.until), before[1]) == (self.in_force, self._boosted)
        return remedied or not same

    def remedy(self, rules: Iterable[Rule], limits: Mapping[str, Pair]) -> None:
        """What remediation wants from the next ``step`` on, in place of what it wanted before.

        limits : the most that users may have, upload and download, bit/s of frames, by user id.
        """
        wanted = by_pool(rules, 0.0)
        if (wanted, limits) != (self._remedies, self._limits):
            self._remedies, self._limits, self._remedied = wanted, dict(limits), True

    def copied(self) -> Policies:
        """The same, to be changed by itself. A new one would read the policy file again."""
        same = copy.copy(self)
        same.boosts, same.overrides = dict(self.boosts), dict(self.overrides)
        return same

    def shape(
        self, users: Mapping[str, tuple[TrafficShape, ...]], groups: Mapping[str, TrafficShape]
    ) -> None:
        """The traffic shapes that hold from the next ``step`` on, by user id and by group id."""
        if (users, groups) != (self._shaped, self._shaped_groups):
            self._shaped, self._shaped_groups, self._remedied = users, groups, True

    @property
    def watches_load(self) -> bool:
        """Whether ``step`` looks at the load."""
        return self.rules.watches_load

    def names(self, pool: str) -> tuple[str, ...]:
        """The rules, boosts and overrides that concern a pool now, for people."""
        override = ("override",) if pool.removeprefix("group:") in self.overrides and pool[0] == "g" else ()
        rules = (*self._boosted.get(pool, ()), *self._remedies.get(pool, ()))
        limited = ("remediation",) if pool.removeprefix("user:") in self._limits and pool[0] == "u" else ()
        shapes = tuple(f"shape {shape.id}" for shape in self._shapes_of(pool))
        return self.in_force.names(pool) + override + shapes + tuple(rule.name for rule in rules) + limited

    def _shapes_of(self, pool: str) -> tuple[TrafficShape, ...]:
        kind, _, name = pool.partition(":")
        if kind == "user":
            return self._shaped.get(name, ())
        shape = self._shaped_groups.get(name) if kind == "group" else None
        return () if shape is None else (shape,)

    def user(self, name: str, region: str | None = None) -> PoolPolicy:
        """A configured user's policy in frames; ``region`` is where the user is, for bursts that are taken back there."""
        policy, limit = self._in_frames(self._user(name, region)), self._limits.get(name)
        # Rates that remediation measured are of frames already.
        return policy if limit is None else _limited(policy, limit)

    def _user(self, name: str, region: str | None = None) -> PoolPolicy:
        policy = self._users.get(name)
        if policy is None:
            block = self.config.users[name]
            policy = self._users[name] = _keeping(block.applications.values(), pool_policy(block))
        pool = f"user:{name}"
        return self._shaped_over(pool, self.in_force.over(pool, policy, region))

    def _shaped_over(self, pool: str, policy: PoolPolicy) -> PoolPolicy:
        """The policy under the pool's traffic shapes and boosts: shapes set, boosts lift, and limits hold."""
        shapes = self._shapes_of(pool)
        for shape in shapes:
            policy = shape.over(policy)
        policy = self._with_boosts(pool, policy)
        for shape in shapes:
            policy = shape.within(policy)
        return policy

    def application(self, user: str, name: str, region: str | None = None) -> PoolPolicy:
        """The policy in frames of one application class of a user; ``region`` is where the user is."""
        block = self.config.users[user].applications.get(name)
        pool, policy = f"user:{user}/{name}", PoolPolicy() if block is None else pool_policy(block)
        return self._in_frames(self._with_boosts(pool, self.in_force.over(pool, policy, region)))

    def group(self, group_id: str, region: str | None = None) -> PoolPolicy:
        """A group's policy in frames: the file's group, or the defaults for groups, and what is above that."""
        return self._in_frames(self._group(group_id, region))

    def _group(self, group_id: str, region: str | None = None) -> PoolPolicy:
        if group_id == UNGROUPED:
            return PoolPolicy()
        pool = f"group:{group_id}"
        below = pool_policy(self.config.groups.get(group_id, self.config.group_defaults))
        policy = self.in_force.over(pool, below, region)
        override = self.overrides.get(group_id)
        return self._shaped_over(pool, override.over(policy) if override else policy)

    def region(self, name: str) -> PoolPolicy:
        """A region's policy; its ceiling is its capacity where it names none below that."""
        pool, region = f"region:{name}", self.config.regions[name]
        policy = self._with_boosts(pool, self.in_force.over(pool, pool_policy(region)))
        ceiling = tuple(min(a, b) for a, b in zip(policy.ceiling_bps, region.capacity_mbps.bps, strict=True))
        return replace(policy, ceiling_bps=(ceiling[0], ceiling[1]))

    def _in_frames(self, promised: PoolPolicy) -> PoolPolicy:
        """What is promised to users and groups, as the frames that carry it. Capacities are frames already."""
        factor = self.config.allocation.frame_bits
        if factor == 1:
            return promised
        guarantee, ceiling = (
            (up * factor, down * factor) for up, down in (promised.guarantee_bps, promised.ceiling_bps)
        )
        return replace(promised, guarantee_bps=guarantee, ceiling_bps=ceiling)

    def _with_boosts(self, pool: str, policy: PoolPolicy) -> PoolPolicy:
        for rule in (*self._boosted.get(pool, ()), *self._remedies.get(pool, ())):
            policy = rule.lift.over(policy)
        return policy

    def boost(self, boost: TemporaryBoost, groups: Iterable[str], now: float) -> None:
        """Take a boost; ``step`` puts it into force.

        Raises
        ------
        Refused : if there is one of that id, it is over, a pool is not there, or there is no room for what is promised.
        """
        path = f"boosts.{boost.id}"
        if boost.id in self.boosts:
            raise Refused(f"{path} must be a new id, got one that exists")
        if boost.end <= max(now, boost.start):
            raise Refused(
                f"{path}.end must be in the future and after its start {boost.start:.0f}, got {boost.end:.0f}"
            )
        known = set(groups)
        for pool in boost.pools:
            for fault in unknown_pool(self.config, f"{path}.pools", pool):
                raise Refused(fault)
            if pool.startswith("group:") and pool.removeprefix("group:") not in known:
                raise Refused(
                    f"{path}.pools must be groups that are there, got {pool.removeprefix('group:')!r}"
                )
        self._check_boost(path, boost)
        self.boosts = {**self.boosts, boost.id: boost}
        self._until = float("-inf")

    def withdraw(self, boost_id: str) -> None:
        """End a boost now. Raises NotThere."""
        if boost_id not in self.boosts:
            raise NotThere(f"boostID must be the id of a boost, got {boost_id!r}")
        self.boosts = {name: one for name, one in self.boosts.items() if name != boost_id}
        self._until = float("-inf")

    def restore(self, overrides: Mapping[str, Override], boosts: Mapping[str, TemporaryBoost]) -> None:
        """What an earlier planner held."""
        self.overrides, self.boosts = dict(overrides), dict(boosts)
        self._until = float("-inf")

    def check_override(self, group_id: str, members: frozenset[str], override: Override) -> None:
        """Whether the tree could keep this promise. Raises Refused."""
        policy = override.over(self._group(group_id))
        for fault in self._faults(group_id, members, policy):
            raise Refused(fault)

    def _check_boost(self, path: str, boost: TemporaryBoost) -> None:
        """Whether a boost's guarantees fit beside those of all others. Raises Refused."""
        if boost.lift.guarantee_bps is None:
            return
        boosted = {kind: set[str]() for kind in ("user", "region", "group")}
        for pool in boost.pools:
            kind, _, name = pool.partition(":")
            boosted[kind].add(name.partition("/")[0] if kind == "user" else name)
        for d, direction in enumerate(("up", "down")):
            least = boost.lift.guarantee_bps[d]
            for region in sorted(boosted["region"]):
                if least > (capacity := self.config.regions[region].capacity_mbps.bps[d]):
                    raise Refused(
                        f"{path}.guarantee_mbps.{direction} must be <= the capacity {capacity / 1e6:g} of "
                        f"regions.{region}, got {least / 1e6:g}"
                    )
            own = sum(max(least, self._user(name).guarantee_bps[d]) for name in boosted["user"])
            own = max(own, least if boosted["group"] else 0.0)
            # A pool above users has their guarantees within its own.
            besides = boosted["user"] or self.config.users
            for fault in self._no_room(path, d, own, besides):
                raise Refused(f"{fault} in all")

    def check_shape(self, shape: TrafficShape, users: Iterable[str]) -> None:
        """Whether a shape's guarantees fit beside those of all others. Raises Refused."""
        if shape.guarantee_bps is None:
            return
        concerned = [user for user in users if user in self.config.users]
        times = len(concerned) if shape.scope == "each" else 1
        for d in range(2):
            own = shape.guarantee_bps[d] * times
            for fault in self._no_room(f"trafficShapes.{shape.id}", d, own, concerned):
                raise Refused(f"{fault} in all")

    def _no_room(self, path: str, d: int, own_bps: float, besides: Collection[str]) -> Iterator[str]:
        """The fault of promising so much where all users but these keep their guarantees."""
        others = sum(self._user(name).guarantee_bps[d] for name in self.config.users if name not in besides)
        total = self.config.capacity_mbps.bps[d] / self.config.allocation.frame_bits
        if own_bps + others > total:
            yield (
                f"{path}.guarantee_mbps.{('up', 'down')[d]} must leave room for the other users' guarantees of "
                f"{others / 1e6:g} within {total / 1e6:g}, got {own_bps / 1e6:g}"
            )

    def _faults(self, group_id: str, members: frozenset[str], policy: PoolPolicy) -> Iterator[str]:
        path = f"groups.{group_id}"
        if not MIN_WEIGHT <= policy.weight <= MAX_WEIGHT:
            yield f"{path}.weight must be {MIN_WEIGHT:g} to {MAX_WEIGHT:g}, got {policy.weight:g}"
        for d, direction in enumerate(("up", "down")):
            guarantee, ceiling = policy.guarantee_bps[d], policy.ceiling_bps[d]
            if guarantee > ceiling:
                yield f"{path}.guarantee_mbps.{direction} must be <= its ceiling {ceiling / 1e6:g}, got {guarantee / 1e6:g}"
            own = sum(self._user(m).guarantee_bps[d] for m in members if m in self.config.users)
            if own > ceiling:
                yield (
                    f"{path}.ceiling_mbps.{direction} must be >= its members' guarantees, "
                    f"which sum to {own / 1e6:g}, got {ceiling / 1e6:g}"
                )
            yield from self._no_room(path, d, max(own, guarantee), members)


def _keeping(applications: Iterable[Pool], policy: PoolPolicy) -> PoolPolicy:
    """The policy of a user, who is promised what its application classes are."""
    promised = [one.guarantee_mbps.bps for one in applications]
    (up, down), own = map(sum, zip(*promised, (0, 0), strict=True)), policy.guarantee_bps
    if up <= own[0] and down <= own[1]:
        return policy
    return replace(policy, guarantee_bps=(max(own[0], up), max(own[1], down)))


def _limited(policy: PoolPolicy, limit: Pair) -> PoolPolicy:
    """The policy of a user that may have at most this: no promise above it."""
    ceiling = min(policy.ceiling_bps[0], limit[0]), min(policy.ceiling_bps[1], limit[1])
    guarantee = min(policy.guarantee_bps[0], ceiling[0]), min(policy.guarantee_bps[1], ceiling[1])
    return replace(policy, guarantee_bps=guarantee, ceiling_bps=ceiling)
