"""The alarm stream: what operators are told, numbered so that a client can ask for what is new."""

from __future__ import annotations

import json
import math
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Final

from forecasting.anomaly import Anomaly, Change, Evidence, Kind
from planner.alarm_views import Alarm, AlarmsView
from planner.config_alarms import Alarms
from planner.snapshot import NotThere

DIRECTION_NAMES: Final = ("up", "down")
_HOUR_S: Final = 3600.0
#: More changes than come between two writings of the state.
_AHEAD: Final = 10_000
#: Why what was open when a planner ended is closed.
RESTARTED: Final = "the planner was restarted"


@dataclass(frozen=True)
class Sighting:
    """An anomaly with whose it is."""

    #: Path of the pool.
    pool: str
    #: ``global``, ``region``, ``group`` or ``user``.
    level: str
    #: 0 for upload, 1 for download.
    direction: int
    anomaly: Anomaly


class AlarmStream:
    """A bounded record of alarms. The loop writes, others read and acknowledge.

    What flaps is one alarm, opened again; what comes too often from one pool is counted and not told.
    """

    def __init__(self, settings: Alarms) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._alarms: dict[int, Alarm] = {}
        #: By series and matter: what is open.
        self._open: dict[tuple[int, str], int] = {}
        #: By pool, level, direction, matter and side: what closed last, and when.
        self._closed: dict[tuple[str, str, str, str, str], tuple[int, float]] = {}
        self._opened: dict[str, deque[float]] = {}
        self._last_id = 0
        self._sequence = 0
        #: Highest sequence of an alarm that was dropped.
        self._forgotten = 0
        self._held_back = 0
        #: Alarms opened since the start, by kind.
        self.opened: Counter[str] = Counter()
        #: Called when somebody acknowledged an alarm: what is answered is to outlive the planner.
        self.written: Callable[[], None] = lambda: None

    @property
    def sequence(self) -> int:
        """Grows with every change of any alarm."""
        return self._sequence

    def state(self) -> bytes:
        """The alarms, for ``restore`` after a restart."""
        with self._lock:
            kept = {
                "last_id": self._last_id,
                "sequence": self._sequence,
                "forgotten": self._forgotten,
                "alarms": [asdict(alarm) for alarm in self._alarms.values()],
            }
        return json.dumps(kept).encode()

    def restore(self, body: bytes, now: float) -> None:
        """Go on with the alarms of a predecessor.

        Nobody watched what was open since, nor whether it is over: it is closed, and what is seen
        again soon opens it again, acknowledged if it was.

        Raises
        ------
        ValueError : when the bytes are no state of a stream; nothing changes.
        """
        try:
            kept = json.loads(body)
            alarms = [Alarm(**{**one, "evidence": Evidence(**one["evidence"])}) for one in kept["alarms"]]
            last_id, sequence, forgotten = (int(kept[name]) for name in ("last_id", "sequence", "forgotten"))
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"bytes are no alarms: {error!r}") from None
        with self._lock:
            # Later than anything told since this was written down.
            self._last_id, self._sequence, self._forgotten = last_id, sequence + _AHEAD, forgotten
            self._alarms = {alarm.id: alarm for alarm in alarms}
            for alarm in alarms:
                if alarm.closed is None:
                    self._put(replace(alarm, closed=now, reason=RESTARTED), now)
                    matter = _matter(Kind(alarm.kind))
                    self._closed[alarm.pool, alarm.level, alarm.direction, matter, alarm.side] = (
                        alarm.id,
                        now,
                    )

    def take(self, now: float, sightings: Iterable[Sighting]) -> None:
        """Take in what one step brought."""
        with self._lock:
            for sighting in sightings:
                if sighting.anomaly.change is Change.OPENED:
                    self._open_one(now, sighting)
                else:
                    self._change_one(now, sighting)
            self._forget(now)

    def view(
        self, since: int = 0, *, only_open: bool | None = None, pool: str | None = None, limit: int = 1000
    ) -> AlarmsView:
        """Alarms that changed after the change numbered ``since``, oldest change first.

        since :     0 for all; a number from before a restart too.
        only_open : True for open ones, False for closed ones, None for both.
        pool :      A path: the pool and what is below it.
        limit :     Alarms on the page; its ``sequence`` is where the next one starts.
        """
        with self._lock:
            since = since if since <= self._sequence else 0
            found = sorted(
                (alarm for alarm in self._alarms.values() if alarm.sequence > since), key=lambda a: a.sequence
            )
            wanted = [
                alarm
                for alarm in found
                if (only_open is None or (alarm.closed is None) == only_open) and _within(alarm.pool, pool)
            ]
            page = tuple(wanted[:limit])
            standing = [alarm for alarm in self._alarms.values() if alarm.closed is None]
            return AlarmsView(
                sequence=page[-1].sequence if len(page) < len(wanted) else self._sequence,
                complete=since >= self._forgotten,
                open=len(standing),
                unacknowledged=sum(alarm.acknowledged is None for alarm in standing),
                held_back=self._held_back,
                alarms=page,
            )

    def acknowledge(self, alarm_id: int, now: float) -> Alarm:
        """Note that somebody has seen it; again changes nothing. Raises NotThere."""
        with self._lock:
            alarm = self._alarms.get(alarm_id)
            if alarm is None:
                raise NotThere(f"alarmID must be the id of an alarm that is kept, got {alarm_id}")
            if alarm.acknowledged is None:
                alarm = self._put(replace(alarm, acknowledged=now))
        self.written()
        return alarm

    def _open_one(self, now: float, sighting: Sighting) -> None:
        anomaly, direction = sighting.anomaly, DIRECTION_NAMES[sighting.direction]
        matter = _matter(anomaly.kind)
        side = "above" if anomaly.direction > 0 else "below"
        before, closed = self._closed.get(
            (sighting.pool, sighting.level, direction, matter, side), (0, -math.inf)
        )
        again = self._alarms.get(before) if 0 <= now - closed <= self._settings.reopen_s else None
        if again is None:
            recent = self._opened.setdefault(sighting.pool, deque())
            while recent and not 0 <= now - recent[0] < _HOUR_S:
                recent.popleft()
            if len(recent) >= self._settings.per_pool_hour:
                self._held_back += 1
                return
            recent.append(now)
            self._last_id += 1
            self.opened[anomaly.kind.value] += 1
        alarm = Alarm(
            id=again.id if again else self._last_id,
            sequence=0,
            pool=sighting.pool,
            level=sighting.level,
            direction=direction,
            kind=anomaly.kind.value,
            side=side,
            severity=anomaly.severity,
            since=again.since if again else anomaly.since,
            updated=now,
            closed=None,
            # Somebody who has seen it flap need not see it again.
            acknowledged=again.acknowledged if again else None,
            reason="",
            times=again.times + 1 if again else 1,
            text=sentence(sighting),
            evidence=anomaly.evidence,
        )
        self._open[anomaly.series_id, matter] = alarm.id
        self._put(alarm, now)

    def _change_one(self, now: float, sighting: Sighting) -> None:
        anomaly = sighting.anomaly
        key = (anomaly.series_id, _matter(anomaly.kind))
        alarm = self._alarms.get(self._open.get(key, 0))
        if alarm is None:
            # Held back when it was opened, or forgotten.
            self._open.pop(key, None)
            return
        if anomaly.change is Change.CHANGED:
            told = sentence(sighting)
            self._put(
                replace(
                    alarm,
                    kind=anomaly.kind.value,
                    severity=anomaly.severity,
                    text=told,
                    evidence=anomaly.evidence,
                ),
                now,
            )
            return
        del self._open[key]
        self._closed[alarm.pool, alarm.level, alarm.direction, key[1], alarm.side] = (alarm.id, now)
        self._put(replace(alarm, closed=now, reason=anomaly.reason), now)

    def _put(self, alarm: Alarm, now: float | None = None) -> Alarm:
        self._sequence += 1
        alarm = replace(alarm, sequence=self._sequence, updated=alarm.updated if now is None else now)
        self._alarms[alarm.id] = alarm
        return alarm

    def _forget(self, now: float) -> None:
        """Drop the oldest beyond what is kept, closed ones first, and what only served limits."""
        excess = len(self._alarms) - self._settings.keep
        if excess > 0:
            order = sorted(self._alarms.values(), key=lambda alarm: (alarm.closed is None, alarm.sequence))
            for alarm in order[:excess]:
                del self._alarms[alarm.id]
                self._forgotten = max(self._forgotten, alarm.sequence)
            self._open = {key: one for key, one in self._open.items() if one in self._alarms}
        if len(self._closed) > self._settings.keep:
            self._closed = {
                key: (one, at)
                for key, (one, at) in self._closed.items()
                if now - at <= self._settings.reopen_s
            }
        if len(self._opened) > self._settings.keep:
            self._opened = {pool: at for pool, at in self._opened.items() if at and now - at[-1] < _HOUR_S}


