"""Prometheus metrics, read from the newest snapshot when they are asked for. What is not known is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, Final

import numpy as np
from fastapi import APIRouter, Header, Query, Response
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from northbound import problems, views
from planner.snapshot import Level, Operations, Snapshot

#: Label, then where the figure is.
_RATES: Final = (
    ("offered", "offered_bps", "What hosts sent, before any meter dropped."),
    ("delivered", "delivered_bps", "What passed the meters."),
    ("grant", "grant_bps", "What the newest decision gives."),
    ("guarantee", "guarantee_bps", "What is always available."),
    ("ceiling", "ceiling_bps", "Never more than this; absent where the pool has none of its own."),
)
_FORECASTS: Final = (("0.5", "p50_bps"), ("0.9", "p90_bps"))
_STATES: Final = ("starting", "ok", "degraded", "stalled")
_MODES: Final = ("live", "canary", "shadow")


class PlannerMetrics(Collector):
    """The planner as Prometheus sees it. Collecting takes milliseconds and never waits for a tick's end."""

    def __init__(
        self,
        operations: Operations,
        now: Callable[[], float],
        stale_after_s: float,
        *,
        users: bool = False,
    ) -> None:
        """``users``: those of every user and class of one too, fourteen for each and so not the default."""
        self._operations = operations
        self._now, self._stale_after_s = now, stale_after_s
        self._levels = [level for level in Level if users or level < Level.USER]

    def collect(self) -> Iterator[Metric]:
        """All families."""
        snapshot = self._operations.snapshot
        yield from self._loop(snapshot)
        yield from _plan(self._operations, snapshot)
        yield from _pools(snapshot, self._levels)
        yield from _switches(snapshot)
        yield from _alarms(self._operations)
        yield from _forecasts(self._operations)

    def _loop(self, snapshot: Snapshot) -> Iterator[Metric]:
        health = snapshot.health
        status = views.health(snapshot, self._now(), self._stale_after_s, "")["status"]
        yield _gauge(
            "tidegate_loop_status",
            "1 for the state that the loop is in.",
            ("status",),
            [((state,), float(state == status)) for state in _STATES],
        )
        yield _gauge(
            "tidegate_loop_last_tick_timestamp_seconds", "When the last tick ended.", (),
            [((), health.last_tick)] if health.last_tick else [],
        )  # fmt: skip
        yield _gauge(
            "tidegate_loop_tick_duration_seconds", "The last tick.", (), [((), health.tick_ms / 1e3)]
        )
        yield _gauge(
            "tidegate_loop_step_duration_seconds",
            "Each step of the last tick.",
            ("step",),
            [((step,), ms / 1e3) for step, ms in health.steps_ms.items()],
        )
        yield _counter("tidegate_loop_ticks", "Ticks since the start.", (), [((), health.ticks)])
        yield _gauge("tidegate_loop_problems", "What is wrong now.", (), [((), len(health.problems))])


def _plan(operations: Operations, snapshot: Snapshot) -> Iterator[Metric]:
    state = operations.policy.plan_state()
    yield _gauge("tidegate_plan_version", "The published plan.", (), [((), state.published.version)])
    yield _gauge(
        "tidegate_plan_timestamp_seconds", "When the published plan was decided.", (),
        [((), state.published.time)] if state.published.time else [],
    )  # fmt: skip
    modes = [((mode,), float(mode == state.stance.mode)) for mode in _MODES]
    yield _gauge("tidegate_plan_mode", "1 for the mode in force.", ("mode",), modes)
    yield _gauge(
        "tidegate_plan_frozen", "1 while an operator holds the plan.", (), [((), state.stance.frozen)]
    )
    yield _gauge(
        "tidegate_plan_stale", "1 while the plan is too old to be handed out.", (), [((), state.stale)]
    )
    yield _gauge(
        "tidegate_boosts", "Temporary boosts on or to come.", (), [((), len(operations.policy.boosts()))]
    )
    yield _gauge("tidegate_groups", "Resource groups by where they come from.", ("source",), [
        ((source,), count) for source, count in Counter(group.source for group in snapshot.groups).items()
    ])  # fmt: skip


def _pools(snapshot: Snapshot, levels: list[Level]) -> Iterator[Metric]:
    pools = snapshot.pools
    rows = np.flatnonzero(np.isin(pools.level, levels)).tolist()
    names = [(views.LEVEL_NAMES[pools.level[row]], pools.path[row]) for row in rows]
    labels = ("level", "pool", "direction")

    def samples(column: str, *more: str) -> Iterator[tuple[tuple[str, ...], float]]:
        values = getattr(pools, column)[:, rows]
        for d, direction in enumerate(views.DIRECTION_NAMES):
            for (level, path), value in zip(names, values[d].tolist(), strict=True):
                yield (level, path, direction, *more), value

    for name, column, told in _RATES:
        yield _gauge(f"tidegate_pool_{name}_bits_per_second", told, labels, samples(column))
    forecast = [pair for quantile, column in _FORECASTS for pair in samples(column, quantile)]
    yield _gauge(
        "tidegate_pool_forecast_bits_per_second",
        "Forecast demand, the highest of all horizons: this share of outcomes is below.",
        (*labels, "quantile"),
        forecast,
    )
    known = np.isfinite(pools.offered_bps).all(axis=0)
    counts = [
        ((views.LEVEL_NAMES[level], what), int((mask & (pools.level == level)).sum()))
        for level in Level
        for what, mask in (("known", known), ("unknown", ~known))
    ]
    yield _gauge("tidegate_pools", "Pools of which a sample is known, or not.", ("level", "sample"), counts)


