"""``tidegate policy``: policy files, and the cases that they hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from northbound.cli_shared import FAILED, ConfigOption, examples, faults_told
from planner.config import load
from planner.policies_file import CaseResult, load_policies, policies_for, run_cases

app = typer.Typer(
    name="policy",
    help="Policy files.",
    no_args_is_help=True,
    rich_markup_mode=None,
    epilog=examples("policy test config/policies.yaml"),
)


# Without this a single command would be the group itself.
@app.callback()
def policy() -> None:
    """Policy files."""


@app.command("test", epilog=examples("policy test config/policies.yaml --config config/demo.yaml"))
def run_policy_cases(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The policy file.")],
    config: ConfigOption = None,
) -> None:
    """Run the cases of a policy file. Exit status 1 if one fails, or if there is none."""
    with faults_told():
        found = load_policies(file)
        loaded = None if config is None else load(config)
        if loaded is not None:
            policies_for(loaded, file)
        results = run_cases(found, loaded)
    for result in results:
        print("\n".join(_case_lines(result)))
    failed = sum(not result.passed for result in results)
    print(f"{len(results) - failed} passed, {failed} failed")
    if failed or not results:
        raise typer.Exit(FAILED)


def _case_lines(result: CaseResult) -> Iterator[str]:
    """What a reader of a diff expects: - what was wanted, + what is."""
    yield f"{'ok  ' if result.passed else 'FAIL'} {result.name}"
    told = ""
    for pool, expected, found in result.differences:
        if pool != told:
            yield f"  {pool}"
            told = pool
        yield f"    - {expected}"
        yield f"    + {found}"
