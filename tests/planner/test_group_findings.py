"""Which of communities and roles are the groups, roles that keep their ids, and who depends on whom."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from planner.fleet import Fleet
from planner.group_dependencies import Parties, rows_of, strongest_dependencies
from planner.group_findings import By, RoleBook, findings_of
from planner.grouping import Grouping
from tests.planner.networks import START, small
from topology.roles import Role
from topology.traffic import TrafficView

Flow = tuple[str, str, int]


def view_of(flows: list[Flow], rate_bps: float = 1e6) -> TrafficView:
    names = sorted({name for flow in flows for name in flow[:2]})
    src, dst = [names.index(flow[0]) for flow in flows], [names.index(flow[1]) for flow in flows]
    rates = np.full(len(flows), rate_bps)
    app = np.array([flow[2] for flow in flows])
    return TrafficView(START, tuple(names), np.array(src), np.array(dst), app, rates)


def islands() -> TrafficView:
    """Two meshes of five that never meet; all do the same."""
    return view_of(
        [
            (f"{island}{a}", f"{island}{b}", 1)
            for island in "xy"
            for a, b in itertools.permutations(range(5), 2)
        ]
    )


def everybody() -> TrafficView:
    """Each of six askers asks each of six answerers: roles, and no application."""
    return view_of([(f"asker{a}", f"server{b}", 1) for a in range(6) for b in range(6)])


@pytest.mark.parametrize(
    ("view", "by", "kind"),
    [
        (islands(), "auto", "application"),
        (everybody(), "auto", "role"),
        (islands(), "roles", "role"),
        (everybody(), "communities", "application"),
    ],
)
def test_groups_are_of_the_kind_asked_for(view: TrafficView, by: By, kind: str) -> None:
    """And by itself of roles only where no community stands out."""
    found = findings_of(view, None, by)
    assert found.kind == kind
    members = {"".join(sorted({name.rstrip("0123456789") for name in group})) for group in found.partition}
    if view.endpoints[0].startswith("x"):
        assert members == ({"x", "y"} if kind == "application" else {"xy"})
    elif kind == "role":
        assert members == {"asker", "server"}


def test_groups_say_of_which_kind_they_are() -> None:
    """A role's group among operators' and the rest; also after a restart."""
    config = small(groups={"lab": {"members": ["emma"]}}, grouping={"by": "roles"})
    grouping = Grouping.of(config, Fleet.of(config))
    flows = [("anna", "ben", 1), ("carla", "ben", 1), ("anna", "david", 1), ("carla", "david", 1)]
    grouping._follow(findings_of(view_of(flows), None, "roles"), START)
    again = Grouping.of(config, Fleet.of(config))
    again.restore(grouping.state())
    for one in (grouping, again):
        assert one.kind == "role"
        found = {frozenset(group.members): group.kind for group in one.groups}
        assert found[frozenset({"anna", "carla"})] == "discovered"


def role(members: str, sends: int = 1) -> Role:
    return Role(frozenset(members), (sends,), ())


def test_roles_keep_their_ids_while_most_members_stay() -> None:
    """And a number is not used again."""
    book = RoleBook().follow([role("abcd"), role("xyz")]).follow([role("xyzw"), role("pq")])
    assert [(named.id, "".join(sorted(named.role.members))) for named in book.roles] == [
        ("role-2", "wxyz"),
        ("role-3", "pq"),
    ]
    assert [named.id for named in book.follow([role("abcd")]).roles] == ["role-4"]


def test_dependencies_come_strongest_first_with_the_lag_of_demand() -> None:
    """The web's demand is the database's a step later; the name server has no demand of its own."""
    names = ("db", "dns", "web")
    view = TrafficView(
        START,
        names,
        np.array([2, 2, 0]),
        np.array([0, 1, 2]),
        np.zeros(3, np.int64),
        np.array([5e6, 1e6, 2e6]),
    )
    web = np.random.default_rng(0).normal(1e6, 1e5, 60)
    demand = np.stack([web, np.roll(web, 1)], axis=1)
    parties = Parties({"front": {"web"}, "back": {"db"}}, ("dns",), demand, 10.0)
    page, total = strongest_dependencies(view, parties, 0, 2)
    assert total == 3
    first, second = rows_of(page)
    assert (first["source"], first["target"], first["rate_bps"], first["lag_s"]) == (
        "front",
        "back",
        5e6,
        10.0,
    )
    assert first["correlation"] > 0.9
    assert (second["source"], second["target"], second["lag_s"]) == ("back", "front", -10.0)
    (last,) = rows_of(strongest_dependencies(view, parties, 2, 2)[0])
    assert last == {
        "source": "front",
        "target": "dns",
        "rate_bps": 1e6,
        "correlation": None,
        "lag_s": None,
    }
