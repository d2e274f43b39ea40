"""The dashboard's routes: each page is one reading of the planner, rendered here and now.

Pages are ordinary: they work without a script. With it a part of each is fetched anew when the
event stream says that something changed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates
from starlette.types import Scope

from northbound import views
from northbound.dashboard import figures, quality, words
from northbound.dashboard.bars import bar
from northbound.dashboard.charts import fan_chart
from northbound.dashboard.figures import Scale
from northbound.dashboard.group_graph import drawn
from northbound.dashboard.tree import SORTS, Question, ancestors, children, sides, whole_tree
from planner.pool_names import row_of
from planner.snapshot import NotThere, Operations, PoolForecast, Snapshot, UnknownGroup
from topology.group_log import LoggedEvent

BASE: Final = "/dashboard"
_HERE: Final = Path(__file__).parent
#: History that a chart may show, as so many times the longest horizon: a fan must stay wide enough to read.
SPANS: Final = (4, 16, 48)
_MAX_ALARMS: Final = 200
_MAX_EVENTS: Final = 50

Text = Annotated[str, Query(max_length=200)]


class _Static(StaticFiles):
    """Files that do not change while the planner runs."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "public, max-age=300"
        return response


class Pages:
    """Renders templates over what all pages show."""

    def __init__(self, operations: Operations, now: Callable[[], float], stale_after_s: float) -> None:
        self.operations = operations
        self.now = now
        self._stale_after_s = stale_after_s
        self._templates = Jinja2Templates(directory=_HERE / "templates")
        self._templates.env.trim_blocks = self._templates.env.lstrip_blocks = True
        self._templates.env.globals.update(
            base=BASE, words=words, directions=words.DIRECTIONS, bar=bar, span=figures.span,
            percent=figures.percent, score=figures.score, clock=figures.clock, ago=figures.ago,
        )  # fmt: skip

    def show(self, request: Request, template: str, snapshot: Snapshot, **shown: Any) -> Response:
        """One page."""
        now = self.now()
        alarms = self.operations.alarms.view(only_open=True, limit=1)
        return self._templates.TemplateResponse(
            request,
            f"{template}.html",
            {
                "page": template,
                "now": now,
                "snapshot": snapshot,
                "health": views.health(snapshot, now, self._stale_after_s, ""),
                "plan_state": self.operations.policy.plan_state(),
                "open_alarms": alarms.open,
                "scale": _scale(snapshot),
                "here": f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path,
                **shown,
            },
            status_code=shown.get("status_code", 200),
        )


def _scale(snapshot: Snapshot) -> Scale:
    ceiling = snapshot.pools.ceiling_bps
    return Scale.of(float(ceiling[:, 0].max()) if ceiling.shape[1] else 0.0)


def dashboard_router(operations: Operations, now: Callable[[], float], stale_after_s: float) -> APIRouter:
    """The routes; none is in the API's document."""
    router = APIRouter(include_in_schema=False)
    pages = Pages(operations, now, stale_after_s)
    for add in (_overview, _pool, _groups, _others):
        add(router, pages)
    router.mount(f"{BASE}/static", _Static(directory=_HERE / "static"), name="static")
    return router


# None is async: they read the planner, which may hold its lock for a moment, and render.


def _overview(router: APIRouter, pages: Pages) -> None:
    @router.get("/")
    def root() -> Response:
        """Where browsers begin."""
        return RedirectResponse(BASE, 303)

    @router.get(BASE)
    def overview(
        request: Request,
        q: Text = "",
        level: Text = "",
        sort: Text = "name",
        by: Text = "down",
        page: Annotated[int, Query(ge=1, le=10**6)] = 1,
        turn: Annotated[list[str] | None, Query(max_length=200)] = None,
    ) -> Response:
        """The network: what is offered, forecast and granted, and the tree below."""
        snapshot = pages.operations.snapshot
        asked = _asked(q, level, sort, by, page, turn)
        return pages.show(
            request,
            "overview",
            snapshot,
            asked=asked,
            table=whole_tree(snapshot.pools, asked),
            root=sides(snapshot.pools, 0) if snapshot.pools.path else None,
            charts=_charts(pages, snapshot, "global", _span_s(pages, 0)),
        )


