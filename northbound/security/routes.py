"""What each route asks of its caller. What is not declared here asks for an unlimited admin.

The first rule that fits holds. ``*`` in a path stands for one part, ``**`` for any number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache
from typing import Final

from northbound.security.callers import Scope


class Within(Enum):
    """How a route can be held to a caller's region or group."""

    #: It cannot: a limited caller is refused.
    NOWHERE = auto()
    #: It shows nothing of anybody.
    ANYWHERE = auto()
    #: It shows the snapshot, of which a limited caller gets a part.
    SNAPSHOT = auto()
    #: What the path has at the rule's ``*`` is a group's id, and then a user's; a body may name users.
    GROUP = auto()
    #: What the path has at the rule's ``*`` or ``**`` is a pool.
    POOL = auto()
    #: The query names a ``pool``.
    QUERY_POOL = auto()
    #: The path names a boost.
    BOOST = auto()
    #: The body names pools, users, groups or regions.
    BODY = auto()


@dataclass(frozen=True)
class Rule:
    """What some routes ask."""

    methods: frozenset[str]
    pattern: re.Pattern[str]
    scope: Scope
    within: Within = Within.NOWHERE
    #: Whether a body is only a question: it is no write, and not in the audit log.
    question: bool = False


def _rule(line: str, scope: Scope, within: Within = Within.NOWHERE, *, question: bool = False) -> Rule:
    methods, path = line.split()
    # Every rule holds under /v1 as well.
    parts = re.escape(path).replace(r"\*\*", "(.+)").replace(r"\*", "([^/]+)")
    return Rule(frozenset(methods.split("|")), re.compile(f"(?:/v1)?{parts}"), scope, within, question)


UNDECLARED: Final = Rule(frozenset(), re.compile(""), Scope.ADMIN)

