"""The ``remediation`` block, and the list ``webhooks`` of who is told what."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field

from planner.config_block import Block
from planner.config_events import may_carry_token
from planner.config_fields import Dpid, Fraction, NotNegative, Positive, number

Stance = Literal["off", "observe", "act"]
RungName = Literal["reallocate", "recompose", "scale"]
EventName = Literal["alarm", "remediation", "scaling", "plan", "group"]
Ticks = Annotated[int, BeforeValidator(number), Field(ge=1, le=10_000)]
Factor = Annotated[float, BeforeValidator(number), Field(ge=1, le=10)]


class PortCapacity(Block):
    """What a port carries, where the switch does not say or says too much."""

    dpid: Dpid = Field(description="the switch")
    port_no: Annotated[int, BeforeValidator(number), Field(ge=1, le=0xFFFFFF00)] = Field(
        description="the port's number there"
    )
    capacity_mbps: Positive = Field(description="in each direction")


class Congestion(Block):
    """When a port or a pool is congested, and how far it may be helped."""

    mode: Stance = Field(
        default="observe",
        description="observe: steps are proposed, only scaling events are raised; act: taken",
    )
    ladder: tuple[RungName, ...] = Field(
        default=(), description="these steps, in this order; none: reallocate, recompose, scale"
    )
    port_utilisation: Fraction = Field(
        default=0.9, gt=0, description="a port at this share of what it carries"
    )
    port_drops_pps: Positive = Field(default=100.0, description="packets a second that a port drops")
    meter_drops: Fraction = Field(
        default=0.05, gt=0, description="share of what reaches a group's or region's meters that they drop"
    )
    unmet_demand: Fraction = Field(
        default=0.1,
        gt=0,
        description="share of what is wanted of a pool, within the ceilings below it, that is above its own",
    )
    clear_share: Fraction = Field(
        default=0.8, gt=0, lt=1, description="well again below this share of the figures above"
    )
    raise_ticks: Ticks = Field(default=6, description="congested for so many ticks before anything is done")
    clear_ticks: Ticks = Field(default=6, description="well for so many ticks before it counts")
    judge_ticks: Ticks = Field(default=12, description="a step that has not helped after so many is undone")
    improvement: Fraction = Field(
        default=0.2, gt=0, description="a step helped if what triggered it fell by this share"
    )
    cooldown_s: NotNegative = Field(default=60.0, description="from one step at a place to the next there")
    hold_s: Positive = Field(default=1800.0, description="a step that helped is taken back after")
    scale_every_s: Positive = Field(
        default=3600.0, description="from one scaling event of a place to the next, if it is still congested"
    )
    ceiling_factor: Factor = Field(
        default=1.25, description="a group's ceiling is raised by this factor while the pool above has room"
    )
    least_share: Fraction = Field(
        default=0.5, gt=0, description="a user behind a busy port is held at this share of its use, or more"
    )
    max_users: Fraction = Field(
        default=0.05, description="share of users held or moved at once; one at least"
    )
    max_groups: Fraction = Field(default=0.2, description="share of groups changed at once; one at least")
    max_regions: Fraction = Field(
        default=0.5, description="share of regions with steps in force; one at least"
    )
    ports: tuple[PortCapacity, ...] = Field(default=(), description="what ports carry")


class IsolationRule(Block):
    """Which alarms of a user isolate it."""

    kind: Literal["spike", "shift", "fan_out"] = Field(description="the alarm's kind")
    severity: Literal["minor", "major", "critical"] = Field(
        default="critical", description="this severe, or more"
    )
    times: Annotated[float, BeforeValidator(number), Field(ge=1)] = Field(
        default=1.0, description="what came is at least so many times the highest that was expected"
    )


class IsolationBlock(Block):
    """Users that an alarm cuts off for a time."""

    mode: Stance = Field(default="observe", description="observe: isolations are proposed; act: made")
    rules: tuple[IsolationRule, ...] = Field(
        default=(), description="which alarms; none: critical fan-outs, and critical spikes of ten times"
    )
    action: Literal["limit", "drop"] = Field(
        default="limit", description="limit: the ceiling falls to `rate_mbps`; drop: all it sends is dropped"
    )
    rate_mbps: Positive | None = Field(
        default=None, description="what an isolated user may have; absent: allocation.min_rate_mbps"
    )
    for_s: Positive = Field(default=900.0, description="it ends by itself after")
    max_users: Annotated[int, BeforeValidator(number), Field(ge=0)] = Field(
        default=3, description="never more at once"
    )
    protected: tuple[str, ...] = Field(
        default=(), description="users never isolated; those of priority 0 and shared services never are"
    )


class Remediation(Block):
    """What is done about congestion and anomalies."""

    congestion: Congestion = Field(default=Congestion(), description="the ladder")
    isolation: IsolationBlock = Field(default=IsolationBlock(), description="users cut off for a time")
    keep: Annotated[int, BeforeValidator(number), Field(ge=1, le=10_000)] = Field(
        default=500, description="steps kept on record, the newest ones"
    )


class Webhook(Block):
    """A server that is told of what happens."""

    url: str = Field(description="https URL, or http on loopback, without credentials")
    secret_file: Path = Field(description="secret that signs, mode 0600; made if there is none")
    events: tuple[EventName, ...] = Field(default=(), description="what it is told; none: everything")
    timeout_s: Annotated[Positive, Field(le=60)] = Field(default=10.0, description="for each answer")
    attempts: Annotated[int, BeforeValidator(number), Field(ge=1, le=20)] = Field(
        default=8, description="before a message is put aside"
    )
    queue: Annotated[int, BeforeValidator(number), Field(ge=1, le=100_000)] = Field(
        default=1000, description="messages that wait, at most"
    )

    @property
    def address(self) -> str:
        """Where it is, as far as may be shown: paths are often secret."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}/..."

    def wants(self, event: EventName) -> bool:
        """Whether it is told of these."""
        return not self.events or event in self.events


def broken_remediation_rules(
    remediation: Remediation, webhooks: tuple[Webhook, ...], users: frozenset[str]
) -> Iterator[str]:
    """The rules of both that span their fields."""
    for user in remediation.isolation.protected:
        if user not in users:
            yield f"remediation.isolation.protected must be users, got {user!r}"
    seen: set[tuple[int, int]] = set()
    for number_, port in enumerate(remediation.congestion.ports):
        if (port.dpid, port.port_no) in seen:
            yield f"remediation.congestion.ports.{number_} must be another port, got {port.dpid:016x}/{port.port_no} twice"
        seen.add((port.dpid, port.port_no))
    for number_, hook in enumerate(webhooks):
        yield from _bad_url(f"webhooks.{number_}.url", hook.url)


def _bad_url(path: str, url: str) -> Iterator[str]:
    try:
        parts = urlsplit(url)
        secret, _ = parts.username is not None or parts.password is not None, parts.port
    except ValueError:
        yield f"{path} must be a URL"
        return
    # The value is not shown: it may hold a secret.
    if parts.scheme not in ("http", "https") or not parts.hostname:
        yield f"{path} must be like https://host/path, got scheme {parts.scheme!r}"
    elif secret:
        yield f"{path} must not hold a user or password"
    elif not may_carry_token(url):
        yield f"{path} must be https unless it is on loopback, got scheme {parts.scheme!r}"
