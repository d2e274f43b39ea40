"""What tells a user's devices: from the configuration, from operators for a time, or learnt.

A user is no address: cards and addresses are bound to it, each binding with a source and an end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from topology.addresses import canonical_address, canonical_mac
from topology.identity import IdentityIndex, UserIdentity, index_users
from topology.network import Host

Source = Literal["configured", "api", "learned"]


@dataclass(frozen=True, slots=True)
class Binding:
    """One MAC or address that tells a user. ``until`` is epoch seconds, infinite if it has no end."""

    user: str
    kind: Literal["mac", "address"]
    value: str
    source: Source
    until: float = math.inf


@dataclass(frozen=True, slots=True)
class Given:
    """What an operator bound to a user."""

    macs: frozenset[str]
    addresses: frozenset[str]
    until: float


@dataclass(frozen=True, slots=True)
class Learned:
    """The addresses by which a card was recognised, and when last."""

    addresses: frozenset[str]
    seen: float


class Bindings:
    """All bindings, and the index by which hosts are recognised.

    MACs, configured or given, win over addresses, and both over what was learnt: a card is learnt when a
    host with an address of a user is seen, and tells the user only while nobody knows the host's addresses.
    """

    def __init__(self, users: Iterable[UserIdentity], learned_ttl_s: float = math.inf) -> None:
        """Raises ValueError as ``index_users`` does."""
        self._configured = {user.user_id: user for user in users}
        self._ttl_s = learned_ttl_s
        self._given: dict[str, Given] = {}
        self._learned: dict[str, Learned] = {}
        self.index: IdentityIndex = index_users(self._configured.values())

    def give(
        self, user: str, macs: Iterable[str], addresses: Iterable[str], now: float, ttl_s: float = math.inf
    ) -> None:
        """Bind these to a user, in place of all that was given before.

        Raises
        ------
        ValueError : if the user is not configured, there is nothing to bind, the time to live is not > 0,
            or a MAC or address is malformed or another user's; nothing is changed then.
        """
        if user not in self._configured:
            raise ValueError(f"user must be a configured user, got {user!r}")
        if not ttl_s > 0:
            raise ValueError(f"users.{user}.ttl_s must be > 0, got {ttl_s}")
        given = Given(
            frozenset(map(canonical_mac, macs)), frozenset(map(canonical_address, addresses)), now + ttl_s
        )
        if not given.macs and not given.addresses:
            raise ValueError(f"users.{user} must be given macs or addresses, got neither")
        for name, marks, owners in (
            ("macs", given.macs, self.index.by_mac),
            ("addresses", given.addresses, self.index.by_address),
        ):
            for mark in sorted(marks):
                if owners.get(mark, user) != user:
                    raise ValueError(
                        f"users.{user}.{name} must not hold {mark}, it is users.{owners[mark]}'s"
                    )
        self._take({**self._given, user: given})

    def withdraw(self, user: str) -> bool:
        """Take back what was given to a user. False if nothing was."""
        if user not in self._given:
            return False
        self._take({name: given for name, given in self._given.items() if name != user})
        return True

    def recognised(self, hosts: Mapping[str, Host], now: float) -> dict[str, Host]:
        """The hosts, with learnt addresses for those whose own nobody knows; and learn from the others."""
        known = dict(hosts)
        for mac, host in hosts.items():
            if not host.addresses.isdisjoint(self.index.by_address):
                # Only what tells a user: strangers' cards are without number.
                self._learned[mac] = Learned(host.addresses, now)
            elif host.addresses:
                self._learned.pop(mac, None)
            elif mac in self._learned:
                known[mac] = replace(host, addresses=self._learned[mac].addresses)
        return known

    def expire(self, now: float, present: Mapping[str, Host]) -> bool:
        """Forget what has had its time. True if anything was.

        What was learnt of a host that is ``present`` with its address is as good as seen now.
        """
        for mac, learned in self._learned.items():
            if math.isnan(learned.seen):
                self._learned[mac] = Learned(learned.addresses, now)
        stale = [mac for mac, learned in self._learned.items() if now - learned.seen >= self._ttl_s]
        for mac in stale:
            host = present.get(mac)
            if host is not None and host.addresses:
                self._learned[mac] = Learned(host.addresses, now)
            else:
                del self._learned[mac]
        over = {user for user, given in self._given.items() if given.until <= now}
        if over:
            self._take({user: given for user, given in self._given.items() if user not in over})
        return bool(over) or any(mac not in self._learned for mac in stale)

    def of(self, user: str) -> tuple[Binding, ...]:
        """What tells a user now, configured first."""
        own = self._configured.get(user, UserIdentity(user))
        found = [Binding(user, "mac", mac, "configured") for mac in sorted(own.macs)]
        found += [Binding(user, "address", address, "configured") for address in sorted(own.addresses)]
        if given := self._given.get(user):
            found += [Binding(user, "mac", mac, "api", given.until) for mac in sorted(given.macs)]
            found += [Binding(user, "address", at, "api", given.until) for at in sorted(given.addresses)]
        for mac, learned in sorted(self._learned.items()):
            owners = sorted(self.index.by_address[a] for a in learned.addresses if a in self.index.by_address)
            if owners and owners[0] == user and mac not in self.index.by_mac:
                found.append(Binding(user, "mac", mac, "learned", learned.seen + self._ttl_s))
        return tuple(found)

    def learned(self) -> dict[str, list[str]]:
        """The addresses by which cards were recognised, by MAC, as JSON-able values."""
        return {mac: sorted(learned.addresses) for mac, learned in sorted(self._learned.items())}

    def state(self) -> dict[str, Any]:
        """What was given, and when learnt cards were last recognised, as JSON-able values."""
        given = {
            user: [sorted(one.macs), sorted(one.addresses), None if math.isinf(one.until) else one.until]
            for user, one in sorted(self._given.items())
        }
        return {"given": given, "seen": {mac: one.seen for mac, one in sorted(self._learned.items())}}

    def restore(self, learned: Mapping[str, Iterable[str]], state: Mapping[str, Any]) -> tuple[str, ...]:
        """What ``learned`` and ``state`` were. Gives a line for each user whose bindings are refused now.

        What was learnt at a time that is not known counts from the next ``expire`` on.
        """
        seen = state.get("seen", {})
        self._learned = {
            str(mac): Learned(frozenset(addresses), float(seen.get(mac, math.nan)))
            for mac, addresses in learned.items()
        }
        refused = []
        for user, (macs, addresses, until) in state.get("given", {}).items():
            try:
                self.give(user, macs, addresses, 0.0, math.inf if until is None else float(until))
            except ValueError as error:
                # The file may have given it to somebody else since.
                refused.append(str(error))
        return tuple(refused)

    def _take(self, given: dict[str, Given]) -> None:
        """Make it what is given, or raise ValueError and change nothing."""
        merged = dict(self._configured)
        for user, more in given.items():
            own = merged[user]
            merged[user] = UserIdentity(user, own.addresses | more.addresses, own.macs | more.macs)
        self.index, self._given = index_users(merged.values()), given
