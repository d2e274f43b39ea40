"""How a meter is set, and what turns the meters a switch holds into those it shall hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ryu_apps.codec.entries import Counter
from ryu_apps.codec.messages import MAX_KBPS, METER_FLAGS, MeterCommand, meter_deletes, meter_mods
from ryu_apps.codec.messages import remarking_meter_mods as remarking
from ryu_apps.codec.meter_stats import BandColumns, MeterConfigs, MeterStats
from ryu_apps.framework import U32, ofproto_v1_3

Bool = npt.NDArray[np.bool_]

#: Rate in kbit/s and burst in kbit by meter id, as plans have them.
MeterRates = Mapping[int, tuple[int, int]]


class MeterSetting(NamedTuple):
    """All of a meter that is Tidegate's to say; what is read back is compared with it."""

    rate_kbps: int
    burst_kbit: int
    #: 0: what exceeds the rate is dropped; else its drop precedence is raised by so much.
    precedence: int = 0
    #: Of a remarking meter: what exceeds this is dropped. 0: nothing is.
    drop_kbps: int = 0
    drop_burst_kbit: int = 0

    @property
    def limit_kbps(self) -> float:
        """The most that gets through in the long run."""
        if not self.precedence:
            return self.rate_kbps
        return self.drop_kbps or math.inf


#: A meter of a shape that Tidegate does not make. It may let anything through.
FOREIGN: Final = MeterSetting(MAX_KBPS, 0, precedence=-1)

Settings = Mapping[int, MeterSetting]


def settings_read(configs: MeterConfigs) -> dict[int, MeterSetting]:
    """The meters of a configuration reply, by id on the switch."""
    ofp, one, two = ofproto_v1_3, configs.first, configs.second
    in_bits = (configs.flags & ofp.OFPMF_PKTPS) == 0
    alone = (configs.n_bands == 1) & in_bits
    pair = (configs.n_bands == 2) & in_bits
    drop = alone & (one.type == ofp.OFPMBT_DROP)
    # A switch may list the bands of a meter the other way round.
    turned = pair & (one.type == ofp.OFPMBT_DROP) & (two.type == ofp.OFPMBT_DSCP_REMARK)
    straight = pair & (one.type == ofp.OFPMBT_DSCP_REMARK) & (two.type == ofp.OFPMBT_DROP)
    remark = alone & (one.type == ofp.OFPMBT_DSCP_REMARK) & (one.precedence > 0)
    both = straight | turned
    marked, dropped = _choose(turned, two, one), _choose(turned, one, two)
    known = drop | remark | (both & (marked.precedence > 0))
    columns = zip(
        configs.meter_id.tolist(),
        known.tolist(),
        marked.rate.tolist(),
        marked.burst.tolist(),
        np.where(drop, 0, marked.precedence).tolist(),
        np.where(both, dropped.rate, 0).tolist(),
        np.where(both, dropped.burst, 0).tolist(),
        strict=True,
    )
    return {
        meter: MeterSetting(rate, burst, level, drop_rate, drop_burst) if is_known else FOREIGN
        for meter, is_known, rate, burst, level, drop_rate, drop_burst in columns
    }


def counting_drops(stats: MeterStats, settings: Settings) -> MeterStats:
    """The statistics with what was *dropped* as the first band: of remarking meters it was only marked."""
    kept = Counter(np.zeros(len(stats), np.uint64), np.ones(len(stats), bool))
    marks = np.array([settings.get(int(meter), FOREIGN).precedence > 0 for meter in stats.meter_id], bool)
    second = stats.byte_second_count
    dropped = _where(second.valid, second, kept)
    return replace(stats, byte_band_count=_where(marks, dropped, stats.byte_band_count))


def _where(here: Bool, there: Counter, elsewhere: Counter) -> Counter:
    return Counter(np.where(here, there.value, elsewhere.value), np.where(here, there.valid, elsewhere.valid))


def _choose(where: Bool, there: BandColumns, elsewhere: BandColumns) -> BandColumns:
    return BandColumns(
        np.where(where, there.type, elsewhere.type),
        np.where(where, there.rate, elsewhere.rate),
        np.where(where, there.burst, elsewhere.burst),
        np.where(where, there.precedence, elsewhere.precedence),
    )


@dataclass(frozen=True)
class MeterChanges:
    """What to send, in this order, with a barrier after each: lower, then raise and add; at last delete.

    A decrease frees what an increase will use, so a parent is never
    oversubscribed while the change is under way. Deletes wait until no flow entry
    uses the meter: a switch takes the entries away with it.
    """

    lower: tuple[int, ...] = ()
    raise_: tuple[int, ...] = ()
    add: tuple[int, ...] = ()
    delete: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.lower or self.raise_ or self.add or self.delete)


def is_equal(wanted: MeterSetting, found: MeterSetting) -> bool:
    """Whether a meter needs no change: it is as wanted."""
    return wanted == found


def meter_changes(
    installed: Settings,
    wanted: Settings,
    is_met: Callable[[MeterSetting, MeterSetting], bool] = is_equal,
) -> MeterChanges:
    """The changes that turn ``installed`` into ``wanted``; meters are modified in place.

    ``is_met(wanted, installed)`` tells which meters are left alone.
    """
    both = installed.keys() & wanted.keys()
    changed = sorted(
        meter
        for meter in both
        if installed[meter] != wanted[meter] and not is_met(wanted[meter], installed[meter])
    )
    return MeterChanges(
        lower=tuple(m for m in changed if wanted[m].limit_kbps <= installed[m].limit_kbps),
        raise_=tuple(m for m in changed if wanted[m].limit_kbps > installed[m].limit_kbps),
        add=tuple(sorted(wanted.keys() - installed.keys())),
        delete=tuple(sorted(installed.keys() - wanted.keys())),
    )


def write_meters(
    command: MeterCommand, meters: Sequence[int], wanted: Settings, xids: U32, flags: int = METER_FLAGS
) -> bytes:
    """The meter-mods that add, modify or delete these meters, as one buffer; one of ``xids`` each."""
    if command is MeterCommand.DELETE:
        return meter_deletes(meters, xids)
    columns = np.array([wanted[meter] for meter in meters], np.int64).reshape(-1, len(MeterSetting._fields))
    ids = np.asarray(meters, np.int64)
    return b"".join(_of_one_shape(command, ids, columns, np.asarray(xids), flags))


def _of_one_shape(
    command: MeterCommand,
    ids: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int64],
    xids: U32,
    flags: int,
) -> Iterator[bytes]:
    remarks, drops = columns[:, 2] > 0, columns[:, 3] > 0
    for rows in (np.flatnonzero(~remarks), np.flatnonzero(remarks & ~drops), np.flatnonzero(remarks & drops)):
        if not len(rows):
            continue
        rate, burst, level, drop_rate, drop_burst = columns[rows].T
        if not level[0]:
            yield meter_mods(command, ids[rows], rate, burst, xids[rows], flags)
        else:
            dropped = (drop_rate, drop_burst) if drop_rate[0] else None
            yield remarking(command, ids[rows], (rate, burst, level), dropped, xids[rows], flags)
