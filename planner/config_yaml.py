"""YAML as operators mean it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from planner.config_faults import ConfigError

#: What PyYAML lets through where a tag such as !!int or !!timestamp stands before other text.
_YAML_LEAKS = (ValueError, TypeError, AttributeError, LookupError, RecursionError)


def read_yaml(path: Path) -> object:
    """The document in a file.

    Raises
    ------
    ConfigError : if it cannot be read, is not UTF-8 or not YAML; names the file.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 # nosec B506 - a SafeLoader
    except OSError as error:
        raise ConfigError([f"{path}: must be readable, got {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: must be UTF-8, got {error.reason}"]) from None
    except (yaml.YAMLError, *_YAML_LEAKS) as error:
        text = " ".join(str(error).split())
        raise ConfigError([f"{path}: must be YAML, got {text}"]) from None


class _Loader(yaml.SafeLoader):
    """YAML without its surprises for operators.

    A key twice is an error, where plain YAML lets the later one win. Scalars are
    read as in YAML 1.2: ``0000000000000011`` is a dpid and not octal, ``12:34:56``
    not a number to the base 60, ``no`` a name and not false.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key that is no text", key_node.start_mark
                )
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key_node.value!r} twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0|[1-9][0-9_]*)|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    # Ints come first: whatever is one would be a float too.
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))
