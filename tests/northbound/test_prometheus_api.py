"""GET /metrics: what a Prometheus server scrapes, and the dashboard that Grafana draws of it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain_text

from planner.snapshot import Health
from tests.northbound.conftest import Ask
from tests.northbound.doubles import NOW, FakeOperations

GRAFANA = Path(__file__).parents[2] / "docs" / "grafana" / "tidegate.json"


Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(ask: Ask, path: str = "/metrics") -> Samples:
    """Every sample of a scrape."""
    answer = ask("GET", path)
    assert answer.status_code == 200
    families = plain_text(answer.text)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for f in families for s in f.samples}


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, tuple(sorted(labels.items()))]


def test_rates_of_a_pool_by_direction(ask: Ask):
    """Upload and download are told apart, in bit/s."""
    samples = scrape(ask)
    for direction, rate in (("up", 5e6), ("down", 10e6)):
        where = {"level": "group", "pool": "global/west/g1", "direction": direction}
        assert value(samples, "tidegate_pool_offered_bits_per_second", **where) == rate
        p90 = value(samples, "tidegate_pool_forecast_bits_per_second", **where, quantile="0.9")
        assert p90 == rate * 8 / 5


def test_users_only_when_asked_for(ask: Ask):
    """Ten thousand users would be a hundred thousand series: they are no default."""
    pools = [labels for name, labels in scrape(ask) if name.startswith("tidegate_pool_")]
    assert pools
    assert not any(("level", "user") in labels for labels in pools)
    with_users = scrape(ask, "/metrics?users=true")
    anna = {"level": "user", "pool": "global/west/g1/anna", "direction": "up"}
    assert value(with_users, "tidegate_pool_offered_bits_per_second", **anna) == 0


def test_what_is_not_known_is_absent_and_not_zero(ask: Ask):
    """Nothing was measured of ben; anna offered nothing. Only one of them is a series."""
    names = {
        dict(labels)["pool"]
        for name, labels in scrape(ask, "/metrics?users=1")
        if name == "tidegate_pool_offered_bits_per_second"
    }
    assert "global/west/g1/anna" in names
    assert "global/west/g1/ben" not in names
    assert value(scrape(ask), "tidegate_pools", level="user", sample="unknown") == 1
    # A group of its own ceiling has none in the snapshot: infinity is no sample.
    ceilings = [labels for name, labels in scrape(ask) if name == "tidegate_pool_ceiling_bits_per_second"]
    assert all(dict(labels)["pool"] != "global/west/g1" for labels in ceilings)


def test_loop_that_stands_still_says_so(ask: Ask, operations: FakeOperations):
    """Its last word was ok; the clock says more."""
    assert value(scrape(ask), "tidegate_loop_status", status="ok") == 1
    health = replace(operations.snapshot.health, last_tick=NOW - 1000)
    operations.snapshot = replace(operations.snapshot, health=health)
    samples = scrape(ask)
    assert value(samples, "tidegate_loop_status", status="stalled") == 1
    assert value(samples, "tidegate_loop_status", status="ok") == 0
    assert value(samples, "tidegate_loop_last_tick_timestamp_seconds") == NOW - 1000


def test_before_the_first_tick_there_is_no_duration(ask: Ask, operations: FakeOperations):
    """A planner that has just started has no figures rather than zeros."""
    operations.snapshot = replace(operations.snapshot, health=Health())
    samples = scrape(ask)
    assert ("tidegate_loop_tick_duration_seconds", ()) not in samples
    assert ("tidegate_loop_last_tick_timestamp_seconds", ()) not in samples
    assert value(samples, "tidegate_loop_status", status="starting") == 1


def test_switch_that_was_never_read_is_neither_in_step_nor_out(ask: Ask):
    """The core switch was never compared with a plan."""
    samples = scrape(ask)
    edge, core = {"dpid": f"{0x11:016x}", "region": "west"}, {"dpid": f"{0xC0:016x}", "region": ""}
    assert value(samples, "tidegate_switch_in_step", **edge) == 1
    assert value(samples, "tidegate_switch_meters_wanted", **edge) == 2
    assert value(samples, "tidegate_switch_lost_polls_total", **core) == 1
    assert not any(name == "tidegate_switch_in_step" and dict(labels) == core for name, labels in samples)


def test_alarms_and_forecasts(ask: Ask):
    """One alarm is open; coverage stands beside its aim, persistence beside the model."""
    samples = scrape(ask)
    assert value(samples, "tidegate_alarms_open", severity="major", kind="spike") == 1
    where = {"level": "user", "direction": "up", "horizon_seconds": "60", "window": "day"}
    assert value(samples, "tidegate_forecast_coverage_ratio", **where, quantile="0.9") == 0.88
    assert value(samples, "tidegate_forecast_pinball_loss_ratio", forecaster="model") == 0.3
    assert value(samples, "tidegate_forecast_pinball_loss_ratio", forecaster="persistence") == 0.4


def test_openmetrics_for_those_who_ask(ask: Ask):
    """A modern Prometheus asks for OpenMetrics, whose parser is strict."""
    answer = ask("GET", "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert len(list(openmetrics(answer.text))) > 20


@pytest.fixture
def grafana() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(GRAFANA.read_text())
    return document


def test_grafana_asks_for_metrics_that_exist(ask: Ask, grafana: dict[str, Any]):
    """Each name in a query of the shipped dashboard is in a scrape."""
    exported = {name for name, _ in scrape(ask)}
    queries = [target["expr"] for panel in grafana["panels"] for target in panel.get("targets", [])]
    assert len(queries) >= 15
    asked = {name for query in queries for name in re.findall(r"\btidegate_\w+", query)}
    assert asked - exported == set()
    # And all but a few of what is exported is drawn.
    assert len(asked) >= 0.8 * len(exported)


def test_grafana_labels_exist(ask: Ask, grafana: dict[str, Any]):
    """A selector on a label that no series has would draw nothing."""
    labels_of: dict[str, set[str]] = {}
    for name, labels in scrape(ask, "/metrics?users=1"):
        labels_of.setdefault(name, set()).update(dict(labels))
    for panel in grafana["panels"]:
        for target in panel.get("targets", []):
            for name, selector in re.findall(r"\b(tidegate_\w+)\{([^}]*)\}", target["expr"]):
                used = set(re.findall(r"(\w+)\s*[=!]~?\"", selector))
                assert used <= labels_of[name], f"{panel['title']}: {target['expr']}"


def test_grafana_needs_no_particular_data_source(grafana: dict[str, Any]):
    """It is imported into somebody else's Grafana: the data source is a variable."""
    sources = {json.dumps(panel["datasource"]) for panel in grafana["panels"] if "datasource" in panel}
    assert sources == {json.dumps({"type": "prometheus", "uid": "${source}"})}
    identities = [panel["id"] for panel in grafana["panels"]]
    assert len(set(identities)) == len(identities)
