"""Which plan stands: shadow, canary and live; frozen, and back to an earlier one.

A plan is offered at every tick. ``Publication`` says which plan the switches shall
hold: the one offered, a part of it, or the one that stands.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

from planner.plan import Plan, decode_plan, encode_plan
from planner.snapshot import NotThere, Refused

Mode = Literal["live", "canary", "shadow"]
MODES: Final[tuple[Mode, ...]] = ("live", "canary", "shadow")
#: A plan this old is stale however short ticks are.
_LEAST_MAX_AGE_S: Final = 30.0


class StalePlan(Exception):
    """The plan rests on input that is too old: the one that stands is better."""


@dataclass(frozen=True)
class Stance:
    """What an operator, or else the file, wants published."""

    mode: Mode
    #: Under canary: the regions that follow the plan.
    regions: tuple[str, ...] = ()
    frozen: bool = False
    #: When it was taken, epoch seconds, and why; 0 and empty for the file's.
    since: float = 0.0
    reason: str = ""


@dataclass(frozen=True)
class KeptPlan:
    """A plan that one can go back to."""

    version: int
    #: When it was decided, epoch seconds.
    time: float


def canary_regions(names: Iterable[str], regions: Iterable[str], share: float) -> tuple[str, ...]:
    """The regions that go first: those named, or else so many by ``share`` (0 to 1), at least one if > 0.

    A larger share holds the regions of a smaller one, and which they are does not depend on
    the order in the file.
    """
    known, named = sorted(names), tuple(regions)
    if named:
        return tuple(name for name in known if name in set(named))
    ranked = sorted(known, key=lambda name: hashlib.sha256(name.encode()).digest())
    # A share such as 0.1 of 10 must not become 2 by a rounding error.
    return tuple(sorted(ranked[: math.ceil(share * len(known) - 1e-9)]))


def max_age_s(configured_s: float | None, tick_s: float) -> float:
    """How old a plan's input may be: as configured, or four ticks and at least 30 s."""
    return max(4 * tick_s, _LEAST_MAX_AGE_S) if configured_s is None else configured_s


