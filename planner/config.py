"""The configuration file: one model a block, parsed once, unknown keys refused.

``tidegate check`` and the controller that starts call the same ``load``.
Rates are written in Mbit/s, as operators speak; code reads bit/s.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

MEGA = 1e6
#: Pools of this name hold the users that belong to no group.
UNGROUPED = "ungrouped"

#: Names of regions, users, groups and applications.
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,62}$"
#: A rate above this is bit/s or kbit/s written where Mbit/s belong.
MAX_MBPS = 1e7
#: Beyond these weights a share is nothing or all, and a slip of the keyboard.
MIN_WEIGHT, MAX_WEIGHT = 1e-6, 1e6


class ConfigError(Exception):
    """The file is wrong: fix the file. One line a fault: path, rule and value."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def _number(value: object) -> object:
    """Pydantic would take ``true`` for 1 and ``"5"`` for 5; an operator meant something else."""
    if isinstance(value, bool | str):
        raise ValueError("must be a number")
    return value


Fraction = Annotated[float, BeforeValidator(_number), Field(ge=0, le=1)]
Positive = Annotated[float, BeforeValidator(_number), Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, BeforeValidator(_number), Field(ge=0, allow_inf_nan=False)]
Port = Annotated[int, BeforeValidator(_number), Field(ge=0, le=65535)]


def parse_dpid(value: object) -> int:
    """The datapath id that a number, ``0x1a`` or 16 hexadecimal digits name."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("must be a datapath id")
    if isinstance(value, str):
        text = value.strip().lower().removeprefix("0x").replace(":", "")
        if not re.fullmatch(r"[0-9a-f]{1,16}", text):
            raise ValueError("must be a datapath id of at most 16 hexadecimal digits")
        value = int(text, 16)
    if not 0 < value < 1 << 64:
        raise ValueError("must be a datapath id of 1 to 64 bits")
    return value


def parse_mac(value: object) -> str:
    """A unicast MAC address in lower case with colons."""
    text = str(value).strip().lower().replace("-", ":")
    if not re.fullmatch(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", text):
        raise ValueError("must be a MAC address such as 00:00:00:00:00:01")
    if int(text[:2], 16) & 1 or text == "00:00:00:00:00:00":
        raise ValueError("must be a unicast MAC address")
    return text


def parse_address(value: object) -> str:
    """An IPv4 or IPv6 address in canonical form."""
    try:
        address = ipaddress.ip_address(str(value).strip())
    except ValueError:
        raise ValueError("must be an IPv4 or IPv6 address") from None
    if address.is_unspecified or address.is_multicast or getattr(address, "scope_id", None):
        raise ValueError("must be the address of one host, without a zone")
    return str(address)


def parse_ports(value: object) -> tuple[int, int]:
    """First and last port of ``443`` or ``"8000-8100"``."""
    match = re.fullmatch(r"\s*(\d{1,5})(?:\s*-\s*(\d{1,5}))?\s*", str(value))
    if not match:
        raise ValueError('must be a port or a range such as "8000-8100"')
    first, last = int(match[1]), int(match[2] or match[1])
    if not 0 < first <= last < 65536:
        raise ValueError("must be ports from 1 to 65535, the first not above the last")
    return first, last


def _both_directions(value: object) -> object:
    return value if isinstance(value, Mapping | BaseModel) else {"up": value, "down": value}


Dpid = Annotated[int, BeforeValidator(parse_dpid)]
Mac = Annotated[str, BeforeValidator(parse_mac)]
Address = Annotated[str, BeforeValidator(parse_address)]
PortRange = Annotated[tuple[int, int], BeforeValidator(parse_ports)]


class Block(BaseModel):
    """A block of the file: frozen, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Rates(Block):
    """A rate in each direction, Mbit/s of frames. One number means both."""

    up: NotNegative = Field(le=MAX_MBPS, description="towards the network, Mbit/s")
    down: NotNegative = Field(le=MAX_MBPS, description="towards the host, Mbit/s")

    @property
    def bps(self) -> tuple[int, int]:
        """Upload and download in bit/s."""
        return round(self.up * MEGA), round(self.down * MEGA)


class Capacity(Rates):
    """A capacity in each direction, Mbit/s. One number means both."""

    up: Positive = Field(le=MAX_MBPS, description="towards the network, Mbit/s, > 0")
    down: Positive = Field(le=MAX_MBPS, description="towards the host, Mbit/s, > 0")


RatesField = Annotated[Rates, BeforeValidator(_both_directions)]
CapacityField = Annotated[Capacity, BeforeValidator(_both_directions)]