def _within(path: str, pool: str | None) -> bool:
    return pool is None or path == pool or path.startswith(f"{pool}/")


def _matter(kind: Kind) -> str:
    """Spikes, shifts and silences of a pool are one matter, and turn into one another."""
    return kind.value if kind in (Kind.FAN_OUT, Kind.COVERAGE) else "rate"


def sentence(sighting: Sighting) -> str:
    """What an operator is told: who, what came, what was expected, how sure."""
    anomaly, evidence = sighting.anomaly, sighting.anomaly.evidence
    who = f"{sighting.pool} {DIRECTION_NAMES[sighting.direction]}"
    if anomaly.kind is Kind.FAN_OUT:
        return (
            f"{sighting.pool} talks to {evidence.realised:.0f} peers; usually to {evidence.middle:.0f}; "
            f"{_chance(evidence)}"
        )
    if anomaly.kind is Kind.COVERAGE:
        return (
            f"forecast coverage of level {sighting.level} {DIRECTION_NAMES[sighting.direction]} drifted: "
            f"{100 * evidence.realised:.0f} % of the last hour lay within the {100 * evidence.middle:.0f} % band"
        )
    came = f"{_mbps(evidence.realised)} Mbit/s"
    band = f"{_mbps(evidence.low)} to {_mbps(evidence.high)} Mbit/s were expected"
    minutes = f"for {evidence.steps} steps"
    what = {
        Kind.SPIKE: f"spike: {came}",
        Kind.SHIFT: f"{'more' if anomaly.direction > 0 else 'less'} than before {minutes}: {came}",
        Kind.SILENCE: f"silent {minutes}: {came}",
    }[anomaly.kind]
    many = f"; {evidence.series} pools at once" if evidence.series > 1 else ""
    return f"{who} {what} where {band}{many}; {_chance(evidence)}"


def _chance(evidence: Evidence) -> str:
    if math.isfinite(evidence.e_value):
        return f"evidence {evidence.e_value:.3g} to 1 that the forecast no longer holds"
    if math.isfinite(evidence.p_value):
        return f"chance {evidence.p_value:.1g} in a step"
    return "chance not known"


def _mbps(rate_bps: float) -> str:
    return f"{rate_bps / 1e6:.3g}" if math.isfinite(rate_bps) else "?"
