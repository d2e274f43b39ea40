from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from topology.communities import find_communities, is_partition
from topology.roles import Role, Roles, find_roles

WEB, DATABASE, MONITORING, BACKUP = range(4)

Edge = tuple[str, str, int, float]


def roles_of(edges: list[Edge], **options: int) -> Roles:
    names = sorted({name for edge in edges for name in edge[:2]})
    at = {name: i for i, name in enumerate(names)}
    src, dst = [at[edge[0]] for edge in edges], [at[edge[1]] for edge in edges]
    return find_roles(names, src, dst, [edge[2] for edge in edges], [edge[3] for edge in edges], **options)


def download(client: str, server: str, app: int, rate_bps: float = 1e6) -> list[Edge]:
    """What a server sends and the acknowledgements."""
    return [(server, client, app, rate_bps), (client, server, app, rate_bps / 40)]


def three_tiers(app: int, clients: int = 4, fronts: int = 2) -> list[Edge]:
    """An application with names of its own: clients, two fronts and a database, all watched."""
    edges: list[Edge] = []
    for front in range(fronts):
        for client in range(clients):
            edges += download(f"client-{app}-{client}", f"front-{app}-{front}", WEB, 10.0 ** (4 + app))
        edges += download(f"front-{app}-{front}", f"db-{app}", DATABASE, 10.0 ** (4 + app))
    return edges


def test_roles_are_found_across_applications() -> None:
    """Where communities are the applications, roles are the tiers; volumes differ by a thousand."""
    edges = [edge for app in range(4) for edge in three_tiers(app)]
    roles = roles_of(edges)
    by_kind = {
        kind: frozenset(name for name in roles.endpoints if name.startswith(kind))
        for kind in ("client", "front", "db")
    }
    assert set(roles.groups()) == set(by_kind.values())
    described = {role.members: role for role in roles.described()}
    assert described[by_kind["client"]] == Role(by_kind["client"], (), (WEB,))
    assert described[by_kind["front"]] == Role(by_kind["front"], (WEB,), (DATABASE,))
    assert described[by_kind["db"]] == Role(by_kind["db"], (DATABASE,), ())
    at = {name: i for i, name in enumerate(roles.endpoints)}
    communities = find_communities(
        roles.endpoints,
        [at[edge[0]] for edge in edges],
        [at[edge[1]] for edge in edges],
        [edge[3] for edge in edges],
    )
    assert (roles.kind, communities.kind) == ("role", "community")
    assert len(communities.groups()) == 4


def test_what_all_do_hides_no_role() -> None:
    """Everyone asks the same monitoring; it tells nothing about who is who."""
    edges = [edge for app in range(4) for edge in three_tiers(app)]
    names = {name for edge in edges for name in edge[:2]}
    watched = [*edges, *(edge for name in names for edge in download(name, "monitor", MONITORING, 2e5))]
    plain, among = roles_of(edges), roles_of(watched)
    assert {group - {"monitor"} for group in among.groups()} == set(plain.groups())


def test_a_slightly_different_profile_joins_the_nearest_role() -> None:
    """One of a dozen workers has not used one of its six services yet."""
    edges: list[Edge] = []
    for worker in range(12):
        edges += [(f"w{worker}", f"s{app}", app, 1e6) for app in range(6)]
    edges.remove(("w0", "s5", 5, 1e6))
    group = max(roles_of(edges).groups(), key=len)
    assert group == frozenset(f"w{worker}" for worker in range(12))


def test_a_trickle_in_a_class_is_no_part_of_a_profile() -> None:
    """A thousandth of what an endpoint does is a scan or a mistake."""
    edges = [edge for app in range(4) for edge in three_tiers(app)]
    faint: list[Edge] = [("client-3-0", "db-0", BACKUP, 1.0), ("db-0", "client-3-1", BACKUP, 1.0)]
    assert set(roles_of(edges + faint).groups()) == set(roles_of(edges).groups())


