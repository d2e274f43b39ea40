"""One pool's forecast over REST, on the command line, and as a picture."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from matplotlib.figure import Figure
from typer.testing import CliRunner

from northbound.api import create_app
from northbound.cli import app as commands
from northbound.forecast_plot import figure
from northbound.forecasts_api import ForecastQualityAnswer, PoolForecastAnswer, answer_of
from northbound.server import listen
from planner.class_prediction import CLASS_LEVEL
from tests.northbound.conftest import Ask
from tests.northbound.doubles import NOW, TOKEN, FakeOperations, make_forecast, make_quality, with_web

runner = CliRunner()
NONE = None


@pytest.mark.parametrize("pool", ["anna", "g1/anna", "global/west/g1/anna"])
def test_pool_is_named_by_its_path_or_the_end_of_it(ask: Ask, pool: str):
    """The slashes of a path need no quoting."""
    answer = PoolForecastAnswer.model_validate(ask("GET", f"/forecasts/{pool}").json())
    assert answer.path == "global/west/g1/anna"


def test_forecast_is_by_horizon_and_quantile(ask: Ask):
    """Whole bit/s, both directions, with the rung that made it."""
    answer = ask("GET", "/forecasts/anna").json()
    assert answer["horizon_s"] == [60, 120]
    assert answer["quantile"] == [0.1, 0.5, 0.9]
    assert answer["up"] == {
        "rung": "model",
        "demand_bps": [[1_000_000, 2_000_000, 4_000_000], [1_000_000, 3_000_000, 5_000_000]],
        "coverage": None,
        "point_bps": [2_000_000, 3_000_000],
        "confidence": [0.5, 0.25],
    }
    assert answer["down"]["rung"] == "archetype"
    assert answer["down"]["demand_bps"][1][2] == 10_000_000
    assert answer["down"]["confidence"] == [0.75, None]


def test_issued_stands_beside_what_came(ask: Ask):
    """One entry a step in every list; gaps and steps to come are null, never zero."""
    issued = ask("GET", "/forecasts/anna").json()["issued"]
    assert issued["time"] == [NOW + 60 * step for step in (-2, -1, 0, 1, 2)]
    assert issued["demand_bps"]["up"] == [1_000_000, NONE, 3_000_000, NONE, NONE]
    assert issued["demand_bps"]["down"] == [2_000_000, NONE, 6_000_000, NONE, NONE]
    assert issued["shortest"]["horizon_s"] == 60
    assert issued["shortest"]["up"][0] == [NONE, 1_000_000, 1_000_000, 1_000_000, NONE]
    assert issued["longest"]["up"][2] == [NONE, NONE, 4_000_000, 4_000_000, 4_000_000]


def test_history_is_as_long_as_asked(ask: Ask):
    """Seconds before now."""
    issued = ask("GET", "/forecasts/anna?history_s=70").json()["issued"]
    assert issued["time"][0] == NOW - 60


@pytest.mark.parametrize(
    ("path", "status", "title"),
    [
        ("/forecasts/zoe", 404, "pool must be a path of the tree or the end of one, got 'zoe'"),
        ("/forecasts/anna?history_s=0", 422, "query.history_s must be > 0, got '0'"),
    ],
)
def test_what_is_wrong_is_told(ask: Ask, path: str, status: int, title: str):
    """Problem documents, as everywhere."""
    answer = ask("GET", path)
    assert (answer.status_code, answer.json()["title"]) == (status, title)


def test_steps_written_between_the_two_readings_are_left_out():
    """Both directions of an answer are over the same steps."""
    found = make_forecast()
    up, down = found.issued
    answer = answer_of(type(found)(**{**vars(found), "issued": (up, down.at(np.arange(1, 5)))}))
    lengths = {len(answer["issued"]["time"]), *(len(one) for one in answer["issued"]["demand_bps"].values())}
    assert lengths == {4}


def test_user_is_told_by_application(ask: Ask):
    """Its classes are in its answer; one of them by name is answered as a pool is."""
    whole = PoolForecastAnswer.model_validate(ask("GET", "/forecasts/anna").json())
    assert whole.application is None
    (web,) = whole.applications
    assert (web.application, web.time, web.up.point_bps) == ("web", NOW, [1_000_000, 1_500_000])
    alone = PoolForecastAnswer.model_validate(ask("GET", "/forecasts/anna?application=web").json())
    assert (alone.application, alone.up, alone.applications) == ("web", web.up, [])
    assert alone.issued.time
    answer = ask("GET", "/forecasts/anna?application=games")
    assert (answer.status_code, answer.json()["title"]) == (
        404,
        "application must be one of other, web, got 'games'",
    )


# How good they are.


def test_quality_of_application_classes_has_its_own_name(ask: Ask, operations: FakeOperations):
    """They are a level below users."""
    found = make_quality()
    astray = replace(found.coverage[1], level=CLASS_LEVEL + 1)
    operations.forecast_quality = lambda: replace(found, coverage=(astray,))  # type: ignore[method-assign]
    (told,) = ForecastQualityAnswer.model_validate(ask("GET", "/forecasts").json()).coverage
    assert (told.level, told.direction) == ("application", "down")


def test_quality_is_by_level_and_horizon(ask: Ask):
    """Coverage stands beside its aim; what is not known is null; one level drifts."""
    answer = ForecastQualityAnswer.model_validate(ask("GET", "/forecasts").json())
    assert (answer.time, answer.quantile) == (NOW, [0.1, 0.5, 0.9])
    calm, astray = answer.coverage
    assert (calm.level, calm.direction, calm.horizon_s, calm.drifting) == ("user", "up", 60, False)
    assert (calm.hour, calm.day, calm.n_day) == ([0.1, 0.5, 0.9], [0.12, 0.5, 0.88], 5000)
    assert (astray.direction, astray.day, astray.drifting) == ("down", [None] * 3, True)
    assert answer.live_score is not None
    assert (answer.live_score.model, answer.live_score.persistence) == (0.3, 0.4)


def test_champions_are_told_by_segment_with_what_changed(ask: Ask):
    """Only segments that something is known of, by the names of their level and traffic."""
    answer = ask("GET", "/forecasts").json()
    assert [(row["level"], row["horizon_s"], row["champion"]) for row in answer["champions"]] == [
        ("region", 120, "persistence"),
        ("user", 60, "model"),
    ]
    (change,) = answer["changes"]
    assert (change["level"], change["before"], change["after"]) == ("region", "model", "persistence")
    assert change["traffic"] == answer["champions"][0]["traffic"]


# The picture.


@pytest.fixture
def drawn() -> Figure:
    return figure(answer_of(make_forecast()))


def lines(drawn: Figure, panel: int) -> dict[str, Any]:
    return {str(line.get_label()): line for line in drawn.axes[panel].get_lines()}


def test_picture_has_both_directions_with_units(drawn: Figure):
    """Two panels over one time, each says what it is, in what, and who made the forecast."""
    assert [axes.get_title(loc="left") for axes in drawn.axes] == [
        "upload, forecast by: model",
        "download, forecast by: archetype",
    ]
    assert {axes.get_ylabel() for axes in drawn.axes} == {"Mbit/s of frames"}
    assert "UTC" in drawn.axes[1].get_xlabel()
    assert "global/west/g1/anna" in drawn.get_suptitle()


def test_picture_shows_demand_and_gaps_as_gaps(drawn: Figure):
    """What came in Mbit/s; no data is no line, not a line at zero."""
    came = lines(drawn, 1)["demand that came"]
    np.testing.assert_array_equal(came.get_ydata(), [2, np.nan, 6, np.nan, np.nan])
    np.testing.assert_allclose(came.get_xdata() * 86400, NOW + 60 * np.array([-2, -1, 0, 1, 2]))


def test_picture_shows_three_fans_and_now(drawn: Figure):
    """Issued at the two horizons, and the one ahead: each a band and its median."""
    for panel, scale in enumerate((1, 2)):
        found = lines(drawn, panel)
        np.testing.assert_array_equal(
            found["issued 1 min before, p50"].get_ydata(), scale * np.array([np.nan, 2, 2, 2, np.nan])
        )
        np.testing.assert_array_equal(
            found["issued 2 min before, p50"].get_ydata(), scale * np.array([np.nan, np.nan, 2, 2, 2])
        )
        np.testing.assert_array_equal(found["forecast now, p50"].get_ydata(), [2 * scale, 3 * scale])
        np.testing.assert_allclose(found["forecast now, p50"].get_xdata() * 86400, [NOW + 60, NOW + 120])
        bands = [str(band.get_label()) for band in drawn.axes[panel].collections]
        assert sorted(bands) == [
            "forecast now, p10 to p90",
            "issued 1 min before, p10 to p90",
            "issued 2 min before, p10 to p90",
        ]
        assert found["now"].get_xdata()[0] * 86400 == pytest.approx(NOW)


def test_every_series_of_the_picture_is_in_its_legend(drawn: Figure):
    """Nobody has to guess what a colour means; each is told once."""
    (legend,) = drawn.legends
    told = [text.get_text() for text in legend.get_texts()]
    assert len(told) == len(set(told))
    for panel, axes in enumerate(drawn.axes):
        assert lines(drawn, panel).keys() <= set(told)
        assert axes.get_ylim()[0] == 0


def test_picture_draws_no_forecast_where_nothing_is_known():
    """The last plan's figure, or zero, is no forecast of demand."""
    answer = answer_of(make_forecast())
    answer["up"]["rung"] = "last_plan"
    drawn = figure(answer)
    assert "forecast now, p50" not in lines(drawn, 0)
    assert "forecast now, p50" in lines(drawn, 1)


