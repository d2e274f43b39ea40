"""The dashboard's pages as the server makes them: what they say, how much of it, and what they may not hold."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from fastapi import FastAPI

from northbound.dashboard.charts import fan_chart
from northbound.dashboard.figures import Scale, span
from northbound.dashboard.group_graph import MOST, drawn
from northbound.dashboard.tree import PAGE, Question, children, whole_tree
from planner.snapshot import GroupView, Level, Pools, Snapshot
from tests.northbound.conftest import Ask
from tests.northbound.doubles import NAN, NOW, FakeOperations, make_forecast

PAGES = (
    "", "/groups", "/groups/g1", "/switches", "/switches/0000000000000011", "/switches/00000000000000c0",
    "/alarms", "/alarms?closed=true", "/forecasts", "/models", "/events", "/audit", "/login",
    "/pools/global", "/pools/global/west", "/pools/anna", "/pools/global/west/g1/ben",
)  # fmt: skip
MBPS = Scale("Mbit/s", 1e6, 2)


def crowd(n_users: int, per_group: int = 50) -> Snapshot:
    """One region with many users in groups."""
    n_groups = -(-n_users // per_group)
    path = ["global", "global/west", *(f"global/west/g{g:04d}" for g in range(n_groups))]
    level = [Level.GLOBAL, Level.REGION, *[Level.GROUP] * n_groups, *[Level.USER] * n_users]
    parent = [-1, 0, *[1] * n_groups, *(2 + user // per_group for user in range(n_users))]
    path += [f"{path[2 + user // per_group]}/user{user:05d}" for user in range(n_users)]
    n = len(path)
    rates = np.arange(2.0 * n).reshape(2, n) * 1e3
    pools = Pools(
        tuple(path), np.array(level, np.uint8), np.array(parent, np.int32), np.zeros((2, n)),
        np.full((2, n), 1e9), np.ones(n), rates, rates, rates, rates, rates + 1e6,
        np.zeros((2, n), np.uint8), np.full((2, n), 2, np.uint8),
    )  # fmt: skip
    return Snapshot(time=NOW, pools=pools)


@pytest.mark.parametrize("page", PAGES)
def test_page_has_nothing_that_a_strict_policy_would_refuse(ask: Ask, page: str):
    """No script or style in the page itself, no handler, nothing from elsewhere."""
    answer = ask("GET", f"/dashboard{page}")
    assert answer.status_code == 200, answer.text

    class Checked(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found = dict(attrs)
            assert tag != "style"
            assert tag != "script" or (found.get("src") or "").startswith("/dashboard/static/")
            assert not {"style", *(name for name in found if name.startswith(("on", "hx-on")))} & found.keys()
            for name in ("src", "href", "action"):
                assert not (found.get(name) or "").startswith(("http", "//", "javascript:", "data:")), found
            ids.extend([found["id"]] if found.get("id") else [])

    ids: list[str | None] = []
    Checked().feed(answer.text)
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("page", PAGES)
def test_page_has_one_heading_and_a_language(ask: Ask, page: str):
    """What a screen reader looks for first."""
    text = ask("GET", f"/dashboard{page}").text
    assert '<html lang="en">' in text
    assert len(re.findall(r"<h1[ >]", text)) == 1
    assert "<main" in text


def test_root_leads_to_the_overview(ask: Ask):
    """Who types the address only gets there."""
    answer = ask("GET", "/")
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard")


def test_no_data_is_not_zero(ask: Ask):
    """Anna sent nothing, of ben nothing is known: a figure for her, words and hatching for him."""
    text = ask("GET", "/dashboard?level=user").text
    rows = {name: text.split(f">{name}</a>")[1].split("</tr>")[0] for name in ("anna", "ben")}
    assert ">0.00<" in rows["anna"]
    assert "no data" not in rows["anna"]
    assert 'class="gap"' not in rows["anna"]
    assert "no data" in rows["ben"]
    assert rows["ben"].count('class="gap"') == 2


def test_directions_are_not_swapped(ask: Ask):
    """Download is twice upload, and stands where it says so."""
    text = ask("GET", "/dashboard/pools/global/west").text
    for direction, grant in (("Download", "18.00"), ("Upload", "9.00")):
        card = text.split(f"<h2>{direction}</h2>")[1].split("</article>")[0]
        assert f'class="big">{grant}' in card


def test_names_are_escaped(ask: Ask, operations: FakeOperations):
    """Whatever a configuration calls a group, it is text."""
    evil = '"><script>alert(1)</script>'
    (group,) = operations.snapshot.groups
    pools = replace(
        operations.snapshot.pools,
        path=("global", "global/west", f"global/west/{evil}", *operations.snapshot.pools.path[3:]),
    )
    operations.snapshot = replace(
        operations.snapshot, pools=pools, groups=(replace(group, id=evil, reason=evil, members=(evil,)),),
        health=replace(operations.snapshot.health, problems=(evil,)),
    )  # fmt: skip
    for page in (
        "",
        "/groups",
        "/pools/global/west",
        f"/groups/{evil.replace('/', '%2F')}",
        f"/pools/{evil}",
    ):
        assert "<script>alert" not in ask("GET", f"/dashboard{page}").text


@pytest.mark.parametrize("page", ["/pools/nobody", "/groups/none", "/switches/1", "/switches/zz"])
def test_what_is_not_there_is_said_in_a_page(ask: Ask, page: str):
    """A stale link leads to words, and back."""
    answer = ask("GET", f"/dashboard{page}")
    assert answer.status_code == 404
    assert "must be" in answer.text


def test_empty_planner_has_pages(ask: Ask, operations: FakeOperations):
    """Before any switch has connected each page says what it waits for."""
    operations.snapshot = Snapshot()
    for page in ("", "/groups", "/switches", "/alarms", "/models"):
        assert ask("GET", f"/dashboard{page}").status_code == 200
    assert "No pools yet" in ask("GET", "/dashboard").text


def test_forms_and_buttons_name_routes_that_exist(ask: Ask, app: FastAPI):
    """A button that calls what is not there would fail only when somebody needs it."""
    document = app.openapi()["paths"]
    patterns = {
        (method.upper(), re.compile(re.sub(r"\{[^}]+\}", "[^/]+", path)))
        for path, operations in document.items()
        for method in operations
    }
    found = set()
    for page in PAGES:
        text = ask("GET", f"/dashboard{page}").text
        found |= set(re.findall(r'data-api="([^"]+)" data-method="([A-Z]+)"', text))
    assert {path.split("/")[1] for path, _ in found} >= {"boosts", "alarms", "models", "session"}
    for path, method in found:
        assert any(method == verb and pattern.fullmatch(path) for verb, pattern in patterns), (method, path)


def test_files_of_pages_are_there_and_need_no_token(ask: Ask):
    """The login page must look like one before anybody has logged in."""
    text = ask("GET", "/dashboard/login", None).text
    files = set(re.findall(r'(?:src|href)="(/dashboard/static/[^"]+)"', text + ask("GET", "/dashboard").text))
    assert len(files) >= 5
    for file in files:
        answer = ask("GET", file, None)
        assert answer.status_code == 200, file
        assert "max-age" in answer.headers["cache-control"]
    assert ask("GET", "/dashboard/static/../pages.py", None).status_code in (401, 404)


def test_stranger_is_sent_to_log_in(ask: Ask):
    """Without a token a browser sees the login page and nothing of the network; a program is told in its own way."""
    for page in ("/", "/dashboard", "/dashboard/pools/anna"):
        answer = ask("GET", page, None, headers={"Accept": "text/html"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard/login")
        assert ask("GET", page, None).status_code == 401
    assert "anna" not in ask("GET", "/dashboard/login", None).text


# The tree.


def test_ten_thousand_users_are_a_page(ask: Ask, operations: FakeOperations):
    """The tree opens where it is asked to; lists are cut into pages; no page is long."""
    operations.snapshot = crowd(10_000)
    for query in ("", "?level=user", "?q=user0", "?level=user&sort=offered&page=7", "?turn=global/west"):
        text = ask("GET", f"/dashboard{query}").text
        assert text.count('<th scope="row"') <= 80, query
        assert len(text) < 300_000, query
    assert "Page 7 of 200" in ask("GET", "/dashboard?level=user&page=7").text
    assert "more in" in ask("GET", "/dashboard?turn=global/west").text


def test_opened_pool_shows_what_is_below():
    """Turning one pool changes that pool only; turning it again closes it."""
    pools = crowd(100).pools
    closed = [row.path for row in whole_tree(pools, Question()).rows]
    assert "global/west/g0001/user00050" not in closed
    asked = Question(turned=frozenset({"global/west/g0001"}))
    opened = [row.path for row in whole_tree(pools, asked).rows]
    assert set(opened) - set(closed) == {f"global/west/g0001/user{user:05d}" for user in range(50, 75)}
    assert asked.turn_url("/dashboard", "global/west/g0001") == "/dashboard"


def test_every_pool_is_on_exactly_one_page():
    """Paging leaves nobody out and shows nobody twice, in whatever order."""
    pools = crowd(130).pools
    for sort in ("name", "offered", "forecast", "grant", "full"):
        asked = Question(level="user", sort=sort)
        pages = [whole_tree(pools, replace(asked, page=page)) for page in (1, 2, 3)]
        paths = [row.path for table in pages for row in table.rows]
        assert len(paths) == len(set(paths)) == 130
        assert [len(table.rows) for table in pages] == [PAGE, PAGE, 30]
    # Past the end stands the last page.
    assert whole_tree(pools, replace(asked, page=99)).page == 3


def test_sorted_by_a_rate_the_unknown_come_last():
    """Largest first; of whom nothing is known says nothing about who is large."""
    pools = crowd(3).pools
    offered = pools.offered_bps.copy()
    offered[1, -2] = NAN
    asked = Question(level="user", sort="offered", direction="down")
    rows = whole_tree(replace(pools, offered_bps=offered), asked).rows
    assert [row.name for row in rows] == ["user00002", "user00000", "user00001"]
    rows = whole_tree(replace(pools, offered_bps=offered), replace(asked, direction="up")).rows
    assert [row.name for row in rows] == ["user00002", "user00001", "user00000"]


def test_found_by_its_own_name_first():
    """A group's name is part of its members' paths; whoever looks for the group finds it alone."""
    pools = crowd(100).pools
    assert [row.path for row in whole_tree(pools, Question(text="G0001")).rows] == ["global/west/g0001"]
    assert [row.name for row in whole_tree(pools, Question(text="user00007")).rows] == ["user00007"]
    # And one part of a name that is nobody's own finds by the path.
    assert whole_tree(pools, Question(text="g0001/user")).total == 50


def test_children_of_a_pool_are_all_reachable():
    """What the tree cuts off is on the pool's own page."""
    pools = crowd(100).pools
    assert children(pools, 2, Question()).total == 50
    assert [row.name for row in children(pools, 2, Question(text="00009")).rows] == ["user00009"]


