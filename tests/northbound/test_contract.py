"""The API against its own OpenAPI document, with requests that fit it and requests that do not."""

from __future__ import annotations

from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from northbound.api import create_app
from northbound.security.desk import Security
from planner.config_northbound import Limits
from tests.northbound.doubles import NOW, TOKEN, FakeOperations

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
LIMITS = Limits(requests_per_s=1e6, failures_per_minute=1e6, logins_per_minute=1e6)
app = create_app(
    FakeOperations(), TOKEN, now=lambda: NOW, security=Security.of_token(TOKEN, lambda: NOW, LIMITS)
)
# A stream has no end to wait for: test_stream_api.py.
schema = schemathesis.openapi.from_dict(app.openapi()).exclude(path="/stream")
schema.app = app


@schema.parametrize()
@settings(
    max_examples=20,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_answers_are_as_documented(case: Any):
    """No failure of the server, and no answer that the document does not tell of."""
    headers = {"Host": "127.0.0.1:8080", "Authorization": f"Bearer {TOKEN}"}
    case.call_and_validate(headers=headers, checks=CHECKS)
