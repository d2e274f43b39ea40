"""What was found in the traffic, by REST: who talks to whom, which groups depend on which, and roles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Response
from pydantic import Field

from northbound import problems, views
from northbound.answers import Answer
from northbound.pages import Limit, Offset, Page, page_of
from planner.group_dependencies import rows_of
from planner.group_findings import NamedRole
from planner.snapshot import Operations
from topology.traffic_view import strongest, to_graphml, to_json

MAX_EDGES: Final = 50_000
#: As text: what is served of users passes under pseudonyms to those who may not know them.
GRAPHML: Final = "text/xml"


class Service(Answer):
    """An application class and what is done with it."""

    application: str = Field(description="a name of `applications`, or other")
    direction: Literal["sends", "receives"]


class Role(Answer):
    """Endpoints that do the same, wherever they talk."""

    id: str = Field(description="kept while most of the members stay; numbers start anew with the planner")
    members: list[str] = Field(description="user ids, and MACs that are nobody's")
    services: list[Service] = Field(description="what more than half of the members do")


class Roles(Page):
    """A page of the roles."""

    roles: list[Role]


class Party(Answer):
    """Who may depend on others."""

    id: str
    kind: Literal["group", "service"] = Field(description="service: a shared service, which is in no group")


class Dependency(Answer):
    """One sends to another."""

    source: str
    target: str
    rate_bps: float = Field(description="of lately")
    correlation: float | None = Field(
        description="of the changes of their demands, -1 to 1, at the lag where it is highest; null: not known"
    )
    lag_s: float | None = Field(description="by how much the target's demand follows; below 0: it leads")


class Dependencies(Page):
    """A page of the group graph, the strongest edges first."""

    groups: list[Party]
    dependencies: list[Dependency]


class GraphNode(Answer):
    """An endpoint."""

    id: str


class GraphEdge(Answer):
    """What one endpoint sends another of one application class."""

    source: str
    target: str
    key: int = Field(description="the class: 0 is other, then `applications` in the file's order")
    rate_bps: float = Field(description="of lately")


class GraphFacts(Answer):
    """About the graph as a whole."""

    time: float = Field(description="epoch seconds")
    total_edges: int = Field(description="edges there are; the strongest are shown")


class TrafficGraph(Answer):
    """Who talks to whom: networkx reads it with ``node_link_graph(data, edges="edges")``."""

    directed: bool
    multigraph: bool
    graph: GraphFacts
    nodes: list[GraphNode]
    edges: list[GraphEdge]


def findings_router(operations: Operations) -> APIRouter:
    """The routes. They come before those of groups, whose ids would else be taken for their names."""
    router = APIRouter(responses=problems.documented(421, 422), tags=["state"])

    @router.get("/groups/dependencies", response_model=Dependencies)
    def list_dependencies(limit: Limit = 1000, offset: Offset = 0) -> dict[str, Any]:
        """Which groups send to which, and whose demand follows whose."""
        found, total = operations.grouping.dependencies(offset, limit)
        services = set(operations.snapshot.shared_services)
        named = {found.groups[i] for i in (*found.source.tolist(), *found.target.tolist())}
        parties = [{"id": name, "kind": "service" if name in services else "group"} for name in sorted(named)]
        place = {"total": total, "offset": offset, "limit": limit}
        return {**place, "groups": parties, "dependencies": rows_of(found)}

    @router.get("/roles", response_model=Roles)
    def list_roles(limit: Limit = 1000, offset: Offset = 0) -> dict[str, Any]:
        """Endpoints that use and offer the same services, wherever they talk."""
        names = operations.grouping.application_names
        page = page_of("roles", operations.grouping.roles(), limit, offset)
        return {**page, "roles": [_role(named, names) for named in page["roles"]]}

    @router.get("/topology/graph", response_model=TrafficGraph, responses={200: {"content": {GRAPHML: {}}}})
    def show_traffic_graph(
        form: Annotated[Literal["json", "graphml"], Query(alias="format")] = "json",
        limit: Annotated[int, Query(ge=1, le=MAX_EDGES, description="edges, the strongest first")] = 10_000,
    ) -> Response:
        """Who talks to whom, how much, and of which application class; for networkx, Gephi or Cytoscape."""
        view = operations.grouping.traffic()
        shown = strongest(view, limit)
        if form == "graphml":
            return Response(to_graphml(shown), media_type=GRAPHML)
        report = to_json(shown)
        report["graph"]["total_edges"] = len(view.rate_bps)
        return Response(views.encode(views.plain(report)), media_type="application/json")

    return router


def _role(named: NamedRole, names: Sequence[str]) -> dict[str, Any]:
    role = named.role
    services = [
        # A class of before the file had fewer is shown by its number.
        {"application": names[app] if app < len(names) else str(app), "direction": direction}
        for direction, apps in (("sends", role.sends), ("receives", role.receives))
        for app in apps
    ]
    return {"id": named.id, "members": sorted(role.members), "services": services}