def test_address_says_what_is_shown():
    """A link to a view can be sent to a colleague."""
    asked = Question(text="a b", level="user", sort="grant", direction="up", page=2)
    assert asked.url("/x", page=3) == "/x?q=a+b&level=user&sort=grant&by=up&page=3"
    # Another order begins at its first page.
    assert asked.url("/x", sort="name") == "/x?q=a+b&level=user&by=up"


def test_user_in_two_regions_groups_are_told_apart(ask: Ask, operations: FakeOperations):
    """A group's page lists one part a region."""
    snapshot = crowd(100)
    group = GroupView("big", "operator", "active", ("user00001",), NOW, "test", (1, 2), (3, 4), 1.0, (2, 3))
    operations.snapshot = replace(snapshot, groups=(group,))
    text = ask("GET", "/dashboard/groups/big").text
    assert "global/west/g0000" in text
    assert "global/west/g0001" in text


# Charts and figures.


def test_group_is_drawn_with_who_talks_to_whom():
    """Each pair is one line, the busiest the widest, and says who and how much."""
    talk = {("anna", "ben"): 4e6, ("ben", "<carla>"): 1e6}
    svg = str(drawn(("anna", "ben", "<carla>", "david"), talk, MBPS))
    widths = [float(width) for width in re.findall(r'stroke-width="([\d.]+)"', svg)]
    assert sorted(widths) == widths == [4.5, 9.0]
    assert "anna and ben: 4.00 Mbit/s" in svg
    assert svg.count('class="node"') == 4
    assert "<carla>" not in svg
    assert drawn(("anna",), {}, MBPS) is None