RULES: Final = (
    # Where a login begins.
    _rule("POST /session", Scope.NOBODY, Within.ANYWHERE),
    _rule("GET /dashboard/login", Scope.NOBODY, Within.ANYWHERE),
    _rule("GET /dashboard/static/**", Scope.NOBODY, Within.ANYWHERE),
    _rule("GET /session", Scope.READ, Within.ANYWHERE),
    _rule("DELETE /session", Scope.READ, Within.ANYWHERE),
    _rule("GET /health", Scope.READ, Within.ANYWHERE),
    # The document and its page.
    _rule("GET /openapi.json", Scope.READ, Within.ANYWHERE),
    _rule("GET /docs", Scope.READ, Within.ANYWHERE),
    _rule("GET /docs/oauth2-redirect", Scope.READ, Within.ANYWHERE),
    _rule("GET /static-offline-docs/**", Scope.READ, Within.ANYWHERE),
    # Secrets of others, and what was done by whom.
    _rule("GET /audit", Scope.ADMIN),
    _rule("GET /dashboard/audit", Scope.ADMIN),
    _rule("GET|POST|PUT|DELETE /webhooks", Scope.ADMIN),
    _rule("GET|POST|PUT|DELETE /webhooks/**", Scope.ADMIN),
    # What is made by reading a body.
    _rule("POST /predictDemand", Scope.READ, Within.BODY, question=True),
    # What lies in a region or a group.
    _rule("GET /groups", Scope.READ, Within.SNAPSHOT),
    _rule("GET /metrics/global", Scope.READ, Within.SNAPSHOT),
    _rule("POST /groups/create", Scope.OPERATE, Within.BODY),
    # Of everybody's, not of a group's own.
    _rule("GET /groups/discovery", Scope.READ),
    _rule("GET /groups/dependencies", Scope.READ),
    _rule("GET /roles", Scope.READ),
    _rule("GET /groups/forbidden-pairs", Scope.READ),
    _rule("POST /groups/forbidden-pairs", Scope.OPERATE),
    _rule("DELETE /groups/forbidden-pairs/**", Scope.OPERATE),
    _rule("GET /groups/*", Scope.READ, Within.GROUP),
    _rule("GET /groups/*/events", Scope.READ, Within.GROUP),
    _rule("GET /metrics/group/*", Scope.READ, Within.GROUP),
    _rule("PUT /groups/*/bandwidth", Scope.OPERATE, Within.GROUP),
    _rule("DELETE /groups/*", Scope.OPERATE, Within.GROUP),
    _rule("PUT /groups/*/members", Scope.OPERATE, Within.GROUP),
    _rule("POST|DELETE /groups/*/pins/*", Scope.OPERATE, Within.GROUP),
    _rule("GET /metrics/user/*", Scope.READ, Within.POOL),
    _rule("GET /metrics/region/*", Scope.READ, Within.POOL),
    _rule("GET /forecasts/**", Scope.READ, Within.POOL),
    _rule("GET /explain/**", Scope.READ, Within.POOL),
    _rule("GET /alarms", Scope.READ, Within.QUERY_POOL),
    _rule("POST /boosts", Scope.OPERATE, Within.BODY),
    _rule("DELETE /boosts/*", Scope.OPERATE, Within.BOOST),
    # What is about the network as a whole.
    _rule("GET /metrics", Scope.READ),
    _rule("GET /metrics/**", Scope.READ),
    _rule("GET /forecasts", Scope.READ),
    _rule("GET /plan", Scope.READ),
    _rule("GET /plan/**", Scope.READ),
    _rule("GET /switches", Scope.READ),
    _rule("GET /switches/**", Scope.READ),
    _rule("GET /topology", Scope.READ),
    _rule("GET /topology/**", Scope.READ),
    _rule("GET /users/**", Scope.READ),
    _rule("GET /isolations", Scope.READ),
    _rule("GET /isolations/*", Scope.READ),
    _rule("GET /summary", Scope.READ),
    _rule("GET /boosts", Scope.READ),
    _rule("GET /standbys", Scope.READ),
    _rule("GET /models", Scope.READ),
    _rule("GET /models/*", Scope.READ),
    _rule("GET /archetypes", Scope.READ),
    _rule("GET /archetypes/*", Scope.READ),
    _rule("GET /events", Scope.READ),
    _rule("GET /events/**", Scope.READ),
    _rule("GET /stream", Scope.READ),
    _rule("GET /stream/**", Scope.READ),
    _rule("GET /remediation", Scope.READ),
    _rule("GET /remediation/**", Scope.READ),
    _rule("GET /", Scope.READ),
    _rule("GET /dashboard", Scope.READ),
    _rule("GET /dashboard/**", Scope.READ),
    _rule("POST /updateTrafficShape", Scope.OPERATE),
    _rule("GET /trafficShapes", Scope.READ),
    _rule("GET /trafficShapes/*", Scope.READ),
    _rule("DELETE /trafficShapes/*", Scope.OPERATE),
    _rule("PUT|DELETE /users/*/bindings", Scope.OPERATE),
    _rule("DELETE /isolations/*", Scope.OPERATE),
    _rule("PUT /archetypes/*/name", Scope.OPERATE),
    _rule("POST /events", Scope.OPERATE),
    _rule("POST /events/import", Scope.OPERATE),
    _rule("DELETE /events/**", Scope.OPERATE),
    _rule("POST /alarms/*/acknowledge", Scope.OPERATE),
    _rule("POST /plan/freeze", Scope.OPERATE),
    _rule("POST /plan/unfreeze", Scope.OPERATE),
    _rule("POST /plan/revert", Scope.OPERATE),
    _rule("POST /remediation/**", Scope.OPERATE),
    # /plan/mode and the models' rollback change what everybody gets, for long: admin.
)


@lru_cache(maxsize=4096)
def rule_for(method: str, path: str) -> tuple[Rule, tuple[str, ...]]:
    """The rule of a request, and what its path has at the rule's stars."""
    method = "GET" if method == "HEAD" else method
    for rule in RULES:
        if method in rule.methods and (match := rule.pattern.fullmatch(path)):
            return rule, match.groups()
    return UNDECLARED, ()