def _switches(snapshot: Snapshot) -> Iterator[Metric]:
    seen = [((f"{switch.dpid:016x}", switch.region or ""), switch) for switch in snapshot.switches]
    labels = ("dpid", "region")
    yield _gauge(
        "tidegate_switch_connected", "1 while it is connected.", labels,
        [(names, switch.connected) for names, switch in seen],
    )  # fmt: skip
    yield _gauge(
        "tidegate_switch_in_step", "1 if the meters read back equal the plan; absent if never read.", labels,
        [(names, switch.in_step) for names, switch in seen if switch.in_step is not None],
    )  # fmt: skip
    yield _gauge(
        "tidegate_switch_meters", "Meters read back.", labels,
        [(names, switch.n_meters) for names, switch in seen if switch.in_step is not None],
    )  # fmt: skip
    yield _gauge(
        "tidegate_switch_meters_wanted", "Meters of the published plan.", labels,
        [(names, len(snapshot.plan.meters.get(switch.dpid, ()))) for names, switch in seen],
    )  # fmt: skip
    yield _counter(
        "tidegate_switch_lost_polls", "Polls without an answer.", labels,
        [(names, switch.lost_polls) for names, switch in seen],
    )  # fmt: skip


def _alarms(operations: Operations) -> Iterator[Metric]:
    page = operations.alarms.view(only_open=True, limit=100_000)
    counts = Counter((alarm.severity, alarm.kind) for alarm in page.alarms)
    yield _gauge("tidegate_alarms_open", "Open alarms.", ("severity", "kind"), counts.items())
    yield _gauge(
        "tidegate_alarms_unacknowledged", "Open alarms that nobody has seen.", (), [((), page.unacknowledged)]
    )
    yield _counter(
        "tidegate_alarms_held_back", "Alarms not told: their pool had many.", (), [((), page.held_back)]
    )


def _forecasts(operations: Operations) -> Iterator[Metric]:
    found = operations.forecast_quality()
    coverage = []
    for one in found.coverage:
        level, direction = views.forecaster_level(one.level)
        for window, shares in (("hour", one.hour), ("day", one.day)):
            coverage += [
                ((level, direction, f"{one.horizon_s:g}", f"{aim:g}", window), share)
                for aim, share in zip(found.quantile.tolist(), shares.tolist(), strict=True)
            ]
    yield _gauge(
        "tidegate_forecast_coverage_ratio",
        "Share of samples below a quantile; the quantile is the aim.",
        ("level", "direction", "horizon_seconds", "quantile", "window"),
        coverage,
    )
    score = found.live_score or (np.nan, np.nan)
    yield _gauge(
        "tidegate_forecast_pinball_loss_ratio",
        "Mean pinball loss of late over each series' own level; less is better.",
        ("forecaster",),
        list(zip((("model",), ("persistence",)), score, strict=True)),
    )


Sample = tuple[tuple[str, ...], float]


def _gauge(name: str, told: str, labels: tuple[str, ...], samples: Iterable[Sample]) -> Metric:
    return _filled(GaugeMetricFamily(name, told, labels=labels), samples)


def _counter(name: str, told: str, labels: tuple[str, ...], samples: Iterable[Sample]) -> Metric:
    return _filled(CounterMetricFamily(name, told, labels=labels), samples)


def _filled(family: Any, samples: Iterable[Sample]) -> Metric:
    for labels, value in samples:
        # Missing is not zero: a series that is not known ends, and a graph of it has a gap.
        if np.isfinite(value):
            family.add_metric(labels, float(value))
    made: Metric = family
    return made


def prometheus_router(operations: Operations, stale_after_s: float, now: Callable[[], float]) -> APIRouter:
    """The route."""
    router = APIRouter(tags=["state"])
    registries = []
    for users in (False, True):
        registry = CollectorRegistry(auto_describe=False)
        registry.register(PlannerMetrics(operations, now, stale_after_s, users=users))
        registries.append(registry)

    # Not async: with users there is a moment's work to do.
    @router.get(
        "/metrics",
        response_class=Response,
        responses={
            200: {
                "content": {"text/plain": {"schema": {"type": "string"}}},
                "description": "Prometheus' or OpenMetrics' text, as the Accept header asks.",
            },
            **problems.documented(421, 422),
        },
    )
    def metrics(
        users: Annotated[
            bool, Query(description="a series for every user as well; mind the cardinality")
        ] = False,
        accept: Annotated[str, Header(max_length=1000, include_in_schema=False)] = "",
    ) -> Response:
        """Loop, plan, pools, switches, alarms and forecasts for Prometheus."""
        encode, media_type = choose_encoder(accept)
        return Response(encode(registries[users]), headers={"Content-Type": media_type})

    return router
