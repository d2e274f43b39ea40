"""``tidegate run`` for real: the planner, its store and both servers in one process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from planner.process import PlannerProcess
from planner.seam_auth import REQUEST_HEADER, SPEAKER_HEADER, sign
from tests.planner.test_process import config_in

ROOT = Path(__file__).parents[2]
CONFIG = """\
capacity_mbps: 60
regions:
  west: {dpids: [0x11], capacity_mbps: 36}
users:
  anna: {macs: ["00:00:00:00:01:01"]}
  ben: {macs: ["00:00:00:00:01:02"]}
allocation: {tick_s: 1}
store: {path: var/tidegate.duckdb}
northbound: {port: 0}
planner: {port: 0}
"""
pytestmark = pytest.mark.timeout(120)


@contextmanager
def planner(directory: Path, *more: str) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """A running planner and a client of its REST API that may write."""
    command = [sys.executable, "-m", "northbound", "run", "--config", "c.yaml", *more]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    log = (directory / "log").open("a")
    with (
        log,
        subprocess.Popen(
            command, cwd=directory, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("tidegate planner ready rest="), (directory / "log").read_text()
            url = line.split("rest=")[1].split()[0]
            (directory / "ready").write_text(line)
            token = (directory / "var" / "token").read_text().strip()
            headers = {"Authorization": f"Bearer {token}"}
            with httpx.Client(base_url=url, headers=headers, trust_env=False) as client:
                yield process, client
        finally:
            process.kill()


def seam_port(directory: Path) -> int:
    """Where OpenFlow processes ask the planner that runs there."""
    return int((directory / "ready").read_text().strip().rpartition(":")[2])


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "c.yaml").write_text(CONFIG)
    return tmp_path


def test_writes_outlive_a_kill(directory: Path):
    """What was answered with 201 is there after kill -9 and a restart; SIGTERM then ends it with 0."""
    body = {"id": "studio", "members": ["anna", "ben"], "ceiling_mbps": {"up": 6, "down": 12}}
    with planner(directory) as (process, client):
        answer = client.post("/groups/create", json=body)
        assert answer.status_code == 201, answer.text
        assert client.put("/groups/studio/bandwidth", json={"weight": 2}).status_code == 200
        assert client.post("/groups/create", json=body).status_code == 409
        process.kill()
    with planner(directory) as (process, client):
        deadline = time.monotonic() + 20
        while not (groups := client.get("/groups").json()["groups"]) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert [group["id"] for group in groups] == ["studio"]
        assert groups[0]["ceiling_bps"] == {"up": 6_000_000, "down": 12_000_000}
        assert groups[0]["weight"] == 2
        for path in ("/health", "/plan", "/switches", "/summary", "/metrics/global", "/metrics/group/studio"):
            assert client.get(path).status_code == 200, path
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    token = (directory / "var" / "token").read_text().strip()
    assert token not in (directory / "log").read_text()


def test_files_are_their_owners_alone(directory: Path):
    """The store's log of changes too, also one that a killed planner of before left readable."""

    def modes() -> dict[str, int]:
        return {path.name: path.stat().st_mode & 0o777 for path in (directory / "var").iterdir()}

    log = directory / "var" / "tidegate.duckdb.wal"
    with planner(directory) as (process, client):
        assert client.post("/groups/create", json={"id": "studio", "members": ["anna"]}).status_code == 201
        assert set(modes().values()) == {0o600}
        assert log.exists()
        process.kill()
    log.chmod(0o644)
    with planner(directory) as (_, client):
        assert client.put("/groups/studio/bandwidth", json={"weight": 2}).status_code == 200
        assert set(modes().values()) == {0o600}


def test_store_that_takes_nothing_is_told_by_health(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """And no more once it takes something."""
    process = PlannerProcess(config_in(tmp_path))

    def problems() -> tuple[str, ...]:
        process._tick()
        return process.snapshot.health.problems

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    assert not any("store" in problem for problem in problems())
    with monkeypatch.context() as broken:
        broken.setattr(process._store, "put_state", full)
        process._writer.put_state("planner", b"x", 1.0)
        deadline = time.monotonic() + 10
        while not process._writer.faults and time.monotonic() < deadline:
            time.sleep(0.01)
    told = "store does not take all, plans go on: state planner: no space left on device"
    assert told in problems()
    assert process.snapshot.health.status == "degraded"
    process._writer.put_state("planner", b"y", 2.0)
    while process._writer.faults and time.monotonic() < deadline:
        time.sleep(0.01)
    assert told not in problems()
    process.stop()


def test_open_requests_are_cut_without_a_traceback(directory: Path):
    """Streams and the long polls of OpenFlow processes are open whenever a planner is stopped."""
    with planner(directory) as (process, client), ExitStack() as open_requests:
        for _ in range(2):
            stream = open_requests.enter_context(client.stream("GET", "/stream"))
            assert next(stream.iter_lines())
        secret = (directory / "var" / "seam.secret").read_text().strip()
        target = "/v1/plan?wait_s=30"
        header, _ = sign(secret, "GET", target, "test", b"", time.time())
        seam = socket.create_connection(("127.0.0.1", seam_port(directory)))
        open_requests.enter_context(seam)
        lines = (
            f"GET {target} HTTP/1.1",
            "Host: x",
            f"{REQUEST_HEADER}: {header}",
            f"{SPEAKER_HEADER}: test",
        )
        seam.sendall("\r\n".join([*lines, "", ""]).encode())
        # Answered after what came before it on its connection: the poll is under way.
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    log = (directory / "log").read_text()
    assert "Traceback" not in log, log
    assert " ERROR " not in log, log
    assert "requests were still open and are cut" in log


def test_compiled_code_that_cannot_be_kept_is_one_line(directory: Path):
    """With what to do about it; here only the directory that is named may be used, and it is none."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "NUMBA_CACHE_DIR": "/dev/null/x",
        "NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator",
    }
    for command in (["run", "--config", "c.yaml"], ["replay", "--config", "c.yaml"]):
        done = subprocess.run(
            [sys.executable, "-m", "northbound", *command],
            cwd=directory, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
        assert "set NUMBA_CACHE_DIR" in done.stderr


def test_child_makes_room_when_its_parent_is_killed(directory: Path):
    """The next planner can take the ports and the store."""
    with (
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"]) as parent,
        planner(directory, "--parent-pid", str(parent.pid)) as (process, _),
    ):
        parent.kill()
        assert process.wait(10) == 0


def test_order_to_stop_that_is_repeated_cuts_nothing_short(directory: Path):
    """Both systemd and ryu-manager may give it; what the planner knows is in the store all the same."""
    with planner(directory) as (process, client):
        body = {"id": "studio", "members": ["anna", "ben"]}
        assert client.post("/groups/create", json=body).status_code == 201
        while process.poll() is None:
            process.send_signal(signal.SIGTERM)
            time.sleep(0.02)
        assert process.returncode == 0
    # A store that was closed has no log of changes beside it.
    assert not (directory / "var" / "tidegate.duckdb.wal").exists()
