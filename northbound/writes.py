"""What every write of the API takes besides its body: a key that makes it once, a dry run; and how OpenAPI says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from fastapi import FastAPI

from northbound.idempotency import HEADER, Idempotent
from northbound.rehearsing import PARAMETERS, DryRun, Rehearsing, can_be_tried, tries_itself
from northbound.security.routes import rule_for
from planner.snapshot import Operations

_METHODS: Final = ("post", "put", "delete")
_KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "your own name for this write: sent again within a day, it is answered and not made again",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}
_DRY_RUN: Final = {
    "name": PARAMETERS[0],
    "in": "query",
    "required": False,
    "description": "true: change nothing, and answer (200) which meters would change",
    "schema": {"type": "boolean", "default": False},
}
assert _KEY["name"].lower() == HEADER  # type: ignore[attr-defined]


def add_writes(app: FastAPI, operations: Operations, now: Callable[[], float]) -> None:
    """Have the app's writes take them. What guards the app comes in front of this."""
    app.add_middleware(Rehearsing, operations=operations)
    app.add_middleware(Idempotent, now=now)
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is not None:
            return app.openapi_schema
        whole = plain()
        schemas = whole.setdefault("components", {}).setdefault("schemas", {})
        schema = DryRun.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= schema.pop("$defs", {})
        schemas["DryRun"] = schema
        for path, operation_of in whole["paths"].items():
            for method in _METHODS:
                if method in operation_of and not rule_for(method.upper(), path)[0].question:
                    _describe(operation_of[method], method.upper(), path)
        return whole

    app.openapi = openapi  # type: ignore[method-assign]


def _describe(operation: dict[str, Any], method: str, path: str) -> None:
    parameters = operation.setdefault("parameters", [])
    if path != "/session":
        parameters.append(_KEY)
    if tries_itself(method, path):
        parameters.append(
            _DRY_RUN | {"description": "true: change nothing, and answer (200) what would change"}
        )
    if can_be_tried(method, path):
        parameters.append(_DRY_RUN)
        content = operation["responses"].setdefault(
            "200", {"description": "A dry run: nothing was changed.", "content": {"application/json": {}}}
        )["content"]["application/json"]
        tried, made = {"$ref": "#/components/schemas/DryRun"}, content.get("schema")
        content["schema"] = tried if made is None else {"anyOf": [made, tried]}
