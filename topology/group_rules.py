"""How much evidence a change of groups needs, and how much may change."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GroupRules:
    """How much evidence a change needs. Counts are of updates in a row."""

    #: A member changes group after so many updates, or when the evidence has lasted this long.
    switch_after: int = 3
    switch_after_s: float = 120.0
    #: A new group is "forming" until it was found so many times.
    active_after: int = 3
    #: A group that is not found any more is "dissolving", and gone after so many updates.
    dissolve_after: int = 6
    #: Least overlap with which a community continues a group.
    min_jaccard: float = 0.25
    min_size: int = 2
    #: At most this share of all memberships changes within an hour, and ``least_churn`` in any case.
    churn_per_hour: float = 0.2
    least_churn: int = 20

    def __post_init__(self) -> None:
        for name, least in (
            ("switch_after", 1),
            ("active_after", 1),
            ("dissolve_after", 1),
            ("min_size", 2),
            ("least_churn", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be >= {least}, got {getattr(self, name)}")
        if not (0 < self.min_jaccard <= 1 and self.switch_after_s > 0):
            raise ValueError(f"min_jaccard must be in (0, 1] and switch_after_s > 0, got {self}")
        if not 0 <= self.churn_per_hour <= 1:
            raise ValueError(f"churn_per_hour must be in [0, 1], got {self.churn_per_hour}")
