"""A switch that rounds rates in a way nobody told us: asked twice, then taken as it is or asked for less."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from ryu_apps.meters import FOREIGN, MeterSetting

#: How often less is asked for when a switch gives more than was asked.
_SEARCHES: Final = 8
#: Settings remembered; plans bring new ones all the time.
_REMEMBERED: Final = 50_000


@dataclass(frozen=True)
class _Seen:
    """What a switch made of a setting."""

    asked: MeterSetting
    found: MeterSetting
    #: How often it made that of it.
    times: int = 1
    #: How often less was asked for.
    searches: int = 0
    #: Asked for no more until then (seconds that only go forward).
    rests_until: float = 0.0


@dataclass
class Rounding:
    """What one switch makes of settings that it does not take as they are.

    A setting is asked for twice. If the switch answers the same other rate again, then
    a rate within ``tolerance`` of what was wanted is taken as met; of a greater one
    less is asked for; a smaller one is left for ``rest_s``, since it
    harms no parent, and counted as different.
    """

    tolerance: float
    rest_s: float
    _seen: dict[MeterSetting, _Seen] = field(default_factory=dict)

    def asked(self, wanted: MeterSetting) -> MeterSetting:
        """What to ask for, to get what is wanted or the nearest below."""
        seen = self._seen.get(wanted)
        return seen.asked if seen else wanted

    def is_close(self, wanted: MeterSetting, found: MeterSetting) -> bool:
        """Whether this is what was wanted, or known to be what the switch makes of it and near enough."""
        if wanted == found:
            return True
        seen = self._seen.get(wanted)
        return seen is not None and seen.times > 1 and seen.found == found and self._near(wanted, found)

    def rests(self, wanted: MeterSetting, found: MeterSetting, now: float) -> bool:
        """Whether asking again is of no use now."""
        seen = self._seen.get(wanted)
        return seen is not None and seen.found == found and seen.rests_until > now

    def note(self, answers: Iterable[tuple[MeterSetting, MeterSetting]], now: float) -> int:
        """Take what was wanted and what was read back, the same pair once; how many were new to be rounded."""
        rounded = 0
        for wanted, found in set(answers):
            if wanted == found:
                self._seen.pop(wanted, None)
                continue
            seen = self._seen.get(wanted)
            if seen is None or seen.found != found:
                if len(self._seen) >= _REMEMBERED:
                    self._seen.clear()
                asked, searches = (seen.asked, seen.searches) if seen else (wanted, 0)
                self._seen[wanted] = _Seen(asked, found, 1, searches)
                continue
            self._seen[wanted] = self._again(wanted, seen, now)
            rounded += seen.times == 1
        return rounded

    def _again(self, wanted: MeterSetting, seen: _Seen, now: float) -> _Seen:
        too_much = seen.found.limit_kbps - wanted.limit_kbps
        hopeful = seen.searches < _SEARCHES and not wanted.precedence and seen.found is not FOREIGN
        if hopeful and too_much > 0 and not self._near(wanted, seen.found):
            less = int(too_much) * 2**seen.searches
            rate = max(wanted.rate_kbps - less, wanted.rate_kbps >> seen.searches + 1, 1)
            return _Seen(wanted._replace(rate_kbps=rate), seen.found, 1, seen.searches + 1)
        return replace(seen, times=seen.times + 1, rests_until=now + self.rest_s)

    def _near(self, wanted: MeterSetting, found: MeterSetting) -> bool:
        """Whether the rates are within the tolerance; a burst is the switch's own affair."""
        if found is FOREIGN or wanted.precedence != found.precedence:
            return False
        rates = ((wanted.rate_kbps, found.rate_kbps), (wanted.drop_kbps, found.drop_kbps))
        return all(abs(got - want) <= self.tolerance * want for want, got in rates)
