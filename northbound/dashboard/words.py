"""What the planner's own terms mean, in words that a newcomer reads."""

from __future__ import annotations

import math
from typing import Final

from northbound.dashboard.figures import Scale
from planner.explain import DirectionWas, Explanation

#: Directions as people think of them: the planner's are from the host's side too.
DIRECTIONS: Final = {"down": "Download", "up": "Upload"}
RUNGS: Final = {
    "model": "the trained model",
    "archetype": "pools that behave alike",
    "auto_bandwidth": "the highest recent five minutes",
    "last_plan": "nothing better than the last plan",
}
BOUNDS: Final = {
    "parent": "is short of what it is likely to want",
    "guarantee": "is at its guarantee",
    "claim": "has what it asks for",
    "leftover": "has what it is likely to want, and more",
    "ceiling": "is at its ceiling",
}
TIERS: Final = {
    "full": "trusted in full",
    "partial": "trusted in part",
    "standby": "too doubtful to act on yet: its parent keeps capacity ready",
}
LEVELS: Final = {
    "global": "Network",
    "region": "Region",
    "group": "Group",
    "user": "User",
    "application": "Application class",
}
#: What a pool holds after each of ``ForecastAllocation.stages_bps``.
STAGES: Final = (
    "by guarantee",
    "with what it uses now",
    "with its forecast's part",
    "with what was left over",
)
SEVERITIES: Final = ("critical", "major", "minor")


def last_part(path: str) -> str:
    """What a pool is called among its siblings."""
    return path.rsplit("/", 1)[-1]


def policy_target(path: str, level: str) -> str:
    """What policies and boosts call a pool."""
    if level == "application":
        return f"user:{'/'.join(path.split('/')[-2:])}"
    return f"{level}:{last_part(path)}"


def headline(chain: DirectionWas, name: str, scale: Scale) -> str:
    """Why it has this rate, in a sentence."""
    share = chain.share
    holder = last_part(share.bound_by)
    most = f"its ceiling, {scale.plain(share.ceiling_bps)}"
    reasons = {
        "parent": f"{holder} has {scale.plain(share.limit_bps)} to share, and {name}'s fair part is used up",
        "guarantee": "that is its guarantee, and it asks for no more",
        "claim": "that is all that it may want by its forecast",
        "leftover": (
            f"it may want no more than that by its forecast, and {holder} had some left over"
            if share.grant_bps >= share.claim_bps
            else f"what it is likely to want is met; of the rest, {holder} gives each so much that all are "
            "equally likely to fall short"
        ),
        "ceiling": f"that is {most}" if math.isfinite(share.ceiling_bps) else "all below it are at a ceiling",
    }
    return reasons.get(share.bound, f"{share.bound} of {holder} holds {scale.plain(share.limit_bps)}")


def steps(explanation: Explanation, chain: DirectionWas, scale: Scale) -> list[tuple[str, str, str]]:
    """The chain from sample to meter: a name, the figure, and what it means. Meters are listed apart."""
    sample, forecast, tier, share = chain.sample, chain.forecast, chain.tier, chain.share
    name = last_part(explanation.path)
    rate = scale.plain
    known = not math.isnan(sample.offered_bps)
    if not known:
        measured = "Nothing was measured lately. That is not the same as nothing sent."
    elif sample.censored:
        measured = (
            f"{rate(sample.delivered_bps)} passed; a meter dropped the rest, so more may have been wanted."
        )
    else:
        measured = "All of it passed the meters."
    found = [
        ("Measured", rate(sample.offered_bps), measured),
        (
            "Forecast",
            f"{rate(forecast.p50_bps)} to {rate(forecast.p90_bps)}",
            f"Half of all outcomes stay below the first figure, nine of ten below the second. Made by {RUNGS[forecast.rung]}.",
        ),
    ]
    if explanation.level in ("user", "application"):
        sure = "" if math.isnan(tier.confidence) else f", confidence {100 * tier.confidence:.0f} %"
        kept = f" {rate(tier.kept_bps)} is kept for it above." if tier.kept_bps else ""
        found.append(
            (
                "Trust",
                f"{100 * tier.share:.0f} %",
                f"So much of the forecast counts: {TIERS[tier.tier]}{sure}.{kept}",
            )
        )
    rules = f" Policies that apply: {', '.join(share.policies)}." if share.policies else ""
    found.append(
        (
            "Asked for",
            rate(share.claim_bps),
            f"As far as its forecast goes. Weight {share.weight:g}, guarantee {rate(share.guarantee_bps)}.{rules}",
        )
    )
    stages = [rate(stage) for stage in share.stages_bps]
    if len(stages) == len(STAGES):
        told = ", ".join(f"{stage} {name}" for stage, name in zip(stages, STAGES, strict=True))
        found.append(("Share", stages[-1], f"Step by step it held {told}."))
    limit = "no ceiling of its own" if math.isinf(share.ceiling_bps) else f"ceiling {rate(share.ceiling_bps)}"
    wait = (
        f" A rise to {rate(share.wanted_bps)} waits: it is too small to touch a meter for."
        if share.grant_bps < share.wanted_bps
        else ""
    )
    found.append(
        (
            "Granted",
            rate(share.grant_bps),
            f"{name} {BOUNDS.get(share.bound, 'is held')}: {headline(chain, name, scale)} ({limit}).{wait}",
        )
    )
    return found
