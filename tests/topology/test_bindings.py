from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.bindings import Bindings
from topology.identity import UserIdentity, resolve
from topology.network import Host

CARD, OTHER = "02:00:00:00:00:01", "02:00:00:00:00:02"
ANNA = UserIdentity("anna", frozenset({"10.0.0.1"}))
BEN = UserIdentity("ben", frozenset({"10.0.0.2"}), frozenset({OTHER}))


def host(mac: str = CARD, *addresses: str) -> dict[str, Host]:
    return {mac: Host(mac, frozenset(addresses), 1, 1, 0.0)}


def who(bindings: Bindings, hosts: dict[str, Host], now: float) -> dict[str, str]:
    """Whose each card is."""
    return dict(resolve(bindings.index, bindings.recognised(hosts, now)).user_of)


def test_a_card_is_learnt_by_its_address_and_forgotten_in_time() -> None:
    """It tells the user while nobody knows the address, as after a restart of the speaker."""
    bindings = Bindings([ANNA, BEN], learned_ttl_s=100.0)
    assert who(bindings, host(CARD, "10.0.0.1"), 0.0) == {CARD: "anna"}
    assert who(bindings, host(CARD), 50.0) == {CARD: "anna"}
    assert [(b.kind, b.value, b.source, b.until) for b in bindings.of("anna")] == [
        ("address", "10.0.0.1", "configured", math.inf),
        ("mac", CARD, "learned", 100.0),
    ]
    assert not bindings.expire(99.0, {})
    assert bindings.expire(100.0, host(CARD))
    assert who(bindings, host(CARD), 101.0) == {}


def test_what_is_still_seen_is_not_forgotten() -> None:
    """A host that is there with its address all the while is as good as seen now."""
    bindings = Bindings([ANNA], learned_ttl_s=100.0)
    bindings.recognised(host(CARD, "10.0.0.1"), 0.0)
    assert not bindings.expire(150.0, host(CARD, "10.0.0.1"))
    assert bindings.of("anna")[-1].until == 250.0


def test_a_card_that_uses_a_strangers_address_is_learnt_no_more() -> None:
    """The address changed hands."""
    bindings = Bindings([ANNA])
    bindings.recognised(host(CARD, "10.0.0.1"), 0.0)
    bindings.recognised(host(CARD, "10.0.0.99"), 1.0)
    assert bindings.learned() == {}


def test_what_an_operator_binds_tells_the_user_until_it_ends() -> None:
    """A MAC wins over another user's address; then the address decides again."""
    bindings = Bindings([ANNA, BEN])
    bindings.give("anna", [CARD.upper()], ["fd00:0::1"], 10.0, ttl_s=60.0)
    assert who(bindings, host(CARD, "10.0.0.2"), 11.0) == {CARD: "anna"}
    assert who(bindings, host("02:00:00:00:00:07", "fd00::1"), 11.0) == {"02:00:00:00:00:07": "anna"}
    assert {b.source for b in bindings.of("anna")} == {"configured", "api", "learned"}
    assert not bindings.expire(69.0, {})
    assert bindings.expire(70.0, {})
    assert who(bindings, host(CARD, "10.0.0.2"), 71.0) == {CARD: "ben"}


def test_what_was_given_is_replaced_whole_and_can_be_taken_back() -> None:
    """Without a time to live it has no end."""
    bindings = Bindings([ANNA])
    bindings.give("anna", [CARD], [], 0.0)
    bindings.give("anna", [OTHER], [], 1.0)
    assert not bindings.expire(1e12, {})
    assert [b.value for b in bindings.of("anna") if b.source == "api"] == [OTHER]
    assert bindings.withdraw("anna")
    assert not bindings.withdraw("anna")
    assert bindings.of("nobody") == ()


@pytest.mark.parametrize(
    ("user", "macs", "addresses", "ttl_s", "said"),
    [
        ("nobody", [CARD], [], 1.0, "must be a configured user, got 'nobody'"),
        ("anna", [], [], 1.0, "must be given macs or addresses"),
        ("anna", [CARD], [], 0.0, "ttl_s must be > 0, got 0"),
        ("anna", [CARD], [], math.nan, "ttl_s must be > 0, got nan"),
        ("anna", [OTHER], [], 1.0, "it is users"),
        ("anna", [], ["10.0.0.2"], 1.0, "it is users"),
        ("anna", ["rubbish"], [], 1.0, "six octets"),
        ("anna", [], ["10.0.0.256"], 1.0, "10.0.0.256"),
    ],
)
def test_a_binding_that_cannot_be_is_refused(
    user: str, macs: list[str], addresses: list[str], ttl_s: float, said: str
) -> None:
    """With rule and value; nothing changes."""
    bindings = Bindings([ANNA, BEN])
    before, index = bindings.state(), bindings.index
    with pytest.raises(ValueError, match=said):
        bindings.give(user, macs, addresses, 0.0, ttl_s)
    assert (bindings.state(), bindings.index) == (before, index)


@given(st.floats(1.0, 1e6), st.booleans())
def test_a_restart_changes_nothing(ttl_s: float, ends: bool) -> None:
    """Through JSON, with what was learnt and given and when it ends."""
    first = Bindings([ANNA, BEN], learned_ttl_s=1000.0)
    first.recognised(host(CARD, "10.0.0.1"), 5.0)
    first.give("ben", ["02:00:00:00:00:09"], ["fd00::2"], 5.0, ttl_s if ends else math.inf)
    second = Bindings([ANNA, BEN], learned_ttl_s=1000.0)
    assert second.restore(*json.loads(json.dumps([first.learned(), first.state()]))) == ()
    assert (second.learned(), second.state(), second.index) == (first.learned(), first.state(), first.index)
    assert second.of("ben") == first.of("ben")


def test_after_a_restart_the_file_decides() -> None:
    """What it has given to somebody else since is told of and left out; a state of before has no times."""
    first = Bindings([ANNA])
    first.give("anna", [CARD], [], 0.0)
    second = Bindings([ANNA, UserIdentity("carla", frozenset(), frozenset({CARD}))], learned_ttl_s=10.0)
    (said,) = second.restore({OTHER: ["10.0.0.1"]}, first.state())
    assert CARD in said
    assert who(second, host(OTHER), 100.0) == {OTHER: "anna"}
    assert not second.expire(100.0, {})
    assert second.expire(110.0, {})
