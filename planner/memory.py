"""What one planner leaves to the next: versions, meter ids, groups, overrides, addresses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from planner.policies import Lift
from planner.policy import Override, TemporaryBoost
from planner.shaping import TrafficShape


@dataclass(frozen=True)
class Memory:
    """The planner's own state; demand is in the samples, and the model in the forecaster's state."""

    plan_version: int = 0
    layout_version: int = 0
    meter_ids: dict[str, Any] = field(default_factory=dict)
    groups: dict[str, Any] = field(default_factory=dict)
    overrides: Mapping[str, Override] = field(default_factory=dict)
    addresses: dict[str, Any] = field(default_factory=dict)
    boosts: Mapping[str, TemporaryBoost] = field(default_factory=dict)
    #: ``planner.remediation.keeper.Keeper.state``; empty in a memory of before there was one.
    remediation: dict[str, Any] = field(default_factory=dict)
    bindings: dict[str, Any] = field(default_factory=dict)
    shapes: Mapping[str, TrafficShape] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The bytes that ``from_bytes`` reads."""
        return json.dumps(asdict(self), sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, body: bytes) -> Memory:
        """What ``to_bytes`` wrote. Raises ValueError."""
        try:
            raw = json.loads(body)
            overrides = {
                name: Override(_pair(entry["guarantee_bps"]), _pair(entry["ceiling_bps"]), entry["weight"])
                for name, entry in raw.pop("overrides").items()
            }
            # A memory of before there were boosts has none.
            boosts = {name: _boost(entry) for name, entry in raw.pop("boosts", {}).items()}
            shapes = {name: TrafficShape.from_dict(entry) for name, entry in raw.pop("shapes", {}).items()}
            return cls(**raw, overrides=overrides, boosts=boosts, shapes=shapes)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"planner state is malformed: {error!r}") from None


def _boost(entry: dict[str, Any]) -> TemporaryBoost:
    lift = entry["lift"]
    return TemporaryBoost(
        str(entry["id"]),
        tuple(map(str, entry["pools"])),
        Lift(
            _pair(lift["guarantee_bps"]), _pair(lift["ceiling_bps"]), lift["weight_factor"], lift["priority"]
        ),
        float(entry["start"]),
        float(entry["end"]),
        str(entry["reason"]),
    )


def _pair(values: Any) -> tuple[int, int] | None:
    return None if values is None else (int(values[0]), int(values[1]))