def test_picture_of_a_pool_without_a_past():
    """Before the first step only the fan ahead is drawn."""
    answer = answer_of(make_forecast(since=NOW + 3600))
    answer["issued"]["shortest"]["horizon_s"] = answer["issued"]["longest"]["horizon_s"] = None
    found = lines(figure(answer), 0)
    assert "forecast now, p50" in found
    assert not any(label.startswith("issued") for label in found)


def test_picture_of_a_class_says_whose():
    """The title names the user and the class."""
    web = with_web(make_forecast()).applications[0]
    assert "global/west/g1/anna, web: demand" in figure(answer_of(web)).get_suptitle()


# The command.


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A REST API on a free port."""
    listener = listen("127.0.0.1", 0)
    app = create_app(FakeOperations(), TOKEN, now=lambda: NOW)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


def run(*arguments: str) -> Any:
    return runner.invoke(commands, ["forecast", *arguments])


def test_command_shows_the_fan_and_how_it_did(url: str):
    """By quantile, in Mbit/s; and how often what came was within what had been forecast."""
    result = run("anna", "--url", url)
    assert result.exit_code == 0, result.stderr
    assert "p90" in result.stdout
    assert "10.0" in result.stdout
    assert "up, 1 min ahead: 100 % of 1 steps were within its 80 % interval" in result.stdout


def test_command_gives_the_answer_itself(url: str):
    """For scripts."""
    assert json.loads(run("global/west/g1/anna", "--url", url, "--json").stdout)["time"] == NOW


def test_command_draws_a_png(url: str, tmp_path: Path):
    """The file is a picture, and where it is is told."""
    file = tmp_path / "anna.png"
    result = run("anna", "--url", url, "--plot", str(file))
    assert result.exit_code == 0, result.stderr
    assert file.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert f"plot: {file}" in result.stdout


def test_command_shows_applications_and_draws_one(url: str, tmp_path: Path):
    """A table of all classes beside the user's own; with --application that one, and its picture."""
    result = run("anna", "--url", url)
    assert "By application: points that add up" in result.stdout
    assert "web" in result.stdout
    file = tmp_path / "web.svg"
    result = run("anna", "--application", "web", "--url", url, "--plot", str(file))
    assert result.exit_code == 0, result.stderr
    assert "global/west/g1/anna, web, forecast of" in result.stdout
    assert "By application" not in result.stdout
    assert "<svg" in file.read_text()