class Pool(Block):
    """What every pool below a region may have."""

    guarantee_mbps: RatesField = Field(
        default=Rates(up=0, down=0), description="always available, also when all others ask for more"
    )
    ceiling_mbps: CapacityField | None = Field(
        default=None,
        description="never more than this, also when capacity is idle; absent: what the parent has",
    )
    weight: Positive = Field(
        default=1.0, ge=MIN_WEIGHT, le=MAX_WEIGHT, description="share of what is scarce; only ratios matter"
    )


class Region(Pool):
    """Switches whose users share one capacity."""

    dpids: tuple[Dpid, ...] = Field(min_length=1, description="the region's switches")
    capacity_mbps: CapacityField = Field(description="what the region's users may use together")


class User(Pool):
    """Somebody with a stable id; the region follows from where the user attaches."""

    addresses: tuple[Address, ...] = Field(default=(), description="IPv4 and IPv6 addresses")
    macs: tuple[Mac, ...] = Field(default=(), description="MAC addresses; they win over addresses")


class Group(Pool):
    """A resource group that the operator made; it wins over discovered ones."""

    members: tuple[str, ...] = Field(min_length=1, description="user ids")


class PortMatch(Block):
    """A protocol and the server ports that make an application class."""

    protocol: Literal["tcp", "udp", "sctp", "icmp"] = Field(description="the transport protocol")
    ports: tuple[PortRange, ...] = Field(default=(), description="server ports or ranges; none: all")


class Polling(Block):
    """How switches are asked for statistics."""

    interval_s: Positive = Field(default=5.0, description="seconds from one poll of a switch to the next")
    jitter: Fraction = Field(default=0.1, description="share of the interval by which polls are spread")
    timeout_s: Positive = Field(default=4.0, description="a reply later than this is a lost poll")


class Forecasting(Block):
    """How demand is forecast."""

    step_s: Positive = Field(default=60.0, description="length of a step")
    horizons_s: tuple[Positive, ...] = Field(
        default=(60.0, 180.0, 300.0, 600.0, 900.0), min_length=1, description="how far ahead"
    )
    quantiles: tuple[Annotated[float, BeforeValidator(_number), Field(gt=0, lt=1)], ...] = Field(
        default=(0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98),
        min_length=3,
        description="levels of the distribution",
    )
    model: Literal["catboost", "hist_gradient_boosting"] = Field(
        default="catboost", description="the global model"
    )
    min_history_steps: Annotated[int, BeforeValidator(_number), Field(ge=2)] = Field(
        default=60, description="steps of history before the model may serve a series"
    )
    train_every_s: Positive = Field(default=900.0, description="seconds between two trainings")
    train_steps: Annotated[int, BeforeValidator(_number), Field(ge=8)] = Field(
        default=20160, description="steps of history to train on"
    )
    window_steps: Annotated[int, BeforeValidator(_number), Field(ge=8)] = Field(
        default=64, description="steps of history a forecast reads"
    )


class Buffer(Block):
    """The reserve for surprises at each pool."""

    min_fraction: Fraction = Field(default=0.0, description="of the pool's capacity, at least")
    max_fraction: Fraction = Field(default=0.1, description="of the pool's capacity, at most")


class Allocation(Block):
    """How capacity is shared and written to the switches."""

    tick_s: Positive = Field(default=5.0, description="seconds from one plan to the next")
    compare: bool = Field(
        default=False,
        description="reckon at each tick what static caps and auto-bandwidth would have carried",
    )
    mode: Literal["live", "shadow"] = Field(default="live", description="shadow: plans are made, meters stay")
    dead_band: Fraction = Field(default=0.05, description="a rise smaller than this share waits")
    burst_s: Positive = Field(default=0.25, description="a meter's burst, in seconds of its rate")
    min_burst_kbit: Positive = Field(default=150.0, description="a burst is never smaller")
    min_rate_mbps: Positive = Field(default=0.064, description="no meter is set below this rate")
    buffer: Buffer = Field(default=Buffer(), description="the reserve")


class Grouping(Block):
    """How applications are found from traffic."""

    enabled: bool = Field(default=True, description="false: only the operator's groups")
    half_life_s: Positive = Field(default=600.0, description="after which an edge's weight has halved")
    every_s: Positive = Field(default=60.0, description="seconds between two clusterings")
    hold_s: NotNegative = Field(
        default=120.0, description="a member moves after it was elsewhere for so long"
    )


class Store(Block):
    """Where samples outlive the process."""

    path: Path = Field(default=Path("var/tidegate.duckdb"), description="the encrypted DuckDB file")
    key_file: Path | None = Field(
        default=None, description="file of mode 0600 with the key; absent: TIDEGATE_STORE_KEY or PATH.key"
    )
    raw_hours: Positive = Field(default=48.0, description="hours that samples are kept")
    rollup_days: Positive = Field(default=180.0, description="days that one-minute roll-ups are kept")


