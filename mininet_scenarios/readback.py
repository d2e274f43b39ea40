"""Whether the switches hold the meters of the plan, asked of the switches themselves."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

#: Rate in kbit/s and burst in kbit, by meter id.
Meters = dict[int, tuple[int, int]]

_METER = re.compile(r"\bmeter=(\d+)\s+(.*?)bands=(.*?)(?=\bmeter=|\Z)", re.DOTALL)
_BAND = re.compile(r"type=drop\s+rate=(\d+)(?:\s+burst_size=(\d+))?")


class ReadBackError(Exception):
    """A switch could not be read."""


@dataclass(frozen=True)
class Comparison:
    """Plan and switches side by side."""

    plan_version: int
    n_meters: int
    #: One line a difference: switch, meter, what the plan says, what the switch holds.
    differences: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Whether the switches hold the plan. A plan without meters has not been put to the test."""
        return not self.differences and self.n_meters > 0


def parse_meters(dump: str) -> Meters:
    """Meters in the output of ``ovs-ofctl dump-meters``.

    Raises
    ------
    ReadBackError : if a meter is not in kbit/s or has another band than one drop.
    """
    meters: Meters = {}
    for number, flags, bands in _METER.findall(dump):
        found = _BAND.findall(bands)
        if "kbps" not in flags.split() or len(found) != 1 or bands.count("type=") != 1:
            raise ReadBackError(
                f"meter {number} must have one drop band in kbps, got {flags}bands={bands.strip()}"
            )
        rate, burst = found[0]
        meters[int(number)] = (int(rate), int(burst or 0))
    return meters


def read_meters(bridge: str) -> Meters:
    """The meters that a bridge holds now."""
    reply = subprocess.run(
        ["ovs-ofctl", "-O", "OpenFlow13", "--timeout=10", "dump-meters", bridge],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    if reply.returncode:
        raise ReadBackError(f"{bridge} must give its meters, got {reply.stderr.strip()}")
    return parse_meters(reply.stdout)


def planned_meters(plan: Mapping[str, Any], dpid: int) -> Meters:
    """The meters that an answer of ``GET /plan`` gives a switch."""
    switch = plan["switches"].get(f"{dpid:016x}", {"meters": []})
    return {int(m["meter_id"]): (int(m["rate_kbps"]), int(m["burst_kbit"])) for m in switch["meters"]}


def compare(plan: Mapping[str, Any], held: Mapping[int, Meters]) -> Comparison:
    """A plan next to the meters that switches hold, by datapath id."""
    differences: list[str] = []
    n_meters = 0
    for dpid, meters in sorted(held.items()):
        wanted = planned_meters(plan, dpid)
        n_meters += len(wanted)
        differences += [
            f"dp {dpid:016x} meter {meter}: plan {_said(wanted.get(meter))}, switch {_said(meters.get(meter))}"
            for meter in sorted(wanted.keys() | meters.keys())
            if wanted.get(meter) != meters.get(meter)
        ]
    return Comparison(int(plan["version"]), n_meters, tuple(differences))


def read_back(
    fetch_plan: Callable[[], Mapping[str, Any]], bridges: Mapping[int, str], deadline_s: float = 4.0
) -> Comparison:
    """Compare until plan and switches agree, or the deadline passes.

    A plan may change between the two readings, or be on its way to the
    switches; so only a difference that stays counts.

    Parameters
    ----------
    bridges : names of the bridges to read, by datapath id.
    """
    end = time.monotonic() + deadline_s
    while True:
        result = compare(fetch_plan(), {dpid: read_meters(bridge) for dpid, bridge in bridges.items()})
        if result.equal or time.monotonic() > end:
            return result
        time.sleep(0.3)


def _said(meter: tuple[int, int] | None) -> str:
    return "has none" if meter is None else f"{meter[0]} kbit/s burst {meter[1]} kbit"
