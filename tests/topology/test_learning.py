from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topology.learning import HostTable, LearningRules, Sighting, expire, observe, observe_all

A, B, C = (f"02:00:00:00:00:0{i}" for i in (1, 2, 3))
RULES = LearningRules(host_ttl_s=1000, address_ttl_s=500, hold_down_s=30, refresh_s=5, max_hosts=2)


def seen(
    *sightings: tuple[str, str | None, int, int], now: float = 0.0, table: HostTable | None = None
) -> HostTable:
    return observe_all(table or HostTable(), [Sighting(*s) for s in sightings], now, rules=RULES)[0]


def test_a_host_that_moves_keeps_its_identity() -> None:
    """To another port or switch: same MAC, same addresses, one record."""
    table = seen((A, "10.0.0.1", 1, 3))
    table, change = observe(table, A.upper(), None, 2, 4, 1.0, rules=RULES)
    assert change is not None
    assert change.kinds == ("moved",)
    assert change.before is not None
    assert change.before.dpid == 1
    assert table.by_mac[A].addresses == {"10.0.0.1"}
    assert (table.by_mac[A].dpid, table.by_mac[A].port_no) == (2, 4)


def test_a_host_that_changes_its_address_keeps_its_identity() -> None:
    """It has both until the old one expires unused."""
    table = seen((A, "10.0.0.1", 1, 3))
    table, change = observe(table, A, "10.0.0.9", 1, 3, 400.0, rules=RULES)
    assert change is not None
    assert change.kinds == ("address-added",)
    assert table.by_mac[A].addresses == {"10.0.0.1", "10.0.0.9"}
    table, changes = expire(table, 600.0, rules=RULES)
    assert [change.kinds for change in changes] == [("address-expired",)]
    assert table.by_mac[A].addresses == {"10.0.0.9"}


def test_an_address_stays_with_a_holder_that_uses_it() -> None:
    """A second claimant is refused and named until the holder has been silent for the hold-down."""
    table = seen((A, "10.0.0.1", 1, 3))
    table, change = observe(table, B, "10.0.0.1", 1, 4, 29.0, rules=RULES)
    assert change is not None
    assert change.kinds == ("appeared", "address-refused")
    assert change.other_mac == A
    assert table.by_mac[B].addresses == frozenset()
    table, change = observe(table, B, "10.0.0.1", 1, 4, 30.0, rules=RULES)
    assert change is not None
    assert change.kinds == ("address-taken",)
    assert change.other_mac == A
    assert table.by_mac[A].addresses == frozenset()
    assert table.by_mac[B].addresses == {"10.0.0.1"}


def test_a_speaking_holder_is_never_robbed() -> None:
    """Each use starts the hold-down anew."""
    table = seen((A, "10.0.0.1", 1, 3))
    for now in range(0, 200, 10):
        table = seen((A, "10.0.0.1", 1, 3), (B, "10.0.0.1", 1, 4), now=now, table=table)
    assert table.by_mac[A].addresses == {"10.0.0.1"}


def test_nothing_is_learnt_in_transit() -> None:
    """On an inter-switch port the packet only passes."""
    table = HostTable()
    assert observe(table, A, "10.0.0.1", 1, 1, 0.0, inter_switch={(1, 1)}) == (table, None)


def test_hosts_on_a_port_that_turns_out_to_be_a_link_are_forgotten() -> None:
    """They were learnt before the link was discovered."""
    table = seen((A, "10.0.0.1", 1, 1), (B, None, 1, 2))
    table, changes = expire(table, 1.0, inter_switch={(1, 1)}, rules=RULES)
    assert set(table.by_mac) == {B}
    assert not table.holder_of
    assert "inter-switch" in changes[0].reason


@pytest.mark.parametrize("mac", ["01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00", "junk", ""])
def test_a_mac_that_is_no_hosts_teaches_nothing(mac: str) -> None:
    """Multicast, broadcast, zero and malformed."""
    assert observe(HostTable(), mac, "10.0.0.1", 1, 1, 0.0)[1] is None


