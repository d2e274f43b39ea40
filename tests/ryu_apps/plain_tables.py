"""A plain interpreter of flow entries, and of a network of switches that hold them: the tests' reference.

It knows no stage and no plan, only what OpenFlow 1.3 says a switch does with an entry.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from planner.plan import UNMETERED
from ryu_apps.pipeline import FlowEntry

Packet = Mapping[str, int | str]
Place = tuple[int, int]


@dataclass
class Passage:
    """What one packet met in one switch."""

    tables: list[int] = field(default_factory=list)
    meters: list[tuple[int, int]] = field(default_factory=list)  # (kind of the entry, meter id)
    out: list[int] = field(default_factory=list)
    punted_in: list[int] = field(default_factory=list)
    metadata: int = 0


def _number(value: int | str) -> int:
    return int(value.replace(":", ""), 16) if isinstance(value, str) else value


def _matches(entry: FlowEntry, packet: Packet) -> bool:
    for name, wanted in entry.match:
        if name not in packet:
            return False
        value, mask = wanted if isinstance(wanted, tuple) else (wanted, -1)
        if _number(packet[name]) & _number(mask) != _number(value) & _number(mask):
            return False
    return True


def pass_through(entries: Iterable[FlowEntry], packet: Packet) -> Passage:
    """What a switch with these entries does with a packet that came in on ``packet['in_port']``."""
    entries = list(entries)
    passage = Passage()
    table: int | None = 0
    while table is not None:
        passage.tables.append(table)
        here = [e for e in entries if e.table_id == table]
        hits = [e for e in here if _matches(e, {**packet, "metadata": passage.metadata})]
        if not hits:
            break
        best = max(hits, key=lambda e: e.priority)
        rivals = [e for e in hits if e.priority == best.priority and e.match != best.match]
        assert not rivals, f"OpenFlow leaves open which of {best} and {rivals} matches"
        if best.meter_id != UNMETERED:
            passage.meters.append((best.kind, best.meter_id))
        # What came in on a port does not go out there again, unless an action says IN_PORT.
        passage.out += [port for port in best.output if port != packet["in_port"]]
        if best.to_controller:
            passage.punted_in.append(table)
        if best.write_metadata is not None:
            value, mask = best.write_metadata
            passage.metadata = passage.metadata & ~mask | value & mask
        assert best.goto_table is None or best.goto_table > table, f"goto must go forward: {best}"
        table = best.goto_table
    return passage


@dataclass
class Journey:
    """What one packet met on its way through the network."""

    passages: list[tuple[int, Passage]] = field(default_factory=list)
    delivered: list[Place] = field(default_factory=list)


def travel(
    entries: Mapping[int, list[FlowEntry]], cables: Mapping[Place, Place], start: Place, packet: Packet
) -> Journey:
    """The journey of a packet that a host sends at ``start``; ports without a cable lead to hosts."""
    journey = Journey()
    under_way = [start]
    while under_way:
        dpid, port_no = under_way.pop()
        passage = pass_through(entries[dpid], {**packet, "in_port": port_no})
        journey.passages.append((dpid, passage))
        assert len(journey.passages) <= 4 * len(entries) + 4, "the packet loops"
        for port in passage.out:
            if (dpid, port) in cables:
                under_way.append(cables[dpid, port])
            else:
                journey.delivered.append((dpid, port))
    return journey
