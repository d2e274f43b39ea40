"""The ``policies`` block: where the rules are."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from planner.config_block import Block


class Policies(Block):
    """Rules that change what pools may have, by time or while capacity is short."""

    file: Path | None = Field(default=None, description="the policy file; absent: no such rules")
