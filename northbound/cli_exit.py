"""With which status a command ends, and why: one table for the code, the help and docs/cli.md."""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class Exit(IntEnum):
    """The statuses."""

    DONE = 0
    FAILED = 1
    MISUSED = 2
    UNREACHABLE = 3
    REFUSED = 4


MEANINGS: Final = {
    Exit.DONE: "done",
    Exit.FAILED: "it failed, or what was asked for is not well; standard error says why",
    Exit.MISUSED: "the configuration or the call is wrong",
    Exit.UNREACHABLE: "no planner answers",
    Exit.REFUSED: "not allowed: the token is unknown, over or may not do that, there were too many requests, "
    "or the store is in use",
}
#: Statuses of HTTP whose meaning is more than that it failed.
_OF_HTTP: Final = {401: Exit.REFUSED, 403: Exit.REFUSED, 429: Exit.REFUSED, 422: Exit.MISUSED}


def of_http(status_code: int) -> Exit:
    """How a command ends to which the planner answered with this error."""
    return _OF_HTTP.get(status_code, Exit.FAILED)


def in_help() -> str:
    """The table, for the end of a help page; Click leaves a paragraph after a backspace as it is."""
    rows = "\n".join(f"  {status.value}  {meaning}" for status, meaning in MEANINGS.items())
    return f"\b\nExit status:\n{rows}"
