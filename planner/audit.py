"""The audit log: every write and every automatic action, one line each, chained by keyed hashes.

Each entry's hash covers the entry before it, so one that is changed, taken out, put in or moved
breaks the chain; the head, kept beside the log, tells when the end is missing. Hashes are HMACs
of a key of their own: who can write the log but cannot read the key cannot mend the chain.
"""

from __future__ import annotations

import fcntl
import hmac
import json
import logging
import os
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from planner.secret import SecretError, read_or_make, read_owned, write_owned

LOG = logging.getLogger("tidegate.audit")

_START: Final = "0" * 64
_FIELDS: Final = ("n", "time", "actor", "action", "target", "before", "after", "outcome", "prev")
#: A value larger than this is named by its size: the log is no second store.
_MAX_VALUE: Final = 8192

#: What records: actor, action, target, before, after, outcome.
Record = Callable[[str, str, str, Any, Any, str], None]


class AuditError(Exception):
    """The log cannot be read or written. One line: path, rule and value."""


@dataclass(frozen=True)
class Verdict:
    """What ``verify`` found."""

    entries: int
    #: The hash of the last entry; write it down elsewhere to prove later that nothing was cut off.
    head: str
    #: One line a fault; none: the log is whole.
    faults: tuple[str, ...]


class AuditLog:
    """One file of entries. Used from several threads and processes."""

    def __init__(self, path: Path, now: Callable[[], float] = time.time) -> None:
        """Open the log; file, key and head are made where there are none.

        Raises
        ------
        SecretError, AuditError : if they cannot be used.
        """
        self.path = path
        self._now = now
        self._head_path = path.with_name(path.name + ".head")
        self._key = read_or_make(_key_path(path)).encode()
        self._lock = threading.Lock()
        #: Where each entry begins; the end of the last one; and its hash.
        self._starts: array[int] = array("q")
        self._end = 0
        self._hash = _START
        #: Whether the last entry could be written.
        self.writable = True
        with self._locked() as file:
            self._catch_up(file)

    def record(
        self, actor: str, action: str, target: str, before: Any = None, after: Any = None, outcome: str = "ok"
    ) -> None:
        """Append an entry; on the disk when this returns. Raises AuditError."""
        try:
            with self._lock, self._locked() as file:
                self._catch_up(file)
                entry = {
                    "n": len(self._starts) + 1, "time": round(self._now(), 3), "actor": actor, "action": action,
                    "target": target, "before": _bounded(before), "after": _bounded(after), "outcome": outcome,
                    "prev": self._hash,
                }  # fmt: skip
                digest = _digest(self._key, entry)
                line = _canonical({**entry, "hash": digest}) + b"\n"
                os.lseek(file, self._end, os.SEEK_SET)
                _write_all(file, line)
                os.fsync(file)
                self._starts.append(self._end)
                self._end, self._hash = self._end + len(line), digest
                self._write_head()
            self.writable = True
        except (OSError, SecretError, AuditError) as error:
            self.writable = False
            raise AuditError(f"{self.path} must be writable, got {error}") from None

    def note(
        self, actor: str, action: str, target: str, before: Any = None, after: Any = None, outcome: str = "ok"
    ) -> None:
        """As ``record``; what cannot be written is told in the log: the planner's loop goes on."""
        try:
            self.record(actor, action, target, before, after, outcome)
        except AuditError as error:
            LOG.error("audit: %s of %s by %s not recorded: %s", action, target, actor, error)

    def page(self, after: int, limit: int) -> tuple[list[dict[str, Any]], int]:
        """Entries above a number, oldest first, and how many there are. Raises AuditError."""
        with self._lock, self._locked() as file:
            self._catch_up(file)
            total = len(self._starts)
            first = min(max(after, 0), total)
            last = min(first + limit, total)
            if first == last:
                return [], total
            end = self._starts[last] if last < total else self._end
            raw = os.pread(file, end - self._starts[first], self._starts[first])
        try:
            return [json.loads(line) for line in raw.splitlines()], total
        except ValueError as error:
            raise AuditError(f"{self.path} must hold one JSON object a line, got {error}") from None

    @contextmanager
    def _locked(self) -> Iterator[int]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise AuditError(f"{self.path} must be writable, got {error}") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file
        finally:
            os.close(file)

    def _catch_up(self, file: int) -> None:
        """Take up what other processes appended since."""
        size = os.fstat(file).st_size
        if size == self._end:
            return
        if size < self._end:
            raise AuditError(f"{self.path} must only grow, got {size} bytes after {self._end}")
        last: bytes | None = None
        with os.fdopen(os.dup(file), "rb") as reader:
            reader.seek(self._end)
            for line in reader:
                if not line.endswith(b"\n"):
                    # A write that a power cut tore was never acknowledged; the next takes its place.
                    LOG.warning("audit: %s ends in half an entry, which goes", self.path)
                    os.ftruncate(file, self._end)
                    break
                self._starts.append(self._end)
                self._end += len(line)
                last = line
        if last is not None:
            try:
                self._hash = str(json.loads(last)["hash"])
            except (ValueError, LookupError, TypeError):
                raise AuditError(f"{self.path} must end in an entry; see tidegate audit verify") from None

    def _write_head(self) -> None:
        head = {"n": len(self._starts), "hash": self._hash}
        write_owned(self._head_path, _canonical({**head, "mac": _digest(self._key, head)}) + b"\n")


