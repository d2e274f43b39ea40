"""The archetypes that a population of series falls into, and who belongs to which.

Found by a Gaussian mixture over behaviour, level by level. Ids outlive
re-learning, names follow a rule until the operator gives one, and a series
moves only when another archetype is clearly likelier.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from forecasting.archetype_names import names as rule_names
from forecasting.archetypes import (
    DRAWS,
    EARLY,
    MIN_PEERS,
    RATES,
    SAMPLES,
    TEMPER,
    Archetypes,
    learn_archetypes,
    posterior,
)
from forecasting.behaviour import BEHAVIOUR, behaviour
from forecasting.censoring import unconstrained
from forecasting.history import Floats, History, Ints, clean
from forecasting.models import ModelFailed
from forecasting.settings import ForecastSettings

Doubles = npt.NDArray[np.float64]

#: A level with fewer peers is one archetype.
MIN_CLUSTERED: Final = 60
MAX_ARCHETYPES: Final = 6
#: The smallest share of its level that makes an archetype.
LEAST_SHARE: Final = 0.05
#: Agreement (adjusted Rand index) of the clusterings of two halves from which a number of archetypes is stable.
STABLE_AT: Final = 0.6
#: What one more archetype must gain in Bayes' information criterion, for each series; and what the
#: number there was is given in advance.
WORTH: Final = 1.0
#: By how much another archetype's probability must exceed the present one's for a series to move.
MOVE_MARGIN: Final = 0.25
#: Two centres further apart, root mean square of standardised figures, are not the same archetype.
SAME_WITHIN: Final = 1.0
MAX_NAME: Final = 63
#: Standardised figures are cut here: a mixture of normals cannot use how far an outlier is.
_OUTERMOST: Final = 4.0
#: Least variance of a component, in standardised figures: many figures are exactly 0 for some.
_LEAST_VARIANCE: Final = 0.05


class UnknownArchetype(KeyError):
    """No archetype has this id."""


@dataclass(frozen=True)
class ArchetypeView:
    """One archetype as operators see it."""

    id: int
    level: int
    name: str
    #: What the rule calls it.
    rule_name: str
    #: Share of the level's series, and how many of those looked at.
    share: float
    members: int
    #: Its middle member: ``relative_rate`` (times the level's median) and the figures of ``BEHAVIOUR``.
    centre: Mapping[str, float]


@dataclass(frozen=True)
class Population:
    """A archetypes in L levels, F figures of behaviour, and M members."""

    archetypes: Archetypes
    #: shape (A,), each given once and never again.
    id: Ints
    next_id: int
    #: shape (A, F): median of the members' figures; NaN where not known.
    centre: Doubles
    #: shape (L, F): what figures are standardised by.
    middle: Doubles
    unit: Doubles
    #: shape (A, F): mean and deviation of the standardised figures.
    mean: Doubles
    deviation: Doubles
    #: shape (M,): the series looked at, rising, and the id of each one's archetype.
    series_id: Ints
    member_of: Ints
    #: shape (M, A)
    probability: Floats
    #: Given by the operator, by id.
    names: Mapping[int, str] = field(default_factory=dict)

    def named(self, archetype_id: int, name: str | None) -> Population:
        """The same with one archetype called so; None or nothing: as the rule says.

        Raises
        ------
        UnknownArchetype, ValueError : when the name is too long or cannot be printed.
        """
        if archetype_id not in self.id:
            raise UnknownArchetype(archetype_id)
        given = {one: own for one, own in self.names.items() if one != archetype_id}
        name = (name or "").strip()
        if len(name) > MAX_NAME or not name.isprintable():
            raise ValueError(f"name must have at most {MAX_NAME} printable characters, got {name[:80]!r}")
        return replace(self, names={**given, archetype_id: name} if name else given)

    def with_names_of(self, other: Population) -> Population:
        """The same with the names that the operator gave in another, of archetypes that are in both."""
        return replace(self, names={one: name for one, name in other.names.items() if one in self.id})

    def without_members(self) -> Population:
        """The same archetypes, of which nobody is known to be a member."""
        return replace(
            self,
            series_id=self.series_id[:0],
            member_of=self.member_of[:0],
            probability=self.probability[:0],
        )

    def views(self) -> tuple[ArchetypeView, ...]:
        """All archetypes, those of a level together."""
        level = self.archetypes.level
        centres = [self._centre(row) for row in range(len(self.id))]
        by_rule = rule_names(centres, level.tolist())
        return tuple(
            ArchetypeView(
                id=int(one),
                level=int(level[row]),
                name=self.names.get(int(one), by_rule[row]),
                rule_name=by_rule[row],
                share=float(self.archetypes.prior[row]),
                members=int(np.count_nonzero(self.member_of == one)),
                centre=centres[row],
            )
            for row, one in enumerate(self.id.tolist())
        )

    def members(self, archetype_id: int) -> tuple[Ints, Floats]:
        """The series of one archetype and the probability of each.

        Raises
        ------
        UnknownArchetype
        """
        if archetype_id not in self.id:
            raise UnknownArchetype(archetype_id)
        at = np.flatnonzero(self.member_of == archetype_id)
        return self.series_id[at], self.probability[at, int(np.flatnonzero(self.id == archetype_id)[0])]

    def fits(self, settings: ForecastSettings) -> bool:
        """Whether its archetypes forecast what these settings want."""
        same = np.array_equal(self.archetypes.quantile, settings.quantiles)
        return same and self.archetypes.outcome.shape[3] == len(settings.horizons_s)

    def to_bytes(self) -> bytes:
        """For ``from_bytes`` after a restart."""
        parts = {name: getattr(self, name) for name in _ARRAYS}
        parts |= {f"archetypes.{name}": getattr(self.archetypes, name) for name in _ARCHETYPE_ARRAYS}
        meta = {"next_id": self.next_id, "names": {str(one): name for one, name in self.names.items()}}
        stored = io.BytesIO()
        np.savez_compressed(stored, meta=np.frombuffer(json.dumps(meta).encode(), np.uint8), **parts)
        return stored.getvalue()

    @classmethod
    def from_bytes(cls, body: bytes, settings: ForecastSettings) -> Population:
        """What ``to_bytes`` described.

        Raises
        ------
        ModelFailed : when the bytes are damaged or were made under other settings.
        """
        try:
            with np.load(io.BytesIO(body), allow_pickle=False) as stored:
                parts: dict[str, Any] = {name: stored[name] for name in stored.files}
            meta = json.loads(parts["meta"].tobytes())
            archetypes = Archetypes(**{name: parts[f"archetypes.{name}"] for name in _ARCHETYPE_ARRAYS})
            given = {int(one): str(name) for one, name in meta["names"].items()}
            made = cls(
                archetypes=archetypes,
                next_id=int(meta["next_id"]),
                names=given,
                **{name: parts[name] for name in _ARRAYS},
            )
            fault = _fault(made, settings)
        except (
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            IndexError,
            OSError,
            EOFError,
            BadZipFile,
        ) as error:
            raise ModelFailed(f"bytes are not a population: {error!r}") from None
        if fault:
            raise ModelFailed(f"population is unusable: {fault}")
        return made

    def _centre(self, row: int) -> dict[str, float]:
        figures = dict(zip(BEHAVIOUR, self.centre[row].tolist(), strict=True))
        median = self.middle[self.archetypes.level[row], 0]
        return {"relative_rate": float(10 ** (figures.pop("log_mean") - median)), **figures}


_ARRAYS: Final = (
    "id",
    "centre",
    "middle",
    "unit",
    "mean",
    "deviation",
    "series_id",
    "member_of",
    "probability",
)
_ARCHETYPE_ARRAYS: Final = tuple(one.name for one in fields(Archetypes))


def learn_population(
    history: History, settings: ForecastSettings, before: Population | None = None, utc_offset_s: float = 0.0
) -> Population:
    """The archetypes of a history's series: the task for a worker process; seconds to a minute.

    With ``before``, archetypes that are still the same keep their ids and names, and a series
    moves only by ``MOVE_MARGIN``. Levels with few peers are one archetype each.
    """
    history = history.tail(settings.train_steps)
    demand = unconstrained(clean(history.demand_bps, settings.max_rate_bps), history.censored)
    vector = behaviour(demand, history.step_s, history.end_time, utc_offset_s)
    n_present = np.count_nonzero(~np.isnan(demand), axis=0)
    is_peer = (n_present >= settings.min_history_steps) & ~np.isnan(vector[:, 0])
    rng = np.random.default_rng(settings.seed)
    draft = _Draft.empty(int(history.level.max(initial=-1)) + 1, 0 if before is None else before.next_id)
    group = np.zeros(history.n_series, np.int64)
    for one in range(len(draft.middle)):
        peers = np.flatnonzero(is_peer & (history.level == one))
        if len(peers) >= MIN_PEERS:
            group[peers] = draft.add_level(
                one, vector[peers], history.series_id[peers], before, settings.seed
            )
    archetypes = learn_archetypes(
        demand,
        history.level,
        is_peer,
        settings.horizon_steps,
        np.asarray(settings.quantiles),
        rng,
        group=group,
    )
    return draft.finish(archetypes, {} if before is None else before.names)


@dataclass
class _Draft:
    """A population in the making, level after level."""

    middle: Doubles
    unit: Doubles
    next_id: int
    id: list[int] = field(default_factory=list)
    centre: list[Doubles] = field(default_factory=list)
    mean: list[Doubles] = field(default_factory=list)
    deviation: list[Doubles] = field(default_factory=list)
    #: For each level with archetypes: ids of its series, index and probability of each one's archetype.
    series: list[Ints] = field(default_factory=list)
    member: list[Ints] = field(default_factory=list)
    probability: list[Doubles] = field(default_factory=list)

    @classmethod
    def empty(cls, n_levels: int, next_id: int) -> _Draft:
        shape = (n_levels, len(BEHAVIOUR))
        return cls(np.zeros(shape), np.ones(shape), next_id)

    def add_level(
        self, level: int, vector: Doubles, series_id: Ints, before: Population | None, seed: int
    ) -> Ints:
        """Cluster one level; gives the index of each series' archetype in the level."""
        self.middle[level], self.unit[level] = _standard(vector)
        z = _standardised(vector, self.middle[level], self.unit[level])
        old = np.empty(0, np.int64) if before is None else np.flatnonzero(before.archetypes.level == level)
        then = _then(before, old, self.middle[level], self.unit[level])
        label = _clusters(z, seed, then)
        mean, deviation = _normals(z, label)
        old_ids = old if before is None else before.id[old]
        ids, self.next_id = _matched(mean, then, old_ids, self.next_id)
        prior = np.bincount(label) / len(label)
        probability = posterior(prior, z, mean, deviation, TEMPER)
        label = _held(probability, series_id, ids, before)
        kept = np.unique(label)
        # In the order of their ids, so that equal names keep their numbers.
        kept = kept[np.argsort(ids[kept])]
        place = np.zeros(len(ids), np.int64)
        place[kept] = np.arange(len(kept))
        label = place[label]
        self.id += ids[kept].tolist()
        self.centre += [_middle_member(vector[label == one]) for one in range(len(kept))]
        self.mean += list(mean[kept])
        self.deviation += list(deviation[kept])
        self.series.append(series_id)
        self.member.append(ids[kept][label])
        self.probability.append(probability[:, kept] / probability[:, kept].sum(axis=1, keepdims=True))
        return label

    def finish(self, archetypes: Archetypes, named: Mapping[int, str]) -> Population:
        """The population, its members in the order of their ids."""
        n, shape = len(self.id), (len(self.id), len(BEHAVIOUR))
        series = np.concatenate([np.empty(0, np.int64), *self.series])
        member = np.concatenate([np.empty(0, np.int64), *self.member])
        probability = np.zeros((len(series), n), np.float32)
        row = column = 0
        for part in self.probability:
            probability[row : row + part.shape[0], column : column + part.shape[1]] = part
            row, column = row + part.shape[0], column + part.shape[1]
        order = np.argsort(series, kind="stable")
        return Population(
            archetypes=archetypes,
            id=np.array(self.id, np.int64),
            next_id=self.next_id,
            centre=np.array(self.centre).reshape(shape),
            middle=self.middle,
            unit=self.unit,
            mean=np.array(self.mean).reshape(shape),
            deviation=np.array(self.deviation).reshape(shape),
            series_id=series[order],
            member_of=member[order],
            probability=probability[order],
            names={one: name for one, name in named.items() if one in self.id},
        )


