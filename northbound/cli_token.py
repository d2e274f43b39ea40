"""``tidegate token``: tokens made, listed, rotated and revoked, on the machine of the planner."""

from __future__ import annotations

import getpass
import json
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from northbound.cli_shared import (
    FAILED,
    MISUSED,
    JsonOption,
    OwnFilesOption,
    console,
    faults_told,
    own_files,
    stop,
)
from northbound.security.tokens import BOOTSTRAP, Token, TokenBook, TokenError, make
from planner.audit import AuditError, AuditLog
from planner.config import load
from planner.config_northbound import Northbound
from planner.secret import SecretError, write_owned

app = typer.Typer(
    name="token",
    help="Tokens: who may ask the planner, and how much.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

ExpiresOption = Annotated[
    str, typer.Option(metavar="TIME", help="How long it holds: 12h, 30d, 8w; or never.")
]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Its name or id.")]
_UNITS: Final = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@app.command()
def create(
    name: Annotated[str, typer.Option(help="Who or what it is for; goes into the audit log.")],
    scope: Annotated[str, typer.Option(help="read, operate or admin.")] = "read",
    expires: ExpiresOption = "90d",
    region: Annotated[str | None, typer.Option(help="Only what lies in this region.")] = None,
    group: Annotated[str | None, typer.Option(help="Only what lies in this group.")] = None,
    users: Annotated[
        bool, typer.Option("--users", help="Show users by name although it only reads.")
    ] = False,
    config: OwnFilesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a token and print it, once: what is kept is only its hash."""
    with _told():
        northbound = own_files(config)
        if region is not None and config is not None and region not in load(config).regions:
            raise TokenError(f"region must be one of the configuration, got {region!r}")
        now = time.time()
        text, token = make(name, scope, now, _end(expires, now), region=region, group=group, users=users)
        TokenBook(northbound.tokens_path).add(token)
        _note(northbound, "token create", token)
    _print(text, token, as_json)


@app.command("list")
def list_tokens(config: OwnFilesOption = None, as_json: JsonOption = False) -> None:
    """The tokens there are, without what only their holders know."""
    with _told():
        tokens = TokenBook(own_files(config).tokens_path).tokens()
    if as_json:
        print(json.dumps({"tokens": [_shown(token) for token in tokens]}, indent=2))
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("name", "id", "scope", "only", "users", "expires"):
        table.add_column(heading)
    now = time.time()
    for token in tokens:
        only = " ".join(filter(None, (token.region, token.group))) or "-"
        table.add_row(
            token.name, token.id, token.scope, only, "yes" if token.users else "-", _when(token.expires, now)
        )
    console().print(table)


@app.command()
def rotate(
    name: NameArgument,
    expires: ExpiresOption = "90d",
    config: OwnFilesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a token a new secret; the old one is void at once. `bootstrap` is the one of northbound.token_file."""
    with _told():
        northbound = own_files(config)
        now = time.time()
        if name == BOOTSTRAP:
            write_owned(northbound.token_file, secrets.token_urlsafe(32).encode() + b"\n")
            _note_named(northbound, "token rotate", BOOTSTRAP, None)
            console().print(f"{northbound.token_file} holds the new token", soft_wrap=True)
            return
        book = TokenBook(northbound.tokens_path)
        text, token = book.rotate(name, now, _end(expires, now))
        _note(northbound, "token rotate", token)
    _print(text, token, as_json)


@app.command()
def revoke(name: NameArgument, config: OwnFilesOption = None) -> None:
    """End a token at once, and every session that it opened."""
    with _told():
        northbound = own_files(config)
        if name == BOOTSTRAP:
            raise TokenError("name must be another: rotate bootstrap, or empty northbound.token_file")
        token = TokenBook(northbound.tokens_path).revoke(name)
        _note(northbound, "token revoke", token)
    console().print(f"{token.name} ({token.id}) is revoked")


@contextmanager
def _told() -> Iterator[None]:
    with faults_told():
        try:
            yield
        except TokenError as error:
            stop(MISUSED, f"tidegate: {error}")
        except (SecretError, AuditError, OSError) as error:
            stop(FAILED, f"tidegate: {error}")


def _end(expires: str, now: float) -> float | None:
    if expires == "never":
        return None
    match = re.fullmatch(r"([1-9]\d{0,5})([mhdw])", expires)
    if match is None:
        raise TokenError(f"expires must be like 12h, 30d or 8w, or never, got {expires!r}")
    return now + int(match[1]) * _UNITS[match[2]]


def _when(moment: float | None, now: float) -> str:
    if moment is None:
        return "never"
    text = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(moment))
    return text if moment > now else f"{text}, over"


def _shown(token: Token) -> dict[str, Any]:
    return {key: value for key, value in vars(token).items() if key != "hash"}


def _print(text: str, token: Token, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"token": text, **_shown(token)}, indent=2))
    else:
        print(text)


def _note(northbound: Northbound, action: str, token: Token) -> None:
    _note_named(northbound, action, token.name, _shown(token))


def _note_named(northbound: Northbound, action: str, name: str, after: Any) -> None:
    """The token is in force or void already: what cannot be noted is told, and the command fails."""
    AuditLog(northbound.audit_path).record(f"command:{getpass.getuser()}", action, name, None, after)
