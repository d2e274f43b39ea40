"""What was found in the traffic, over a real planner behind the real app."""

from __future__ import annotations

import io

import networkx as nx
import numpy as np
import pytest

from planner.group_findings import RoleBook
from tests.northbound.conftest import Ask
from tests.northbound.doubles import FakeOperations
from topology.roles import Role


@pytest.fixture(autouse=True)
def traffic(operations: FakeOperations) -> None:
    """Ben and Carla answer Anna; Emma is in another group."""
    running = operations.running
    grouping = running.planner.grouping
    ids = grouping.graph.intern(["anna", "ben", "carla", "emma"])
    src, dst = ids[np.array([0, 1, 2, 0])], ids[np.array([1, 0, 0, 3])]
    grouping.graph.observe(running.now, src, dst, [0, 0, 0, 1], [4e6, 3e6, 2e6, 1e6], 600.0)
    grouping.roles = RoleBook().follow([Role(frozenset({"carla", "ben"}), (0,), (99,))])


def test_roles_say_what_their_members_do(ask: Ask):
    """By the applications' names; one that the file no longer has by its number."""
    answer = ask("GET", "/roles").json()
    assert answer["total"] == 1
    assert answer["roles"] == [
        {
            "id": "role-1",
            "members": ["ben", "carla"],
            "services": [
                {"application": "other", "direction": "sends"},
                {"application": "99", "direction": "receives"},
            ],
        }
    ]
    assert ask("GET", "/roles?offset=1").json()["roles"] == []


def test_dependencies_are_between_groups(ask: Ask, operations: FakeOperations):
    """What members of one send to members of another; of nobody where there is no history."""
    group_of = {
        member: group.id for group in operations.running.planner.grouping.groups for member in group.members
    }
    answer = ask("GET", "/groups/dependencies").json()
    rows = {(row["source"], row["target"]): row for row in answer["dependencies"]}
    assert all(source != target for source, target in rows)
    assert (group_of["anna"], group_of["emma"]) in rows
    assert {party["id"] for party in answer["groups"]} == {name for pair in rows for name in pair}
    assert {row["correlation"] for row in rows.values()} == {None}
    assert answer["total"] == len(rows)
    assert ask("GET", "/groups/dependencies?limit=0").status_code == 422


def test_the_traffic_graph_is_bounded_and_readable(ask: Ask):
    """The strongest edges; networkx reads both forms back."""
    report = ask("GET", "/topology/graph?limit=2").json()
    assert report["graph"]["total_edges"] == 4
    read = nx.node_link_graph(report, edges="edges")
    assert set(read.edges()) == {("anna", "ben"), ("ben", "anna")}
    answer = ask("GET", "/topology/graph?format=graphml")
    assert answer.headers["content-type"].startswith("text/xml")
    assert nx.read_graphml(io.BytesIO(answer.content)).number_of_edges() == 4
    assert ask("GET", "/topology/graph?limit=50001").status_code == 422
    assert ask("GET", "/topology/graph?format=dot").status_code == 422
