"""What is wrong with a configuration, one line a fault: path, rule and value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any


class ConfigError(Exception):
    """The file is wrong: fix the file. One line a fault: path, rule and value."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


_RULES = {
    "extra_forbidden": "is not a known key",
    "missing": "must be given",
    "greater_than": "must be > {gt:.12g}",
    "greater_than_equal": "must be >= {ge:.12g}",
    "less_than": "must be < {lt:.12g}",
    "less_than_equal": "must be <= {le:.12g}",
    "finite_number": "must be a finite number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "literal_error": "must be {expected}",
    "too_short": "must have at least {min_length} entries",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "string_pattern_mismatch": "must match {pattern}",
    "too_long": "must have at most {max_length} entries",
    "path_type": "must be a path",
    "value_error": "{error}",
}


def fault_lines(errors: Iterable[Mapping[str, Any]], written: object) -> list[str]:
    """One line for each of pydantic's errors: path, rule, value."""
    return list(dict.fromkeys(_fault(error, written) for error in errors))


def _fault(error: Mapping[str, Any], written: object) -> str:
    kind = error["type"]
    known = _RULES.get(kind)
    # Only our own texts have places to fill: pydantic's may hold braces of a pattern.
    rule = known.format(**error.get("ctx", {})) if known else error["msg"].lower()
    path = ".".join(_written_path(error["loc"], written))
    if kind == "missing":
        return f"{path} {rule}"
    return f"{path} {rule}, got {_shown(error['input'])}"


def _written_path(location: Iterable[str | int], written: object) -> Iterator[str]:
    """The path as far as it was written: one number may stand for both directions."""
    for part in location:
        if not isinstance(written, Mapping | list):
            return
        yield str(part)
        if isinstance(written, Mapping):
            written = written.get(part, {})
        else:
            written = written[part] if isinstance(part, int) and part < len(written) else {}


def _shown(value: object) -> str:
    try:
        text = repr(value) if not isinstance(value, Mapping) else "a mapping"
    except ValueError:  # an integer of more digits than Python prints
        text = "a number of very many digits"
    return text if len(text) <= 60 else text[:57] + "..."