class Northbound(Block):
    """The REST API."""

    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: Port = Field(default=8080, description="TCP port; 0: any free one")
    token_file: Path = Field(default=Path("var/token"), description="made at first start, mode 0600")


class Planner(Block):
    """The seam between the OpenFlow process and the planner."""

    url: str | None = Field(default=None, description="a running planner; absent: one is started as a child")
    host: str = Field(default="127.0.0.1", description="address of the child's seam")
    port: Port = Field(default=8650, description="TCP port of the child's seam")
    secret_file: Path = Field(default=Path("var/seam.secret"), description="made at first start, mode 0600")


class OpenFlow(Block):
    """The OpenFlow side."""

    settle_s: Positive = Field(default=3.0, description="a port is quiet so long before hosts may be on it")
    lldp_interval_s: Positive = Field(default=1.0, description="seconds between two LLDP probes of a port")
    link_timeout_s: Positive = Field(default=4.0, description="a link not heard for so long is down")
    host_timeout_s: Positive = Field(default=14400.0, description="a silent host is forgotten after")
    accounting_idle_s: Annotated[int, BeforeValidator(_number), Field(ge=5, le=65535)] = Field(
        default=60, description="an accounting entry without traffic goes after"
    )
    max_accounting_entries: Annotated[int, BeforeValidator(_number), Field(ge=0)] = Field(
        default=50_000, description="on each switch"
    )
    max_meters: Annotated[int, BeforeValidator(_number), Field(ge=1)] | None = Field(
        default=None, description="fewer meters than the switch says it has"
    )


class Config(Block):
    """The whole file."""

    capacity_mbps: CapacityField = Field(description="what all regions may use together")
    regions: dict[str, Region] = Field(min_length=1)
    users: dict[str, User] = Field(default_factory=dict)
    groups: dict[str, Group] = Field(default_factory=dict)
    group_defaults: Pool = Field(default=Pool(), description="for groups found from traffic")
    applications: dict[str, tuple[PortMatch, ...]] = Field(default_factory=dict)
    openflow: OpenFlow = Field(default=OpenFlow())
    polling: Polling = Field(default=Polling())
    grouping: Grouping = Field(default=Grouping())
    forecasting: Forecasting = Field(default=Forecasting())
    allocation: Allocation = Field(default=Allocation())
    store: Store = Field(default=Store())
    northbound: Northbound = Field(default=Northbound())
    planner: Planner = Field(default=Planner())

    @property
    def application_names(self) -> tuple[str, ...]:
        """Application classes by the index that samples carry; 0 is ``other``."""
        return ("other", *self.applications)


_NAME = re.compile(NAME_PATTERN)
#: What PyYAML lets through where a tag such as !!int or !!timestamp stands before other text.
_YAML_LEAKS = (ValueError, TypeError, AttributeError, LookupError, RecursionError)
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def parse(raw: object) -> Config:
    """The configuration that a parsed YAML document describes.

    Raises
    ------
    ConfigError : with one line a fault, each with path, rule and value.
    """
    if not isinstance(raw, Mapping):
        raise ConfigError([f"the file must be a mapping of blocks, got {type(raw).__name__}"])
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(fault_lines(error.errors(), raw)) from None
    faults = list(_cross_checks(config))
    if faults:
        raise ConfigError(faults)
    return config


def load(path: Path) -> Config:
    """The configuration in a file.

    Relative paths in the file are taken from the working directory.

    Raises
    ------
    ConfigError : with one line a fault, each with the file's path first.
    """
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise ConfigError([f"{path}: must be readable, got {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: must be UTF-8, got {error.reason}"]) from None
    except (yaml.YAMLError, *_YAML_LEAKS) as error:
        text = " ".join(str(error).split())
        raise ConfigError([f"{path}: must be YAML, got {text}"]) from None
    try:
        return parse(raw)
    except ConfigError as error:
        raise ConfigError([f"{path}: {fault}" for fault in error.faults]) from None


class _Loader(yaml.SafeLoader):
    """YAML without its surprises for operators.

    A key twice is an error, where plain YAML lets the later one win. Scalars are
    read as in YAML 1.2: ``0000000000000011`` is a dpid and not octal, ``12:34:56``
    not a number to the base 60, ``no`` a name and not false.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key that is no text", key_node.start_mark
                )
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key_node.value!r} twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0|[1-9][0-9_]*)|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    # Ints come first: whatever is one would be a float too.
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


_RULES = {
    "extra_forbidden": "is not a known key",
    "missing": "must be given",
    "greater_than": "must be > {gt:.12g}",
    "greater_than_equal": "must be >= {ge:.12g}",
    "less_than": "must be < {lt:.12g}",
    "less_than_equal": "must be <= {le:.12g}",
    "finite_number": "must be a finite number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "literal_error": "must be {expected}",
    "too_short": "must have at least {min_length} entries",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "string_pattern_mismatch": "must match {pattern}",
    "too_long": "must have at most {max_length} entries",
    "path_type": "must be a path",
    "value_error": "{error}",
}


def fault_lines(errors: Iterable[Mapping[str, Any]], written: object) -> list[str]:
    """One line for each of pydantic's errors: path, rule, value."""
    return list(dict.fromkeys(_fault(error, written) for error in errors))


