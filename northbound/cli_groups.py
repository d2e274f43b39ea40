"""``tidegate groups``: what was found, groups of one's own, pins and pairs kept apart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.console import RenderableType
from rich.table import Table

from northbound import tables
from northbound.cli_completion import group_ids, user_ids
from northbound.cli_pool import HistoryOption, sparkline
from northbound.cli_quantities import RATE_HELP, rate_mbps, seconds
from northbound.cli_shared import MISUSED, JsonOption, Remote, asks_planner, examples, lists, show, stop
from northbound.tables import MISSING, mbps, moment, shown

app = typer.Typer(
    name="groups",
    help="The resource groups: list, show, create, set, delete, pin.",
    invoke_without_command=True,
    rich_markup_mode=None,
    epilog=examples(
        "groups",
        "groups show studio",
        "groups create studio anna ben --guarantee 5 --ceiling 20/40",
        "groups set studio --weight 2",
        "groups pin g1 carl",
    ),
)

GroupArgument = Annotated[
    str, typer.Argument(metavar="GROUP", help="A group's id.", autocompletion=group_ids)
]
UserArgument = Annotated[str, typer.Argument(metavar="USER", help="A user's id.", autocompletion=user_ids)]
MembersArgument = Annotated[
    list[str], typer.Argument(metavar="USER", help="Users' ids.", autocompletion=user_ids)
]
GuaranteeOption = Annotated[str, typer.Option(metavar="RATE", help=f"Always available; {RATE_HELP}.")]
CeilingOption = Annotated[str, typer.Option(metavar="RATE", help="Never more; in the same way.")]
WeightOption = Annotated[
    float | None, typer.Option(min=0.0, help="Share of what is scarce; only ratios matter.")
]


@app.callback()
@asks_planner
def groups(planner: Remote, context: typer.Context, as_json: JsonOption = False) -> None:
    """The resource groups: list, show, create, set, delete, pin."""
    if lists(context, as_json):
        _list(planner, as_json)


@app.command("list", epilog=examples("groups list --json"))
@asks_planner
def list_groups(planner: Remote, as_json: JsonOption = False) -> None:
    """The resource groups, and the services that belong to none."""
    _list(planner, as_json)


def _list(planner: Remote, as_json: bool) -> None:
    def parts(answer: dict[str, Any]) -> Iterator[RenderableType]:
        yield tables.groups(answer)
        yield f"shared services: {', '.join(answer['shared_services']) or 'none'}"

    show(planner.get("/groups"), as_json, parts)


@app.command("show", epilog=examples("groups show studio", "groups show studio --history 6h"))
@asks_planner
def show_group(
    planner: Remote, group: GroupArgument, history: HistoryOption = "1h", as_json: JsonOption = False
) -> None:
    """One group: members, rates now and in the recent past, and what happened to it."""
    query = {"history_s": seconds(history, "--history")}
    answer = planner.get(f"/metrics/group/{_quoted(group)}", query)
    answer |= planner.get(f"/groups/{_quoted(group)}/events")
    show(answer, as_json, _parts)


@app.command(epilog=examples("groups create studio anna ben --guarantee 5 --ceiling 20/40"))
@asks_planner
def create(
    planner: Remote,
    group: Annotated[str, typer.Argument(metavar="GROUP", help="Its id: letters, digits and . _ @ -")],
    members: MembersArgument,
    guarantee: GuaranteeOption = "",
    ceiling: CeilingOption = "",
    weight: WeightOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a group of your own. Its members leave the groups that were found for them."""
    body = {"id": group, "members": members, **_policy(guarantee, ceiling, weight)}
    show(planner.write("POST", "/groups/create", body), as_json, _written)


@app.command("set", epilog=examples("groups set studio --ceiling 20/40", "groups set studio --weight 2"))
@asks_planner
def set_bandwidth(
    planner: Remote,
    group: GroupArgument,
    guarantee: GuaranteeOption = "",
    ceiling: CeilingOption = "",
    weight: WeightOption = None,
    as_json: JsonOption = False,
) -> None:
    """Override a group's guarantee, ceiling or weight. It outlives re-clustering and restart."""
    body = _policy(guarantee, ceiling, weight)
    if not body:
        stop(MISUSED, "tidegate: at least one of --guarantee, --ceiling and --weight must be given")
    show(planner.write("PUT", f"/groups/{_quoted(group)}/bandwidth", body), as_json, _written)


@app.command("members", epilog=examples("groups members studio anna ben carl"))
@asks_planner
def set_members(
    planner: Remote, group: GroupArgument, members: MembersArgument, as_json: JsonOption = False
) -> None:
    """Replace the members of a group of your own: name all of them."""
    answer = planner.write("PUT", f"/groups/{_quoted(group)}/members", {"members": members})
    show(answer, as_json, _written)


