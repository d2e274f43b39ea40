"""What the command line draws."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from northbound import tables, views
from tests.northbound.doubles import FakeOperations, make_snapshot


def drawn(*parts: object) -> str:
    console = Console(file=io.StringIO(), width=200, markup=False, highlight=False)
    for part in parts:
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def cells(text: str, *starts: str) -> list[str]:
    """The cells of the one row that begins with these."""
    rows = [
        [cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if "│" in line
    ]
    (row,) = [row for row in rows if row[: len(starts)] == list(starts)]
    return row[len(starts) :]


@pytest.mark.parametrize(
    ("rate_bps", "text"),
    [
        (None, "–"),
        (0, "0"),
        (400, "<0.001"),
        (64_000, "0.064"),
        (999_600, "1.00"),
        (1_234_567, "1.23"),
        (9_996_000, "10.0"),
        (12_345_678, "12.3"),
        (99_960_000, "100"),
        (40_000_000_000, "40000"),
    ],
)
def test_rate_has_the_digits_that_matter(rate_bps: float | None, text: str):
    """Three digits, and nothing known is not nothing."""
    assert tables.mbps(rate_bps) == text


def test_pools_keep_directions_and_gaps():
    """Upload stands above download; unknown is a dash, zero a zero."""
    answer = json.loads(views.global_metrics(make_snapshot(), None, 0, 100))
    text = drawn(tables.pools(answer))
    assert cells(text, "global", "global", "up")[:2] == ["5.00", "4.00"]
    assert cells(text, "global", "global", "down")[:2] == ["10.0", "8.00"]
    assert cells(text, "global/west/g1/anna", "user", "up")[0] == "0"
    assert cells(text, "global/west/g1/ben", "user", "up")[0] == "–"
    assert cells(text, "global/west/g1", "group", "up")[6] == "–"


def test_summary_keeps_directions_and_gaps():
    """Each direction has a row of its own."""
    answer = views.plain(FakeOperations().summary())
    text = drawn(tables.summary(answer), *tables.totals(answer))
    assert cells(text, "global/west/g1/anna", "user", "up") == ["0", "–", "5.00", "4.40", "–", "3.00", "2.00"]
    assert cells(text, "global/west/g1/anna", "user", "down")[3] == "8.80"
    assert "; the last minute" in text
    assert "carried_bps: tidegate 9.00 Mbit/s, static –" in text
    assert "meters on the switches: equal the plan" in text


def test_names_with_brackets_stay_names():
    """A pool's name is not markup."""
    answer = json.loads(views.groups(make_snapshot()))
    answer["groups"][0]["reason"] = "[red]x[/red]"
    assert "[red]x[/red]" in drawn(tables.groups(answer))


def test_switches_and_plan():
    """What was never read back is a dash, neither yes nor no."""
    switches = drawn(tables.switches(json.loads(views.switches(make_snapshot()))))
    assert cells(switches, "0000000000000011")[3] == "yes"
    assert cells(switches, "00000000000000c0") == ["–", "yes", "–", "–", "0", "0", "1"]
    plan = drawn(tables.plan(json.loads(views.plan(make_snapshot()))))
    assert cells(plan, "0000000000000011", "yes", "global/west/g1/anna", "down") == ["2", "8800", "880"]
