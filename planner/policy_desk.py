"""What operators ask of policies and plans: boosts, modes, freeze and revert, and why a pool has what it has."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from planner.explain import Explanation, explain, policy_name
from planner.loop import Planner
from planner.modes import KeptPlan, Mode, Stance, canary_regions
from planner.plan import Plan
from planner.policies import Lift
from planner.policy import TemporaryBoost
from planner.pool_names import row_of
from planner.requests import StandbyReport
from planner.snapshot import NotThere


@dataclass(frozen=True)
class PlanState:
    """Which plan stands."""

    stance: Stance
    #: The published plan, and when it was decided.
    published: KeptPlan
    #: The newest that was decided, published or not.
    proposed: KeptPlan
    #: Whether it has not been confirmed for too long.
    stale: bool
    max_age_s: float
    #: Newest first.
    kept: tuple[KeptPlan, ...]


class PolicyDesk:
    """For any thread. Writes return when they are stored; the next tick follows them."""

    def __init__(
        self, planner: Planner, written: Callable[[str], None], now: Callable[[], float] = time.time
    ) -> None:
        """``written`` is told in words what was changed; when it returns that is on disk."""
        self._planner = planner
        self._written = written
        self._now = now

    # Plans.

    def plan_state(self) -> PlanState:
        """Which plan stands, and which could. Waits for no tick, as the other questions here."""
        planner, own = self._planner, self._planner.publication
        published, proposed = (KeptPlan(plan.version, plan.time) for plan in (own.published, own.proposed))
        return PlanState(own.stance, published, proposed, planner.plan_is_stale, own.max_age_s, own.kept)

    def plans(self) -> tuple[Plan, ...]:
        """The published plan and the kept ones, newest first."""
        return self._planner.publication.past

    def two_plans(self, before: int | None, after: int | None) -> tuple[Plan, Plan]:
        """Two of those by version: the published one where ``after`` is None, the one before it where ``before`` is.

        Raises NotThere.
        """
        plans = self.plans()
        new = next((plan for plan in plans if after in (None, plan.version)), None)
        if new is None:
            raise NotThere(f"to must be the version of a kept plan, got {after}")
        earlier = (plan for plan in plans if plan.version < new.version)
        old = next(earlier if before is None else (p for p in plans if p.version == before), None)
        if old is None:
            wanted = f"none before {new.version}" if before is None else str(before)
            raise NotThere(f"from must be the version of a kept plan, got {wanted}")
        return old, new

    def freeze(self, reason: str) -> PlanState:
        """Let the published plan stand. Raises Refused."""
        with self._planner.lock:
            self._planner.publication.freeze(self._now(), reason)
        return self._done(f"plan frozen: {reason}")

    def unfreeze(self) -> PlanState:
        """Publish new plans again."""
        with self._planner.lock:
            self._planner.publication.unfreeze(self._now())
        return self._done("plan unfrozen")

    def revert(self, version: int | None, reason: str) -> PlanState:
        """Publish an earlier plan and freeze it; the one before if none is named. Raises NotThere."""
        with self._planner.lock:
            self._planner.publication.revert(version, self._now(), reason)
        return self._done(f"plan reverted to {version or 'the one before'}: {reason}")

    def set_mode(self, mode: Mode, regions: tuple[str, ...], share: float | None) -> PlanState:
        """Change the mode; under canary for these regions, or a share of them. Raises Refused."""
        if mode == "canary" and not regions:
            canary = self._planner.config.allocation.canary
            share = canary.share if share is None else share
            regions = canary_regions(self._planner.config.regions, canary.regions, share)
        with self._planner.lock:
            self._planner.publication.set_mode(mode, regions, self._now())
        return self._done(f"mode {mode} {' '.join(regions)}".strip())

    def _done(self, what: str) -> PlanState:
        self._written(what)
        return self.plan_state()

    # Boosts.

    def boosts(self) -> tuple[TemporaryBoost, ...]:
        """Those that are not over, by their end."""
        now = self._now()
        alive = [boost for boost in self._planner.policies.boosts.values() if boost.end > now]
        return tuple(sorted(alive, key=lambda boost: (boost.end, boost.id)))

    def boost(
        self,
        boost_id: str | None,
        pools: tuple[str, ...],
        lift: Lift,
        start: float | None,
        end: float,
        reason: str,
    ) -> TemporaryBoost:
        """Give pools more until ``end``, epoch seconds; from now on if no start is named. Raises Refused."""
        now = self._now()
        made = TemporaryBoost(
            boost_id or f"b-{secrets.token_hex(4)}", pools, lift, now if start is None else start, end, reason
        )
        planner = self._planner
        with planner.lock:
            planner.policies.boost(made, [group.id for group in planner.grouping.groups], now)
        self._written(f"boost {made.id} for {', '.join(pools)} until {end:.0f}")
        return made

    def withdraw(self, boost_id: str) -> None:
        """End a boost now. Raises NotThere."""
        with self._planner.lock:
            self._planner.policies.withdraw(boost_id)
        self._written(f"boost {boost_id} withdrawn")

    # Questions.

    def standbys(self) -> StandbyReport:
        """Who has a standby where, and what became of earlier ones."""
        with self._planner.lock:
            return self._planner.standby_report()

    def explain(self, pool: str) -> Explanation:
        """Why a pool has what it has; by its path, or the end of it where only one ends so. Raises NotThere."""
        planner = self._planner
        decided, own = planner.decided, planner.publication
        if decided is None:
            raise NotThere(f"pool must be one that is planned, got {pool!r} before the first plan")
        row = row_of(decided.structure.path, pool)
        names = planner.policies.names(policy_name(decided.structure, row))
        return explain(decided, row, own.published, own.stance, names)