def _asked(q: str, level: str, sort: str, by: str, page: int, turn: list[str] | None) -> Question:
    return Question(
        q.strip(),
        level if level in words.LEVELS else "",
        sort if sort in SORTS else "name",
        "up" if by == "up" else "down",
        page,
        frozenset(turn or ()),
    )


def _span_s(pages: Pages, choice: int) -> float:
    horizon_s = pages.operations.forecast_quality().horizon_s
    return SPANS[choice] * float(horizon_s[-1] if len(horizon_s) else 900.0)


def _charts(pages: Pages, snapshot: Snapshot, path: str, span_s: float) -> dict[str, Any]:
    """The charts of a pool, download first; none before its first forecast."""
    try:
        found: PoolForecast = pages.operations.pool_forecast(path, snapshot.time - span_s)
    except NotThere:
        return {}
    row = snapshot.pools.index(path) if path in snapshot.pools.path else None
    scale = _scale(snapshot)
    charts = {}
    for name, d in (("down", 1), ("up", 0)):
        limits = []
        if row is not None:
            limits = [
                ("ceiling", "ceiling", float(snapshot.pools.ceiling_bps[d, row])),
                ("grant", "grant", float(snapshot.pools.grant_bps[d, row])),
            ]
        title = f"{words.DIRECTIONS[name]} of {words.last_part(path)}: demand and its forecast"
        charts[name] = fan_chart(found, d, scale, snapshot.time - span_s, limits, title, f"chart-{name}")
    return charts


def _pool(router: APIRouter, pages: Pages) -> None:
    @router.get(f"{BASE}/pools/{{path:path}}")
    def pool(
        request: Request,
        path: str,
        q: Text = "",
        sort: Text = "name",
        by: Text = "down",
        page: Annotated[int, Query(ge=1, le=10**6)] = 1,
        history: Annotated[int, Query(ge=0, lt=len(SPANS))] = 0,
    ) -> Response:
        """Why a pool has what it has, how it went, and what may be changed."""
        snapshot = pages.operations.snapshot
        try:
            row = row_of(snapshot.pools.path, path)
        except NotThere as error:
            return pages.show(request, "missing", snapshot, reason=str(error), status_code=404)
        path = snapshot.pools.path[row]
        asked = _asked(q, "", sort, by, page, None)
        try:
            explanation = pages.operations.policy.explain(path)
        except NotThere:
            explanation = None
        level = views.LEVEL_NAMES[snapshot.pools.level[row]]
        group = next((one for one in snapshot.groups if words.last_part(path) in one.members), None)
        return pages.show(
            request,
            "pool",
            snapshot,
            path=path,
            name=words.last_part(path),
            level=level,
            target=words.policy_target(path, level),
            trail=ancestors(path),
            sides=sides(snapshot.pools, row),
            explanation=explanation,
            chains={chain.direction: chain for chain in explanation.directions} if explanation else {},
            charts=_charts(pages, snapshot, path, _span_s(pages, history)),
            history=history,
            spans=[_span_s(pages, one) for one in range(len(SPANS))],
            asked=asked,
            table=children(snapshot.pools, row, asked),
            group=group if level == "user" else None,
            alarms=pages.operations.alarms.view(only_open=True, pool=path, limit=20).alarms,
        )


def _groups(router: APIRouter, pages: Pages) -> None:
    @router.get(f"{BASE}/groups")
    def groups(request: Request, q: Text = "") -> Response:
        """All groups: where they come from, and how they are."""
        snapshot = pages.operations.snapshot
        wanted = q.strip().casefold()
        shown = [
            group
            for group in snapshot.groups
            if wanted in group.id.casefold() or any(wanted in member.casefold() for member in group.members)
        ]
        rows = {group.id: views.group_row(snapshot.pools, group) for group in shown}
        totals = {group.id: views.group_metrics(snapshot, group, {})["current"] for group in shown}
        return pages.show(request, "groups", snapshot, groups=shown, rows=rows, totals=totals, q=q)

    @router.get(f"{BASE}/groups/{{group_id}}")
    def group(request: Request, group_id: str) -> Response:
        """One group: who is in it and since when, who talks to whom, and its parts."""
        snapshot = pages.operations.snapshot
        found = next((one for one in snapshot.groups if one.id == group_id), None)
        if found is None:
            reason = f"groupID must be the id of a group, got {group_id!r}"
            return pages.show(request, "missing", snapshot, reason=reason, status_code=404)
        paths = {words.last_part(path): path for path in snapshot.pools.path}
        return pages.show(
            request,
            "group",
            snapshot,
            group=found,
            parts=[snapshot.pools.path[row] for row in found.pools],
            sides={snapshot.pools.path[row]: sides(snapshot.pools, row) for row in found.pools},
            members=[(member, paths.get(member)) for member in found.members[:500]],
            totals=views.group_metrics(snapshot, found, {})["current"],
            events=_past_of(pages, group_id),
            picture=drawn(
                found.members, pages.operations.grouping.conversations(set(found.members)), _scale(snapshot)
            ),
        )


