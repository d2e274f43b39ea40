"""The forecasting models by REST: which is in use, what happened to the others, and back to an earlier one."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Response
from fastapi.params import Depends
from pydantic import Field

from northbound import problems, views
from northbound.answers import Answer
from planner.snapshot import NotThere, Operations

Version = Annotated[int, Path(ge=1, le=2**53, description="a model's version")]


class ModelVersion(Answer):
    """One trained model. Scores are mean pinball loss in units of each series' level: smaller is better."""

    version: int
    in_use: bool
    kept: bool = Field(description="whether it can still be put to use")
    body_bytes: int = Field(description="size of the kept model; 0: it was dropped")
    kind: str
    outcome: Literal["promoted", "rejected", "reverted"]
    reason: str
    trained_at: float = Field(description="epoch seconds at which its training was done")
    trained_until: float = Field(description="epoch seconds; it was not trained on anything later")
    n_rows: int = Field(description="rows it was trained on")
    challenger_score: float | None = Field(description="its own in the contest; null: none was held")
    champion_score: float | None = Field(description="of the model it met; null: there was none")
    persistence_score: float | None = Field(description="of last value with its past errors")
    contest_rows: int = Field(description="rows of the contest")


class ModelChange(Answer):
    """One change of what is in use, or the refusal of one."""

    time: float
    what: Literal["promoted", "rejected", "reverted", "rolled back", "released", "unusable"]
    version: int | None = Field(description="what it is about; null: a release")
    before: int | None = Field(description="in use before; null: no model")
    reason: str


class Models(Answer):
    """All models on record, newest first."""

    champion: int | None = Field(description="the version in use; null: none, simpler forecasts serve")
    held: bool = Field(description="whether newer models wait for a release")
    held_until: float | None = Field(description="epoch seconds; null: until released, or not held")
    on_trial_since: float | None = Field(description="when the model in use was promoted; null: proven")
    versions: list[ModelVersion]
    changes: list[ModelChange] = Field(description="newest first")


def models_router(operations: Operations, bearer: Depends) -> APIRouter:
    """The routes; writes carry ``bearer``."""
    router = APIRouter(prefix="/models", tags=["models"], responses=problems.documented(421))
    written = problems.documented(401, 408, 409, 413)

    def answer(report: dict[str, Any]) -> Response:
        return Response(views.encode(views.plain(report)), media_type="application/json")

    @router.get("", response_model=Models)
    def list_models() -> Response:
        """The models that were trained, which of them is in use, and what changed that."""
        return answer(operations.models())

    @router.get("/{version}", response_model=ModelVersion, responses=problems.documented(404, 422))
    def show_model(version: Version) -> Response:
        """One model: when and on what it was trained, how it scored, what became of it."""
        rows = [row for row in operations.models()["versions"] if row["version"] == version]
        if not rows:
            raise NotThere(f"version must be one of the models on record, got {version}")
        return answer(rows[0])

    @router.post(
        "/{version}/rollback",
        response_model=Models,
        dependencies=[bearer],
        responses=written | problems.documented(404, 422),
    )
    def roll_back(version: Version) -> Response:
        """Put an earlier model to use and hold it: no newer one is promoted until it is released."""
        return answer(operations.roll_back_model(version))

    @router.post("/release", response_model=Models, dependencies=[bearer], responses=written)
    def release() -> Response:
        """Let newer models be promoted again."""
        return answer(operations.release_model())

    return router
