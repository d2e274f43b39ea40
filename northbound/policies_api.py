"""Policies and plans by REST: boosts, freeze and revert, standbys, and why a pool has what it has."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Path, Response
from fastapi.params import Depends
from pydantic import Field, StringConstraints

from northbound import problems, views
from northbound.answers import Answer, Direction, LevelName
from northbound.pages import Limit, Offset, Page, page_of
from planner.config_block import Block
from planner.config_events import MomentField, epoch_s
from planner.config_fields import NAME_PATTERN, Fraction
from planner.explain import Explanation as ExplanationValue
from planner.policies_file import LiftBlock, PoolNames
from planner.policy import TemporaryBoost
from planner.policy_desk import PlanState as PlanStateValue
from planner.snapshot import Operations, Refused

MAX_REASON = 500
Reason = Annotated[str, Field(max_length=MAX_REASON, description="for people; goes into the log")]
BoostId = Annotated[str, Path(alias="boostID", min_length=1, max_length=128, description="a boost's id")]


class KeptPlan(Answer):
    """A plan's number, and when it was decided."""

    version: int
    time: float = Field(description="epoch seconds")


class PlanState(Answer):
    """Which plan stands."""

    mode: Literal["live", "canary", "shadow"]
    regions: list[str] = Field(description="under canary, those that follow new plans")
    frozen: bool
    since: float | None = Field(description="when an operator chose this, epoch seconds; null: the file did")
    reason: str
    published: KeptPlan
    proposed: KeptPlan = Field(description="the newest that was decided, published or not")
    stale: bool = Field(description="the loop has not confirmed it for too long: it is handed to nobody")
    max_age_s: float
    kept: list[KeptPlan] = Field(description="what one can go back to, newest first")


class Why(Block):
    """Why it is done."""

    reason: Reason = ""


class Revert(Why):
    """Where to go back to."""

    version: int | None = Field(default=None, ge=1, le=2**53, description="absent: the plan before this one")


_NO_REASON, _ONE_BACK = Why(), Revert()


class ModeChange(Block):
    """What is published from now on."""

    mode: Literal["live", "canary", "shadow"]
    regions: tuple[str, ...] = Field(
        default=(), max_length=10_000, description="under canary; none: by share"
    )
    share: Fraction | None = Field(default=None, gt=0, description="of the regions; absent: the file's")


class BoostCreation(LiftBlock):
    """More for some pools, for a time. The end must be given: a boost ends by itself."""

    id: Annotated[str, StringConstraints(pattern=NAME_PATTERN)] | None = Field(
        default=None, description="absent: one is made"
    )
    pools: PoolNames = Field(
        description="`user:NAME`, `user:NAME/CLASS`, `group:NAME` or `region:NAME`",
        examples=[["group:studio"]],
    )
    start: MomentField | None = Field(default=None, description="absent: now")
    end: MomentField = Field(description="epoch seconds, or a time with its zone")
    reason: Reason = ""


class Rates(Answer):
    """Upload and download, bit/s."""

    up: int | None
    down: int | None


class Boost(Answer):
    """A temporary boost."""

    id: str
    pools: list[str]
    start: float = Field(description="epoch seconds")
    end: float = Field(description="epoch seconds")
    reason: str
    guarantee_bps: Rates | None = Field(description="at least this; null: unchanged")
    ceiling_bps: Rates | None = Field(description="at least this; null: unchanged")
    weight_factor: float
    priority: int | None = Field(description="this class or an earlier one; null: unchanged")


class Boosts(Page):
    """The boosts that are not over, by their end."""

    boosts: list[Boost]


class Standby(Answer):
    """Capacity that a parent keeps for a pool whose forecast is doubtful."""

    owner: str
    parent: str
    direction: Direction
    phase: Literal["waiting", "active"]
    kept_bps: float = Field(description="beyond the owner's use; 0 once active")
    forecast_bps: float | None
    until: float = Field(description="epoch seconds at which it ends if use does not rise")


class Standbys(Page):
    """A page of the standbys, what all of them keep, and how many there were since the start."""

    made: int
    activated: int
    expired: int
    kept_bps: Rates
    standbys: list[Standby]


