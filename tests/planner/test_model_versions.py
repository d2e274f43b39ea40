"""The record of models: which is in use, which are kept, and that it survives as bytes."""

from __future__ import annotations

import math

import pytest

from forecasting.features import FeatureSpec
from forecasting.training import TrainedModel, Verdict
from planner.model_versions import ModelVersions, Outcome, What

TRAINED = TrainedModel(
    "catboost", b"trees", FeatureSpec(5.0, 8, (), False, False), (0.1, 0.5, 0.9), 900.0, 123
)
VERDICT = Verdict(True, 0.10, math.nan, 0.12, 77, "no champion")


def add(versions: ModelVersions, outcome: Outcome, now: float = 1000.0, body: bytes = b"state") -> int:
    return versions.add(now, TRAINED, VERDICT, outcome, "because", body).version


def promoted(versions: ModelVersions, count: int) -> None:
    for number in range(count):
        add(versions, Outcome.PROMOTED, 1000.0 + number)


def kept(versions: ModelVersions) -> list[int]:
    return [one.version for one in versions if one.kept]


def test_promoted_is_in_use_and_on_trial():
    """A new version has the next number; who wins is the champion, who loses is only on record."""
    versions = ModelVersions(5)
    assert add(versions, Outcome.PROMOTED) == 1
    assert add(versions, Outcome.REJECTED, 2000.0) == 2
    assert versions.champion == 1
    assert versions.promoted_at == 1000.0
    assert [change.what for change in versions.changes] == [What.PROMOTED, What.REJECTED]
    assert (versions[1].n_rows, versions[1].trained_until, versions[1].persistence_score) == (
        123,
        900.0,
        0.12,
    )


def test_so_many_promoted_models_are_kept():
    """The oldest models go, their rows stay."""
    versions = ModelVersions(3)
    promoted(versions, 6)
    assert kept(versions) == [6, 5, 4]
    assert len(list(versions)) == 6


def test_the_last_two_rejected_models_are_kept():
    """They do not push out those that were in use."""
    versions = ModelVersions(3)
    promoted(versions, 3)
    for _ in range(4):
        add(versions, Outcome.REJECTED)
    assert kept(versions) == [7, 6, 3, 2, 1]


def test_the_model_in_use_is_kept_however_old():
    """An old champion that is held outlives all the newer ones."""
    versions = ModelVersions(2)
    promoted(versions, 2)
    versions.roll_back(3000.0, 1, math.inf, "by command")
    versions.keep_body(2, b"")
    for _ in range(4):
        add(versions, Outcome.REJECTED)
    assert versions.champion == 1
    assert 1 in kept(versions)


def test_revert_goes_to_the_newest_that_did_well():
    """Neither rejected nor reverted versions nor those whose model is gone are gone back to."""
    versions = ModelVersions(5)
    promoted(versions, 3)
    add(versions, Outcome.REJECTED)
    assert versions.fallback is not None
    assert versions.fallback.version == 2
    versions.revert(2000.0, 2, "worse")
    assert versions.champion == 2
    assert versions[3].outcome is Outcome.REVERTED
    assert math.isnan(versions.promoted_at)
    assert versions.fallback is not None
    assert versions.fallback.version == 1
    versions.keep_body(1, b"")
    assert versions.fallback is None


def test_hold_ends_by_time_or_release():
    """A rolled-back version is held until then, or until released."""
    versions = ModelVersions(5)
    promoted(versions, 2)
    versions.roll_back(2000.0, 1, 2600.0, "by command")
    assert [versions.held(now) for now in (2000.0, 2599.0, 2600.0)] == [True, True, False]
    versions.roll_back(3000.0, 1, math.inf, "by command")
    assert versions.held(1e12)
    versions.release(3001.0, "by command")
    assert not versions.held(3002.0)
    assert versions.changes[-1].what is What.RELEASED


def test_the_record_is_bounded():
    """Years of trainings do not fill memory; what is kept or in use stays on record."""
    versions = ModelVersions(2)
    promoted(versions, 1)
    for _ in range(400):
        add(versions, Outcome.REJECTED)
    assert len(list(versions)) <= 103
    assert len(versions.changes) == 200
    assert versions.champion == 1
    assert versions[1].kept


def test_bytes_hold_everything():
    """What a successor reads is what was; its next version has a number of its own."""
    versions = ModelVersions(5)
    promoted(versions, 3)
    versions.revert(2000.0, 2, "worse")
    versions.roll_back(2100.0, 1, math.inf, "by command")
    again = ModelVersions.restored(versions.to_bytes(), 5)
    assert again.report(2200.0)["changes"] == versions.report(2200.0)["changes"]
    assert [one.body for one in again] == [one.body for one in versions]
    assert (again.champion, again.held(2200.0)) == (1, True)
    assert add(again, Outcome.REJECTED) == 4


@pytest.mark.parametrize("body", [b"", b"\x80", b"nonsense", b"\x81\xa1a", b"\xc1"])
def test_damaged_bytes_are_a_value_error(body: bytes):
    """A record that cannot be read is refused, whatever is in it."""
    with pytest.raises(ValueError, match="record of models"):
        ModelVersions.restored(body, 5)


def test_every_change_is_told_by_the_revision():
    """Who stores the record sees that there is something new."""
    versions = ModelVersions(5)
    seen = {versions.revision}
    promoted(versions, 2)
    for change in (
        versions.proven,
        lambda: versions.keep_body(1, b"x"),
        lambda: versions.revert(1.0, 1, ""),
        lambda: versions.roll_back(1.0, 1, 2.0, ""),
        lambda: versions.release(1.0, ""),
        lambda: versions.lose(1.0, ""),
    ):
        change()
        assert versions.revision not in seen
        seen.add(versions.revision)


def test_report_has_no_models_in_it():
    """Operators see sizes, not bytes."""
    versions = ModelVersions(5)
    promoted(versions, 1)
    (row,) = versions.report(1000.0)["versions"]
    assert (row["version"], row["in_use"], row["kept"], row["body_bytes"]) == (1, True, True, 5)
    assert "body" not in row
