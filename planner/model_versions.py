"""The models that were trained: which one is in use, which can be gone back to, and what happened to each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

import msgpack

from forecasting.training import TrainedModel, Verdict

#: Models that lost their contest and are kept to be looked at, and installed by command.
_REJECTED_KEPT: Final = 2
#: Rows of the record; those whose model is kept stay in any case.
_VERSIONS_LISTED: Final = 100
_CHANGES_LISTED: Final = 200


class Outcome(StrEnum):
    """What became of a trained model."""

    #: It won its contest and was put to use.
    PROMOTED = "promoted"
    #: It lost, or an operator held another.
    REJECTED = "rejected"
    #: It was put to use and taken back, since it did worse than persistence or broke.
    REVERTED = "reverted"


class What(StrEnum):
    """What changed which model is in use, or could have."""

    PROMOTED = "promoted"
    REJECTED = "rejected"
    REVERTED = "reverted"
    ROLLED_BACK = "rolled back"
    RELEASED = "released"
    #: It no longer fits the configuration, so there is no model until the next training.
    UNUSABLE = "unusable"


@dataclass(frozen=True)
class ModelVersion:
    """One trained model. Scores are mean pinball loss in units of each series' level; NaN: there was none."""

    version: int
    kind: str
    outcome: Outcome
    #: Why it was promoted, rejected or reverted.
    reason: str
    #: Epoch seconds: when its training was done, and the last sample that it saw.
    trained_at: float
    trained_until: float
    n_rows: int
    challenger_score: float
    champion_score: float
    persistence_score: float
    contest_rows: int
    #: What ``Forecaster.restore`` reads; empty once the model was dropped.
    body: bytes = field(default=b"", repr=False)

    @property
    def kept(self) -> bool:
        """Whether it can still be installed."""
        return bool(self.body)


@dataclass(frozen=True)
class Change:
    """One line of the record."""

    time: float
    what: What
    #: The version it is about; None for a release.
    version: int | None
    #: What was in use before; None: no model.
    before: int | None
    reason: str