def _standard(vector: Doubles) -> tuple[Doubles, Doubles]:
    """Median and robust deviation of each figure; 0 and 1 for those that are not known."""
    known = ~np.isnan(vector).all(axis=0)
    middle, unit = np.zeros(vector.shape[1]), np.ones(vector.shape[1])
    low, half, high = np.nanquantile(vector[:, known], [0.1, 0.5, 0.9], axis=0)
    middle[known] = half
    # A figure that most series share still tells the others apart, but by no more than it is worth.
    unit[known] = np.maximum((high - low) / 2.56, 0.05)
    return middle, unit


def _standardised(vector: Doubles, middle: Doubles, unit: Doubles) -> Doubles:
    return np.clip(np.nan_to_num((vector - middle) / unit, nan=0.0), -_OUTERMOST, _OUTERMOST)


def _then(before: Population | None, old: Ints, middle: Doubles, unit: Doubles) -> Doubles:
    """Means of earlier archetypes as they are standardised now, shape (k, F)."""
    if before is None or len(old) == 0:
        return np.empty((0, len(BEHAVIOUR)))
    level = before.archetypes.level[old]
    return (before.mean[old] * before.unit[level] + before.middle[level] - middle) / unit


def _clusters(z: Doubles, seed: int, then: Doubles) -> Ints:
    """Index of each row's cluster, 0 .. k-1, none much smaller than ``LEAST_SHARE``.

    Starts from the clusters there were, means ``then``. Bayes' information criterion chooses another
    number only when it is stable and leads clearly: a near tie shall not split and join archetypes
    at every learning.
    """
    alone = np.zeros(len(z), np.int64)
    used = z.std(axis=0) > 0
    figures = z[:, used]
    if len(z) < MIN_CLUSTERED or not used.any():
        return alone
    # scikit-learn takes a second to load, which the loop's process need not spend.
    from sklearn.metrics import adjusted_rand_score
    from sklearn.mixture import GaussianMixture

    def fit(rows: Doubles, k: int, means: Doubles | None = None) -> GaussianMixture:
        mixture = GaussianMixture(
            k,
            covariance_type="diag",
            reg_covar=_LEAST_VARIANCE,
            n_init=1 if means is not None else 2,
            means_init=means,
            random_state=seed,
        )
        return mixture.fit(rows)

    def labelled(mixture: GaussianMixture, k: int, least: float) -> Ints | None:
        label: Ints = mixture.predict(figures).astype(np.int64)
        return label if np.bincount(label, minlength=k).min() >= least * len(z) else None

    lead = WORTH * len(z)
    best, best_bic = alone, fit(figures, 1).bic(figures)
    if len(then) > 1:
        mixture = fit(figures, len(then), then[:, used])
        label = labelled(mixture, len(then), LEAST_SHARE / 2)
        if label is not None and mixture.bic(figures) < best_bic:
            best, best_bic = label, mixture.bic(figures) - lead
    half = np.random.default_rng(seed).permutation(len(z)) < len(z) // 2
    for k in range(2, MAX_ARCHETYPES + 1):
        mixture = fit(figures, k)
        label = labelled(mixture, k, LEAST_SHARE)
        if label is None or mixture.bic(figures) >= best_bic - lead:
            continue
        parts = (fit(figures[half], k).predict(figures), fit(figures[~half], k).predict(figures))
        if adjusted_rand_score(*parts) >= STABLE_AT:
            best, best_bic = label, mixture.bic(figures)
    return best