@pytest.mark.parametrize("name", ["no/such/directory/a.png", "a.nonsense"])
def test_picture_that_cannot_be_written_is_one_line(url: str, tmp_path: Path, name: str):
    """No directory, no such format: status 1, no traceback."""
    result = run("anna", "--url", url, "--plot", str(tmp_path / name))
    assert result.exit_code == 1
    assert result.stderr.startswith("tidegate: plot not written: ")


def test_unknown_pool_is_one_line(url: str):
    """As the planner told it."""
    result = run("zoe", "--url", url)
    assert result.exit_code == 1
    assert "pool must be a path of the tree" in result.stderr


def test_command_without_a_pool_shows_how_good_forecasts_are(url: str):
    """The band's share beside its aim, who forecasts, and the score."""
    result = run("--url", url)
    assert result.exit_code == 0, result.stderr
    assert "within the 80 % band" in result.stdout
    assert "drifting" in result.stdout
    assert "model 0.3, persistence 0.4, 75 % of it" in result.stdout
    assert "2 min ahead: model -> persistence" in result.stdout
    assert json.loads(run("--url", url, "--json").stdout)["live_score"]["model"] == 0.3


@pytest.mark.parametrize("option", ["--plot", "--application"])
def test_some_options_need_a_pool(url: str, option: str):
    """There is no picture of all, and no class of nobody."""
    result = run("--url", url, option, "web")
    assert result.exit_code == 2
    assert f"{option} needs a POOL" in result.stderr
