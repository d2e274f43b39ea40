"""How fast flow statistics become columns, next to Ryu's own parser on the same bytes.

    python -m bench.collect --json OUT

Both sides get the same replies, split into messages of at most 64 KiB as a switch
does, and must come to the same cookies, counters and durations in this very run.

ours        decoding the messages' bodies
ours_wired  the same from the whole messages, through Ryu's message dispatch, as in the running application
ryu         Ryu by itself, from the whole messages to its object per entry
"""

from __future__ import annotations

import argparse
import gc
import statistics
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeVar

import numpy as np

from bench.figures import write_figures
from ryu_apps import framework
from ryu_apps.codec.body import REPLY_MORE, Assembler
from ryu_apps.codec.flow_stats import FLOW_LAYOUT, FlowStats, decode_flow_stats
from ryu_apps.cookies import Kind, pack_cookies

T = TypeVar("T")

SIZES: Final = (1_000, 10_000, 100_000)
_OURS_REPEATS: Final = 21
#: Ryu needs some 10 s for 100,000 entries; its time hardly varies.
_RYU_REPEATS: Final = {1_000: 5, 10_000: 3, 100_000: 1}
_LONGEST_MESSAGE: Final = 0xFFFF
_XID: Final = 7


@dataclass(frozen=True)
class Case:
    """One row of the result; rates are entries/s, ratios are to ``ryu_per_s``."""

    entries: int
    mixed: bool
    messages: int
    ours_per_s: float
    wired_per_s: float
    ryu_per_s: float
    ratio: float
    wired_ratio: float


def entry_tails(count: int, mixed: bool) -> list[bytes]:
    """What stands behind the counters in different entries: match and instructions, in Ryu's own bytes.

    Uniform: an in_port and eth_src match, a meter and a goto_table. Mixed: also IPv4 and
    IPv6 accounting entries and forwarding entries, so five lengths in no regular order.
    """
    parser = framework.ofproto_v1_3_parser
    rng = np.random.default_rng(1)
    tails = []
    for i in range(count):
        mac = f"02:00:00:00:{i >> 8 & 255:02x}:{i & 255:02x}"
        v4 = {"eth_type": 0x0800, "ipv4_src": f"10.0.{i >> 8 & 255}.{i & 255}", "ipv4_dst": "10.1.0.1"}
        v6 = {"eth_type": 0x86DD, "ipv6_src": f"fd00::{i & 0xFFFF:x}", "ipv6_dst": "fd00:1::1"}
        meter = [parser.OFPInstructionMeter(i + 1), parser.OFPInstructionGotoTable(2)]
        goto = [parser.OFPInstructionGotoTable(5)]
        output = [parser.OFPInstructionActions(4, [parser.OFPActionOutput(i % 48 + 1)])]
        shapes: tuple[tuple[dict[str, Any], list[Any]], ...] = (
            ({"in_port": i % 48 + 1, "eth_src": mac}, meter),
            ({"metadata": i, "ip_proto": 6, "tcp_dst": 443, **v4}, goto),
            ({"metadata": i, **v6}, goto),
            ({"eth_dst": mac}, output),
            ({"ip_proto": 17, "udp_src": 53, **v6}, meter),
        )
        fields, instructions = shapes[int(rng.integers(len(shapes))) if mixed else 0]
        tails.append(_wire(parser.OFPMatch(**fields)) + b"".join(map(_wire, instructions)))
    return tails


def _wire(part: Any) -> bytes:
    raw = bytearray()
    part.serialize(raw, 0)
    return bytes(raw)


def make_entries(count: int, mixed: bool) -> Iterator[bytes]:
    """``count`` entries as a switch sends them, each with its own cookie and counters."""
    tails = entry_tails(min(count, 1_000), mixed)
    rng = np.random.default_rng(2)
    heads = np.zeros(count, FLOW_LAYOUT.head)
    heads["length"] = np.resize([FLOW_LAYOUT.head.itemsize + len(tail) for tail in tails], count)
    heads["table_id"] = rng.integers(9, size=count)
    heads["duration_sec"] = rng.integers(1 << 20, size=count)
    heads["duration_nsec"] = rng.integers(1_000_000_000, size=count)
    heads["priority"] = rng.integers(1 << 16, size=count)
    heads["cookie"] = pack_cookies(Kind.ACCOUNTING, np.arange(count), rng.integers(1 << 32, size=count))
    heads["packet_count"] = rng.integers(1 << 40, size=count)
    heads["byte_count"] = rng.integers(1 << 50, size=count)
    for i, head in enumerate(heads):
        yield head.tobytes() + tails[i % len(tails)]


