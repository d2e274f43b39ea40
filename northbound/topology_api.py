"""The network by REST: switches, links, hosts, what changed; and what tells a user's devices."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Response
from fastapi.params import Depends
from pydantic import Field

from northbound import problems, views
from northbound.answers import Answer
from northbound.bodies import UserBindings as BindingsBody
from planner.network_desk import LinkView, TopologyView
from planner.network_desk import UserBindings as BindingsValue
from planner.snapshot import Operations

MAX_HOSTS = 10_000
UserId = Annotated[str, Path(min_length=1, max_length=64, description="a user's id")]
_WRITE = problems.documented(400, 401, 404, 408, 409, 413, 421, 422)


class Switch(Answer):
    """One switch that was ever seen."""

    dpid: str
    connected: bool
    region: str | None
    description: str


class End(Answer):
    """A port of a switch."""

    dpid: str
    port_no: int


class Link(Answer):
    """One direction of a cable."""

    src: End
    dst: End
    capacity_bps: int | None = Field(description="configured, or the slower port's speed")
    rate_bps: int | None = Field(description="what its source port sent, in the newest sample")
    utilisation: float | None = Field(description="of the capacity, 0 to 1")
    state: Literal["used", "held"] = Field(description="held: it flaps, and there is another way")


class Host(Answer):
    """One host."""

    mac: str
    addresses: list[str]
    dpid: str
    port_no: int
    user: str | None = Field(description="whose it is; null: nobody's")
    region: str | None
    last_seen: float


class Topology(Answer):
    """The network as the switches' speakers report it."""

    switches: list[Switch]
    links: list[Link]
    total_hosts: int = Field(description="hosts on all pages")
    hosts: list[Host]


class TopologyEvent(Answer):
    """Something that changed in the network."""

    id: int
    time: float = Field(description="epoch seconds")
    what: Literal["switch", "link", "port", "user"]
    name: str = Field(description="a dpid, dpid/port, both ends of a link, or a user's id")
    change: Literal["up", "down", "flapping", "steady", "moved"]
    detail: str = Field(description="how it is now that it is steady; from where to where a user moved")


class TopologyEvents(Answer):
    """Changes, oldest first."""

    last: int = Field(description="since of the next question")
    complete: bool = Field(description="false: changes between were forgotten")
    events: list[TopologyEvent]


class Binding(Answer):
    """One MAC or address that tells a user."""

    kind: Literal["mac", "address"]
    value: str
    source: Literal["configured", "api", "learned"]
    until: float | None = Field(description="epoch seconds; null: no end")


class Device(Answer):
    """A device of the user that is on the network."""

    mac: str
    addresses: list[str]
    dpid: str
    port_no: int
    recognised_by: Literal["mac", "address"]


class Bindings(Answer):
    """What tells a user, and where its devices are."""

    user: str
    bindings: list[Binding]
    devices: list[Device]


def topology_router(operations: Operations, bearer: Depends) -> APIRouter:
    """The routes; writes carry ``bearer``."""
    router = APIRouter(responses=problems.documented(421))
    _add_topology(router, operations)
    _add_bindings(router, operations, bearer)
    return router


def _add_topology(router: APIRouter, operations: Operations) -> None:
    @router.get("/topology", response_model=Topology, responses=problems.documented(422), tags=["state"])
    def show_topology(
        limit: Annotated[int, Query(ge=0, le=MAX_HOSTS, description="hosts on a page")] = 1000,
        offset: Annotated[int, Query(ge=0, le=10**9, description="hosts before the page, by MAC")] = 0,
    ) -> Response:
        """Switches, links with capacity and use, and a page of hosts."""
        return _answer(_topology(operations.network.topology(offset, limit)))

    @router.get(
        "/topology/events", response_model=TopologyEvents, responses=problems.documented(422), tags=["state"]
    )
    def list_topology_events(
        since: Annotated[int, Query(ge=0, le=2**53, description="events after the one with this id")] = 0,
    ) -> dict[str, Any]:
        """What changed of switches, links, ports and where users are. Numbers start anew with the planner."""
        events, complete, last = operations.network.events(since)
        names = ("id", "time", "what", "name", "change", "detail")
        rows = [{name: getattr(event, name) for name in names} for event in events]
        return {"last": last, "complete": complete, "events": rows}


def _add_bindings(router: APIRouter, operations: Operations, bearer: Depends) -> None:
    written: dict[str, Any] = {"dependencies": [bearer], "responses": _WRITE, "tags": ["writes"]}

    @router.get(
        "/users/{user}/bindings",
        response_model=Bindings,
        responses=problems.documented(404, 422),
        tags=["state"],
    )
    def show_bindings(user: UserId) -> Response:
        """What tells a user: from the file, from operators, or learnt; and where its devices are."""
        return _answer(_bindings(user, operations.network.bindings(user)))

    @router.put("/users/{user}/bindings", response_model=Bindings, **written)
    def bind_user(user: UserId, body: BindingsBody) -> Response:
        """Bind MACs and addresses to a user for a time, in place of all that was bound here before."""
        found = operations.network.bind(user, body.macs, body.addresses, body.ttl_s)
        return _answer(_bindings(user, found))

    @router.delete("/users/{user}/bindings", status_code=204, **written)
    def unbind_user(user: UserId) -> Response:
        """Take back what was bound here."""
        operations.network.unbind(user)
        return Response(status_code=204)


def _topology(view: TopologyView) -> dict[str, Any]:
    return {
        "switches": [
            {"dpid": f"{dpid:016x}", "connected": connected, "region": region, "description": description}
            for dpid, connected, region, description in view.switches
        ],
        "links": [_link(link) for link in view.links],
        "total_hosts": view.n_hosts,
        "hosts": [
            {
                "mac": one.host.mac,
                "addresses": sorted(one.host.addresses),
                **_end(one.host.dpid, one.host.port_no),
                "user": one.user,
                "region": one.region,
                "last_seen": one.host.last_seen,
            }
            for one in view.hosts
        ],
    }


def _link(view: LinkView) -> dict[str, Any]:
    link = view.link
    capacity, rate = views.whole_bps([view.capacity_bps, view.rate_bps])
    return {
        "src": _end(link.src_dpid, link.src_port),
        "dst": _end(link.dst_dpid, link.dst_port),
        "capacity_bps": capacity,
        "rate_bps": rate,
        "utilisation": view.utilisation,
        "state": "held" if view.held else "used",
    }


def _bindings(user: str, value: BindingsValue) -> dict[str, Any]:
    names = ("kind", "value", "source", "until")
    return {
        "user": user,
        "bindings": [{name: getattr(one, name) for name in names} for one in value.bindings],
        "devices": [
            {
                "mac": device.mac,
                "addresses": sorted(device.addresses),
                **_end(device.dpid, device.port_no),
                "recognised_by": device.source,
            }
            for device in value.devices
        ],
    }


def _end(dpid: int, port_no: int) -> dict[str, Any]:
    return {"dpid": f"{dpid:016x}", "port_no": port_no}


def _answer(report: dict[str, Any]) -> Response:
    return Response(views.encode(views.plain(report)), media_type="application/json")