def test_who_resembles_nobody_is_alone() -> None:
    """As is who has no traffic."""
    edges = [edge for app in range(3) for edge in three_tiers(app)]
    lonely: list[Edge] = [("odd", "strange", 7, 1e6)]
    roles = roles_of(edges + lonely)
    assert not any({"odd", "strange"} & group for group in roles.groups())
    silent = find_roles("abc", [0, 1], [1, 0], [0, 0], [0.0, np.nan])
    assert silent.label.tolist() == [0, 1, 2]
    assert silent.groups() == ()
    assert find_roles([], [], [], [], []).groups(min_size=1) == ()


def test_one_clique_is_one_role() -> None:
    """Everyone does the same."""
    n = 12
    a, b = (index.tolist() for index in np.triu_indices(n, 1))
    roles = find_roles([f"{i:02}" for i in range(n)], a + b, b + a, [0] * (2 * len(a)), [1e6] * (2 * len(a)))
    assert [len(group) for group in roles.groups()] == [n]


def test_self_loops_say_nothing() -> None:
    """An endpoint that talks to itself has no role from it."""
    assert roles_of([("a", "a", WEB, 1e6), ("b", "b", WEB, 1e6)]).groups() == ()


def planted(seed: int, n_roles: int = 15, noise: float = 0.2) -> tuple[list[Edge], dict[str, int]]:
    """Roles of 3 to 30 endpoints: one to four of 30 classes each; one in five has one more or one less."""
    rng = np.random.default_rng(seed)
    edges: list[Edge] = []
    truth: dict[str, int] = {}
    for role in range(n_roles):
        classes = rng.choice(30, rng.integers(2, 6), replace=False).tolist()
        for member in range(rng.integers(3, 31)):
            name = f"{role}-{member}"
            truth[name] = role
            own = [*classes[1:], rng.integers(30)] if rng.random() < noise else classes
            edges += [(name, f"peer-{app}", int(app), float(rng.lognormal(14, 2))) for app in own]
    return edges, truth


@pytest.mark.parametrize("seed", range(3))
def test_planted_roles_are_recovered(seed: int) -> None:
    """Through rates that differ by orders of magnitude and profiles that are not quite the same."""
    edges, truth = planted(seed)
    roles = roles_of(edges)
    role_of = dict(zip(roles.endpoints, roles.label.tolist(), strict=True))
    assert adjusted_rand_score(list(truth.values()), [role_of[name] for name in truth]) > 0.8


def test_profiles_beyond_the_bound_join_what_they_resemble() -> None:
    """So that time and memory stay bounded; the result is nearly that of all."""
    edges, truth = planted(1, noise=0.05)
    whole, part = roles_of(edges), roles_of(edges, max_profiles=20)
    members = [i for i, name in enumerate(whole.endpoints) if name in truth]
    assert adjusted_rand_score(whole.label[members], part.label[members]) > 0.9


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 25), st.integers(1, 60), st.integers(0, 1000))
def test_roles_are_a_partition_whatever_the_units_and_the_order(n: int, n_edges: int, seed: int) -> None:
    """Each endpoint in exactly one role, numbered by first member."""
    rng = np.random.default_rng(seed)
    src, dst, app = rng.integers(0, n, n_edges), rng.integers(0, n, n_edges), rng.integers(0, 5, n_edges)
    rate = rng.lognormal(10, 3, n_edges)
    names = [f"{i:02}" for i in range(n)]
    found = find_roles(names, src, dst, app, rate)
    groups = found.groups(min_size=1)
    assert is_partition(groups, names)
    assert list(dict.fromkeys(found.label.tolist())) == list(range(len(groups)))
    back = np.arange(n_edges)[::-1]
    again = find_roles(names, src[back], dst[back], app[back], rate[back] * 2.0**20)
    assert np.array_equal(found.label, again.label)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_profiles": 1}, "max_profiles must be >= 2, got 1"),
        ({"dst": [2]}, "src and dst must index the 2 endpoints given"),
        ({"app": [-1]}, "app must be >= 0, got -1"),
        ({"app": [0, 1]}, "src, dst, app and rate_bps must have one shape"),
    ],
)
def test_input_out_of_bounds_is_refused(options: dict[str, object], message: str) -> None:
    """With rule and value."""
    columns = {"src": [0], "dst": [1], "app": [0], "rate_bps": [1.0]}
    with pytest.raises(ValueError, match=message):
        find_roles("ab", **{**columns, **options})  # type: ignore[arg-type]
