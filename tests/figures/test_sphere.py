import json

import numpy as np
import pytest

from workbench.figures import sphere_figure
from workbench.figures.sphere import AXES, Descent


def descent(frames: int, seed: int) -> Descent:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(2, frames, 3, 3))
    image, text = points / np.linalg.norm(points, axis=-1, keepdims=True)
    return Descent(image, text, np.linspace(2, 0, frames))


def test_every_frame_moves_every_student_along_a_path_that_grows() -> None:
    descents = {"task": descent(4, 0), "fd": descent(4, 1)}
    figure = sphere_figure(descents, descents["task"].image[0], descents["task"].text[0], title="Sphere")
    assert [frame.name for frame in figure.frames] == ["0", "1", "2", "3"]
    moved = [figure.data[at] for at in figure.frames[0].traces]
    assert [trace.name for trace in moved] == ["task"] * 3 + ["fd"] * 3 + ["task"] * 3 + ["fd"] * 3
    assert [trace.scene for trace in moved if trace.type == "scatter3d"] == ["scene"] * 4 + ["scene2"] * 4
    assert [trace.xaxis for trace in moved if trace.type == "scatter"] == ["x", "x", "x2", "x2"]
    assert [trace.visible for trace in moved] == [True] * 3 + [False] * 6 + [True] * 3
    for number, frame in enumerate(figure.frames):
        for path, markers, value, side in zip(
            *(frame.data[part::3] for part in range(3)), list(descents.values()) * 2, strict=True
        ):
            np.testing.assert_allclose(markers.x[:3], side.image[number, :, 0], rtol=1e-6)
            np.testing.assert_allclose(markers.z[3:6], side.text[number, :, 2], rtol=1e-6)
            assert value.text[0] == f"loss {side.values[number]:.3g}"
            first = side.image[: number + 1, 0, 0]
            np.testing.assert_allclose(path.x[: number + 1], first, rtol=1e-6)
            assert len(path.x) == 6 * (number + 2) and np.isnan(path.x).sum() == 6
    assert len(figure.layout.sliders[0].steps) == 4
    json.loads(figure.to_json())


def test_a_menu_shows_one_loss_in_its_own_sphere() -> None:
    descents = {"task": descent(2, 0), "fd": descent(2, 1), "icl": descent(2, 2)}
    figure = sphere_figure(descents, descents["task"].image[0], descents["task"].text[0], title="Sphere")
    left, right, _ = figure.layout.updatemenus
    assert (left.active, right.active) == (0, 2)
    for menu, scene in ((left, "scene"), (right, "scene2")):
        for button in menu.buttons:
            change, traces = button.args
            shown = [
                figure.data[at] for at, visible in zip(traces, change["visible"], strict=True) if visible
            ]
            assert {(trace.name, trace.scene) for trace in shown[:2]} == {(button.label, scene)}
            assert [(trace.name, trace.xaxis) for trace in shown[2:]] == [(button.label, AXES[scene])]


def test_descents_are_of_one_length() -> None:
    descents = {"task": descent(4, 0), "fd": descent(5, 1)}
    with pytest.raises(ValueError, match=r"\[4, 5\] frames"):
        sphere_figure(descents, descents["task"].image[0], descents["task"].text[0], title="Sphere")