@pytest.mark.parametrize(
    "address", ["0.0.0.0", "::", "224.0.0.1", "255.255.255.255", "127.0.0.1", "ff02::1", "x"]
)
def test_an_address_that_is_no_hosts_is_ignored(address: str) -> None:
    """The MAC is learnt all the same."""
    table = seen((A, address, 1, 1))
    assert table.by_mac[A].addresses == frozenset()


def test_addresses_have_one_spelling() -> None:
    """However IPv6 is written, and IPv4 inside IPv6."""
    table = seen((A, "2001:DB8::0:1", 1, 1), (A, "::ffff:10.0.0.1", 1, 1))
    assert table.by_mac[A].addresses == {"2001:db8::1", "10.0.0.1"}


def test_a_full_table_refuses_new_hosts_and_says_so() -> None:
    """Known hosts go on being learnt."""
    table = seen((A, None, 1, 1), (B, None, 1, 2))
    same, change = observe(table, C, "10.0.0.3", 1, 3, 1.0, rules=RULES)
    assert same is table
    assert change is not None
    assert change.kinds == ("refused",)
    assert "2 hosts" in change.reason
    assert observe(table, A, None, 1, 9, 1.0, rules=RULES)[1] is not None


def test_one_host_cannot_claim_addresses_without_end() -> None:
    """Beyond the bound an address is refused."""
    rules = LearningRules(max_addresses_per_host=2)
    sightings = [Sighting(A, f"10.0.0.{i}", 1, 1) for i in range(1, 4)]
    table, changes = observe_all(HostTable(), sightings, 0.0, rules=rules)
    assert len(table.by_mac[A].addresses) == 2
    assert changes[-1].kinds == ("address-refused",)


def test_what_teaches_nothing_returns_the_same_table() -> None:
    """So a busy host does not copy the table for each packet; last_seen moves in steps."""
    table = seen((A, "10.0.0.1", 1, 1))
    assert observe(table, A, "10.0.0.1", 1, 1, 4.9, rules=RULES) == (table, None)
    later, change = observe(table, A, "10.0.0.1", 1, 1, 5.0, rules=RULES)
    assert change is None
    assert later.by_mac[A].last_seen == later.holder_of["10.0.0.1"].last_seen == 5.0


def test_a_silent_host_expires_with_its_addresses() -> None:
    """And one that was seen in time stays."""
    table = seen((A, "10.0.0.1", 1, 1), (B, None, 1, 2))
    table = seen((B, None, 1, 2), now=900.0, table=table)
    table, changes = expire(table, 1001.0, rules=RULES)
    assert set(table.by_mac) == {B}
    assert not table.holder_of
    assert {change.kinds for change in changes} == {("address-expired",), ("expired",)}
    assert expire(table, 1001.0, rules=RULES) == (table, ())


def test_rules_out_of_bounds_are_refused() -> None:
    """With rule and value."""
    with pytest.raises(ValueError, match=r"hold_down_s must be > refresh_s"):
        LearningRules(hold_down_s=1.0)
    with pytest.raises(ValueError, match=r"max_hosts .* must be >= 1"):
        LearningRules(max_hosts=0)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([A, B, C, "ff:ff:ff:ff:ff:ff"]),
            st.sampled_from([None, "10.0.0.1", "10.0.0.2", "fe80::1"]),
            st.integers(1, 3),
            st.integers(1, 3),
            st.floats(0, 300),
        ),
        max_size=40,
    )
)
def test_each_address_has_one_holder_and_the_table_agrees_with_itself(
    steps: list[tuple[str, str | None, int, int, float]],
) -> None:
    """Whatever is seen, in whatever order, even if the clock steps back."""
    table = HostTable()
    for mac, address, dpid, port_no, now in steps:
        table, _ = observe(table, mac, address, dpid, port_no, now, inter_switch={(3, 3)}, rules=RULES)
        table, _ = expire(table, now, rules=RULES)
    held = {(address, mac) for mac, host in table.by_mac.items() for address in host.addresses}
    assert held == {(address, holder.mac) for address, holder in table.holder_of.items()}
    assert len(table.by_mac) <= RULES.max_hosts
    assert all((host.dpid, host.port_no) != (3, 3) for host in table.by_mac.values())
