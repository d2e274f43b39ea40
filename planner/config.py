"""The configuration file: one model a block, parsed once, unknown keys refused.

``tidegate check`` and the controller that starts call the same ``load``.
Rates are written in Mbit/s, as operators speak; code reads bit/s.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationError

from planner.config_alarms import Alarms
from planner.config_block import Block
from planner.config_enforcement import Enforcement
from planner.config_events import Events
from planner.config_faults import ConfigError, fault_lines
from planner.config_fields import (
    MAX_MBPS,
    MAX_WEIGHT,
    MEGA,
    MIN_WEIGHT,
    Address,
    Dpid,
    Fraction,
    Mac,
    NotNegative,
    Port,
    PortRange,
    Positive,
    Prefix,
    both_directions,
    number,
)
from planner.config_northbound import Northbound
from planner.config_policies import Policies
from planner.config_remediation import Remediation, Webhook
from planner.config_rules import broken_rules
from planner.config_tiers import Tiers
from planner.config_topology import CableCapacity, Topology
from planner.config_yaml import read_yaml


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


RatesField = Annotated[Rates, BeforeValidator(both_directions)]
CapacityField = Annotated[Capacity, BeforeValidator(both_directions)]


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
    priority: Annotated[int, BeforeValidator(number), Field(ge=0, le=7)] | None = Field(
        default=None,
        description="class of what is scarce: 0 is served first, 7 last; absent: the parent's, and 4 at the root",
    )
    curve: Literal["forecast", "conferencing", "gaming", "video", "bulk"] | None = Field(
        default=None,
        description="what each part of the demand foreseen is worth where sharing is expected_loss: as likely as it "
        "is wanted, or as that kind of traffic values it; absent: the parent's, and forecast at the root",
    )


class Shared(Pool):
    """A pool that others share."""

    sharing: Literal["max_min", "expected_loss"] | None = Field(
        default=None,
        description="how what is scarce is shared below: by weight, or so that all are equally likely to fall "
        "short by their forecasts (weights divide that probability); absent: as the parent does",
    )


class Region(Shared):
    """Switches whose users share one capacity."""

    dpids: tuple[Dpid, ...] = Field(min_length=1, description="the region's switches")
    prefixes: tuple[Prefix, ...] = Field(
        default=(),
        description="users with an address in these are of this region, whatever region's switch they are at; "
        "the longest prefix wins",
    )
    capacity_mbps: CapacityField = Field(description="what the region's users may use together")


class UserApplication(Pool):
    """What an application class of a user may have of what the user has."""


class User(Pool):
    """Somebody with a stable id; the region follows from where the user attaches."""

    addresses: tuple[Address, ...] = Field(default=(), description="IPv4 and IPv6 addresses")
    macs: tuple[Mac, ...] = Field(default=(), description="MAC addresses; they win over addresses")
    applications: dict[str, UserApplication] = Field(
        default_factory=dict,
        description="classes of `applications` that are pools below the user; `other` is the rest of its traffic",
    )


class Group(Shared):
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
    quantiles: tuple[Annotated[float, BeforeValidator(number), Field(gt=0, lt=1)], ...] = Field(
        default=(0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98),
        min_length=3,
        description="levels of the distribution",
    )
    model: Literal["ensemble", "catboost", "network", "hist_gradient_boosting", "lstm"] = Field(
        default="ensemble", description="the global model; lstm needs the extra of that name"
    )
    min_history_steps: Annotated[int, BeforeValidator(number), Field(ge=2)] = Field(
        default=60, description="steps of history before the model may serve a series"
    )
    train_every_s: Positive = Field(default=900.0, description="seconds between two trainings")
    train_steps: Annotated[int, BeforeValidator(number), Field(ge=8)] = Field(
        default=20160, description="steps of history to train on"
    )
    window_steps: Annotated[int, BeforeValidator(number), Field(ge=8)] = Field(
        default=64, description="steps of history a forecast reads"
    )
    max_class_series: Annotated[int, BeforeValidator(number), Field(ge=0, le=200_000)] = Field(
        default=20_000,
        description="series of a user's application class in one direction, the heaviest first; 0: none",
    )
    versions_kept: Annotated[int, BeforeValidator(number), Field(ge=2, le=50)] = Field(
        default=5, description="models kept that once were in use, to go back to"
    )
    rollback_hold_s: Positive | None = Field(
        default=None, description="a model rolled back to is held so long; absent: until it is released"
    )
    dask_address: str | None = Field(
        default=None,
        description="scheduler of a Dask cluster that trains, tls://HOST:PORT, or tcp:// on loopback; "
        "absent: two processes of this machine do",
    )
    dask_ca_file: Path | None = Field(default=None, description="certificate that signed the cluster's (PEM)")
    dask_cert_file: Path | None = Field(default=None, description="the planner's own certificate (PEM)")
    dask_key_file: Path | None = Field(default=None, description="its key (PEM)")


class Buffer(Block):
    """The reserve for surprises at each pool."""

    min_fraction: Fraction = Field(default=0.0, description="of the pool's capacity, at least")
    max_fraction: Fraction = Field(default=0.1, description="of the pool's capacity, at most")


class Canary(Block):
    """Which regions follow the plan under canary; the others keep what stood when it began."""

    regions: tuple[str, ...] = Field(default=(), description="these; none named: as many as `share` says")
    share: Fraction = Field(default=0.1, gt=0, description="of the regions, rounded up")


class Allocation(Block):
    """How capacity is shared and written to the switches."""

    tick_s: Positive = Field(default=5.0, description="seconds from one plan to the next")
    compare: bool = Field(
        default=False,
        description="reckon at each tick what static caps and auto-bandwidth would have carried",
    )
    mode: Literal["live", "canary", "shadow"] = Field(
        default="live", description="shadow: plans are made, meters stay; canary: so but for some regions"
    )
    canary: Canary = Field(default=Canary(), description="which regions go first")
    max_plan_age_s: Positive | None = Field(
        default=None,
        description="a plan whose input is older is not published; absent: four ticks, at least 30 s",
    )
    plans_kept: Annotated[int, BeforeValidator(number), Field(ge=1, le=1000)] = Field(
        default=60, description="earlier plans kept to go back to"
    )
    keep_every_s: NotNegative = Field(default=60.0, description="seconds from one kept plan to the next")
    sharing: Literal["max_min", "expected_loss"] = Field(
        default="expected_loss", description="how the root shares; see `regions.NAME.sharing`"
    )
    fair_part: Fraction = Field(
        default=0.25,
        description="share of the demand foreseen that is met by max-min before expected_loss begins",
    )
    dead_band: Fraction = Field(default=0.05, description="a rise smaller than this share waits")
    burst_s: Positive = Field(default=0.25, description="a meter's burst, in seconds of its rate, at most")
    min_burst_kbit: Positive = Field(default=150.0, description="a burst is never smaller")
    rtt_ms: Positive = Field(
        default=0.5, le=1000, description="shortest round trip over which TCP shall reach its rate"
    )
    promise: Literal["frames", "goodput"] = Field(
        default="frames",
        description="what users' and groups' rates count: whole frames, or payload alone; capacities are frames",
    )
    payload_bytes: Positive = Field(
        default=1448.0, description="payload of a packet in the mean, where goodput is promised"
    )
    header_bytes: NotNegative = Field(
        default=66.0, description="headers around it: 66 is Ethernet, IPv4 and TCP with time stamps"
    )
    min_rate_mbps: Positive = Field(default=0.064, description="no meter is set below this rate")
    buffer: Buffer = Field(default=Buffer(), description="the reserve")
    tiers: Tiers = Field(default=Tiers(), description="how far forecasts are asked for")

    @property
    def frame_bits(self) -> float:
        """Bits of frames on the wire for a bit that is promised, >= 1."""
        return 1 + self.header_bytes / self.payload_bytes if self.promise == "goodput" else 1.0


class Grouping(Block):
    """How applications are found from traffic."""

    enabled: bool = Field(default=True, description="false: only the operator's groups")
    by: Literal["communities", "roles", "auto"] = Field(
        default="communities",
        description="what groups are: communities talk to one another, roles do the same; "
        "auto: communities, but roles where no community stands out",
    )
    half_life_s: Positive = Field(default=600.0, description="after which an edge's weight has halved")
    every_s: Positive = Field(default=60.0, description="seconds between two clusterings")
    hold_s: NotNegative = Field(
        default=120.0, description="a member moves after it was elsewhere for so long"
    )
    churn_per_hour: Fraction = Field(
        default=0.2, description="share of all memberships that may change within an hour"
    )
    least_churn_per_hour: Annotated[int, BeforeValidator(number), Field(ge=1)] = Field(
        default=20, description="so many may change in any case, however few members there are"
    )


class Store(Block):
    """Where samples outlive the process."""

    path: Path = Field(default=Path("var/tidegate.duckdb"), description="the encrypted DuckDB file")
    key_file: Path | None = Field(
        default=None, description="file of mode 0600 with the key; absent: TIDEGATE_STORE_KEY or PATH.key"
    )
    raw_hours: Positive = Field(default=48.0, description="hours that samples are kept")
    rollup_days: Positive = Field(default=180.0, description="days that one-minute roll-ups are kept")


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
    accounting_idle_s: Annotated[int, BeforeValidator(number), Field(ge=5, le=65535)] = Field(
        default=60, description="an accounting entry without traffic goes after"
    )
    max_accounting_entries: Annotated[int, BeforeValidator(number), Field(ge=0)] = Field(
        default=50_000, description="on each switch"
    )
    max_meters: Annotated[int, BeforeValidator(number), Field(ge=1)] | None = Field(
        default=None, description="fewer meters than the switch says it has"
    )


class Config(Block):
    """The whole file."""

    capacity_mbps: CapacityField = Field(description="what all regions may use together")
    regions: dict[str, Region] = Field(min_length=1)
    users: dict[str, User] = Field(default_factory=dict)
    groups: dict[str, Group] = Field(default_factory=dict)
    group_defaults: Shared = Field(default=Shared(), description="for groups found from traffic")
    applications: dict[str, tuple[PortMatch, ...]] = Field(default_factory=dict)
    links: tuple[CableCapacity, ...] = Field(default=(), description="cables whose capacity is known")
    topology: Topology = Field(default=Topology())
    openflow: OpenFlow = Field(default=OpenFlow())
    polling: Polling = Field(default=Polling())
    enforcement: Enforcement = Field(default=Enforcement())
    grouping: Grouping = Field(default=Grouping())
    forecasting: Forecasting = Field(default=Forecasting())
    allocation: Allocation = Field(default=Allocation())
    policies: Policies = Field(default=Policies())
    events: Events = Field(default=Events())
    alarms: Alarms = Field(default=Alarms())
    remediation: Remediation = Field(default=Remediation())
    webhooks: tuple[Webhook, ...] = Field(default=(), max_length=16, description="servers that are told")
    store: Store = Field(default=Store())
    northbound: Northbound = Field(default=Northbound())
    planner: Planner = Field(default=Planner())

    @property
    def tells_applications_apart(self) -> bool:
        """Whether a user has pools for application classes."""
        return any(user.applications for user in self.users.values())

    @property
    def application_names(self) -> tuple[str, ...]:
        """Application classes by the index that samples carry; 0 is ``other``."""
        return ("other", *self.applications)


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
    faults = list(broken_rules(config))
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
    raw = read_yaml(path)
    try:
        return parse(raw)
    except ConfigError as error:
        raise ConfigError([f"{path}: {fault}" for fault in error.faults]) from None
