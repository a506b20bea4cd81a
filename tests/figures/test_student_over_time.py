"""A slider moves the student alone; the teacher stays, and numbers stand for what the slider shows."""

import json

import numpy as np
import pytest

from workbench.figures import evolution_figure, similarity_figure


def test_the_slider_changes_the_students_matrix_alone() -> None:
    rng = np.random.default_rng(0)
    first, last, teacher = rng.normal(size=(3, 4, 4))
    figure = similarity_figure({"start": first, "end": last}, teacher, title="A batch", captions="abcd")
    np.testing.assert_allclose(figure.data[0].z, first, rtol=1e-6)
    np.testing.assert_allclose(figure.data[1].z, teacher, rtol=1e-6)
    assert [frame.name for frame in figure.frames] == ["start", "end"]
    assert all(frame.traces == (0,) for frame in figure.frames)
    np.testing.assert_allclose(figure.frames[1].data[0].z, last, rtol=1e-6)
    assert figure.data[0].customdata[1][2] == "picture of: b<br>caption: c"
    json.loads(figure.to_json())
    with pytest.raises((ValueError, TypeError), match="similarity_figure"):  # jaxtyping's is a TypeError
        similarity_figure({"start": first[:3, :3]}, teacher, title="A batch")


def test_maps_move_with_their_overlap_beside_a_teacher_that_stays() -> None:
    rng = np.random.default_rng(0)
    students = {"start": rng.normal(size=(6, 2)), "end": 9 + 3 * rng.normal(size=(6, 2))}
    teacher, overlaps = rng.normal(size=(6, 2)), {"start": 0.1, "end": 0.4}
    groups = ["cat", "cat", "cat", "dog", "several", "dog"]
    figure = evolution_figure(
        students, teacher, groups, overlaps, title="Maps", chance=0.05, quiet={"several"}
    )
    assert [trace.name for trace in figure.data[:6]] == ["several", "cat", "dog"] * 2
    np.testing.assert_allclose(figure.data[4].x, teacher[:3, 0], rtol=1e-6)
    for frame, (name, positions) in zip(figure.frames, students.items(), strict=True):
        moved = [figure.data[at] for at in frame.traces]
        assert [trace.name for trace in moved[:3]] == ["several", "cat", "dog"]
        centred = positions - positions.mean(0)
        expected = centred / np.sqrt((centred**2).sum(1).mean())
        np.testing.assert_allclose(frame.data[1].x, expected[:3, 0], rtol=1e-5)
        assert [trace.name for trace in moved[3:6]] == ["several", "cat", "dog"]  # of the teacher
        assert all(trace.x is None for trace in frame.data[3:6])
        assert frame.data[6].y == (overlaps[name],) and frame.data[6].text == (f"{overlaps[name]:.1%}",)
    with pytest.raises(ValueError, match="overlaps of"):
        evolution_figure(students, teacher, groups, {"end": 0.4}, title="Maps")