class ModelVersions:
    """The kept models and the record of changes. Holds state, installs nothing.

    ``kept`` bounds the models that once were in use; the one in use is always kept.
    """

    def __init__(self, kept: int) -> None:
        self.kept = kept
        #: The version in use; None: no model.
        self.champion: int | None = None
        #: Epoch seconds until which no challenger is promoted: infinity after a rollback without
        #: an end, minus infinity when nothing is held.
        self.held_until = float("-inf")
        #: When the champion was promoted, while it still has to prove itself; NaN afterwards.
        self.promoted_at = float("nan")
        self.changes: tuple[Change, ...] = ()
        self._versions: dict[int, ModelVersion] = {}
        self._next = 1
        #: Counts changes of anything here, so that it is stored when there is something new.
        self.revision = 0

    def __iter__(self) -> Iterator[ModelVersion]:
        """All versions on record, newest first."""
        return iter(sorted(self._versions.values(), key=lambda one: -one.version))

    def __getitem__(self, version: int) -> ModelVersion:
        """Raises KeyError."""
        return self._versions[version]

    def held(self, now: float) -> bool:
        """Whether an operator holds the champion, so that no challenger is promoted."""
        return now < self.held_until

    def add(
        self, now: float, trained: TrainedModel, verdict: Verdict, outcome: Outcome, reason: str, body: bytes
    ) -> ModelVersion:
        """Put a newly trained model on record. If it was promoted it is the champion from now on."""
        made = ModelVersion(
            version=self._next,
            kind=trained.kind,
            outcome=outcome,
            reason=reason,
            trained_at=now,
            trained_until=trained.trained_until,
            n_rows=trained.n_rows,
            challenger_score=verdict.challenger_score,
            champion_score=verdict.champion_score,
            persistence_score=verdict.persistence_score,
            contest_rows=verdict.n_rows,
            body=body,
        )
        self._next += 1
        self._versions[made.version] = made
        before = self.champion
        if outcome is Outcome.PROMOTED:
            self.champion, self.promoted_at = made.version, now
        self._note(now, What(outcome.value), made.version, before, reason)
        return made

    def revert(self, now: float, to: int, reason: str) -> None:
        """The champion was taken back, and an earlier version is in use again."""
        before = self.champion
        assert before is not None
        self._versions[before] = replace(self._versions[before], outcome=Outcome.REVERTED, reason=reason)
        self.champion, self.promoted_at = to, float("nan")
        self._note(now, What.REVERTED, before, before, f"{reason}; version {to} is in use again")

    def roll_back(self, now: float, to: int, held_until: float, reason: str) -> None:
        """An operator chose a version. It is held until then."""
        before = self.champion
        self.champion, self.held_until, self.promoted_at = to, held_until, float("nan")
        self._note(now, What.ROLLED_BACK, to, before, reason)

    def release(self, now: float, reason: str) -> None:
        """Challengers may be promoted again."""
        self.held_until = float("-inf")
        self._note(now, What.RELEASED, None, self.champion, reason)

    def lose(self, now: float, reason: str) -> None:
        """The champion cannot be used any more, and nothing takes its place."""
        before, self.champion = self.champion, None
        self.held_until, self.promoted_at = float("-inf"), float("nan")
        self._note(now, What.UNUSABLE, before, before, reason)

    def proven(self) -> None:
        """The champion did well enough for long enough."""
        self.promoted_at = float("nan")
        self.revision += 1

    def keep_body(self, version: int, body: bytes) -> None:
        """What a version's calibration has learnt since, for those who go back to it."""
        self._versions[version] = replace(self._versions[version], body=body)
        self.revision += 1

    @property
    def fallback(self) -> ModelVersion | None:
        """What a broken champion gives way to: the newest other one that did well enough to stay in use."""
        usable = (
            one
            for one in self
            if one.kept and one.outcome is Outcome.PROMOTED and one.version != self.champion
        )
        return next(usable, None)

    def report(self, now: float) -> dict[str, Any]:
        """Everything on record, as operators see it; without the models themselves."""
        held = self.held(now)
        return {
            "champion": self.champion,
            "held": held,
            "held_until": self.held_until if held else None,
            "on_trial_since": self.promoted_at,
            "versions": [self._row(one) for one in self],
            "changes": [asdict(change) for change in reversed(self.changes)],
        }

    def _row(self, one: ModelVersion) -> dict[str, Any]:
        row = {name: value for name, value in vars(one).items() if name != "body"}
        return {**row, "kept": one.kept, "body_bytes": len(one.body), "in_use": one.version == self.champion}

    def to_bytes(self) -> bytes:
        """The bytes that ``restored`` reads."""
        packed: bytes = msgpack.packb(
            {
                "champion": self.champion,
                "held_until": self.held_until,
                "promoted_at": self.promoted_at,
                "next": self._next,
                "changes": [asdict(change) for change in self.changes],
                "versions": [asdict(one) for one in self._versions.values()],
            }
        )
        return packed

    @classmethod
    def restored(cls, body: bytes, kept: int) -> ModelVersions:
        """What ``to_bytes`` wrote. Raises ValueError."""
        try:
            raw: dict[str, Any] = msgpack.unpackb(body)
            made = cls(kept)
            made.champion = raw["champion"]
            made.held_until, made.promoted_at = float(raw["held_until"]), float(raw["promoted_at"])
            versions = [
                ModelVersion(**{**one, "outcome": Outcome(one["outcome"])}) for one in raw["versions"]
            ]
            made._versions = {one.version: one for one in versions}
            made.changes = tuple(Change(**{**one, "what": What(one["what"])}) for one in raw["changes"])
            made._next = max([int(raw["next"]), *(number + 1 for number in made._versions)])
        # Msgpack has errors of its own for half a message; all are some kind of these.
        except (KeyError, TypeError, AttributeError, ValueError, msgpack.UnpackException) as error:
            raise ValueError(f"record of models is malformed: {error!r}") from None
        if made.champion is not None and made.champion not in made._versions:
            raise ValueError(f"record of models has no version {made.champion}, which is in use")
        return made

    def _note(self, now: float, what: What, version: int | None, before: int | None, reason: str) -> None:
        change = Change(now, what, version, before, reason)
        self.changes = (*self.changes, change)[-_CHANGES_LISTED:]
        self._drop()
        self.revision += 1

    def _drop(self) -> None:
        """Forget the models beyond what is kept, and the oldest rows of the record."""
        used = [one for one in self if one.kept and one.outcome is not Outcome.REJECTED]
        # The champion first: it is never dropped, however old it is.
        used.sort(key=lambda one: one.version != self.champion)
        lost = [
            one
            for one in self
            if one.kept and one.outcome is Outcome.REJECTED and one.version != self.champion
        ]
        for one in (*used[self.kept :], *lost[_REJECTED_KEPT:]):
            self._versions[one.version] = replace(one, body=b"")
        bare = [one.version for one in self if not one.kept and one.version != self.champion]
        for version in bare[max(0, _VERSIONS_LISTED - (len(self._versions) - len(bare))) :]:
            del self._versions[version]
