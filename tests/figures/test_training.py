"""Training figures of one run and of several, whatever is missing."""

from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
from pandas import DataFrame

from tests.fake_runs import write_run
from workbench.figures.training import training_figure
from workbench.figures.training_panels import SKIPPED, VALIDATION, Curves, training_panels
from workbench.runs.run import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(write_run(tmp_path_factory.mktemp("run"), steps=150, skipped=(20, 21, 90)))


def titles(figure: go.Figure) -> list[str]:
    return [annotation.text for annotation in figure.layout.annotations]


def test_one_run_shows_everything(run: Run) -> None:
    figure = training_figure(run, "a title", "and what it says")
    text = " ".join(titles(figure))
    for word in (
        "weighted",
        "unweighted",
        "Validation",
        "Cosine",
        "scale",
        "Gradient",
        "Learning",
        "Samples",
    ):
        assert word in text
    named = [trace.name for trace in figure.data if trace.showlegend]
    assert len(named) == len(set(named))
    assert {"loss", "task", "CRD", "FD", "ICL", SKIPPED}.issubset(named)
    assert all(trace.x.dtype == trace.y.dtype == np.float32 for trace in figure.data)
    assert figure.layout.title.subtitle.text == "and what it says"
    figure.to_json()


def test_weighted_and_unweighted_terms(run: Run) -> None:
    panels = {panel.title: panel for panel in training_panels(run)}
    weighted = {curve.name: curve for curve in panels["Loss and weighted terms"].curves if not curve.behind}
    plain = {curve.name: curve for curve in panels["Loss terms, unweighted"].curves if not curve.behind}
    np.testing.assert_allclose(weighted["FD"].y, 4 * plain["FD"].y, rtol=1e-5)
    assert weighted["FD"].colour == plain["FD"].colour


def test_shares_of_the_gradient_are_drawn_where_they_were_measured(run: Run) -> None:
    panels = {panel.title: panel for panel in training_panels(run)}
    shares = {curve.name: curve for curve in panels["Gradient share of each term"].curves}
    assert set(shares) == {"task", "CRD", "FD", "ICL"}
    assert shares["FD"].x[:3].tolist() == [1, 11, 21] and set(shares["FD"].y) == {0.25}


def test_skipped_steps_are_marked(run: Run) -> None:
    marks = next(curve for panel in training_panels(run) for curve in panel.curves if curve.name == SKIPPED)
    assert marks.x.tolist() == [20, 21, 90]
    assert np.isfinite(marks.y).all()


def test_a_run_that_never_had_a_finite_step() -> None:
    nothing = [None, None]
    metrics = DataFrame({"step": [1, 2], "loss": nothing, "gradient_norm": nothing, "scale": [14.0, 14.0]})
    figure = training_figure(Curves(metrics, DataFrame()))
    assert any("scale" in title for title in titles(figure))


def test_no_step_and_one_step(tmp_path: Path) -> None:
    assert "no step" in titles(training_figure(Curves(DataFrame(), DataFrame())))[0]
    one = Run(write_run(tmp_path / "one", "task_only_demo", steps=1))
    figure = training_figure(one)
    assert all("markers" in trace.mode for trace in figure.data if len(trace.x))
    assert not any("Cosine" in title for title in titles(figure))


def test_a_live_figure_keeps_its_shape_while_it_grows(run: Run) -> None:
    def shape(steps: int, validated: int) -> list[tuple[str, str]]:
        grown = Curves(run.metrics.iloc[:steps], run.validations.iloc[:validated])
        return [(p.title, curve.name) for p in training_panels(grown, live=True) for curve in p.curves]

    assert shape(1, 0) == shape(10, 0) == shape(60, 3) == shape(150, 10)
    assert any(title == VALIDATION for title, _ in shape(1, 0))
    assert not any(p.title == VALIDATION for p in training_panels(Curves(run.metrics, DataFrame())))