def _normals(z: Doubles, label: Ints) -> tuple[Doubles, Doubles]:
    parts = [z[label == one] for one in range(int(label.max()) + 1)]
    mean = np.array([part.mean(axis=0) for part in parts])
    variance = np.array([part.var(axis=0) for part in parts])
    return mean, np.sqrt(variance + _LEAST_VARIANCE)


def _matched(mean: Doubles, then: Doubles, old_ids: Ints, next_id: int) -> tuple[Ints, int]:
    """Ids of new clusters: the nearest old one's, each used once; new ones where none is near."""
    from scipy.optimize import linear_sum_assignment

    ids = np.full(len(mean), -1, np.int64)
    away = np.clip(mean[:, None] - then, -_OUTERMOST, _OUTERMOST)
    distance = np.sqrt((away**2).mean(axis=2))
    for row, column in zip(*linear_sum_assignment(distance), strict=True):
        if distance[row, column] <= SAME_WITHIN:
            ids[row] = old_ids[column]
    fresh = ids < 0
    ids[fresh] = next_id + np.arange(np.count_nonzero(fresh))
    return ids, next_id + int(np.count_nonzero(fresh))


def _held(probability: Doubles, series_id: Ints, ids: Ints, before: Population | None) -> Ints:
    """Index of each series' archetype: the likeliest, unless the one it had is nearly as likely."""
    likeliest: Ints = probability.argmax(axis=1)
    if before is None or len(before.series_id) == 0:
        return likeliest
    place = np.minimum(np.searchsorted(before.series_id, series_id), len(before.series_id) - 1)
    had = np.where(before.series_id[place] == series_id, before.member_of[place], -1)
    is_own = had[:, None] == ids
    own = is_own.argmax(axis=1)
    rows = np.arange(len(series_id))
    stays = is_own.any(axis=1) & (probability[rows, likeliest] - probability[rows, own] <= MOVE_MARGIN)
    return np.where(stays, own, likeliest)