class Sample(Answer):
    """What was measured."""

    offered_bps: float | None
    delivered_bps: float | None
    last_offered_bps: float | None = Field(description="the newest known; counts as use while polls are lost")
    censored: bool = Field(description="more may have been wanted: a meter cut it")


class Forecast(Answer):
    """The forecast in force, the highest of all horizons."""

    end_time: float | None
    rung: str
    p50_bps: float | None
    p90_bps: float | None


class Tier(Answer):
    """How far the forecast was asked for."""

    confidence: float | None
    tier: Literal["full", "partial", "standby"]
    share: float
    standby: Literal["none", "waiting", "active", "expired"]
    kept_bps: float


class Share(Answer):
    """What the pool got at each stage, and why no more."""

    guarantee_bps: float | None
    ceiling_bps: float | None = Field(description="null: none of its own")
    weight: float
    priority: int
    policies: list[str]
    claim_bps: int
    stages_bps: list[int] = Field(description="held after the guarantee, each row of claims, the leftover")
    bound: Literal["parent", "guarantee", "claim", "leftover", "ceiling", "link"]
    bound_by: str = Field(description="the pool whose limit it is")
    limit_bps: float
    wanted_bps: int
    grant_bps: int = Field(description="after the dead band")


class Meter(Answer):
    """One switch's share of the grant, and its meter."""

    dpid: str
    meter_id: int
    share_bps: int
    rate_kbps: int | None = Field(description="in the published plan; null: not in it")
    burst_kbit: int | None
    shared: bool


class Chain(Answer):
    """From the sample to the meters, in one direction."""

    direction: Direction
    sample: Sample
    forecast: Forecast
    tier: Tier
    share: Share
    meters: list[Meter]
    text: list[str] = Field(description="the chain in words")


class Explanation(Answer):
    """Why a pool has what it has."""

    path: str
    level: LevelName
    time: float
    plan_version: int
    mode: Literal["live", "canary", "shadow"]
    frozen: bool
    directions: list[Chain]


def policies_router(operations: Operations, bearer: Depends) -> APIRouter:
    """The routes; writes carry ``bearer``."""
    router = APIRouter(responses=problems.documented(421))
    _add_plans(router, operations, bearer)
    _add_boosts(router, operations, bearer)
    _add_questions(router, operations)
    return router


def _add_plans(router: APIRouter, operations: Operations, bearer: Depends) -> None:
    written: dict[str, Any] = {
        "response_model": PlanState,
        "dependencies": [bearer],
        "responses": problems.documented(400, 401, 404, 408, 409, 413, 422),
        "tags": ["plans"],
    }

    @router.get("/plan/state", response_model=PlanState, tags=["plans"])
    async def show_plan_state() -> Response:
        """Which plan stands: mode, freeze, age, and the plans one can go back to."""
        return _state(operations.policy.plan_state())

    @router.post("/plan/freeze", **written)
    def freeze_plan(body: Annotated[Why, Body()] = _NO_REASON) -> Response:
        """Let the published plan stand. Plans are still made and can be seen; none is published."""
        return _state(operations.policy.freeze(body.reason))

    @router.post("/plan/unfreeze", **written)
    def unfreeze_plan() -> Response:
        """Publish new plans again, from the next tick on."""
        return _state(operations.policy.unfreeze())

    @router.post("/plan/revert", **written)
    def revert_plan(body: Annotated[Revert, Body()] = _ONE_BACK) -> Response:
        """Publish an earlier plan again, and freeze it."""
        return _state(operations.policy.revert(body.version, body.reason))

    @router.put("/plan/mode", **written)
    def set_plan_mode(body: ModeChange) -> Response:
        """Shadow, canary or live, until somebody chooses again; it survives a restart."""
        return _state(operations.policy.set_mode(body.mode, body.regions, body.share))


