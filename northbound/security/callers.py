"""Who asks, and how much they may."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final


class Scope(IntEnum):
    """How much somebody may do; each holds what the ones before it hold."""

    #: Only where a login begins: nothing of the planner is shown.
    NOBODY = 0
    READ = 1
    OPERATE = 2
    ADMIN = 3


SCOPES: Final = {scope.name.lower(): scope for scope in Scope if scope}


@dataclass(frozen=True)
class Caller:
    """Somebody who was recognised."""

    #: Tells apart who shares limits of rate; never a secret.
    id: str
    #: Goes into the audit log.
    name: str
    scope: Scope
    #: Sees and writes only what lies in it; None: everywhere.
    region: str | None = None
    group: str | None = None
    #: Sees users' names and addresses although it only reads.
    users: bool = False
    #: Epoch seconds; infinity: never.
    expires: float = float("inf")
    #: Recognised by a cookie, which a browser sends whoever made it ask.
    by_cookie: bool = False

    @property
    def limited(self) -> bool:
        """Whether it is held to a region or a group."""
        return self.region is not None or self.group is not None

    @property
    def sees_users(self) -> bool:
        """Whether users are shown by name: whoever writes must know whom it is about."""
        return self.users or self.scope > Scope.READ


class Unrecognised(Exception):
    """The credential is unknown, revoked, expired or malformed. Says which, never the credential."""
