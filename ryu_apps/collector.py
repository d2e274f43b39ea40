"""Counters of two polls in, rates out. Missing is not zero.

A counter that the switch does not keep, that went back, or that was not read
makes a *gap*: no rate, rather than a rate of nothing. Pure: no switch, no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from ryu_apps.codec.flow_stats import FlowStats, PortStats
from ryu_apps.codec.meter_stats import MeterStats
from telemetry.samples import CENSORED, GAP, EdgeSamples, MeterSamples, PortSamples

F64 = npt.NDArray[np.float64]
U32 = npt.NDArray[np.uint32]
Bool = npt.NDArray[np.bool_]

#: Shorter intervals say more about when the switch was asked than about traffic.
MIN_INTERVAL_S: Final = 0.5
#: Usage this close to the limit may have wanted more.
AT_LIMIT: Final = 0.95
_BITS: Final = 8.0
#: The seconds field where a switch keeps no duration.
_NO_DURATION_S: Final = 0xFFFF_FFFF
#: What is made while a reply is under way is this much older than the reply's arrival, at most.
_SLACK_S: Final = 1.0


@dataclass(frozen=True)
class Counters:
    """Some counters of a switch at one poll. Columns have shape (n,), ids rising, or (n, k)."""

    ids: npt.NDArray[np.int64]
    #: NaN where the switch keeps no such counter.
    values: F64
    #: Seconds that the thing exists by the switch's own clock.
    duration_s: F64
    #: This process's clock when the reply was complete.
    time: float

    @classmethod
    def sorted(cls, ids: npt.ArrayLike, values: F64, duration_s: F64, time: float) -> Counters:
        """Counters in order of their ids."""
        ids = np.asarray(ids, np.int64)
        order = np.argsort(ids, kind="stable")
        return cls(ids[order], values[order], duration_s[order], time)


@dataclass(frozen=True)
class Increase:
    """How much counters rose and over how long, aligned with the later poll's ids."""

    interval_s: F64
    #: shape (n, k); NaN where it is not known.
    amount: F64


def increase(
    before: Counters | None, now: Counters, restarted_at: Mapping[int, float] | None = None
) -> Increase:
    """What came between two polls.

    ``restarted_at`` names counters that began again at zero, and when by this
    process's clock (a switch may clear a meter's counters when its rate
    changes, and goes on counting its duration). What is new counts from its beginning.
    Intervals are by the switch's own clock; by this process's where the switch keeps no duration.
    """
    n = len(now.ids)
    interval = np.full(n, np.nan)
    amount = np.full(now.values.shape, np.nan)
    # At the first poll of all nothing is known: a counter may be years old.
    if before is not None:
        elapsed = now.time - before.time
        known, lasted, rose = _since(before, now, elapsed)
        older = known & (lasted > 0)
        interval[older], amount[older] = lasted[older], rose[older]
        # Else it was made since, or made anew: by the switch's clock it is younger than it was.
        # One that is too old for that was missing in the earlier answer.
        made_since = ~older & _is_kept(now.duration_s) & (now.duration_s <= elapsed + _SLACK_S)
        interval[made_since], amount[made_since] = now.duration_s[made_since], now.values[made_since]
    if restarted_at:
        for row in np.flatnonzero(np.isin(now.ids, list(restarted_at))):
            interval[row] = now.time - restarted_at[int(now.ids[row])]
            amount[row] = now.values[row]
    # A counter that went back for no reason known was reset: how much it counted since, nobody knows.
    amount[(amount < 0) | ~(interval > 0).reshape((n,) + (1,) * (amount.ndim - 1))] = np.nan
    return Increase(interval, amount)


def _since(before: Counters, now: Counters, elapsed: float) -> tuple[Bool, F64, F64]:
    """Which of ``now`` were there before; for these, for how long since and by how much they rose."""
    at, known = _places(before, now)
    lasted, rose = np.full(len(at), np.nan), np.full(now.values.shape, np.nan)
    then = at[known]
    by_switch = _is_kept(now.duration_s[known]) & _is_kept(before.duration_s[then])
    lasted[known] = np.where(by_switch, now.duration_s[known] - before.duration_s[then], elapsed)
    rose[known] = now.values[known] - before.values[then]
    return known, lasted, rose


def _is_kept(duration_s: F64) -> Bool:
    """Whether the switch keeps a duration: all ones, or always 0, say that it does not."""
    return (duration_s > 0) & (duration_s < _NO_DURATION_S)


def made_at(duration_s: F64, time: float) -> F64:
    """When things of these ages at this time were made, epoch seconds; inf where nobody knows. Shape (n,)."""
    return np.where(duration_s < _NO_DURATION_S, time - duration_s, np.inf)


def _places(before: Counters | None, now: Counters) -> tuple[npt.NDArray[np.intp], Bool]:
    """Where in ``before`` each id of ``now`` stands, and whether it does; shape (n,) each."""
    if before is None or not len(before.ids):
        return np.zeros(len(now.ids), np.intp), np.zeros(len(now.ids), bool)
    at = np.minimum(np.searchsorted(before.ids, now.ids), len(before.ids) - 1)
    return at, before.ids[at] == now.ids