def _fault(error: Mapping[str, Any], written: object) -> str:
    kind = error["type"]
    known = _RULES.get(kind)
    # Only our own texts have places to fill: pydantic's may hold braces of a pattern.
    rule = known.format(**error.get("ctx", {})) if known else error["msg"].lower()
    path = ".".join(_written_path(error["loc"], written))
    if kind == "missing":
        return f"{path} {rule}"
    return f"{path} {rule}, got {_shown(error['input'])}"


def _written_path(location: Iterable[str | int], written: object) -> Iterator[str]:
    """The path as far as it was written: one number may stand for both directions."""
    for part in location:
        if not isinstance(written, Mapping | list):
            return
        yield str(part)
        if isinstance(written, Mapping):
            written = written.get(part, {})
        else:
            written = written[part] if isinstance(part, int) and part < len(written) else {}


def _shown(value: object) -> str:
    try:
        text = repr(value) if not isinstance(value, Mapping) else "a mapping"
    except ValueError:  # an integer of more digits than Python prints
        text = "a number of very many digits"
    return text if len(text) <= 60 else text[:57] + "..."


def _cross_checks(config: Config) -> Iterator[str]:
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
    for name, user in config.users.items():
        if not user.addresses and not user.macs:
            yield f"users.{name} must have addresses or macs, got neither"
    for name, group in config.groups.items():
        for member in group.members:
            if member not in config.users:
                yield f"groups.{name}.members must be users, got {member!r}"
    yield from _overlapping_applications(config)
    yield from _bad_rates(config)
    buffer = config.allocation.buffer
    if buffer.min_fraction > buffer.max_fraction:
        yield f"allocation.buffer.min_fraction must be <= max_fraction {buffer.max_fraction}, got {buffer.min_fraction}"
    if list(config.forecasting.quantiles) != sorted(set(config.forecasting.quantiles)):
        yield f"forecasting.quantiles must rise, got {list(config.forecasting.quantiles)}"
    if 0.5 not in config.forecasting.quantiles or 0.9 not in config.forecasting.quantiles:
        yield f"forecasting.quantiles must hold 0.5 and 0.9, got {list(config.forecasting.quantiles)}"
    if list(config.forecasting.horizons_s) != sorted(set(config.forecasting.horizons_s)):
        yield f"forecasting.horizons_s must rise, got {list(config.forecasting.horizons_s)}"
    for block, host in (("northbound", config.northbound.host), ("planner", config.planner.host)):
        if host not in _LOOPBACK:
            yield f"{block}.host must be a loopback address until TLS is configured, got {host!r}"
    yield from _clashing_services(config)


def _clashing_services(config: Config) -> Iterator[str]:
    """Ports and files that two parts of the system would both take."""
    rest, seam = config.northbound, config.planner
    if rest.port == seam.port and rest.port:
        yield f"planner.port must not be northbound.port, got {seam.port} in both"
    if seam.url is not None and not re.fullmatch(r"https?://[^/\s]+/?", seam.url):
        yield f"planner.url must be like http://127.0.0.1:8650, got {seam.url!r}"
    files = {"store.path": config.store.path, "northbound.token_file": rest.token_file}
    files["planner.secret_file"] = seam.secret_file
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


def _bad_rates(config: Config) -> Iterator[str]:
    """Ceilings below guarantees, and guarantees that no parent can keep."""
    for block in ("regions", "users", "groups"):
        for name, pool in getattr(config, block).items():
            if pool.ceiling_mbps is None:
                continue
            for direction in ("up", "down"):
                low, high = getattr(pool.guarantee_mbps, direction), getattr(pool.ceiling_mbps, direction)
                if low > high:
                    yield f"{block}.{name}.guarantee_mbps.{direction} must be <= its ceiling {high:g}, got {low:g}"
    for direction in ("up", "down"):
        yield from _oversubscribed(config, direction)


def _oversubscribed(config: Config, direction: str) -> Iterator[str]:
    def guarantee(pool: Pool) -> float:
        return float(getattr(pool.guarantee_mbps, direction))

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
