"""Why a pool has what it has: sample -> forecast -> tier -> share -> what bound it -> switch shares -> meters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from allocation.allocate import Bound
from allocation.tiers import Phase, Tier
from forecasting.forecast import Rung
from planner.decision import Decision
from planner.modes import Stance
from planner.observation import Observed
from planner.plan import MeterTable, Plan
from planner.snapshot import Level
from planner.structure import Structure

DIRECTION_NAMES: Final = ("up", "down")


@dataclass(frozen=True, eq=False)
class Decided:
    """What one tick knew and decided, kept as it was then."""

    time: float
    structure: Structure
    observed: Observed
    decision: Decision


@dataclass(frozen=True)
class SampleWas:
    """What was measured. NaN: not known."""

    offered_bps: float
    delivered_bps: float
    #: The newest that is known of what it offered; its use while that is unknown. NaN for pools above the users.
    last_offered_bps: float
    #: What was offered is less than was wanted: a meter dropped, or the pool filled its grant.
    censored: bool


@dataclass(frozen=True)
class ForecastWas:
    """The forecast in force: the highest of all horizons."""

    #: Epoch seconds at which its knowledge ended.
    end_time: float
    #: Which rung of the ladder made it.
    rung: str
    p50_bps: float
    p90_bps: float


@dataclass(frozen=True)
class TierWas:
    """How far the forecast was asked for. Only users ask, or their application classes."""

    #: NaN: none, or tiers are switched off.
    confidence: float
    #: ``full``, ``partial`` or ``standby``.
    tier: str
    #: The part of the forecast that was asked for, 0 to 1.
    share: float
    #: ``none``, ``waiting``, ``active`` or ``expired``.
    standby: str
    #: What the parent keeps.
    kept_bps: float


@dataclass(frozen=True)
class ShareWas:
    """What the pool got at each stage, and why no more."""

    guarantee_bps: float
    #: Infinity: none of its own.
    ceiling_bps: float
    weight: float
    priority: int
    #: Policies, boosts and overrides that made these values what they are.
    policies: tuple[str, ...]
    #: What it asked for in all, by the last row of claims.
    claim_bps: int
    #: What it held after the guarantee, after each row of claims, and after the leftover.
    stages_bps: tuple[int, ...]
    #: ``parent``, ``guarantee``, ``claim``, ``leftover``, ``ceiling`` or ``link``.
    bound: str
    #: Path of the pool whose limit it is.
    bound_by: str
    #: That pool's limit.
    limit_bps: float
    wanted_bps: int
    #: After the dead band: a small rise waits.
    grant_bps: int


@dataclass(frozen=True)
class MeterWas:
    """One switch's share of the grant, and the meter that holds it."""

    dpid: int
    meter_id: int
    share_bps: int
    #: Of the published plan; None: it has no such meter.
    rate_kbps: int | None
    burst_kbit: int | None
    #: True where other pools use the same meter: its rate is that of all of them.
    shared: bool


@dataclass(frozen=True)
class DirectionWas:
    """The chain in one direction."""

    #: ``up`` or ``down``.
    direction: str
    sample: SampleWas
    forecast: ForecastWas
    tier: TierWas
    share: ShareWas
    meters: tuple[MeterWas, ...]
    #: The chain in words, one sentence a step.
    text: tuple[str, ...]


@dataclass(frozen=True)
class Explanation:
    """Why one pool has what it has."""

    path: str
    level: str
    #: When it was decided, epoch seconds.
    time: float
    #: Version of the published plan, its mode, and whether an operator froze it: then it is older.
    plan_version: int
    mode: str
    frozen: bool
    directions: tuple[DirectionWas, DirectionWas]


def explain(decided: Decided, row: int, plan: Plan, stance: Stance, policies: tuple[str, ...]) -> Explanation:
    """The chain for the pool in this row of ``decided.structure``."""
    s = decided.structure
    up, down = (_direction(decided, row, d, plan, policies) for d in (0, 1))
    return Explanation(
        s.path[row],
        Level(s.level[row]).name.lower(),
        decided.time,
        plan.version,
        stance.mode,
        stance.frozen,
        (up, down),
    )


def policy_name(s: Structure, row: int) -> str:
    """What policies call the pool in this row; empty for the root."""
    place = s.path[row].split("/")
    if s.level[row] == Level.APPLICATION:
        return f"user:{'/'.join(place[-2:])}"
    return f"{Level(s.level[row]).name.lower()}:{place[-1]}" if len(place) > 1 else ""


def _direction(decided: Decided, row: int, d: int, plan: Plan, policies: tuple[str, ...]) -> DirectionWas:
    sample = _sample(decided, row, d)
    forecast = _forecast(decided, row, d)
    tier = _tier(decided.decision, row, d)
    share = _share(decided, row, d, policies)
    meters = _meters(decided, row, d, plan)
    text = tuple(_sentences(sample, forecast, tier, share, meters))
    return DirectionWas(DIRECTION_NAMES[d], sample, forecast, tier, share, meters, text)


def _sample(decided: Decided, row: int, d: int) -> SampleWas:
    observed = decided.observed
    asks = row in decided.structure.trees[d].leaves
    return SampleWas(
        float(observed.offered_bps[d, row]),
        float(observed.delivered_bps[d, row]),
        float(observed.last_offered_bps[d, row]) if asks else np.nan,
        bool(observed.censored[d, row]),
    )


