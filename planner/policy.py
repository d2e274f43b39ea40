"""What each pool may have: the file's words, and an operator's overrides above them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from planner.config import Config, Pool
from planner.config_fields import MAX_WEIGHT, MIN_WEIGHT, UNGROUPED
from planner.snapshot import Refused

Pair = tuple[float, float]
NO_CEILING: Final = (float("inf"), float("inf"))


@dataclass(frozen=True)
class PoolPolicy:
    """Guarantee, ceiling (bit/s, upload and download) and weight of one pool."""

    guarantee_bps: Pair = (0.0, 0.0)
    ceiling_bps: Pair = NO_CEILING
    weight: float = 1.0

    @classmethod
    def of(cls, pool: Pool) -> PoolPolicy:
        """The policy that a block of the configuration describes."""
        ceiling = NO_CEILING if pool.ceiling_mbps is None else pool.ceiling_mbps.bps
        return cls(pool.guarantee_mbps.bps, ceiling, pool.weight)


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
        )

    def updated(self, changes: dict[str, Any]) -> Override:
        """This override with some values replaced."""
        return Override(**{**vars(self), **changes})


@dataclass
class Policies:
    """Every pool's policy by name, with overrides that outlive restarts."""

    config: Config
    overrides: dict[str, Override] = field(default_factory=dict)
    #: The file's words on users, read once: they are asked for at every rebuild.
    _users: dict[str, PoolPolicy] = field(default_factory=dict, repr=False)

    def user(self, name: str) -> PoolPolicy:
        """A configured user's policy."""
        policy = self._users.get(name)
        if policy is None:
            policy = self._users[name] = PoolPolicy.of(self.config.users[name])
        return policy

    def group(self, group_id: str) -> PoolPolicy:
        """A group's policy: override, else the file's group, else the defaults for groups."""
        if group_id == UNGROUPED:
            return PoolPolicy()
        below = PoolPolicy.of(self.config.groups.get(group_id, self.config.group_defaults))
        override = self.overrides.get(group_id)
        return override.over(below) if override else below

    def region(self, name: str) -> PoolPolicy:
        """A region's policy; its ceiling is its capacity where it names none below that."""
        region = self.config.regions[name]
        policy = PoolPolicy.of(region)
        ceiling = tuple(min(a, b) for a, b in zip(policy.ceiling_bps, region.capacity_mbps.bps, strict=True))
        return PoolPolicy(policy.guarantee_bps, (ceiling[0], ceiling[1]), policy.weight)

    def check_override(self, group_id: str, members: frozenset[str], override: Override) -> None:
        """Whether the tree could keep this promise. Raises Refused."""
        policy = override.over(self.group(group_id))
        for fault in self._faults(group_id, members, policy):
            raise Refused(fault)

    def _faults(self, group_id: str, members: frozenset[str], policy: PoolPolicy) -> Iterator[str]:
        path = f"groups.{group_id}"
        if not MIN_WEIGHT <= policy.weight <= MAX_WEIGHT:
            yield f"{path}.weight must be {MIN_WEIGHT:g} to {MAX_WEIGHT:g}, got {policy.weight:g}"
        for d, direction in enumerate(("up", "down")):
            guarantee, ceiling = policy.guarantee_bps[d], policy.ceiling_bps[d]
            if guarantee > ceiling:
                yield f"{path}.guarantee_mbps.{direction} must be <= its ceiling {ceiling / 1e6:g}, got {guarantee / 1e6:g}"
            own = sum(self.user(m).guarantee_bps[d] for m in members if m in self.config.users)
            if own > ceiling:
                yield (
                    f"{path}.ceiling_mbps.{direction} must be >= its members' guarantees, "
                    f"which sum to {own / 1e6:g}, got {ceiling / 1e6:g}"
                )
            others = sum(
                self.user(name).guarantee_bps[d] for name in self.config.users if name not in members
            )
            total = self.config.capacity_mbps.bps[d]
            if max(own, guarantee) + others > total:
                yield (
                    f"{path}.guarantee_mbps.{direction} must leave room for the other users' guarantees of "
                    f"{others / 1e6:g} within {total / 1e6:g}, got {max(own, guarantee) / 1e6:g}"
                )