def test_ring_has_room_for_the_busiest_only():
    """A group of hundreds is no ball of wool."""
    names = [f"u{number:03d}" for number in range(200)]
    talk = {(one, other): 1e3 * at for at, (one, other) in enumerate(pairwise(names), 1)}
    svg = str(drawn(names, talk, MBPS))
    assert svg.count('class="node"') == MOST
    assert ">u198<" in svg
    assert ">u000<" not in svg


def chart(**changed: object) -> str:
    found = replace(make_forecast(), **changed)  # type: ignore[arg-type]
    limits = [("ceiling", "ceiling", 20e6), ("grant", "grant", 4e6)]
    return str(fan_chart(found, 0, MBPS, 0.0, limits, "a <title>", "chart"))


def paths(svg: str, kind: str) -> list[str]:
    return re.findall(rf'<path class="{kind}" d="([^"]*)"', svg)


def test_gap_breaks_the_line_and_is_hatched():
    """Between two samples with one missing no line is drawn."""
    (line,) = paths(chart(), "came")
    assert line.count("M") == 2
    assert chart().count('class="gap"') == 1


def test_zero_is_drawn_at_the_bottom_and_not_hatched():
    """Nothing sent is a fact."""
    found = make_forecast()
    up = replace(found.issued[0], demand_bps=np.zeros(5, np.float32))
    svg = chart(issued=(up, found.issued[1]))
    (line,) = paths(svg, "came")
    assert set(re.findall(r" ([\d.]+)(?:L|$)", line)) == {"1000.0"}
    assert 'class="gap"' not in svg