def make_messages(entries: Iterator[bytes]) -> list[bytes]:
    """The entries as multipart replies, each as full as 64 KiB allow."""
    bodies = [bytearray()]
    for entry in entries:
        if len(bodies[-1]) + len(entry) > _LONGEST_MESSAGE - 16:
            bodies.append(bytearray())
        bodies[-1] += entry
    flags = [REPLY_MORE] * (len(bodies) - 1) + [0]
    kind = framework.ofproto_v1_3.OFPMP_FLOW
    return [
        struct.pack(
            "!BBHIHH4x", 4, framework.ofproto_v1_3.OFPT_MULTIPART_REPLY, 16 + len(body), _XID, kind, flag
        )
        + bytes(body)
        for body, flag in zip(bodies, flags, strict=True)
    ]


def decode_wired(datapath: Any, messages: Sequence[bytes]) -> FlowStats:
    """The columns of a reply given as whole messages, the way the running application gets them."""
    assembler = Assembler()
    for raw in messages:
        message = framework.parse_message(datapath, raw)
        bodies = assembler.add(message.xid, message.body, message.flags)
        if bodies is not None:
            return decode_flow_stats(bodies)
    raise ValueError("the last message must not say that more follow")


def decode_by_ryu(datapath: Any, messages: Sequence[bytes]) -> list[Any]:
    """Ryu's object of each entry."""
    with framework.ryus_own_bodies():
        return [entry for raw in messages for entry in framework.parse_message(datapath, raw).body]


def check_equal(ours: FlowStats, ryus: Sequence[Any]) -> None:
    """Raise an AssertionError unless both decoders read the same."""
    columns = {
        "cookie": ours.cookie,
        "byte_count": ours.byte_count.value,
        "packet_count": ours.packet_count.value,
        "table_id": ours.table_id,
        "priority": ours.priority,
    }
    for name, column in columns.items():
        np.testing.assert_array_equal(column, [getattr(entry, name) for entry in ryus], err_msg=name)
    seconds = [entry.duration_sec + entry.duration_nsec * 1e-9 for entry in ryus]
    np.testing.assert_array_equal(ours.duration_s, seconds, err_msg="duration_s")
    assert ours.byte_count.valid.all()
    assert ours.packet_count.valid.all()


def median_s(work: Callable[[], T], repeats: int) -> tuple[float, T]:
    """How long the work takes, and what came of it the last time."""
    took = []
    gc.collect()  # once: between repeats it would also empty the processor's caches
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        took.append(time.perf_counter() - start)
    return statistics.median(took), result


def run_case(count: int, mixed: bool) -> Case:
    """Measure one size and mixture, and check that all sides agree."""
    datapath = framework.offline_datapath()
    messages = make_messages(make_entries(count, mixed))
    bodies = [body for raw in messages for body in framework.parse_message(datapath, raw).body]
    ours_s, ours = median_s(lambda: decode_flow_stats(bodies), _OURS_REPEATS)
    wired_s, wired = median_s(lambda: decode_wired(datapath, messages), _OURS_REPEATS)
    ryu_s, ryus = median_s(lambda: decode_by_ryu(datapath, messages), _RYU_REPEATS[count])
    check_equal(ours, ryus)
    check_equal(wired, ryus)
    return Case(
        entries=count,
        mixed=mixed,
        messages=len(messages),
        ours_per_s=round(count / ours_s),
        wired_per_s=round(count / wired_s),
        ryu_per_s=round(count / ryu_s),
        ratio=round(ryu_s / ours_s, 1),
        wired_ratio=round(ryu_s / wired_s, 1),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all cases; the JSON goes where asked, progress to standard error."""
    options = argparse.ArgumentParser(
        prog="python -m bench.collect",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument(
        "--json", required=True, metavar="OUT", help="file to write, or - for standard output"
    )
    out: str = options.parse_args(arguments).json
    cases = []
    for mixed in (False, True):
        for count in SIZES:
            case = run_case(count, mixed)
            cases.append(case)
            print(
                f"{count:>7,} {'mixed' if mixed else 'uniform':7} entries: ours {case.ours_per_s:>11,}/s, "
                f"wired {case.wired_per_s:>11,}/s, Ryu {case.ryu_per_s:>6,}/s; "
                f"ratio {case.ratio:,.0f}, wired {case.wired_ratio:,.0f}",
                file=sys.stderr,
            )
    write_figures({"cases": [asdict(case) for case in cases]}, out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
