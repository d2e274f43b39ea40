"""Remediation, isolations and webhooks over REST and on the command line, over a real planner."""

from __future__ import annotations

import pytest

from northbound import cli_remediation
from northbound.cli_shared import console
from northbound.remediation_api import (
    DeadLetters,
    Isolation,
    Isolations,
    Remediation,
    StepAnswer,
    WebhooksAnswer,
)
from tests.northbound.conftest import Ask
from tests.northbound.doubles import TOKEN, FakeOperations


def remediation(ask: Ask, query: str = "") -> Remediation:
    return Remediation.model_validate(ask("GET", f"/remediation{query}", TOKEN).json())


def test_the_record_says_what_was_done_why_and_whether_it_helped(ask: Ask):
    """By its schema: the ladder at the lab, and Emma's isolation, with figures."""
    answer = remediation(ask)
    assert (answer.congestion_mode, answer.isolation_mode, answer.acting) == ("act", "act", True)
    by_rung = {step.rung: step for step in answer.steps if step.direction == "up"}
    assert by_rung["reallocate"].lifted == ["group:lab"]
    assert by_rung["reallocate"].helped is True
    assert by_rung["reallocate"].before == pytest.approx(0.5, abs=0.02)
    assert by_rung["reallocate"].after == pytest.approx(0.375, abs=0.02)
    assert by_rung["scale"].standing == "raised"
    assert by_rung["scale"].helped is None
    limits = by_rung["isolate"].limits["emma"]
    assert (limits.up, limits.down) == (64_000, 64_000)
    assert "emma talks to 400 peers" in by_rung["isolate"].why
    assert answer.in_force == sum(step.standing in ("tried", "helped") for step in answer.steps)
    assert {(one.place, one.direction) for one in answer.troubles} == {
        ("global/west/lab", "up"), ("global/west/lab", "down"),
    }  # fmt: skip


def test_the_newest_steps_are_shown(ask: Ask):
    """As many as asked for, oldest first."""
    every = [step.id for step in remediation(ask).steps]
    assert [step.id for step in remediation(ask, "?limit=2").steps] == every[-2:]


def test_undoing_a_step_takes_it_back_once(ask: Ask, operations: FakeOperations):
    """It is stored, in force no more, and refused a second time."""
    step = next(step for step in remediation(ask).steps if step.rung == "reallocate")
    path = f"/remediation/{step.id}/undo"
    assert ask("POST", path, None).status_code == 401
    undone = StepAnswer.model_validate(ask("POST", path, TOKEN).json())
    assert (undone.standing, undone.reason) == ("undone", "by an operator")
    assert operations.told == [f"remediation {step.id} undone: {step.text}"]
    again = ask("POST", path, TOKEN)
    assert again.status_code == 409
    assert again.json()["title"] == (
        f"stepID must be the id of a step that is in force, got {step.id}, undone"
    )


def test_isolations_are_listed_shown_and_lifted(ask: Ask, operations: FakeOperations):
    """Lifted is gone, and that is stored."""
    (one,) = Isolations.model_validate(ask("GET", "/isolations", TOKEN).json()).isolations
    assert (one.user, one.step.standing) == ("emma", "tried")
    assert 800 < one.remaining_s <= 900
    shown = Isolation.model_validate(ask("GET", "/isolations/emma", TOKEN).json())
    assert shown.step.id == one.step.id
    assert ask("DELETE", "/isolations/emma", None).status_code == 401
    assert ask("DELETE", "/isolations/emma", TOKEN).status_code == 204
    assert operations.told == ["isolation of emma lifted"]
    assert ask("GET", "/isolations", TOKEN).json() == {"isolations": []}


def test_webhooks_and_what_they_did_not_take(ask: Ask):
    """A dead letter is tried again by order, once."""
    (hook,) = WebhooksAnswer.model_validate(ask("GET", "/webhooks", TOKEN).json()).webhooks
    assert (hook.address, hook.dead, hook.events) == ("https://a.example/...", 1, ["alarm"])
    (letter,) = DeadLetters.model_validate(ask("GET", "/webhooks/dead-letters", TOKEN).json()).dead_letters
    path = f"/webhooks/dead-letters/{letter.id}/retry"
    assert ask("POST", path, None).status_code == 401
    assert ask("POST", path, TOKEN).status_code == 202
    assert ask("GET", "/webhooks/dead-letters", TOKEN).json() == {"dead_letters": []}


@pytest.mark.parametrize(
    ("method", "path", "status", "title"),
    [
        ("POST", "/remediation/99/undo", 404, "stepID must be the id of a step that is kept, got 99"),
        ("POST", "/remediation/0/undo", 422, "path.stepID must be >= 1, got '0'"),
        ("GET", "/remediation?limit=0", 422, "query.limit must be >= 1, got '0'"),
        ("GET", "/isolations/anna", 404, "user must be one that is isolated, got 'anna'"),
        ("DELETE", "/isolations/anna", 404, "user must be one that is isolated, got 'anna'"),
        ("POST", "/webhooks/dead-letters/x/retry", 404, "letterID must be the id of a dead letter, got 'x'"),
    ],
)
def test_faults_name_path_rule_and_value(ask: Ask, method: str, path: str, status: int, title: str):
    """As everywhere else."""
    response = ask(method, path, TOKEN)
    assert (response.status_code, response.json()["title"]) == (status, title)


def drawn(*parts: object) -> str:
    screen = console()
    with screen.capture() as captured:
        for part in parts:
            screen.print(part)
    return captured.get()


def test_tables_say_what_an_operator_asks(ask: Ask):
    """What is congested, what was done, whether it helped; who is cut off; how deliveries go."""
    text = drawn(*cli_remediation.parts(ask("GET", "/remediation", TOKEN).json()))
    for wanted in (
        "congestion: act, isolation: act",
        "global/west/lab",
        "raise the ceiling",
        "yes",
        "in force",
    ):
        assert wanted in text
    assert "nothing is done now" not in text
    assert "emma" in drawn(cli_remediation.isolated(ask("GET", "/isolations", TOKEN).json()))
    assert "ConnectError" in drawn(cli_remediation.hooks(ask("GET", "/webhooks", TOKEN).json()))
    assert "msg_1" in drawn(cli_remediation.dead_letters(ask("GET", "/webhooks/dead-letters", TOKEN).json()))