def test_fan_ahead_begins_at_the_last_sample():
    """It opens from what is known."""
    svg = chart()
    (came,), bands = paths(svg, "came"), paths(svg, "ahead-band")
    end = re.findall(r"[\d.]+ [\d.]+", came)[-1]
    assert bands
    # The last run of the line is a single sample, drawn as a dash around it.
    x, y = (float(part) for part in end.split())
    assert f"M{x - 1.5:.1f} {y:.1f}" in bands[0]


def test_last_rung_is_no_forecast():
    """What the last plan assumed is not drawn as if somebody had foreseen it."""
    svg = chart(rung=(3, 3))
    assert not paths(svg, "ahead-band")
    assert "No forecast." in svg


def test_limit_far_above_does_not_flatten_the_picture():
    """A ceiling of ten times the use is left out; the grant near it is drawn."""
    svg = chart()
    assert 'class="limit grant"' in svg
    assert 'class="limit ceiling"' not in svg


def test_chart_without_any_history_is_a_chart():
    """The first forecast of a new pool."""
    found = make_forecast(since=NOW + 10**6)
    assert fan_chart(found, 0, MBPS, 0.0, [], "x", "chart")


def test_title_is_text():
    """It holds a pool's name."""
    assert "a &lt;title&gt;" in chart()


@pytest.mark.parametrize(
    ("top", "rate", "shown"),
    [
        (60e6, 4.4e6, "4.40"),
        (60e6, 0.0, "0.00"),
        (40e9, 12_345.6e6, "12\u202f345.6"),
        (400e9, 12_345.6e6, "12.35"),
    ],
)
def test_rates_are_in_one_unit_by_size_of_the_network(top: float, rate: float, shown: str):
    """Columns compare only where all figures have the same unit and decimals."""
    assert str(Scale.of(top).number(rate)) == shown


def test_figures_that_are_none():
    """Not known, and none of its own, are words."""
    assert "no data" in MBPS.number(NAN)
    assert "no data" in MBPS.rate(None)
    assert "none" in MBPS.number(float("inf"))
    assert [span(s) for s in (30, 300, 7200, 200_000)] == ["30 s", "5 min", "2 h", "2 days"]