def _past_of(pages: Pages, group_id: str) -> list[LoggedEvent]:
    """What happened to a group, newest first."""
    try:
        return list(reversed(pages.operations.grouping.events(group_id)))[:_MAX_EVENTS]
    except UnknownGroup:
        # That of users in no group is a name, and no group.
        return []


def _others(router: APIRouter, pages: Pages) -> None:
    operations = pages.operations

    @router.get(f"{BASE}/switches")
    def switches(request: Request) -> Response:
        """What each switch shall hold, and whether it does."""
        snapshot = operations.snapshot
        return pages.show(request, "switches", snapshot)

    @router.get(f"{BASE}/switches/{{dpid}}")
    def switch(request: Request, dpid: str, q: Text = "") -> Response:
        """The meters of one switch."""
        snapshot = operations.snapshot
        found = next((one for one in snapshot.switches if f"{one.dpid:016x}" == dpid), None)
        if found is None:
            reason = f"dpid must be a switch's, 16 hexadecimal digits, got {dpid!r}"
            return pages.show(request, "missing", snapshot, reason=reason, status_code=404)
        table = snapshot.plan.meters.get(found.dpid)
        layout = snapshot.plan.layouts.get(found.dpid)
        owners = {owner.meter_id: owner for owner in layout.owners} if layout else {}
        meters = [
            (meter, rate, burst, owners.get(meter))
            for meter, (rate, burst) in (table.rates() if table is not None else {}).items()
            if not q or (meter in owners and q.casefold() in owners[meter].pool.casefold())
        ]
        return pages.show(
            request, "switch", snapshot, switch=found, meters=meters[:1000], total=len(meters), q=q
        )

    @router.get(f"{BASE}/alarms")
    def alarms(request: Request, closed: bool = False) -> Response:
        """What came that was not foreseen, with the evidence."""
        view = operations.alarms.view(only_open=None if closed else True, limit=100_000)
        order = {severity: at for at, severity in enumerate(words.SEVERITIES)}
        shown = sorted(
            view.alarms, key=lambda one: (one.closed is not None, order[one.severity], -one.updated)
        )
        return pages.show(
            request, "alarms", operations.snapshot,
            view=view, alarms=shown[:_MAX_ALARMS], total=len(shown), closed=closed,
        )  # fmt: skip

    @router.get(f"{BASE}/forecasts")
    def forecasts(request: Request) -> Response:
        """Whether forecasts hold what they say, and against whom they win."""
        found = operations.forecast_quality()
        return pages.show(
            request, "forecasts", operations.snapshot,
            found=found, coverage=quality.coverage_rows(found), losses=quality.loss_rows(found),
        )  # fmt: skip

    @router.get(f"{BASE}/models")
    def models(request: Request) -> Response:
        """The trained models and which of them serves."""
        return pages.show(request, "models", operations.snapshot, models=operations.models())

    @router.get(f"{BASE}/events")
    def events(request: Request) -> Response:
        """Boosts in force, and events that are on or ahead."""
        return pages.show(
            request, "events", operations.snapshot,
            boosts=operations.policy.boosts(), events=operations.events.view(pages.now()),
        )  # fmt: skip

    @router.get(f"{BASE}/audit")
    def audit(request: Request) -> Response:
        """Who changed what. The page's script reads it, with the reader's own rights."""
        return pages.show(request, "audit", operations.snapshot)

    @router.get(f"{BASE}/login")
    def login(request: Request) -> Response:
        """Where a token becomes a session. It shows nothing of the network."""
        return pages._templates.TemplateResponse(request, "login.html", {})
