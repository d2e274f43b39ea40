"""The audit log: what was changed, taken out, put in, moved or cut off is found; and nothing is lost."""

from __future__ import annotations

import json
import multiprocessing
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.audit import AuditError, AuditLog, verify
from planner.secret import SecretError

NOW = 1_000_000.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def filled(path: Path, n: int = 5) -> AuditLog:
    log = AuditLog(path, lambda: NOW)
    for number in range(1, n + 1):
        log.record("ops", "PUT /groups/g1/bandwidth", "/groups/g1", {"weight": 1}, {"weight": number})
    return log


def test_what_was_recorded_is_there_in_order(path: Path):
    """Who, what, of what, before and after, how it ended, and when; for its owner alone."""
    log = filled(path)
    entries, total = log.page(0, 100)
    assert total == 5
    assert [entry["n"] for entry in entries] == [1, 2, 3, 4, 5]
    first = {key: value for key, value in entries[0].items() if key not in ("hash", "prev")}
    assert first == {
        "n": 1, "time": NOW, "actor": "ops", "action": "PUT /groups/g1/bandwidth", "target": "/groups/g1",
        "before": {"weight": 1}, "after": {"weight": 1}, "outcome": "ok",
    }  # fmt: skip
    assert path.stat().st_mode & 0o777 == 0o600
    verdict = verify(path)
    assert (verdict.entries, verdict.head, verdict.faults) == (5, entries[-1]["hash"], ())


@pytest.mark.parametrize(
    ("after", "limit", "numbers"),
    [(0, 2, [1, 2]), (2, 2, [3, 4]), (4, 9, [5]), (5, 9, []), (99, 9, []), (0, 0, [])],
)
def test_pages(path: Path, after: int, limit: int, numbers: list[int]):
    """Entries above a number, so many."""
    entries, total = filled(path).page(after, limit)
    assert ([entry["n"] for entry in entries], total) == (numbers, 5)


Tamper = Callable[[list[bytes]], list[bytes]]


def changed(lines: list[bytes], at: int) -> list[bytes]:
    entry = json.loads(lines[at])
    entry["actor"] = "somebody-else"
    return [*lines[:at], json.dumps(entry).encode() + b"\n", *lines[at + 1 :]]


@pytest.mark.parametrize("at", range(5))
@pytest.mark.parametrize(
    "tamper",
    [
        pytest.param(changed, id="changed"),
        pytest.param(lambda lines, at: lines[:at] + lines[at + 1 :], id="taken out"),
        pytest.param(lambda lines, at: [*lines[:at], lines[at], *lines[at:]], id="doubled"),
        pytest.param(lambda lines, at: [*lines[:at], b"{}\n", *lines[at:]], id="put in"),
        pytest.param(lambda lines, at: lines[:at], id="cut off"),
        pytest.param(
            lambda lines, at: [*lines[at + 1 :], *lines[: at + 1]] if at < 4 else lines[::-1], id="moved"
        ),
        pytest.param(
            lambda lines, at: [*lines[:at], lines[at][:-9] + b"\n", *lines[at + 1 :]], id="half of one"
        ),
    ],
)
def test_what_was_tampered_with_is_found(
    path: Path, tamper: Callable[[list[bytes], int], list[bytes]], at: int
):
    """Wherever it is."""
    filled(path)
    path.write_bytes(b"".join(tamper(path.read_bytes().splitlines(keepends=True), at)))
    assert verify(path).faults


@settings(max_examples=50)
@given(st.data())
def test_any_byte_that_is_changed_is_found(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    """Not one is free."""
    path = tmp_path_factory.mktemp("audit") / "audit.jsonl"
    filled(path, 2)
    body = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] = data.draw(st.integers(0, 255).filter(lambda byte: byte != body[at]))
    path.write_bytes(body)
    assert verify(path).faults


def test_log_that_was_taken_away_is_missed(path: Path):
    """The head says that there was one."""
    filled(path)
    path.unlink()
    assert "its end was cut off" in verify(path).faults[0]
    path.with_name("audit.jsonl.head").unlink()
    with pytest.raises(AuditError, match="no such file"):
        verify(path)


