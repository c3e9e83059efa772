import json

import pytest

from cifar2.dataset import cifar10
from cifar2.report import charts

CURVES = [
    {"configuration": name, "seed": seed, "epoch": epoch, "val_loss": 1.25 - 0.125 * epoch - 0.0625 * seed, "lr": 0.1}
    for name in ("precise", "fast")
    for seed in (0.0, 1.0)
    for epoch in (1.0, 2.0)
]
RANKING = [
    {"rank": 1.0, "name": "smooth", "family": "mlp", "val_accuracy": 0.875, "val_accuracy_se": 0.01, "val_loss": 0.5},
    {"rank": 2.0, "name": "cnn", "family": "cnn", "val_accuracy": 0.75, "val_accuracy_se": 0.02, "val_loss": 0.75},
]
CLASSES = ("bird", "airplane")
ROC = [{"class": "bird", "false_positive_rate": x, "true_positive_rate": y} for x, y in ((0, 0), (0.125, 0.75), (1, 1))]
CALIBRATION = [
    {"n": 5.0, "confidence": 0.625, "accuracy": 0.5, "accuracy_low": 0.25, "accuracy_high": 0.75},
    {"n": 5.0, "confidence": 0.875, "accuracy": 0.75, "accuracy_low": 0.5, "accuracy_high": 0.9375},
]
POINTS = [
    {"x": 0.5 * i, "y": -1.0, "class": name, "predicted": "bird", "confidence": 0.9, "image": "data:,"}
    for i, name in enumerate(CLASSES)
]
# Each chart with the titles of its axes and legends, and some of its rows.
CHARTS = {
    "curves": (
        charts.curves(CURVES, "val_loss", "validation loss (cross-entropy)"),
        {"epoch", "validation loss (cross-entropy)", "configuration"},
        [{"configuration": "fast", "seed": 1.0, "epoch": 2.0, "val_loss": 0.9375}],
    ),
    "ranking": (charts.ranking(RANKING), {"validation accuracy", "configuration", "family"}, RANKING),
    "roc": (
        charts.roc(ROC, CLASSES),
        {"false positive rate", "true positive rate", "class"},
        [*ROC, {"x": 0.0, "y": 0.0}],
    ),
    "calibration": (
        charts.calibration(CALIBRATION),
        {"mean confidence", "accuracy"},
        [*CALIBRATION, {"x": 0.25, "y": 0.25}, {"x": 1, "y": 1}],
    ),
    "test_set": (
        charts.test_set(POINTS, CLASSES),
        {"first principal component", "second principal component", "class"},
        [row | {"colour": row["class"]} for row in POINTS],
    ),
}
EACH_CHART = pytest.mark.parametrize("name", CHARTS)


def find(specification, key):
    """Every value of ``key``, at any depth."""
    if isinstance(specification, dict):
        for k, value in specification.items():
            if k == key:
                yield value
            yield from find(value, key)
    elif isinstance(specification, list):
        for value in specification:
            yield from find(value, key)


def data(specification):
    """All rows."""
    named, inline = (
        specification.get("datasets", {}).values(),
        [d.get("values", []) for d in find(specification, "data")],
    )
    return [row for rows in (*named, *inline) for row in rows]


def encodings(specification, channel):
    """The encodings of ``channel`` in all layers."""
    return [encoding[channel] for encoding in find(specification, "encoding") if channel in encoding]


@EACH_CHART
def test_a_chart_is_valid_and_as_wide_as_the_page(name):
    specification = CHARTS[name][0].to_dict(validate=True)
    assert specification["width"] == "container"
    assert specification["height"] > 0
    json.dumps(specification, allow_nan=False)


@EACH_CHART
def test_every_axis_and_legend_has_a_title(name):
    chart, titles, _ = CHARTS[name]
    specification = chart.to_dict()
    for axis in "x", "y":
        assert {encoding.get("title") for encoding in encodings(specification, axis)} & titles
    channels = {
        encoding.get("title") for channel in ("x", "y", "color") for encoding in encodings(specification, channel)
    }
    assert channels - {None} == titles


@EACH_CHART
def test_a_chart_contains_its_data(name):
    chart, _, rows = CHARTS[name]
    specification = chart.to_dict()
    for row in rows:
        assert row in data(specification)
    assert not list(find(specification, "url"))


def test_curves_keep_one_quantity_and_the_configurations_order():
    specification = charts.curves(CURVES, "val_loss", "loss").to_dict()
    assert all(set(row) == {"configuration", "seed", "epoch", "val_loss"} for row in data(specification))
    for colour in encodings(specification, "color"):
        assert colour["scale"]["domain"] == ["precise", "fast"]


