"""The rules of the configuration that span blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from planner.config_events import broken_event_rules
from planner.config_fields import NAME_PATTERN, UNGROUPED
from planner.config_northbound import LOOPBACK, broken_northbound_rules
from planner.config_remediation import broken_remediation_rules

if TYPE_CHECKING:
    from planner.config import Config, Forecasting, Pool

_NAME = re.compile(NAME_PATTERN)
#: Ports of a class that is a pool: each is four entries for every device of every user who names it, and
#: for each direction.
MAX_POOL_PORTS: Final = 256


def broken_rules(config: Config) -> Iterator[str]:
    """The rules that span blocks."""
    yield from _bad_names(config)
    yield from _duplicates(
        (f"regions.{name}.dpids", f"{d:016x}") for name, r in config.regions.items() for d in r.dpids
    )
    yield from _duplicates(
        (f"users.{name}.addresses", a) for name, u in config.users.items() for a in u.addresses
    )
    yield from _duplicates((f"users.{name}.macs", m) for name, u in config.users.items() for m in u.macs)
    yield from _duplicates(
        (f"groups.{name}.members", m) for name, g in config.groups.items() for m in g.members
    )
    yield from _duplicates(
        (f"regions.{name}.prefixes", p) for name, r in config.regions.items() for p in r.prefixes
    )
    yield from _duplicates(
        (f"links.{at}", end) for at, cable in enumerate(config.links) for end in (cable.a, cable.b)
    )
    for name, user in config.users.items():
        if not user.addresses and not user.macs:
            yield f"users.{name} must have addresses or macs, got neither"
    for name, group in config.groups.items():
        for member in group.members:
            if member not in config.users:
                yield f"groups.{name}.members must be users, got {member!r}"
    yield from _overlapping_applications(config)
    yield from _bad_user_applications(config)
    yield from _bad_rates(config)
    buffer = config.allocation.buffer
    if buffer.min_fraction > buffer.max_fraction:
        yield f"allocation.buffer.min_fraction must be <= max_fraction {buffer.max_fraction}, got {buffer.min_fraction}"
    for name in config.allocation.canary.regions:
        if name not in config.regions:
            yield f"allocation.canary.regions must be regions, got {name!r}"
    tiers = config.allocation.tiers
    if tiers.partial_above > tiers.full_above:
        yield f"allocation.tiers.partial_above must be <= full_above {tiers.full_above}, got {tiers.partial_above}"
    if list(config.forecasting.quantiles) != sorted(set(config.forecasting.quantiles)):
        yield f"forecasting.quantiles must rise, got {list(config.forecasting.quantiles)}"
    if 0.5 not in config.forecasting.quantiles or 0.9 not in config.forecasting.quantiles:
        yield f"forecasting.quantiles must hold 0.5 and 0.9, got {list(config.forecasting.quantiles)}"
    if list(config.forecasting.horizons_s) != sorted(set(config.forecasting.horizons_s)):
        yield f"forecasting.horizons_s must rise, got {list(config.forecasting.horizons_s)}"
    yield from _bad_cluster(config.forecasting)
    if config.planner.host not in LOOPBACK:
        yield f"planner.host must be a loopback address, got {config.planner.host!r}"
    yield from broken_northbound_rules(config.northbound)
    yield from broken_event_rules(config.events)
    yield from broken_remediation_rules(config.remediation, config.webhooks, frozenset(config.users))
    yield from _clashing_services(config)


def _bad_cluster(forecasting: Forecasting) -> Iterator[str]:
    """A Dask cluster runs whatever it is sent, and its answers are unpickled: only who has the key may speak."""
    address, path = forecasting.dask_address, "forecasting.dask_address"
    if address is None:
        return
    match = re.fullmatch(r"(tcp|tls)://(?:\[([0-9a-fA-F:]+)\]|([^\[\]/:\s]+)):(\d{1,5})", address)
    if match is None or not 0 < int(match[4]) < 65536:
        yield f"{path} must be like tls://HOST:PORT, got {address!r}"
        return
    if match[1] == "tcp" and (match[2] or match[3]) not in LOOPBACK:
        yield f"{path} must be tls:// unless the scheduler is on loopback, got {address!r}"
    for name in ("dask_ca_file", "dask_cert_file", "dask_key_file"):
        if match[1] == "tls" and getattr(forecasting, name) is None:
            yield f"forecasting.{name} must be given with {address}, got none"


def _clashing_services(config: Config) -> Iterator[str]:
    """Ports and files that two parts of the system would both take."""
    rest, seam = config.northbound, config.planner
    if rest.port == seam.port and rest.port:
        yield f"planner.port must not be northbound.port, got {seam.port} in both"
    if seam.url is not None and not re.fullmatch(r"https?://[^/\s]+/?", seam.url):
        yield f"planner.url must be like http://127.0.0.1:8650, got {seam.url!r}"
    files = {"store.path": config.store.path, "northbound.token_file": rest.token_file}
    files["planner.secret_file"] = seam.secret_file
    files |= {"northbound.tokens_file": rest.tokens_path, "northbound.audit_file": rest.audit_path}
    if config.store.key_file is not None:
        files["store.key_file"] = config.store.key_file
    yield from _duplicates((path, str(file)) for path, file in files.items())


def _bad_names(config: Config) -> Iterator[str]:
    for block in ("regions", "users", "groups", "applications"):
        for name in getattr(config, block):
            if not _NAME.fullmatch(name):
                yield f"{block}.{name} must be a name of letters, digits and . _ @ - (63 at most), got {name!r}"
    if UNGROUPED in config.groups:
        yield f"groups.{UNGROUPED} must have another name, got the name of the pool of users without a group"
    if "other" in config.applications:
        yield "applications.other must have another name, got the name of the class for all the rest"


def _duplicates(entries: Iterator[tuple[str, str]]) -> Iterator[str]:
    owner: dict[str, str] = {}
    for path, value in entries:
        if value in owner:
            yield f"{path} must not overlap {owner[value]}, got {value} in both"
        owner.setdefault(value, path)


def _overlapping_applications(config: Config) -> Iterator[str]:
    seen: dict[str, list[tuple[int, int, str]]] = {}
    for name, matches in config.applications.items():
        for match in matches:
            for first, last in match.ports or ((1, 65535),):
                for low, high, other in seen.setdefault(match.protocol, []):
                    if first <= high and low <= last:
                        yield (
                            f"applications.{name} must not overlap applications.{other}, "
                            f"got {match.protocol} {max(first, low)}-{min(last, high)} in both"
                        )
                seen[match.protocol].append((first, last, name))


def _bad_user_applications(config: Config) -> Iterator[str]:
    """Classes that are not configured, that take too many entries, or whose promises the user cannot keep."""
    for user, block in config.users.items():
        path = f"users.{user}.applications"
        for name, pool in block.applications.items():
            if name not in config.application_names:
                yield f"{path}.{name} must be a class of applications, got {name!r}"
                continue
            ports = sum(
                last - first + 1 for match in config.applications.get(name, ()) for first, last in match.ports
            )
            if ports > MAX_POOL_PORTS:
                yield f"{path}.{name} must be a class of at most {MAX_POOL_PORTS} ports, got {ports}"
            yield from _ceiling_below_guarantee(f"{path}.{name}", pool)
        if block.ceiling_mbps is None:
            continue
        for direction in ("up", "down"):
            promised = sum(getattr(pool.guarantee_mbps, direction) for pool in block.applications.values())
            limit = getattr(block.ceiling_mbps, direction)
            if promised > limit:
                yield (
                    f"users.{user}.ceiling_mbps.{direction} must be >= its applications' guarantees, "
                    f"which sum to {promised:g}, got {limit:g}"
                )


def _bad_rates(config: Config) -> Iterator[str]:
    """Ceilings below guarantees, and guarantees that no parent can keep."""
    for block in ("regions", "users", "groups"):
        for name, pool in getattr(config, block).items():
            yield from _ceiling_below_guarantee(f"{block}.{name}", pool)
    for direction in ("up", "down"):
        yield from _oversubscribed(config, direction)


def _ceiling_below_guarantee(path: str, pool: Pool) -> Iterator[str]:
    if pool.ceiling_mbps is None:
        return
    for direction in ("up", "down"):
        low, high = getattr(pool.guarantee_mbps, direction), getattr(pool.ceiling_mbps, direction)
        if low > high:
            yield f"{path}.guarantee_mbps.{direction} must be <= its ceiling {high:g}, got {low:g}"


def _oversubscribed(config: Config, direction: str) -> Iterator[str]:
    def guarantee(pool: Pool) -> float:
        own = float(getattr(pool.guarantee_mbps, direction))
        # What is promised to a user's classes is promised to the user.
        classes = getattr(pool, "applications", {}).values()
        return max(own, sum(guarantee(one) for one in classes))

    grouped = {member for group in config.groups.values() for member in group.members}
    needed = 0.0
    for name, group in config.groups.items():
        members = sum(guarantee(config.users[m]) for m in group.members if m in config.users)
        limit = getattr(group.ceiling_mbps, direction) if group.ceiling_mbps else float("inf")
        if members > limit:
            yield (
                f"groups.{name}.ceiling_mbps.{direction} must be >= its members' guarantees, "
                f"which sum to {members:g}, got {limit:g}"
            )
        needed += max(guarantee(group), members)
    needed += sum(guarantee(user) for name, user in config.users.items() if name not in grouped)
    total = getattr(config.capacity_mbps, direction)
    # Capacities are frames, whatever is promised.
    needed *= config.allocation.frame_bits
    if needed > total:
        yield f"capacity_mbps.{direction} must be >= all guarantees, which sum to {needed:g}, got {total:g}"
    regions = 0.0
    for name, region in config.regions.items():
        limit = getattr(region.capacity_mbps, direction)
        if guarantee(region) > limit:
            yield f"regions.{name}.guarantee_mbps.{direction} must be <= its capacity {limit:g}, got {guarantee(region):g}"
        regions += guarantee(region)
    if regions > total:
        yield f"capacity_mbps.{direction} must be >= the regions' guarantees, which sum to {regions:g}, got {total:g}"