def meter_samples(
    before: Counters | None,
    now: Counters,
    limit_bps: Mapping[int, float],
    restarted_at: Mapping[int, float],
) -> MeterSamples:
    """Offered and dropped rates of each meter; ``values`` are bytes in and bytes dropped."""
    rise = increase(before, now, restarted_at)
    interval = rise.interval_s
    with np.errstate(invalid="ignore", divide="ignore"):
        offered = rise.amount[:, 0] * _BITS / interval
        dropped = rise.amount[:, 1] * _BITS / interval
    gap = np.isnan(offered) | ~(interval >= MIN_INTERVAL_S) | _made_anew(before, now)
    offered[gap], dropped[gap] = np.nan, np.nan
    limit = np.array([limit_bps.get(int(meter), np.inf) for meter in now.ids])
    censored = ~gap & ((dropped > 0) | (offered >= AT_LIMIT * limit))
    flags = np.where(gap, GAP, 0) | np.where(censored, CENSORED, 0)
    return MeterSamples(
        meter_id=now.ids.astype(np.uint32),
        interval_s=np.where(np.isfinite(interval), interval, 0.0),
        offered_bps=offered,
        dropped_bps=dropped,
        flags=flags.astype(np.uint8),
    )


def _made_anew(before: Counters | None, now: Counters) -> Bool:
    """Meters that somebody else deleted and added.

    A switch takes the entries that use a meter away with it: until they were
    there again traffic went past the meter, and its counters say too little.
    """
    at, known = _places(before, now)
    younger = np.zeros(len(known), bool)
    if before is not None:
        younger[known] = now.duration_s[known] < before.duration_s[at[known]]
    return younger


def meter_counters(stats: MeterStats, time: float) -> Counters:
    """Bytes in and bytes dropped by meter id."""
    values = np.stack([stats.byte_in_count.as_float(), stats.byte_band_count.as_float()], axis=1)
    return Counters.sorted(stats.meter_id, values, stats.duration_s, time)


def flow_counters(stats: FlowStats, rows: npt.NDArray[np.intp], series: U32, time: float) -> Counters:
    """Bytes by series number, of these rows."""
    values = stats.byte_count.as_float()[rows][:, None]
    return Counters.sorted(series, values, stats.duration_s[rows], time)


def edge_samples(before: Counters | None, now: Counters, columns: tuple[U32, U32, U32]) -> EdgeSamples:
    """Rates by pair; pairs that were silent, or of which nothing is known, are left out.

    ``columns`` are source, destination and class of ``now.ids``, each shape (n,).
    """
    rise = increase(before, now)
    with np.errstate(invalid="ignore", divide="ignore"):
        rate = rise.amount[:, 0] * _BITS / rise.interval_s
    seen = rate > 0
    src, dst, app = (column[seen] for column in columns)
    return EdgeSamples(src=src, dst=dst, app=app, interval_s=rise.interval_s[seen], rate_bps=rate[seen])


def port_counters(stats: PortStats, time: float) -> Counters:
    """Bytes received and sent and packets dropped by port number."""
    dropped = stats.rx_dropped.as_float() + stats.tx_dropped.as_float()
    values = np.stack([stats.rx_bytes.as_float(), stats.tx_bytes.as_float(), dropped], axis=1)
    return Counters.sorted(stats.port_no, values, stats.duration_s, time)


def port_samples(before: Counters | None, now: Counters) -> PortSamples:
    """Rates on each port, NaN where not known."""
    rise = increase(before, now)
    with np.errstate(invalid="ignore", divide="ignore"):
        rate = rise.amount / rise.interval_s[:, None]
    return PortSamples(
        port_no=now.ids.astype(np.uint32),
        interval_s=np.where(np.isfinite(rise.interval_s), rise.interval_s, 0.0),
        rx_bps=rate[:, 0] * _BITS,
        tx_bps=rate[:, 1] * _BITS,
        dropped_pps=rate[:, 2],
    )


@dataclass
class CounterMemory:
    """The counters of one switch at its last answered poll, and what restarted since.

    A lost poll changes nothing here: the next answer spans the longer interval.
    """

    meters: Counters | None = None
    pairs: Counters | None = None
    ports: Counters | None = None
    hosts: Counters | None = None
    restarted_at: dict[int, float] = field(default_factory=dict)

    def meters_modified(self, meters: Iterable[int], sent_at: float) -> None:
        """New rates were sent for these meters, which clears their counters on this switch."""
        self.restarted_at.update(dict.fromkeys(meters, sent_at))

    def restarts_before(self, asked_at: float) -> dict[int, float]:
        """The restarts that a reply to a request of this time shows; later ones are kept for the next.

        Messages to a switch stay in order, so the time of sending decides, not of any answer.
        """
        shown = {meter: at for meter, at in self.restarted_at.items() if at <= asked_at}
        self.restarted_at = {meter: at for meter, at in self.restarted_at.items() if at > asked_at}
        return shown
