"""Archetypes in the loop: learnt beside the model, named by operators, kept over a restart."""

from __future__ import annotations

import pytest

from forecasting.models import ModelFailed
from planner.archetypes import ArchetypeKeeper
from planner.snapshot import NotThere, Refused
from tests.planner.networks import PLACES, AtOnce, Broken, Running, small


class Kept:
    """A keeper in a running planner, and how often it asked to be written down."""

    def __init__(self, count: int, executor: AtOnce | Broken | None = None) -> None:
        self.written = 0
        self.running = Running(small())
        self.running.offered = dict.fromkeys(PLACES, 2e6)
        self.keeper = ArchetypeKeeper(
            self.running.planner.prediction, executor or AtOnce(), 100.0, self._keep
        )
        self.keeper.join()
        self.running.connect()
        self.running.tick(count=count)

    def _keep(self) -> None:
        self.written += 1


@pytest.fixture(scope="module")
def kept() -> Kept:
    """Long enough for a first learning; five users and few groups."""
    return Kept(count=110)


def test_archetypes_are_learnt_and_shown(kept: Kept):
    """Each level with three pools or more has an archetype, and its members are pools of the tree."""
    views = kept.keeper.views()
    assert views
    users = [view for view in views if view.level // 2 == 3]
    assert {view.level % 2 for view in users} == {0, 1}
    members = kept.keeper.members(users[0].id)
    structure = kept.running.planner.structure
    assert structure is not None
    assert {one.pool for one in members} <= set(structure.path)
    assert {one.direction for one in members} == {users[0].level % 2}
    assert len(members) == users[0].members == len(PLACES)


def test_a_name_is_kept_and_written_down(kept: Kept):
    """It is on disk when the call returns, and a later planner knows it."""
    one = kept.keeper.views()[0].id
    before, revision = kept.written, kept.keeper.revision
    assert kept.keeper.rename(one, "studio").name == "studio"
    assert kept.written == before + 1
    assert kept.keeper.revision == revision + 1
    later = Running(small()).planner.prediction
    keeper = ArchetypeKeeper(later, AtOnce(), 100.0)
    body = kept.keeper.state()
    assert body is not None
    keeper.restore(body)
    assert {view.id: view.name for view in keeper.views()}[one] == "studio"
    assert keeper.members(one) == ()


def test_what_cannot_be_is_refused(kept: Kept):
    """An unknown id and a name that cannot be printed are told apart."""
    with pytest.raises(NotThere, match="archetypeID must be the id of an archetype, got 999"):
        kept.keeper.rename(999, "x")
    with pytest.raises(NotThere):
        kept.keeper.members(999)
    with pytest.raises(Refused, match="printable"):
        kept.keeper.rename(kept.keeper.views()[0].id, "a\nb")
    with pytest.raises(ModelFailed):
        kept.keeper.restore(b"nonsense")


def test_nothing_is_shown_before_there_is_something():
    """Ten steps tell nobody apart, and lost workers cost archetypes only."""
    for kept in (Kept(count=10), Kept(count=80, executor=Broken())):
        assert kept.keeper.views() == ()
        assert kept.keeper.state() is None
        with pytest.raises(NotThere):
            kept.keeper.members(0)
        assert kept.running.planner.prediction.standing is not None