def _middle_member(vector: Doubles) -> Doubles:
    known = ~np.isnan(vector).all(axis=0)
    result = np.full(vector.shape[1], np.nan)
    result[known] = np.nanmedian(vector[:, known], axis=0)
    return result


def _fault(made: Population, settings: ForecastSettings) -> str | None:
    """What is wrong with a population that was read; None if nothing is."""
    a, n_levels, n_figures = made.archetypes, len(made.middle), len(BEHAVIOUR)
    n, n_members, n_horizons = len(made.id), len(made.series_id), len(settings.horizons_s)
    shapes = {
        "id": (n,),
        "centre": (n, n_figures),
        "mean": (n, n_figures),
        "deviation": (n, n_figures),
        "middle": (n_levels, n_figures),
        "unit": (n_levels, n_figures),
        "series_id": (n_members,),
        "member_of": (n_members,),
        "probability": (n_members, n),
    }
    archetype_shapes = {
        "quantile": (len(settings.quantiles),),
        "level": (n,),
        "prior": (n,),
        "outcome": (n, len(SAMPLES), RATES, n_horizons, DRAWS),
        "pull": (n_levels, len(SAMPLES), RATES, n_horizons),
        "ease_bps": (n_levels,),
        "rate_bps": (n_levels, RATES),
        "early_mean": (n, len(SAMPLES), len(EARLY)),
        "early_deviation": (n, len(SAMPLES), len(EARLY)),
    }
    for holder, wanted in ((made, shapes), (a, archetype_shapes)):
        for name, shape in wanted.items():
            if np.shape(getattr(holder, name)) != shape:
                return f"{name} must have shape {shape}, got {np.shape(getattr(holder, name))}"
            if name != "centre" and not _is_finite(getattr(holder, name)):
                return f"{name} must be finite"
    if not made.fits(settings):
        return "it was made for other quantiles or horizons"
    if n and not (a.level.min() >= 0 and a.level.max() < n_levels and (np.diff(a.level) >= 0).all()):
        return "levels must rise from 0"
    if len(np.unique(made.id)) < n or (n and made.id.max() >= made.next_id):
        return "ids must differ and lie below next_id"
    if not ((a.early_deviation > 0).all() and (made.deviation > 0).all() and (made.unit > 0).all()):
        return "deviations must be > 0"
    return None


def _is_finite(value: npt.NDArray[np.generic]) -> bool:
    return bool(np.isfinite(np.asarray(value, np.float64)).all())