def test_curves_are_means_with_a_band_of_one_standard_error():
    band, line = charts.curves(CURVES, "val_loss", "loss").to_dict()["layer"]
    assert (band["mark"]["type"], band["mark"]["extent"]) == ("errorband", "stderr")
    assert (band["encoding"]["y"]["field"], line["encoding"]["y"]["field"]) == ("val_loss", "val_loss")
    assert line["encoding"]["y"]["aggregate"] == "mean"


def test_dashes_distinguish_more_configurations_than_colours():
    rows = [{**CURVES[0], "configuration": f"c{i}"} for i in range(len(charts.PALETTE) + 1)]
    (dash,) = encodings(charts.curves(rows, "val_loss", "loss").to_dict(), "strokeDash")
    assert dash["field"] == "configuration"
    assert dash["scale"]["domain"] == [f"c{i}" for i in range(len(charts.PALETTE) + 1)]


def test_bars_of_the_ranking_are_one_standard_error_to_each_side():
    bars, points = charts.ranking(RANKING).to_dict()["layer"]
    ends = {step["as"]: step["calculate"] for step in bars["transform"]}
    assert ends == {
        "low": "datum.val_accuracy - datum.val_accuracy_se",
        "high": "datum.val_accuracy + datum.val_accuracy_se",
    }
    assert (bars["encoding"]["x"]["field"], bars["encoding"]["x2"]["field"]) == ("low", "high")
    assert points["encoding"]["x"]["field"] == "val_accuracy"


def test_intervals_of_the_calibration_are_drawn_to_both_ends():
    _, bars, points = charts.calibration(CALIBRATION).to_dict()["layer"]
    assert (bars["encoding"]["y"]["field"], bars["encoding"]["y2"]["field"]) == ("accuracy_low", "accuracy_high")
    assert points["encoding"]["y"]["field"] == "accuracy"


@pytest.mark.parametrize("n", [2, 10])
def test_no_two_classes_share_a_colour(n):
    names = cifar10.CLASSES[:n]
    (colour,) = encodings(
        charts.roc([row | {"class": name} for name in names for row in ROC], names).to_dict(), "color"
    )
    assert colour["scale"]["domain"] == list(names)
    assert len(set(colour["scale"]["range"][:n])) == n


def test_the_legend_names_the_classes_that_have_a_curve():
    (colour,) = encodings(charts.roc(ROC, CLASSES).to_dict(), "color")
    assert colour["scale"]["domain"] == sorted({row["class"] for row in ROC})
    assert len(colour["scale"]["domain"]) < len(CLASSES)


def test_a_click_on_a_class_fades_the_other_curves():
    specification = charts.roc(ROC, CLASSES).to_dict()
    (chosen,) = specification["params"]
    assert (chosen["select"]["fields"], chosen["bind"]) == (["class"], "legend")
    (opacity,) = encodings(specification, "opacity")
    assert opacity["condition"]["param"] == chosen["name"]


def test_the_ranking_keeps_its_order():
    specification = charts.ranking(RANKING).to_dict()
    assert all(y["sort"] == ["smooth", "cnn"] for y in encodings(specification, "y"))
    assert all(colour["scale"]["domain"] == ["mlp", "cnn"] for colour in encodings(specification, "color"))


def test_roc_curves_are_drawn_by_false_positive_rate():
    assert encodings(charts.roc(ROC, CLASSES).to_dict(), "order")[0]["field"] == "false_positive_rate"


def test_misclassified_images_are_crosses_on_the_map():
    correct, wrong = charts.test_set(POINTS, CLASSES).to_dict()["layer"]
    assert correct["transform"] == [{"filter": "!(datum.class !== datum.predicted)"}]
    assert wrong["transform"] == [{"filter": "datum.class !== datum.predicted"}]
    assert (wrong["mark"]["shape"], "shape" in correct["mark"]) == ("cross", False)


def test_beyond_the_coloured_classes_points_share_a_colour():
    (colour, _) = encodings(charts.test_set(POINTS, ["airplane"]).to_dict(), "color")
    assert colour["scale"]["domain"] == ["airplane", "other classes"]


def test_a_class_without_points_changes_no_colour():
    (colour, _) = encodings(charts.test_set(POINTS, ["absent", "airplane", "cat"]).to_dict(), "color")
    assert colour["scale"]["domain"] == ["airplane", "other classes"]
    assert colour["scale"]["range"] == [charts.TEN[1], charts.GREY]