def _forecast(decided: Decided, row: int, d: int) -> ForecastWas:
    made = decided.decision
    at = d * len(decided.structure.path) + row
    return ForecastWas(
        made.forecast.end_time,
        Rung(made.forecast.rung[at]).name.lower(),
        float(made.p50_bps[d, row]),
        float(made.p90_bps[d, row]),
    )


def _tier(decision: Decision, row: int, d: int) -> TierWas:
    asked = decision.asked
    if asked is None:
        return TierWas(float("nan"), Tier.FULL.name.lower(), 1.0, Phase.NONE.name.lower(), 0.0)
    phase = asked.standbys.phase[d * asked.tier.shape[1] + row]
    return TierWas(
        float(asked.confidence[d, row]),
        Tier(asked.tier[d, row]).name.lower(),
        float(asked.share[d, row]),
        Phase(phase).name.lower(),
        float(asked.kept_bps[d, row]),
    )


def _share(decided: Decided, row: int, d: int, policies: tuple[str, ...]) -> ShareWas:
    s, allocation = decided.structure, decided.decision.allocations[d]
    bound = Bound(allocation.bound[row])
    by = _bound_by(decided, row, d, bound)
    claims = allocation.claims_bps
    return ShareWas(
        guarantee_bps=float(s.guarantee_bps[d, row]),
        ceiling_bps=float(s.ceiling_bps[d, row]),
        weight=float(s.weight[row]),
        priority=int(s.priority[row]),
        policies=policies,
        claim_bps=int(claims[-1, row]) if len(claims) else 0,
        stages_bps=tuple(allocation.stages_bps[:, row].tolist()),
        bound=bound.name.lower(),
        bound_by=s.path[by],
        limit_bps=float(allocation.grant_bps[by]),
        wanted_bps=int(allocation.grant_bps[row]),
        grant_bps=int(decided.decision.grant_bps[d, row]),
    )


def _bound_by(decided: Decided, row: int, d: int, bound: Bound) -> int:
    """The row whose limit holds this one: of a pool short of its claim the first above that is not short itself."""
    s, allocation = decided.structure, decided.decision.allocations[d]
    if bound not in (Bound.PARENT, Bound.LEFTOVER):
        return row
    above = int(s.parent[row])
    while above > 0 and allocation.bound[above] in (Bound.PARENT, Bound.LEFTOVER):
        above = int(s.parent[above])
    return max(above, 0)


def _meters(decided: Decided, row: int, d: int, plan: Plan) -> tuple[MeterWas, ...]:
    s, e = decided.structure, decided.structure.entries
    found = np.flatnonzero((e.pool == row) & (e.direction == d))
    return tuple(_meter(decided, entry, s.dpids[e.switch[entry]], plan) for entry in found.tolist())


def _meter(decided: Decided, entry: int, dpid: int, plan: Plan) -> MeterWas:
    e = decided.structure.entries
    meter = int(e.meter_id[entry])
    table = plan.meters.get(dpid, MeterTable())
    at = np.flatnonzero(table.meter_id == meter)
    rate, burst = (int(table.rate_kbps[at[0]]), int(table.burst_kbit[at[0]])) if len(at) else (None, None)
    return MeterWas(
        dpid,
        meter,
        int(decided.decision.share_bps[entry]),
        rate,
        burst,
        meter > 0 and not bool(e.alone[entry]),
    )


def _sentences(
    sample: SampleWas, forecast: ForecastWas, tier: TierWas, share: ShareWas, meters: tuple[MeterWas, ...]
) -> list[str]:
    cut = ", cut by a meter" if sample.censored else ""
    stands = ""
    if np.isnan(sample.offered_bps) and not np.isnan(sample.last_offered_bps):
        stands = f"; what was last known, {_mbps(sample.last_offered_bps)}, counts as its use"
    told = [
        f"it offered {_mbps(sample.offered_bps)}{cut}{stands}",
        f"up to {_mbps(forecast.p50_bps)} is likely and {_mbps(forecast.p90_bps)} possible ({forecast.rung})",
    ]
    sure = "" if np.isnan(tier.confidence) else f", confidence {tier.confidence:.2f}"
    kept = f"; the parent keeps {_mbps(tier.kept_bps)} for it" if tier.kept_bps else ""
    told.append(f"{tier.share:.0%} of that is asked for ({tier.tier}{sure}){kept}")
    rules = f" under {', '.join(share.policies)}" if share.policies else ""
    told.append(f"it asked for {_mbps(share.claim_bps)} in all{rules}")
    told.append(
        f"it is granted {_mbps(share.grant_bps)}: bound by {share.bound} at {share.bound_by} "
        f"({_mbps(share.limit_bps)})"
    )
    if share.grant_bps < share.wanted_bps:
        told.append(f"a rise to {_mbps(share.wanted_bps)} waits: it is within the dead band")
    told += [
        f"{one.dpid:016x} has {_mbps(one.share_bps)} of it in meter {one.meter_id}"
        + (" with others" if one.shared else "")
        + (f", {one.rate_kbps} kbit/s" if one.rate_kbps is not None else ", not in the published plan")
        for one in meters
    ]
    return told


def _mbps(rate_bps: float) -> str:
    return "an unknown rate" if np.isnan(rate_bps) else f"{rate_bps / 1e6:.4g} Mbit/s"