class Publication:
    """What is published, and what was. Hold the planner's lock."""

    def __init__(
        self,
        stance: Stance,
        region_dpids: Mapping[str, tuple[int, ...]],
        max_age_s: float,
        plans_kept: int,
        keep_every_s: float,
    ) -> None:
        self.stance = stance
        self.max_age_s = max_age_s
        self.published = Plan(mode=stance.mode)
        #: The newest plan that was decided, published or not.
        self.proposed = self.published
        #: Changes with every change of what ``state`` gives.
        self.revision = 0
        self._region_dpids = dict(region_dpids)
        self._kept: deque[Plan] = deque(maxlen=plans_kept)
        self._keep_every_s = keep_every_s
        self._version = 0
        self._layout_version = 0
        #: What the layout version stands for.
        self._layout_key: tuple[Any, ...] = ()
        #: Under canary: what the other regions hold. None: nothing was ever live.
        self._baseline: Plan | None = None
        #: The kept version that the published plan repeats; None: its own.
        self._reverted_to: int | None = None

    # The loop's.

    @property
    def versions(self) -> tuple[int, int]:
        """The newest version of a plan and of a layout."""
        return self._version, self._layout_version

    def start_after(self, version: int, layout_version: int) -> None:
        """Number what comes above these."""
        self._version = max(self._version, version)
        self._layout_version = max(self._layout_version, layout_version)
        self.published = replace(self.published, version=self._version)
        # What is numbered anew is known to nobody.
        if self.published.layouts:
            self._renumber((self._version,), 0)
            self.published = replace(self.published, layout_version=self._layout_version)

    def offer(self, plan: Plan, age_s: float) -> Plan:
        """The plan that stands, given a new one whose input is ``age_s`` seconds old.

        Raises
        ------
        StalePlan : if that is more than ``max_age_s``; what stood before stands.
        """
        if not age_s <= self.max_age_s:
            raise StalePlan(f"a plan's input must be at most {self.max_age_s:g} s old, got {age_s:.0f} s")
        self._version += 1
        self.proposed = plan = replace(plan, version=self._version, mode=self.stance.mode)
        if self.stance.frozen:
            return self.published
        if self.stance.mode == "canary":
            plan = self._merged(plan)
        before = self._layout_version
        self._renumber((plan.mode, plan.layout_version, self._baseline and self._baseline.version), before)
        self.published = replace(plan, layout_version=self._layout_version)
        self._keep()
        return self.published

    def _renumber(self, key: tuple[Any, ...], least: int) -> None:
        if key != self._layout_key:
            self._layout_key, self._layout_version = key, max(self._layout_version, least) + 1

    def _merged(self, plan: Plan) -> Plan:
        """The new plan in the canary's regions, and in the others what stood when it began."""
        first = {dpid for name in self.stance.regions for dpid in self._region_dpids.get(name, ())}
        base = self._baseline or Plan()
        # A switch of no region only forwards; it follows whoever knows it.
        ours = first | (plan.layouts.keys() - {d for all_of in self._region_dpids.values() for d in all_of})

        def mixed(new: Mapping[int, Any], old: Mapping[int, Any]) -> dict[int, Any]:
            kept = {dpid: value for dpid, value in old.items() if dpid not in ours}
            return kept | {dpid: value for dpid, value in new.items() if dpid in ours}

        return replace(
            plan, layouts=mixed(plan.layouts, base.layouts), meters=mixed(plan.meters, base.meters)
        )

    def _keep(self) -> None:
        if self.stance.mode == "shadow":
            return
        if not self._kept or self.published.time - self._kept[-1].time >= self._keep_every_s:
            self._kept.append(self.published)
        elif self.published.time < self._kept[-1].time:
            # The clock was set back.
            self._kept[-1] = self.published

    # The operator's.

    @property
    def kept(self) -> tuple[KeptPlan, ...]:
        """The plans that one can go back to, newest first."""
        # A copy: the loop adds to it while readers read.
        return tuple(KeptPlan(plan.version, plan.time) for plan in reversed(tuple(self._kept)))

    @property
    def past(self) -> tuple[Plan, ...]:
        """The published plan, and then the kept ones, newest first."""
        standing = self.published
        kept = reversed(tuple(self._kept))
        return (standing, *(plan for plan in kept if plan.version != standing.version))

    def freeze(self, now: float, reason: str) -> None:
        """Let the published plan stand, whatever is decided. Raises Refused before there is one."""
        if not self.published.layouts:
            raise Refused("plan must have been published before it can be frozen, got none yet")
        self._take(replace(self.stance, frozen=True, since=now, reason=reason))

    def unfreeze(self, now: float) -> None:
        """Publish what is decided again, from the next tick on."""
        self._reverted_to = None
        self._take(replace(self.stance, frozen=False, since=now, reason=""))

    def revert(self, version: int | None, now: float, reason: str) -> None:
        """Publish a kept plan again and freeze it; the one before what stands if no version is named.

        A plan without meters binds nobody: it is gone back to only by name.

        Raises
        ------
        NotThere : if no such plan is kept.
        """
        standing = self.published.version if self._reverted_to is None else self._reverted_to
        for plan in reversed(self._kept):
            if plan.version == version:
                break
            if version is None and plan.version < standing and any(map(len, plan.meters.values())):
                break
        else:
            wanted = f"earlier than {standing}" if version is None else str(version)
            raise NotThere(f"version must be one of the kept plans, got {wanted}")
        self._version += 1
        self._renumber(("reverted", self._version), 0)
        self._reverted_to = plan.version
        self.published = replace(plan, version=self._version, layout_version=self._layout_version)
        self._take(replace(self.stance, frozen=True, since=now, reason=reason))

    def set_mode(self, mode: Mode, regions: tuple[str, ...], now: float) -> None:
        """Change the mode. Under canary all regions but these keep what stands now.

        Raises
        ------
        Refused : if a region is unknown, or a canary has none.
        """
        for name in regions:
            if name not in self._region_dpids:
                raise Refused(f"regions must be regions of the configuration, got {name!r}")
        if mode == "canary" and not regions:
            raise Refused("regions must name at least one under canary, got none")
        if mode == "canary" and self.stance.mode == "live" and self.published.layouts:
            self._baseline = self.published
        elif mode == "live":
            self._baseline = None
        self._take(
            replace(self.stance, mode=mode, regions=regions if mode == "canary" else (), since=now, reason="")
        )

    def _take(self, stance: Stance) -> None:
        self.stance = stance
        self.revision += 1

    # Restarts.

    def state(self) -> bytes:
        """What a successor needs: the stance, and the plans that cannot be made again."""
        frozen = self.published if self.stance.frozen else None
        return json.dumps(
            {
                "stance": asdict(self.stance),
                "standing": _packed(frozen),
                "baseline": _packed(self._baseline),
                "reverted_to": self._reverted_to,
            }
        ).encode()

    def restore(self, body: bytes) -> None:
        """Go on as ``state`` was. A stance that only repeats a file gives way to the file of now.

        Raises
        ------
        ValueError : if it is not such a state; nothing is changed.
        """
        try:
            raw = json.loads(body)
            given = raw["stance"]
            stance = Stance(
                given["mode"], tuple(given["regions"]), bool(given["frozen"]), given["since"], given["reason"]
            )
            standing, baseline = _unpacked(raw["standing"]), _unpacked(raw["baseline"])
            if stance.mode not in MODES or (stance.frozen and standing is None):
                raise ValueError(f"mode {stance.mode!r}, frozen {stance.frozen}")
            reverted_to = raw["reverted_to"]
        except (LookupError, TypeError, ValueError) as error:
            raise ValueError(f"publication is malformed: {error!r}") from None
        if stance.since > 0:
            self.stance = stance
        self._baseline, self._reverted_to = baseline, reverted_to
        if standing is not None and stance.frozen:
            self.published = standing
            self._version = max(self._version, standing.version)
            self._layout_version = max(self._layout_version, standing.layout_version)


def _packed(plan: Plan | None) -> str | None:
    return None if plan is None else base64.b64encode(encode_plan(plan)).decode()


def _unpacked(text: str | None) -> Plan | None:
    return None if text is None else decode_plan(base64.b64decode(text))