@app.command(epilog=examples("groups delete studio"))
@asks_planner
def delete(planner: Remote, group: GroupArgument) -> None:
    """Take a group of your own away, with what it was allowed."""
    planner.write("DELETE", f"/groups/{_quoted(group)}")
    print(f"{group} is deleted")


@app.command(epilog=examples("groups pin g1 carl"))
@asks_planner
def pin(planner: Remote, group: GroupArgument, user: UserArgument, as_json: JsonOption = False) -> None:
    """Put a user into a discovered group, whatever is found of it."""
    answer = planner.write("POST", f"/groups/{_quoted(group)}/pins/{_quoted(user)}")
    show(answer, as_json, lambda _: [f"{user} is pinned to {group}"])


@app.command(epilog=examples("groups unpin g1 carl"))
@asks_planner
def unpin(planner: Remote, group: GroupArgument, user: UserArgument) -> None:
    """Let discovery decide again where a user is."""
    planner.write("DELETE", f"/groups/{_quoted(group)}/pins/{_quoted(user)}")
    print(f"{user} is no longer pinned to {group}")


@app.command(epilog=examples("groups forbid anna ben"))
@asks_planner
def forbid(planner: Remote, user: UserArgument, other: UserArgument, as_json: JsonOption = False) -> None:
    """Keep two users out of a common discovered group."""
    answer = planner.write("POST", "/groups/forbidden-pairs", {"users": [user, other]})
    show(answer, as_json, lambda _: [f"{user} and {other} are kept apart"])


@app.command(epilog=examples("groups allow anna ben"))
@asks_planner
def allow(planner: Remote, user: UserArgument, other: UserArgument) -> None:
    """Let two users meet again."""
    planner.write("DELETE", f"/groups/forbidden-pairs/{_quoted(user)}/{_quoted(other)}")
    print(f"{user} and {other} may meet")


@app.command(epilog=examples("groups discovery"))
@asks_planner
def discovery(planner: Remote, as_json: JsonOption = False) -> None:
    """Pins and pairs kept apart, and how much discovery may still change within the hour."""
    show(planner.get("/groups/discovery"), as_json, _discovery)


def _quoted(name: str) -> str:
    return quote(name, safe="")


def _policy(guarantee: str, ceiling: str, weight: float | None) -> dict[str, Any]:
    given = {
        "guarantee_mbps": rate_mbps(guarantee, "--guarantee"),
        "ceiling_mbps": rate_mbps(ceiling, "--ceiling"),
        "weight": weight,
    }
    return {name: value for name, value in given.items() if value is not None}


def _written(answer: dict[str, Any]) -> Iterator[str]:
    told = [] if answer["members"] is None else [f"members {', '.join(answer['members'])}"]
    pairs = ((name, answer[f"{name}_bps"]) for name in ("guarantee", "ceiling"))
    told += [
        f"{name} {mbps(rates['up'])}/{mbps(rates['down'])} Mbit/s"
        for name, rates in pairs
        if rates is not None
    ]
    if answer["weight"] is not None:
        told.append(f"weight {answer['weight']:g}")
    yield f"{answer['id']}: {'; '.join(told)}; the next plan follows it"


def _parts(answer: dict[str, Any]) -> Iterator[RenderableType]:
    group = answer["group"]
    yield f"{group['id']}, {group['source']} and {group['state']} since {moment(group['since'])}: {group['reason']}"
    yield f"members: {', '.join(group['members']) or MISSING}"
    yield tables.pools({"pools": answer["parts"], "total": len(answer["parts"]), "offset": 0})
    for direction in ("up", "down"):
        for name in ("offered", "grant"):
            history = answer["history"]
            yield sparkline(f"{direction:<4} {name:<7}", history["time"], history[f"{name}_bps"][direction])
    if answer["events"]:
        table = Table(title="what happened, newest last", title_justify="left")
        for name in ("when", "what", "whom", "other", "reason"):
            table.add_column(name, overflow="fold")
        for event in answer["events"][-20:]:
            members = ", ".join(event["members"]) or MISSING
            table.add_row(
                moment(event["time"]), event["kind"], members, shown(event["other"]), event["reason"]
            )
        yield table


def _discovery(answer: dict[str, Any]) -> Iterator[str]:
    for user, group in answer["pins"].items():
        yield f"{user} is pinned to {group}"
    for one, other in answer["forbidden_pairs"]:
        yield f"{one} and {other} are kept apart"
    yield f"{answer['churn_left']} memberships may still change within the hour; {answer['waiting']} wait"
