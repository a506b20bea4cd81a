from workbench.figures import line_figure


def test_a_line_for_each_and_a_legend_for_several() -> None:
    lines = {"alone": (["1-5", "6-8"], [0.5, 0.25]), "distilled": (["1-5"], [0.75])}
    figure = line_figure(lines, title="Exact match", y_axis={"type": "log"})
    assert [(trace.name, trace.x, trace.y) for trace in figure.data] == [
        ("alone", ("1-5", "6-8"), (0.5, 0.25)),
        ("distilled", ("1-5",), (0.75,)),
    ]
    assert figure.data[0].line.color != figure.data[1].line.color
    assert figure.layout.showlegend and figure.layout.yaxis.type == "log"
    labelled = line_figure(lines, title="Exact match", labels=["short", "long"])
    assert labelled.data[0].text == ("short", "long") and "text" in labelled.data[0].mode
    assert not line_figure({"one": ([1], [2])}, title="One").layout.showlegend
