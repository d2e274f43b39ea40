import socket

import pytest

from mininet_scenarios.controller import APP, ControllerFailed, check_free, controller_command


def test_the_command_is_ryus_own():
    """``ryu-manager`` of the same environment, with the app's file."""
    command = controller_command(6653)
    assert command[0].endswith("/ryu-manager")
    assert command[-1] == str(APP)
    assert command[1:-1] == ["--ofp-tcp-listen-port", "6653"]


def test_a_taken_port_is_told_before_anything_starts():
    """The error names the port, what it is for, and why it cannot be had."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ControllerFailed, match=rf"TCP port {port} \(northbound.port\) must be free"):
            check_free({"northbound.port": port})
    check_free({"northbound.port": port})
