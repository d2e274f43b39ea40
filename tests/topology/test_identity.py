from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topology.identity import UserIdentity, index_users, rebind, resolve
from topology.network import Host

MACS = [f"02:00:00:00:00:0{i}" for i in range(6)]
ADDRESSES = [f"10.0.0.{i}" for i in range(6)] + ["2001:db8::1"]
INDEX = index_users(
    [
        UserIdentity("alice", frozenset({"10.0.0.1", "2001:DB8:0::1"}), frozenset({MACS[1]})),
        UserIdentity("bob", frozenset({"10.0.0.2"}), frozenset({MACS[2].upper(), MACS[3]})),
        UserIdentity("carol", frozenset({"10.0.0.3"})),
    ]
)


def host(mac: str, *addresses: str, dpid: int = 1) -> Host:
    return Host(mac, frozenset(addresses), dpid, 5, 0.0)


def hosts(*found: Host) -> dict[str, Host]:
    return {item.mac: item for item in found}


def test_a_user_is_found_by_mac_or_address() -> None:
    """IPv4 or IPv6; a host nobody configured is nobody's."""
    found = resolve(INDEX, hosts(host(MACS[1]), host(MACS[4], "2001:db8::1"), host(MACS[5], "10.0.0.5")))
    assert found.user_of == {MACS[1]: "alice", MACS[4]: "alice"}
    assert [item.source for item in found.bindings["alice"]] == ["mac", "address"]
    assert not found.conflicts


def test_several_devices_are_several_attachments() -> None:
    """Each with its own place."""
    found = resolve(INDEX, hosts(host(MACS[2], dpid=1), host(MACS[3], dpid=2)))
    assert [(item.mac, item.dpid) for item in found.bindings["bob"]] == [(MACS[2], 1), (MACS[3], 2)]


def test_a_spoofed_address_binds_to_the_owner_of_the_mac() -> None:
    """Alice's address from Bob's card is Bob's traffic, and is reported."""
    found = resolve(INDEX, hosts(host(MACS[2], "10.0.0.1")))
    assert found.user_of == {MACS[2]: "bob"}
    conflict = found.conflicts[MACS[2]]
    assert (conflict.bound_to, conflict.claimed_for) == ("bob", ("alice",))
    assert MACS[2] in conflict.reason


def test_a_host_with_addresses_of_two_users_is_the_first_ones_and_reported() -> None:
    """First by id, so that the answer does not depend on the order of addresses."""
    found = resolve(INDEX, hosts(host(MACS[5], "10.0.0.3", "10.0.0.2")))
    assert found.user_of == {MACS[5]: "bob"}
    assert found.conflicts[MACS[5]].claimed_for == ("carol",)


@pytest.mark.parametrize(
    ("users", "message"),
    [
        ([UserIdentity("a"), UserIdentity("a")], r"users\.a must be given once"),
        ([UserIdentity("a", macs=frozenset({"xx"}))], "mac must be six octets .* got 'xx'"),
        ([UserIdentity("a", frozenset({"10.0.0"}))], "10.0.0"),
        (
            [UserIdentity("a", frozenset({"10.0.0.1"})), UserIdentity("b", frozenset({"::ffff:10.0.0.1"}))],
            r"users\.b\.addresses must not hold 10\.0\.0\.1, it is users\.a's",
        ),
    ],
)
def test_users_that_cannot_be_told_apart_are_refused(users: list[UserIdentity], message: str) -> None:
    """With path, rule and value."""
    with pytest.raises(ValueError, match=message):
        index_users(users)


host_sets = st.dictionaries(
    st.sampled_from(MACS),
    st.tuples(st.frozensets(st.sampled_from(ADDRESSES), max_size=3), st.integers(1, 3)),
).map(lambda raw: hosts(*(host(mac, *addresses, dpid=dpid) for mac, (addresses, dpid) in raw.items())))


@settings(deadline=None)
@given(host_sets, host_sets)
def test_rebinding_what_changed_equals_resolving_everything(
    before: dict[str, Host], after: dict[str, Host]
) -> None:
    """The incremental way is only faster."""
    changed = [mac for mac in before.keys() | after.keys() if before.get(mac) != after.get(mac)]
    assert rebind(INDEX, resolve(INDEX, before), after, changed) == resolve(INDEX, after)
