"""Ryu, kept at the rim: the only module of Tidegate that imports it.

Everything the applications need of Ryu is named here, so another runtime with the
same application API (os-ken) has one module to be added to. Importing this module
also makes Ryu hand over statistics replies in bulk: the ``body`` of a flow, port,
meter or meter configuration reply is a list of one ``StatsBody`` (none if the reply
is empty) instead of a list of one object per entry. That holds for the whole
process, so an application that wants Ryu's objects cannot run beside Tidegate.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

try:
    from ryu import cfg
    from ryu.base import app_manager
except ImportError as error:
    if "ALREADY_HANDLED" not in str(error):
        raise
    raise ImportError(
        "Ryu needs scripts/tidegate_ryu_compat.py and .pth in this environment's site-packages directory; "
        "`make setup` puts them there"
    ) from error

from ryu.controller import ofp_event
from ryu.controller.handler import CONFIG_DISPATCHER, DEAD_DISPATCHER, HANDSHAKE_DISPATCHER, MAIN_DISPATCHER
from ryu.controller.handler import set_ev_cls as _set_ev_cls
from ryu.lib import hub
from ryu.lib.packet import (
    arp,
    ether_types,
    ethernet,
    icmpv6,
    in_proto,
    ipv4,
    ipv6,
    lldp,
    packet,
    tcp,
    udp,
    vlan,
)
from ryu.ofproto import ofproto_parser, ofproto_protocol, ofproto_v1_3, ofproto_v1_3_parser

from ryu_apps.codec.body import StatsBody
from ryu_apps.codec.flow_stats import FlowStats
from ryu_apps.codec.messages import join_messages

__all__ = [
    "CONFIG_DISPATCHER",
    "DEAD_DISPATCHER",
    "HANDSHAKE_DISPATCHER",
    "MAIN_DISPATCHER",
    "RyuApp",
    "arp",
    "ether_types",
    "ethernet",
    "flow_entries",
    "hub",
    "icmpv6",
    "in_proto",
    "ipv4",
    "ipv6",
    "listen_on_loopback",
    "lldp",
    "offline_datapath",
    "ofp_event",
    "ofproto_v1_3",
    "ofproto_v1_3_parser",
    "packet",
    "parse_message",
    "ryus_own_bodies",
    "send_all",
    "serialize",
    "set_ev_cls",
    "take_xids",
    "tcp",
    "udp",
    "vlan",
]

Handler = TypeVar("Handler", bound=Callable[..., Any])
U32 = npt.NDArray[np.uint32]

if TYPE_CHECKING:

    class RyuApp:
        """Ryu has no type hints; this is the part of its application class that Tidegate relies on."""

        OFP_VERSIONS: list[int] | None
        name: str
        logger: logging.Logger

        def __init__(self, *args: Any, **kwargs: Any) -> None: ...

        def start(self) -> Any:
            """Start the application's event loop; called once all applications exist."""

        def stop(self) -> None:
            """End it."""

        def close(self) -> None:
            """Called when Ryu ends."""

        def send_event_to_observers(self, ev: Any, state: str | None = None) -> None:
            """Hand an event to each application that listens for its class."""

else:
    RyuApp = app_manager.RyuApp


def set_ev_cls(event: Any, states: str | Sequence[str] | None = None) -> Callable[[Handler], Handler]:
    """Ryu's decorator for event handlers, with its type: ``states`` are the dispatchers to listen in."""
    decorate: Callable[[Handler], Handler] = _set_ev_cls(event, states)
    return decorate


_REPLY: Final = ofproto_v1_3_parser.OFPMultipartReply
_BULK_TYPES: Final = (
    ofproto_v1_3.OFPMP_FLOW,
    ofproto_v1_3.OFPMP_PORT_STATS,
    ofproto_v1_3.OFPMP_METER,
    ofproto_v1_3.OFPMP_METER_CONFIG,
)
_RYUS_OWN: Final = {kind: _REPLY._STATS_MSG_TYPES[kind].cls_stats_body_cls for kind in _BULK_TYPES}


def _plug_in(body_classes: dict[int, Any]) -> None:
    for kind, body_class in body_classes.items():
        _REPLY._STATS_MSG_TYPES[kind].cls_stats_body_cls = body_class


_BULK: Final = dict.fromkeys(_BULK_TYPES, StatsBody)
_plug_in(_BULK)


@contextmanager
def ryus_own_bodies() -> Iterator[None]:
    """While this holds, Ryu builds its own object per statistics entry, as it does by itself."""
    _plug_in(_RYUS_OWN)
    try:
        yield
    finally:
        _plug_in(_BULK)


def listen_on_loopback() -> None:
    """Make 127.0.0.1 the address where Ryu awaits switches, unless ``--ofp-listen-host`` names another.

    Ryu's own default is every address of the machine. Call before Ryu opens the socket: when an
    application is made.
    """
    cfg.CONF.set_default("ofp_listen_host", "127.0.0.1")


def offline_datapath() -> Any:
    """What Ryu's OpenFlow 1.3 messages need of a switch to be built and read without one."""
    return ofproto_protocol.ProtocolDesc(ofproto_v1_3.OFP_VERSION)


def parse_message(datapath: Any, raw: bytes) -> Any:
    """The message of these bytes, read the way Ryu's connection does; None if malformed (Ryu logs why)."""
    return ofproto_parser.msg(datapath, *ofproto_parser.header(raw), raw)


def flow_entries(stats: FlowStats, wanted: Iterable[int]) -> list[Any]:
    """Ryu's ``OFPFlowStats``, match and instructions included, of the entries with these indices.

    Slow (some 70 us each): for the few entries that must be understood, such as
    learnt hosts after a restart. Indices of a mask: ``numpy.flatnonzero(mask)``.
    """
    parse = _RYUS_OWN[ofproto_v1_3.OFPMP_FLOW].parser
    return [parse(bytes(stats.raw(int(index))), 0) for index in wanted]


def take_xids(datapath: Any, count: int) -> U32:
    """The switch's next ``count`` transaction ids, shape (count,), so errors can be told apart."""
    modulus = ofproto_v1_3.MAX_XID + 1
    xids: U32 = ((int(datapath.xid) + 1 + np.arange(count, dtype=np.int64)) % modulus).astype(np.uint32)
    datapath.xid = (datapath.xid + count) % modulus
    return xids


def serialize(messages: Iterable[Any], xids: npt.ArrayLike) -> bytes:
    """Ryu's messages one behind the other as bytes, each with its transaction id of ``xids``."""
    raw = []
    for message in messages:
        message.serialize()
        raw.append(message.buf)
    return join_messages(raw, xids)


def send_all(datapath: Any, messages: Sequence[Any]) -> U32:
    """Send messages as one buffer; their transaction ids, shape (n_messages,).

    Ryu's own ``send_msg`` makes a queue entry and a system call of each; the queue holds 16.
    """
    xids = take_xids(datapath, len(messages))
    if messages:
        datapath.send(serialize(messages, xids))
    return xids
