"""The controller as a user starts it: Ryu's own command, in a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from mininet_scenarios.client import ApiError, Client
from mininet_scenarios.interrupts import raising, shielded
from mininet_scenarios.leftovers import Run

ROOT = Path(__file__).resolve().parent.parent
APP = ROOT / "ryu_apps" / "bandwidth.py"


class ControllerFailed(Exception):
    """The controller ended, or never became healthy; the text ends with its log."""


@dataclass(frozen=True)
class Controller:
    """A running ``ryu-manager``."""

    process: subprocess.Popen[bytes]
    log: Path
    client: Client

    def log_tail(self, n_lines: int = 30) -> str:
        """The last lines of what it wrote."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-n_lines:])

    def check_alive(self) -> None:
        """Raise ControllerFailed if it has ended."""
        if (status := self.process.poll()) is not None:
            raise ControllerFailed(
                f"ryu-manager must keep running, got exit status {status}\n{self.log_tail()}"
            )

    def wait_until_answering(self, deadline_s: float = 60.0) -> None:
        """Return when its planner's REST API answers. Raises ControllerFailed."""
        self._wait_for_status(("starting", "ok", "degraded"), deadline_s)

    def wait_until_healthy(self, deadline_s: float = 60.0) -> None:
        """Return when ``GET /health`` says ``ok``: plans are made, for switches that are there.

        Raises ControllerFailed.
        """
        self._wait_for_status(("ok",), deadline_s)

    def _wait_for_status(self, wanted: Collection[str], deadline_s: float) -> None:
        end = time.monotonic() + deadline_s
        said = "no answer"
        while time.monotonic() < end:
            self.check_alive()
            try:
                answer = self.client.health()
                if answer.get("status") in wanted:
                    return
                said = str(answer)
            except ApiError as error:
                said = str(error)
            time.sleep(0.2)
        raise ControllerFailed(
            f"GET /health must say {' or '.join(wanted)} within {deadline_s:g} s, got {said}\n{self.log_tail()}"
        )


@contextmanager
def running_controller(
    run: Run, config: Path, api_port: int, openflow_port: int, log: Path | None = None
) -> Iterator[Controller]:
    """``ryu-manager ryu_apps/bandwidth.py`` with a configuration, ended with its children at the end.

    It starts in the run's directory, so the relative paths of the configuration
    (store, token, secret) lead there and go with the run.

    Parameters
    ----------
    api_port : where the configuration says that the REST API listens.
    """
    log = log or run.directory / "controller.log"
    with raising():
        process: subprocess.Popen[bytes] | None = None
        client = Client(f"http://127.0.0.1:{api_port}", run.directory / token_file(config))
        try:
            # A handle lost to a signal here is no loss: the process is marked as the run's.
            with log.open("ab") as output:
                process = subprocess.Popen(
                    controller_command(openflow_port),
                    cwd=run.directory,
                    env=_environment(run, config),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            yield Controller(process, log, client)
        finally:
            with shielded():
                client.close()
                if process is not None:
                    stop(process)


def token_file(config: Path) -> Path:
    """Where the configuration says that the REST API's token is."""
    raw = yaml.safe_load(config.read_text(encoding="utf-8")) or {}
    return Path((raw.get("northbound") or {}).get("token_file", "var/token"))


def controller_command(openflow_port: int) -> list[str]:
    """The command line: ``ryu-manager`` of this Python's environment and the app."""
    manager = Path(sys.executable).parent / "ryu-manager"
    return [str(manager), "--ofp-tcp-listen-port", str(openflow_port), str(APP)]


def check_free(ports: Mapping[str, int]) -> None:
    """Raise ControllerFailed if somebody listens on one of the ports (by what they are for)."""
    for purpose, port in ports.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise ControllerFailed(
                    f"TCP port {port} ({purpose}) must be free, got {error.strerror}"
                ) from None


def stop(process: subprocess.Popen[bytes], patience_s: float = 5.0) -> None:
    """Ask a controller to end, then insist. What it started goes with the run."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def _environment(run: Run, config: Path) -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    return {**run.environment, "TIDEGATE_CONFIG": str(config.resolve()), "PYTHONPATH": path}
