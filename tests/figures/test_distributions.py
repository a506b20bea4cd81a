import numpy as np
import pytest

from workbench.evaluation import similarity_distributions
from workbench.figures import density_figure, distribution_figure


def test_densities_on_common_axes() -> None:
    rng = np.random.default_rng(0)
    left = rng.normal(size=(300, 8))
    spreads = {
        "near": similarity_distributions(left, left + 0.1 * rng.normal(size=left.shape)),
        "far": similarity_distributions(left, rng.normal(size=left.shape)),
    }
    figure = distribution_figure(spreads, title="Cosines")
    assert [trace.name for trace in figure.data] == ["not matching", "matching"] * 2
    assert [trace.showlegend for trace in figure.data] == [True, True, False, False]
    for trace in figure.data:
        assert np.sum(trace.y) * (trace.x[1] - trace.x[0]) == pytest.approx(1, rel=1e-4)
        np.testing.assert_array_equal(trace.x, figure.data[0].x)
    assert figure.data[1].x[np.argmax(figure.data[1].y)] > 0.9
    areas = [f"{spread.area:.2f}" for spread in spreads.values()]
    assert [note.text.split()[-1] for note in figure.layout.annotations] == areas


def test_samples_of_any_size_in_one_panel() -> None:
    rng = np.random.default_rng(0)
    samples = {"near": rng.normal(0.8, 0.05, 300), "far": rng.normal(0.1, 0.1, 50)}
    figure = density_figure(samples, title="Cosines")
    assert [trace.name for trace in figure.data] == ["near", "far"]
    for trace, sample in zip(figure.data, samples.values(), strict=True):
        assert np.sum(trace.y) * (trace.x[1] - trace.x[0]) == pytest.approx(1, rel=1e-4)
        assert trace.x[np.argmax(trace.y)] == pytest.approx(sample.mean(), abs=0.12)
    density_figure({"one value": np.ones(3)}, title="Constant")
