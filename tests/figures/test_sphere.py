import json

import numpy as np
import pytest

from workbench.figures import sphere_figure
from workbench.figures.sphere import Descent


def descent(frames: int, seed: int) -> Descent:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(2, frames, 3, 3))
    image, text = points / np.linalg.norm(points, axis=-1, keepdims=True)
    return Descent(image, text, np.linspace(2, 0, frames))


def test_every_frame_moves_every_student_and_nothing_else() -> None:
    descents = {"task": descent(4, 0), "fd": descent(4, 1)}
    figure = sphere_figure(descents, descents["task"].image[0], descents["task"].text[0], title="Sphere")
    assert [frame.name for frame in figure.frames] == ["0", "1", "2", "3"]
    assert [figure.data[at].name for at in figure.frames[0].traces] == ["task", "fd"]
    for number, frame in enumerate(figure.frames):
        for trace, each in zip(frame.data, descents.values(), strict=True):
            np.testing.assert_allclose(trace.x[:3], each.image[number, :, 0], rtol=1e-6)
            np.testing.assert_allclose(trace.y[3:6], each.text[number, :, 1], rtol=1e-6)
            assert trace.text[-1] == f"loss {each.values[number]:.3g}"
            behind = np.concatenate([each.image[number, :, 2], each.text[number, :, 2]]) < 0
            assert (np.array(trace.marker.opacity[:-1]) < 1).tolist() == behind.tolist()
    assert len(figure.layout.sliders[0].steps) == 4
    json.loads(figure.to_json())


def test_descents_are_of_one_length() -> None:
    descents = {"task": descent(4, 0), "fd": descent(5, 1)}
    with pytest.raises(ValueError, match=r"\[4, 5\] frames"):
        sphere_figure(descents, descents["task"].image[0], descents["task"].text[0], title="Sphere")
