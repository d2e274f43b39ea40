"""Ryu stays at the rim, and starts."""

import ast
import os
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRODUCT = (
    "allocation", "bench", "forecasting", "mininet_scenarios", "northbound", "planner", "ryu_apps", "telemetry",
    "topology",
)  # fmt: skip


def imported_names(source: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module or "")
    return {name.partition(".")[0] for name in names}


def test_only_framework_imports_ryu():
    """One module to change when the runtime changes."""
    importers = {
        str(path.relative_to(ROOT))
        for package in PRODUCT
        for path in (ROOT / package).rglob("*.py")
        if imported_names(path) & {"ryu", "os_ken"}
    }
    assert importers == {"ryu_apps/framework.py"}


def test_the_codec_does_without_ryu():
    """The codec is plain arithmetic on bytes; loading it must not load a framework."""
    code = (
        "import sys, ryu_apps.codec.body, ryu_apps.codec.flow_stats, ryu_apps.codec.meter_stats, "
        "ryu_apps.codec.messages, ryu_apps.cookies; print({'ryu', 'eventlet'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout == "set()\n"


def test_the_start_up_hook_loads_nothing():
    """The hook runs at every start of this environment's Python, so it must cost nothing."""
    code = (
        "import sys; before = set(sys.modules); import tidegate_ryu_compat; "
        "print(set(sys.modules) - before - {'tidegate_ryu_compat'}, sys.meta_path[0].find_spec('json'))"
    )
    run = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, cwd=ROOT / "scripts"
    )
    assert run.stdout == "set() None\n"


def test_the_start_up_hook_repairs_eventlet():
    """With the hook alone, the name that ryu-manager asks eventlet for is there."""
    code = "import tidegate_ryu_compat; from eventlet.wsgi import ALREADY_HANDLED"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "scripts")}
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, env=environment)


APPLICATION = """
from ryu_apps import framework as f
from ryu_apps.codec.flow_stats import decode_flow_stats

class Reader(f.RyuApp):
    OFP_VERSIONS = [f.ofproto_v1_3.OFP_VERSION]

    @f.set_ev_cls(f.ofp_event.EventOFPSwitchFeatures, f.CONFIG_DISPATCHER)
    def connected(self, event):
        datapath = event.msg.datapath
        parser = datapath.ofproto_parser
        f.send_all(datapath, [parser.OFPFlowStatsRequest(datapath), parser.OFPBarrierRequest(datapath)])

    @f.set_ev_cls(f.ofp_event.EventOFPFlowStatsReply, [f.CONFIG_DISPATCHER, f.MAIN_DISPATCHER])
    def replied(self, event):
        stats = decode_flow_stats(event.msg.body)
        message = event.msg.datapath.ofproto_parser.OFPEchoRequest(event.msg.datapath, data=stats.cookie.tobytes())
        event.msg.datapath.send_msg(message)
"""


class Switch:
    """The far end of an OpenFlow connection, just clever enough for a handshake."""

    def __init__(self, port: int, deadline_s: float = 60.0):
        deadline = time.monotonic() + deadline_s
        while True:
            try:
                self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
                return
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def send(self, kind: int, xid: int, body: bytes = b"") -> None:
        self.socket.sendall(struct.pack("!BBHI", 4, kind, 8 + len(body), xid) + body)

    def _exactly(self, count: int) -> bytes:
        raw = b""
        while len(raw) < count:
            more = self.socket.recv(count - len(raw))
            assert more, "the controller hung up"
            raw += more
        return raw

    def await_kind(self, wanted: int) -> tuple[int, bytes]:
        """The xid and body of the next message of a kind; others are passed over."""
        while True:
            _, kind, length, xid = struct.unpack("!BBHI", self._exactly(8))
            body = self._exactly(length - 8)
            if kind == wanted:
                return xid, body


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_ryu_manager_runs_an_application_that_decodes_in_bulk(tmp_path):
    """Plain ryu-manager, a real connection: the application gets a flow reply as columns."""
    manager = Path(sys.executable).parent / "ryu-manager"
    if not manager.exists():
        pytest.fail(f"{manager} is missing; `make setup` installs Ryu")
    application = tmp_path / "reader.py"
    application.write_text(APPLICATION, encoding="utf-8")
    port = free_port()
    log = (tmp_path / "log").open("w+")
    process = subprocess.Popen(
        [manager, "--ofp-listen-host", "127.0.0.1", "--ofp-tcp-listen-port", str(port), application],
        stdout=log, stderr=log, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        switch = Switch(port)
        switch.send(0, 1)  # hello
        xid, _ = switch.await_kind(5)  # features request
        switch.send(6, xid, struct.pack("!QIBB2xII", 0xA1, 256, 254, 0, 0x4F, 0))
        xid, _ = switch.await_kind(18)  # the application's multipart request
        entry = struct.pack("!HBxIIHHHH4xQQQHH4x", 56, 0, 1, 0, 1, 0, 0, 0, 0x6000_0001_0000_0002, 3, 4, 1, 4)
        switch.send(19, xid, struct.pack("!HH4x", 1, 0) + entry * 2)
        _, data = switch.await_kind(2)  # echo request, carrying what was decoded
        assert struct.unpack("=QQ", data) == (0x6000_0001_0000_0002,) * 2
    except (OSError, AssertionError) as error:
        log.seek(0)
        raise AssertionError(f"ryu-manager said:\n{log.read()}") from error
    finally:
        process.terminate()
        process.wait(timeout=20)
        log.close()