def test_head_that_was_taken_away_or_made_up_is_missed(path: Path):
    """It is signed as well."""
    filled(path)
    head = path.with_name("audit.jsonl.head")
    raw = json.loads(head.read_text())
    head.write_text(json.dumps({**raw, "n": 3}))
    assert "head must name the last entry" in verify(path).faults[0]
    head.unlink()
    assert verify(path).faults


def test_older_log_with_its_head_is_found_by_what_was_written_down(path: Path):
    """Only a hash kept elsewhere can tell: that is what verify prints it for."""
    log = filled(path)
    head = path.with_name("audit.jsonl.head")
    old = path.read_bytes(), head.read_bytes()
    log.record("ops", "DELETE /groups/g1", "/groups/g1")
    known = verify(path)
    path.write_bytes(old[0])
    head.write_bytes(old[1])
    assert verify(path).faults == ()
    assert "cut off or written anew" in verify(path, known.entries, known.head).faults[0]


def test_chain_cannot_be_made_without_the_key(path: Path, tmp_path: Path):
    """Whoever writes a log of the same entries with a key of his own has another chain."""
    filled(path)
    other = tmp_path / "other" / "audit.jsonl"
    filled(other)
    path.write_bytes(other.read_bytes())
    path.with_name("audit.jsonl.head").write_bytes(other.with_name("audit.jsonl.head").read_bytes())
    assert verify(path).faults


def test_log_goes_on_after_a_restart(path: Path):
    """One chain."""
    for _ in range(3):
        filled(path, 2)
    assert (verify(path).entries, verify(path).faults) == (6, ())


def test_entry_that_a_power_cut_tore_gives_way(path: Path):
    """It was never acknowledged; the chain goes on from the one before it."""
    filled(path)
    with path.open("ab") as file:
        file.write(b'{"n":6,"actor":"o')
    filled(path, 1)
    assert (verify(path).entries, verify(path).faults) == (6, ())


def test_entry_whose_head_was_not_yet_written_counts(path: Path):
    """The process died between the two; nobody but the planner could have made that entry."""
    log = filled(path)
    head = path.with_name("audit.jsonl.head")
    before = head.read_bytes()
    log.record("ops", "last", "x")
    head.write_bytes(before)
    assert (verify(path).entries, verify(path).faults) == (6, ())


def _record(path: Path, n: int) -> None:
    filled(path, n)


def _record_more(log: AuditLog, n: int) -> None:
    for _ in range(n):
        log.record("t", "a", "x")


def test_processes_and_threads_share_one_chain(path: Path):
    """The command and the planner both write it."""
    log = filled(path, 1)
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_record, args=(path, 10)) for _ in range(2)]
    threads = [threading.Thread(target=_record_more, args=(log, 10)) for _ in range(3)]
    for process in processes:
        process.start()
    for thread in threads:
        thread.start()
    for process in processes:
        process.join()
    for thread in threads:
        thread.join()
    assert (verify(path).entries, verify(path).faults) == (51, ())
    assert log.page(0, 0)[1] == 51


def test_log_that_cannot_be_written_is_told(path: Path):
    """``record`` raises, ``note`` goes on; and it is known until it can be written again."""
    log = filled(path, 1)
    body = path.read_bytes()
    path.write_bytes(b"")
    with pytest.raises(AuditError, match="must only grow"):
        log.record("ops", "a", "x")
    assert not log.writable
    log.note("ops", "a", "x")
    path.write_bytes(body)
    log.record("ops", "a", "x")
    assert log.writable


def test_large_and_odd_values_are_kept_short(path: Path):
    """The log is no second store, and nothing breaks it."""
    log = AuditLog(path)
    log.record("ops", "a", "x", None, ["m" * 100] * 1000)
    log.record("ops", "a\nb", "ü\u2028", {"path": Path("p")}, "x")
    entries, _ = log.page(0, 9)
    assert entries[0]["after"] == "104000 characters, not kept"
    assert (entries[1]["action"], entries[1]["target"]) == ("a\nb", "ü\u2028")
    assert verify(path).faults == ()


def test_key_that_others_may_read_is_refused(path: Path):
    """Whoever has it can mend the chain."""
    filled(path)
    path.with_name("audit.jsonl.key").chmod(0o644)
    with pytest.raises(SecretError, match="mode 644"):
        verify(path)
