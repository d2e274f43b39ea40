"""What lies in a caller's region or group: which part of a snapshot, and whether a pool does."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from typing import Any, Final

import numpy as np

from northbound.security.callers import Caller
from northbound.security.routes import Rule, Within
from planner.plan import Plan
from planner.snapshot import Level, NotThere, Operations, Pools, Snapshot

_DEPTH: Final = {"region": Level.REGION, "group": Level.GROUP, "user": Level.USER}
#: What bodies call a pool, and what kind it then is; None: ``user:NAME``, or a path.
_NAMED: Final = {
    "region": "region", "group": "group", "user": "user", "groupID": "group", "members": "user",
    "pool": None, "pools": None, "scope": None,
}  # fmt: skip


class Territory:
    """One caller's part of one snapshot."""

    def __init__(self, caller: Caller, snapshot: Snapshot) -> None:
        self._caller = caller
        self._snapshot = snapshot

    def holds(self, path: str) -> bool:
        """Whether the pool of this path lies in it, from its region or group on downwards."""
        parts = path.split("/")
        region, group = self._caller.region, self._caller.group
        return (region is None or (len(parts) > Level.REGION and parts[Level.REGION] == region)) and (
            group is None or (len(parts) > Level.GROUP and parts[Level.GROUP] == group)
        )

    def holds_pool(self, name: str, kind: str | None = None) -> bool:
        """Whether every pool that goes by this name does: a path, the end of one, or ``user:NAME``."""
        if kind is None and ":" in name and name.split(":", 1)[0] in _DEPTH:
            kind, name = name.split(":", 1)
            # A class of a user lies where the user does.
            name = name.partition("/")[0] if kind == "user" else name
        found = list(self._paths(name, kind))
        return bool(found) and all(map(self.holds, found))

    def _paths(self, name: str, kind: str | None) -> Iterator[str]:
        pools = self._snapshot.pools
        if kind is None:
            return (path for path in pools.path if path == name or path.endswith(f"/{name}"))
        rows = np.flatnonzero(pools.level == _DEPTH[kind])
        return (path for path in (pools.path[row] for row in rows) if path.endswith(f"/{name}"))

    def part(self) -> Snapshot:
        """The snapshot without what lies elsewhere. Groups that also lie elsewhere are left out."""
        pools = self._snapshot.pools
        rows = np.array([row for row, path in enumerate(pools.path) if self.holds(path)], np.intp)
        new_row = {int(row): at for at, row in enumerate(rows)}
        columns = {
            field.name: getattr(pools, field.name)[..., rows]
            for field in fields(pools)
            if field.name not in ("path", "parent")
        }
        parents = [new_row.get(int(pools.parent[row]), -1) for row in rows]
        part = Pools(
            path=tuple(pools.path[row] for row in rows), parent=np.array(parents, np.int32), **columns
        )
        groups = tuple(
            replace(group, pools=tuple(new_row[row] for row in group.pools))
            for group in self._snapshot.groups
            if group.pools and all(row in new_row for row in group.pools)
        )
        return replace(
            self._snapshot, pools=part, groups=groups, shared_services=(), switches=(), plan=Plan()
        )

    def holds_group(self, group_id: str) -> bool:
        """Whether all of a group does."""
        if self._caller.group is not None and self._caller.region is None:
            return group_id == self._caller.group
        return self.holds_pool(group_id, "group")


def outside(
    rule: Rule,
    stars: tuple[str, ...],
    caller: Caller,
    operations: Operations,
    query: dict[str, str],
    body: bytes,
) -> str | None:
    """Why a limited caller may not ask this; None if it may."""
    territory = Territory(caller, operations.snapshot)
    name = stars[0] if stars else ""
    if rule.within is Within.GROUP:
        allowed = (
            territory.holds_group(name)
            and all(territory.holds_pool(user, "user") for user in stars[1:])
            and all(territory.holds_pool(*named) for named in _named(body) or ())
        )
    elif rule.within is Within.POOL:
        allowed = territory.holds_pool(name)
    elif rule.within is Within.QUERY_POOL:
        allowed = "pool" in query and territory.holds_pool(query["pool"])
    elif rule.within is Within.BOOST:
        allowed = all(territory.holds_pool(pool) for pool in _boosted(name, operations))
    elif rule.within is Within.BODY:
        names = _named(body)
        allowed = bool(names) and all(territory.holds_pool(*named) for named in names or ())
    else:
        allowed = rule.within in (Within.ANYWHERE, Within.SNAPSHOT)
    if allowed:
        return None
    limit = " and ".join(
        f"{kind} {value}" for kind, value in (("region", caller.region), ("group", caller.group)) if value
    )
    return f"token must not be limited to {limit} for this, or this must lie in it"


def _boosted(boost_id: str, operations: Operations) -> tuple[str, ...]:
    for boost in operations.policy.boosts():
        if boost.id == boost_id:
            return boost.pools
    raise NotThere(f"boostID must be the id of a boost, got {boost_id!r}")


def _named(body: bytes) -> list[tuple[str, str | None]] | None:
    """What a body names, each with its kind where the key says one; None where it is no JSON object."""
    try:
        raw = json.loads(body)
    except ValueError:
        return None
    if not isinstance(raw, dict):
        return None
    return [(str(name), kind) for key, kind in _NAMED.items() if raw.get(key) for name in _each(raw[key])]


def _each(value: Any) -> Iterable[Any]:
    return value if isinstance(value, list) else [value]