def test_seeds_share_a_colour_and_a_place_in_the_legend(tmp_path: Path) -> None:
    runs = {
        name: [Run(write_run(tmp_path / f"{name}-{seed}", name, seed, steps=60)) for seed in range(2)]
        for name in ("task_only_demo", "clip_kd_demo")
    }
    figure = training_figure(runs)
    assert [trace.name for trace in figure.data if trace.showlegend] == list(runs)
    colours = {name: {t.line.color for t in figure.data if t.legendgroup == name} for name in runs}
    assert all(len(item) == 1 for item in colours.values())
    assert colours["task_only_demo"] != colours["clip_kd_demo"]


def test_long_runs_are_drawn_with_few_points() -> None:
    steps = np.arange(1, 30_001)
    loss = 1 / steps
    loss[12_345] = 99
    figure = training_figure(Curves(DataFrame({"step": steps, "loss": loss}), DataFrame()))
    assert max(len(trace.x) for trace in figure.data) <= 2000
    assert max(trace.y.max() for trace in figure.data if len(trace.y)) == 99


def test_a_panel_that_waits_for_its_first_validation_has_no_axis(run: Run) -> None:
    waiting = Curves(run.metrics, DataFrame())
    figure = training_figure(waiting, live=True, last_step=900)
    place = next(
        n for n, panel in enumerate(training_panels(waiting, live=True)) if panel.title == VALIDATION
    )
    axes = figure.get_subplot(place // 3 + 1, place % 3 + 1)
    assert axes.yaxis.showticklabels is False and "not measured yet" in titles(figure)
    assert axes.xaxis.autorangeoptions.include == (0, 900)
    full = training_figure(run, live=True, last_step=900)
    assert "not measured yet" not in titles(full)


def test_axes_of_small_numbers(run: Run) -> None:
    """Shares below a per cent get no two ticks of one name, and 0.0006 is no "600u"."""
    figure = training_figure(run)
    axes = {panel.title: panel.axis for panel in training_panels(run)}
    assert axes[VALIDATION]["autorangeoptions"]["include"] == [0, 0.01]
    assert figure.layout.template.layout.yaxis.exponentformat == "power"


def test_no_colour_stands_for_two_things(run: Run) -> None:
    """Terms, the sides' recalls and the towers' cosines are told apart in one legend."""
    colours = [trace.line.color for trace in training_figure(run).data if trace.showlegend]
    assert len(set(colours)) == len(colours) > 5


def test_a_spike_flattens_no_term() -> None:
    steps = np.arange(1, 20)
    columns = {"step": steps, "loss": 1 / steps, "weighted/crd": 1 / steps, "weighted/gd": 1 / steps}
    axes = {
        peak: next(
            panel.axis
            for panel in training_panels(
                Curves(DataFrame(columns | {"crd": 1 / steps, "gd": peak / steps}), DataFrame())
            )
            if panel.title == "Loss terms, unweighted"
        ).get("type")
        for peak in (2, 5000)
    }
    assert axes == {2: None, 5000: "log"}


def test_buttons_change_axes_of_losses_and_the_smoothing(run: Run) -> None:
    figure = training_figure(run)
    scales, looks = ([button.args for button in menu.buttons] for menu in figure.layout.updatemenus)
    assert scales[1][0] == {"yaxis.type": "log", "yaxis2.type": "log"}
    for change, traces in looks:
        names = [figure.data[trace].name for trace in traces]
        assert len(change["opacity"]) == len(traces) and names[: len(names) // 2] == names[len(names) // 2 :]
    assert figure.data[looks[0][1][0]].opacity == 0.3
    few = training_figure(Curves(run.metrics.iloc[:5], DataFrame()))
    assert len(few.layout.updatemenus) == 1  # no running mean of five steps


def test_the_stage_before_the_first_step() -> None:
    figure = training_figure(Curves(DataFrame(), DataFrame()), stage="teacher's image targets: 3 of 9")
    assert titles(figure) == ["teacher's image targets: 3 of 9"]
