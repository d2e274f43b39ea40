"""Open vSwitch for as long as a scenario needs it.

Where it runs already it is left alone. Where it does not, its two daemons are
started without systemd and without the kernel module (the scenarios use the
userspace datapath), and the last scenario to leave stops them and removes the
files that they made. Who started what is on record, so a run after ``kill -9``
takes the duty over.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mininet_scenarios.interrupts import raising, shielded
from mininet_scenarios.leftovers import MARK, bridges_present, process_start, records, remove_if_empty

CONTROL = Path("/usr/share/openvswitch/scripts/ovs-ctl")
DAEMONS = ("ovsdb-server", "ovs-vswitchd")
VSWITCHD_OPTIONS = (
    *("-vconsole:emer", "-vsyslog:err", "-vfile:info"),
    *("--no-chdir", "--log-file", "--pidfile", "--detach", "--monitor"),
)


class OvsUnavailable(Exception):
    """Open vSwitch is not installed or does not start: the text says what to do."""


@contextmanager
def running_ovs() -> Iterator[None]:
    """Open vSwitch, started if need be and stopped again by the last one out.

    Raises
    ------
    OvsUnavailable : if it is not installed, or does not start.
    """
    check_installed()
    with raising():
        try:
            with shielded(), _lock():
                _holder().parent.mkdir(parents=True, exist_ok=True)
                _holder().touch()
                _start()
            yield
        finally:
            with shielded():
                release()


def release() -> None:
    """Need Open vSwitch no longer; the last one out stops what was started. May be repeated."""
    with _lock():
        _holder().unlink(missing_ok=True)
        _stop_if_last()


def check_installed() -> None:
    """Raise OvsUnavailable, naming what is missing, if Open vSwitch is not installed."""
    missing = [name for name in ("ovs-vsctl", "ovs-ofctl", "ovs-vswitchd") if shutil.which(name) is None]
    if not CONTROL.exists():
        missing.append(str(CONTROL))
    if missing:
        raise OvsUnavailable(f"{', '.join(missing)} not found: install the package openvswitch-switch")


def down() -> list[str]:
    """Which of the two daemons do not run."""
    return [
        daemon
        for daemon in DAEMONS
        if subprocess.run(
            ["ovs-appctl", "--timeout=10", "-t", daemon, "version"], capture_output=True, check=False
        ).returncode
    ]


@contextmanager
def _lock() -> Iterator[None]:
    """One scenario at a time starts or stops; the lock is on a file that is there anyway."""
    with CONTROL.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _started() -> Path:
    return records() / "ovs.started"


def _holder() -> Path:
    pid = os.getpid()
    return records() / f"ovs-{pid}-{process_start(pid)}.holder"


def _holders() -> list[Path]:
    """Scenarios that need Open vSwitch now; those of dead processes are forgotten."""
    living = []
    for path in records().glob("ovs-*.holder"):
        pid, start = path.stem.split("-")[1:3]
        if str(process_start(int(pid))) == start:
            living.append(path)
        else:
            path.unlink(missing_ok=True)
    return living


def _directories() -> list[Path]:
    """Where Open vSwitch keeps files; the variables are its own."""
    configuration = Path(os.environ.get("OVS_SYSCONFDIR", "/etc")) / "openvswitch"
    return [
        configuration,
        Path(os.environ.get("OVS_DBDIR", configuration)),
        Path(os.environ.get("OVS_LOGDIR", "/var/log/openvswitch")),
        Path(os.environ.get("OVS_RUNDIR", "/var/run/openvswitch")),
        Path("/var/lib/openvswitch"),
    ]


def _files() -> set[str]:
    found: set[str] = set()
    for directory in _directories():
        if directory.is_dir():
            found |= {str(directory)} | {str(path) for path in directory.rglob("*")}
    return found


def _environment() -> dict[str, str]:
    # The daemons may outlive the run that starts them, so they are not marked as its own.
    return {name: value for name, value in os.environ.items() if name != MARK}


def _command(arguments: list[str]) -> None:
    """Run a command that must succeed; Ctrl-C does not reach it."""
    reply = subprocess.run(
        arguments,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # Signals are held back while this runs; the daemons must not inherit that.
        preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, ()),
        timeout=60,
        check=False,
    )
    if reply.returncode:
        raise OvsUnavailable(f"{' '.join(arguments)} must succeed, got {reply.stdout.strip()[-500:]}")


def _start() -> None:
    missing = down()
    if not missing:
        return
    if not _started().exists():
        _started().write_text(json.dumps({"daemons": missing, "files": sorted(_files())}))
    if "ovsdb-server" in missing:
        _command([str(CONTROL), "--system-id=random", "--no-ovs-vswitchd", "--no-record-hostname", "start"])
    if "ovs-vswitchd" in missing:
        # Started here and not by ovs-ctl, which would first load the kernel
        # module, give up where it cannot, and leave it loaded where it can.
        _command(["ovs-vswitchd", *VSWITCHD_OPTIONS])
    deadline = time.monotonic() + 20
    while still := down():
        if time.monotonic() > deadline:
            raise OvsUnavailable(f"{', '.join(still)} must answer within 20 s; see /var/log/openvswitch")
        time.sleep(0.1)


def _stop_if_last() -> None:
    """Stop what scenarios started, unless somebody uses it now."""
    in_use = bool(_holders())
    if _started().exists() and not in_use and not bridges_present():
        started = json.loads(_started().read_text())
        kept = [f"--no-{daemon}" for daemon in DAEMONS if daemon not in started["daemons"]]
        _command([str(CONTROL), *kept, "stop"])
        # Deepest first, so that directories are empty when their turn comes.
        for name in sorted(_files() - set(started["files"]), reverse=True):
            path = Path(name)
            if path.is_dir() and not path.is_symlink():
                remove_if_empty(path)
            else:
                path.unlink(missing_ok=True)
        _started().unlink()
    remove_if_empty(records())
