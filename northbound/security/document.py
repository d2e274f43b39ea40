"""What the guard asks, in the OpenAPI document: scopes, credentials, and the answers of refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from fastapi import FastAPI

from northbound import problems
from northbound.security.callers import Scope
from northbound.security.routes import rule_for

_METHODS: Final = frozenset(("get", "put", "post", "delete", "patch", "head", "options"))
_SCHEMES: Final = {
    "token": {"type": "http", "scheme": "bearer", "description": "a token: tidegate token create"},
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": "tidegate_session",
        "description": "a session that POST /session opened; writes then send Tidegate-CSRF: 1",
    },
}


def document(app: FastAPI) -> None:
    """Have the app's OpenAPI document say what its guard does."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            whole = plain()
            whole.setdefault("components", {})["securitySchemes"] = _SCHEMES
            for path, operations in whole.get("paths", {}).items():
                for method in _METHODS & operations.keys():
                    _describe(operations[method], method, path)
            app.openapi_schema = whole
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _describe(operation: dict[str, Any], method: str, path: str) -> None:
    scope = rule_for(method.upper(), path)[0].scope
    operation["security"] = [{"token": []}, {"session": []}] if scope is not Scope.NOBODY else []
    operation["x-tidegate-scope"] = scope.name.lower()
    statuses = {400, 401, 403, 404, 421, 429, 503}
    if method not in ("get", "head"):
        statuses |= {408, 413, 422}
    if "requestBody" in operation:
        statuses |= {415}
    for status, answer in problems.documented(*statuses).items():
        operation.setdefault("responses", {}).setdefault(str(status), answer)


def vocabulary(app: FastAPI) -> Callable[[], frozenset[str]]:
    """The words of the API itself: names of properties and parameters, and values of enumerations."""

    def words() -> frozenset[str]:
        found: set[str] = {"title", "status", "errors", "type", "about:blank"}

        def walk(node: Any) -> None:
            if isinstance(node, dict):
                found.update(node.get("properties") or {})
                found.update(value for value in node.get("enum", ()) if isinstance(value, str))
                if isinstance(node.get("const"), str):
                    found.add(node["const"])
                for value in node.values():
                    walk(value)
            elif isinstance(node, list):
                for value in node:
                    walk(value)

        walk(app.openapi())
        return frozenset(found)

    return words
