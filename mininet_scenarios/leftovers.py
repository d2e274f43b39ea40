"""What a run made, so that nothing of it stays, not even after ``kill -9``.

Each run has a record in ``/run``: who owns it, which bridges and files it makes.
Its processes carry the run's id in their environment, which children inherit;
so whatever the run started is found without knowing how it was started.
Only what a record names is ever removed.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mininet_scenarios.interrupts import raising, shielded

#: Environment variable that marks the processes of a run with its id.
MARK = "TIDEGATE_SCENARIO"
ID_LENGTH = 6


class AlreadyRunning(Exception):
    """Another live run has this id: wait for it, or end it."""


@dataclass(frozen=True)
class Run:
    """One run: its id leads every name that it gives."""

    id: str
    owner_pid: int
    #: Start of the owner in kernel ticks: a pid alone is used again.
    owner_start: int
    #: For logs and other files; goes with the run.
    directory: Path
    bridges: tuple[str, ...] = ()

    @property
    def environment(self) -> dict[str, str]:
        """The environment for the run's processes."""
        return {**os.environ, MARK: self.id}


def records() -> Path:
    """The directory of the records."""
    return Path(os.environ.get("TIDEGATE_SCENARIO_RECORDS", "/run/tidegate-scenarios"))


def process_start(pid: int) -> int | None:
    """When a process started, in kernel ticks; None if it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The command, in parentheses, may hold anything.
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else int(fields[19])


@contextmanager
def run(run_id: str | None = None) -> Iterator[Run]:
    """A run that is cleared away at the end, however the block ends.

    Parameters
    ----------
    run_id : at most six letters and digits; absent: a random one.

    Raises
    ------
    AlreadyRunning : if a live run has the id.
    """
    run_id = run_id or "t" + secrets.token_hex(2)
    if not re.fullmatch(rf"[a-z0-9]{{1,{ID_LENGTH}}}", run_id):
        raise ValueError(f"run id must be 1 to {ID_LENGTH} lower-case letters and digits, got {run_id!r}")
    for other in _recorded():
        if other.id == run_id:
            if _alive(other):
                raise AlreadyRunning(f"run {run_id} is under way in process {other.owner_pid}")
            clear(other)
    with raising():
        current: Run | None = None
        try:
            with shielded():
                start = process_start(os.getpid()) or 0
                directory = Path(tempfile.mkdtemp(prefix=f"tidegate-{run_id}-"))
                current = Run(run_id, os.getpid(), start, directory)
                record(current)
            yield current
        finally:
            with shielded():
                if current is not None:
                    clear(_latest(current))


def record(current: Run) -> None:
    """Write down what a run is about to make."""
    records().mkdir(parents=True, exist_ok=True)
    path = records() / f"{current.id}.json"
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(asdict(current), default=str))
    draft.replace(path)


def with_bridges(current: Run, bridges: tuple[str, ...]) -> Run:
    """The run with these bridges too, written down."""
    wider = replace(_latest(current), bridges=tuple(dict.fromkeys(_latest(current).bridges + bridges)))
    record(wider)
    return wider


def sweep() -> list[str]:
    """Clear away what runs left whose owners are dead. Returns their ids."""
    dead = [run for run in _recorded() if not _alive(run)]
    with shielded():
        for run in dead:
            clear(run)
    return [run.id for run in dead]


def clear_own() -> None:
    """Clear away what this process has on record."""
    own = os.getpid(), process_start(os.getpid())
    for run in _recorded():
        if (run.owner_pid, run.owner_start) == own:
            clear(run)


def clear(run: Run) -> None:
    """Remove a run's processes, bridges, links, files and record. May be repeated."""
    kill_marked(run.id)
    delete_bridges(run.bridges)
    for name in links_of(run.bridges):
        subprocess.run(["ip", "link", "del", name], capture_output=True, timeout=20, check=False)
    shutil.rmtree(run.directory, ignore_errors=True)
    # A draft stays where a signal came while it was written.
    for suffix in ("json", "draft"):
        (records() / f"{run.id}.{suffix}").unlink(missing_ok=True)
    remove_if_empty(records())


def remove_if_empty(directory: Path) -> None:
    """Remove a directory unless something is in it."""
    with suppress(OSError):
        directory.rmdir()


def marked(run_id: str) -> list[int]:
    """Process ids of a run, this process excepted."""
    wanted = f"{MARK}={run_id}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environ = (entry / "environ").read_bytes()
        except OSError:
            continue
        if wanted in environ.split(b"\0") and process_start(int(entry.name)) is not None:
            found.append(int(entry.name))
    return found


def kill_marked(run_id: str, deadline_s: float = 10.0) -> None:
    """Kill a run's processes, and those they start meanwhile, and see them gone."""
    end = time.monotonic() + deadline_s
    while pids := marked(run_id):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > end:
            raise TimeoutError(f"processes of run {run_id} must end within {deadline_s:g} s, left: {pids}")
        time.sleep(0.02)


def bridges_present() -> list[str] | None:
    """Names of all bridges of Open vSwitch; None when it does not answer."""
    reply = subprocess.run(
        ["ovs-vsctl", "--timeout=10", "list-br"], capture_output=True, text=True, timeout=20, check=False
    )
    return reply.stdout.split() if reply.returncode == 0 else None


def delete_bridges(names: tuple[str, ...]) -> None:
    """Remove those of the bridges that exist."""
    present = set(bridges_present() or ()) & set(names)
    if not present:
        return
    command = ["ovs-vsctl", "--timeout=20"]
    for name in sorted(present):
        command += ["--", "--if-exists", "del-br", name]
    subprocess.run(command, capture_output=True, timeout=30, check=False)


def links_of(bridges: tuple[str, ...]) -> list[str]:
    """Interfaces here that are ports of the bridges by their names (``BRIDGE-PORT``)."""
    if not bridges:
        return []
    port = re.compile("|".join(rf"{re.escape(bridge)}-\d+" for bridge in bridges))
    return sorted(entry.name for entry in Path("/sys/class/net").iterdir() if port.fullmatch(entry.name))


def _alive(run: Run) -> bool:
    return process_start(run.owner_pid) == run.owner_start


def _recorded() -> list[Run]:
    return [run for path in sorted(records().glob("*.json")) if (run := _read(path)) is not None]


def _latest(current: Run) -> Run:
    return _read(records() / f"{current.id}.json") or current


def _read(path: Path) -> Run | None:
    try:
        raw = json.loads(path.read_text())
        return Run(
            str(raw["id"]),
            int(raw["owner_pid"]),
            int(raw["owner_start"]),
            Path(raw["directory"]),
            tuple(str(name) for name in raw["bridges"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