def _add_boosts(router: APIRouter, operations: Operations, bearer: Depends) -> None:
    written = problems.documented(400, 401, 404, 408, 409, 413, 422)

    @router.get("/boosts", response_model=Boosts, responses=problems.documented(422), tags=["boosts"])
    async def list_boosts(limit: Limit = 1000, offset: Offset = 0) -> Response:
        """The boosts that are on or still to come, by their end."""
        page = page_of("boosts", operations.policy.boosts(), limit, offset)
        return _answer({**page, "boosts": [_boost(one) for one in page["boosts"]]})

    @router.post(
        "/boosts",
        status_code=201,
        response_model=Boost,
        dependencies=[bearer],
        responses=written,
        tags=["boosts"],
    )
    def create_boost(body: BoostCreation) -> Response:
        """Give pools more for a time. It ends by itself, and survives a restart until then."""
        start = None if body.start is None else moment_s("start", body.start)
        end = moment_s("end", body.end)
        made = operations.policy.boost(body.id, body.pools, body.lift(), start, end, body.reason)
        return _answer(_boost(made), 201)

    @router.delete(
        "/boosts/{boostID}", status_code=204, dependencies=[bearer], responses=written, tags=["boosts"]
    )
    def delete_boost(boost_id: BoostId) -> Response:
        """End a boost now."""
        operations.policy.withdraw(boost_id)
        return Response(status_code=204)


def _add_questions(router: APIRouter, operations: Operations) -> None:
    @router.get("/standbys", response_model=Standbys, responses=problems.documented(422), tags=["state"])
    def list_standbys(limit: Limit = 1000, offset: Offset = 0) -> Response:
        """For whom capacity is kept on a doubtful forecast, where and until when."""
        report = operations.policy.standbys()
        kept = [sum(one.kept_bps for one in report.standbys if one.direction == d) for d in (0, 1)]
        rates = dict(zip(views.DIRECTION_NAMES, map(round, kept), strict=True))
        page = page_of("standbys", report.standbys, limit, offset)
        rows = [
            {**asdict(one), "direction": views.DIRECTION_NAMES[one.direction]} for one in page["standbys"]
        ]
        return _answer({**asdict(report.counts), "kept_bps": rates, **page, "standbys": rows})

    @router.get(
        "/explain/{pool:path}",
        response_model=Explanation,
        responses=problems.documented(404, 422),
        tags=["state"],
    )
    async def explain_pool(
        pool: Annotated[str, Path(min_length=1, max_length=1024, description="a path, or the end of one")],
    ) -> Response:
        """Why a pool has what it has: sample, forecast, tier, share, what bound it, switches and meters."""
        return _answer(_explanation(operations.policy.explain(pool)))


def moment_s(name: str, moment: Any) -> float:
    """Epoch seconds of a moment with its zone. Raises Refused."""
    if getattr(moment, "tzinfo", None) is None:
        # The planner and the one who asks need not be in the same zone.
        raise Refused(f"{name} must be epoch seconds or a time with its zone, got {moment}")
    return epoch_s(moment, moment.tzinfo)


def _state(state: PlanStateValue) -> Response:
    stance = state.stance
    return _answer(
        {
            **asdict(stance),
            "since": stance.since or None,
            **{name: getattr(state, name) for name in ("stale", "max_age_s")},
            "published": asdict(state.published),
            "proposed": asdict(state.proposed),
            "kept": [asdict(one) for one in state.kept],
        }
    )


def _boost(boost: TemporaryBoost) -> dict[str, Any]:
    row = {name: getattr(boost, name) for name in ("id", "pools", "start", "end", "reason")}
    lift = boost.lift
    for name in ("guarantee_bps", "ceiling_bps"):
        pair = getattr(lift, name)
        row[name] = (
            None if pair is None else dict(zip(views.DIRECTION_NAMES, views.whole_bps(pair), strict=True))
        )
    return {**row, "weight_factor": lift.weight_factor, "priority": lift.priority}


def _explanation(value: ExplanationValue) -> dict[str, Any]:
    report = asdict(value)
    for chain in report["directions"]:
        for meter in chain["meters"]:
            meter["dpid"] = f"{meter['dpid']:016x}"
    return report


def _answer(report: dict[str, Any], status_code: int = 200) -> Response:
    return Response(views.encode(views.plain(report)), status_code, media_type="application/json")