def _key_path(path: Path) -> Path:
    return path.with_name(path.name + ".key")


def verify(path: Path, known_n: int = 0, known_hash: str = _START) -> Verdict:
    """Whether a log is whole: nothing changed, missing, added or moved, to its end.

    ``known_n`` and ``known_hash`` are what an earlier verdict said of the end: the log must go on from there,
    also where somebody put back an older log together with its head.

    Raises
    ------
    AuditError, SecretError : if the log or its key cannot be read.
    """
    if not path.exists() and not path.with_name(path.name + ".head").exists():
        raise AuditError(f"{path} must be an audit log, got no such file")
    key = read_owned(_key_path(path)).strip()
    faults: list[str] = []
    n, last = 0, _START
    head = _read_head(path, key, faults)
    #: Of the entries that somebody vouches for.
    hashes = {0: _START}
    for line in path.open("rb") if path.exists() else ():
        n += 1
        try:
            entry = json.loads(line)
            digest = entry.pop("hash")
            known = {name: entry[name] for name in _FIELDS}
        except (ValueError, LookupError, AttributeError):
            faults.append(f"line {n} is no entry")
            break
        if len(entry) != len(_FIELDS) or not hmac.compare_digest(str(digest), _digest(key, known)):
            faults.append(f"entry {n} was changed: its hash does not match")
        if entry["n"] != n:
            faults.append(
                f"entry {n} must have number {n}, got {entry['n']!r}: entries were moved or taken out"
            )
        if entry["prev"] != last:
            faults.append(f"entry {n} does not follow the one before it")
        last = str(digest)
        if n in (known_n, head and head[0]):
            hashes[n] = last
    if head is not None:
        if head[0] > n:
            faults.append(f"the log must hold {head[0]} entries, got {n}: its end was cut off")
        elif hashes.get(head[0]) != head[1]:
            faults.append(f"entry {head[0]} is not the one that the head names")
    if hashes.get(known_n) != known_hash:
        faults.append(f"entry {known_n} is not the one that was known: the log was cut off or written anew")
    return Verdict(n, last, tuple(faults))


def _read_head(path: Path, key: bytes, faults: list[str]) -> tuple[int, str] | None:
    beside = path.with_name(path.name + ".head")
    try:
        raw = json.loads(read_owned(beside))
        head = {"n": raw["n"], "hash": raw["hash"]}
        if not hmac.compare_digest(str(raw["mac"]), _digest(key, head)):
            raise ValueError("a mac that does not match")
        return int(head["n"]), str(head["hash"])
    except (SecretError, ValueError, LookupError, TypeError) as error:
        if path.exists() and path.stat().st_size:
            faults.append(f"{beside} must name the last entry, got {error}")
        return None


def _canonical(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _digest(key: bytes, value: dict[str, Any]) -> str:
    return hmac.digest(key, _canonical(value), "sha256").hex()


def _bounded(value: Any) -> Any:
    text = json.dumps(value, allow_nan=False, default=str)
    return json.loads(text) if len(text) <= _MAX_VALUE else f"{len(text)} characters, not kept"


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]
