"""What scenarios need of the machine."""

from __future__ import annotations

import importlib.util
import os
import shutil

#: Commands by the Debian package that has them.
COMMANDS = {
    "openvswitch-switch": ("ovs-vsctl", "ovs-ofctl", "ovs-vswitchd"),
    "mininet": ("mnexec",),
    "iperf3": ("iperf3",),
    "ethtool": ("ethtool",),
    "iproute2": ("ip",),
    "iputils-ping": ("ping",),
    "net-tools": ("ifconfig",),
}


def missing() -> list[str]:
    """What this machine lacks, a line each; empty: scenarios can run."""
    lacking = []
    if os.geteuid() != 0:
        lacking.append(f"root (the user id is {os.geteuid()})")
    for package, commands in COMMANDS.items():
        absent = [command for command in commands if shutil.which(command) is None]
        if absent:
            lacking.append(f"{', '.join(absent)} (package {package})")
    if importlib.util.find_spec("mininet") is None:
        lacking.append("the Python package mininet (make setup)")
    return lacking
