import json

import pytest

from cifar2.dataset import cifar10
from cifar2.report import charts

COUNTS = {
    "train": {"airplane": 40, "bird": 41},
    "val": {"airplane": 9, "bird": 8},
    "test": {"airplane": 10, "bird": 11},
}
TOLERANCES = {"autograd": 1e-12, "finite_difference": 1e-7}
ERRORS = [
    {
        "network": "5-3-3 tanh",
        "activation": "tanh",
        "loss": "squared_error",
        "layer": layer,
        "autograd": 0.0,
        "finite_difference": 2.5e-9,
    }
    for layer in (1.0, 2.0)
]
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
MATRIX, CLASSES = [[862, 138], [175, 825]], ("bird", "airplane")
ROC = [{"class": "bird", "false_positive_rate": x, "true_positive_rate": y} for x, y in ((0, 0), (0.125, 0.75), (1, 1))]
CALIBRATION = [
    {"n": 5.0, "confidence": 0.625, "accuracy": 0.5, "accuracy_low": 0.25, "accuracy_high": 0.75},
    {"n": 5.0, "confidence": 0.875, "accuracy": 0.75, "accuracy_low": 0.5, "accuracy_high": 0.9375},
]
# Each with the titles of its axes and legends, and some of the rows that it draws.
CHARTS = {
    "class_balance": (
        charts.class_balance(COUNTS),
        {"images", "split", "class"},
        [{"split": "val", "class": "bird", "images": 8}],
    ),
    "gradient_errors": (
        charts.gradient_errors(ERRORS, TOLERANCES),
        {"relative error (0 is drawn at 1e-17)", "layer, activation", "against"},
        [{"method": "central difference", "tolerance": 1e-7}, {"method": "autograd", "tolerance": 1e-12}],
    ),
    "curves": (
        charts.curves(CURVES, "val_loss", "validation loss (cross-entropy)"),
        {"epoch", "validation loss (cross-entropy)", "configuration"},
        [{"configuration": "fast", "seed": 1.0, "epoch": 2.0, "val_loss": 0.9375}],
    ),
    "ranking": (charts.ranking(RANKING), {"validation accuracy", "configuration", "family"}, RANKING),
    "confusion": (
        charts.confusion(MATRIX, CLASSES),
        {"predicted class", "true class", "share of the true class"},
        [{"true": "airplane", "predicted": "bird", "images": 175, "share": 0.175}],
    ),
    "roc": (
        charts.roc(ROC, CLASSES),
        {"false positive rate", "true positive rate", "class"},
        [*ROC, {"x": 0.0, "y": 0.0}],
    ),
    "calibration": (
        charts.calibration(CALIBRATION),
        {"mean confidence of the answers", "share of right answers"},
        [*CALIBRATION, {"x": 0.25, "y": 0.25}, {"x": 1, "y": 1}],
    ),
}
OF_EACH = pytest.mark.parametrize("name", CHARTS)


def find(specification, key):
    """Everything that stands under ``key``, however deep."""
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
    """What the layers say of ``channel``."""
    return [encoding[channel] for encoding in find(specification, "encoding") if channel in encoding]


@OF_EACH
def test_a_chart_is_valid_vega_lite_as_wide_as_the_page(name):
    specification = CHARTS[name][0].to_dict(validate=True)
    assert specification["width"] == "container"
    assert specification["height"] > 0
    json.dumps(specification, allow_nan=False)


@OF_EACH
def test_every_axis_and_legend_has_a_title_in_words(name):
    chart, titles, _ = CHARTS[name]
    specification = chart.to_dict()
    for axis in "x", "y":
        assert {encoding.get("title") for encoding in encodings(specification, axis)} & titles
    found = {encoding.get("title") for channel in ("x", "y", "color") for encoding in encodings(specification, channel)}
    assert found - {None} == titles


@OF_EACH
def test_a_chart_holds_its_data_and_asks_for_none(name):
    chart, _, rows = CHARTS[name]
    specification = chart.to_dict()
    found = data(specification)
    for row in rows:
        assert row in found
    assert not list(find(specification, "url"))


def test_the_classes_have_a_bar_for_every_split():
    found = data(charts.class_balance(COUNTS).to_dict())
    assert {(row["split"], row["class"]): row["images"] for row in found} == {
        (split, name): n for split, by_class in COUNTS.items() for name, n in by_class.items()
    }
    assert encodings(charts.class_balance(COUNTS).to_dict(), "y")[0]["sort"] == ["train", "val", "test"]


def test_an_error_of_exactly_zero_is_drawn_where_a_logarithm_can():
    points = [row for row in data(charts.gradient_errors(ERRORS, TOLERANCES).to_dict()) if "error" in row]
    assert [(row["layer"], row["method"], row["error"]) for row in points] == [
        (1.0, "autograd", 1e-17),
        (1.0, "central difference", 2.5e-9),
        (2.0, "autograd", 1e-17),
        (2.0, "central difference", 2.5e-9),
    ]


def test_curves_keep_one_quantity_and_the_order_of_the_configurations():
    specification = charts.curves(CURVES, "val_loss", "loss").to_dict()
    assert all(set(row) == {"configuration", "seed", "epoch", "val_loss"} for row in data(specification))
    for colour in encodings(specification, "color"):
        assert colour["scale"]["domain"] == ["precise", "fast"]


def test_curves_are_means_over_the_seeds_with_a_standard_error_around():
    band, line = charts.curves(CURVES, "val_loss", "loss").to_dict()["layer"]
    assert (band["mark"]["type"], band["mark"]["extent"]) == ("errorband", "stderr")
    assert (band["encoding"]["y"]["field"], line["encoding"]["y"]["field"]) == ("val_loss", "val_loss")
    assert line["encoding"]["y"]["aggregate"] == "mean"


def test_more_configurations_than_colours_are_told_apart_by_dashes():
    rows = [{**CURVES[0], "configuration": f"c{i}"} for i in range(len(charts.PALETTE) + 1)]
    (dash,) = encodings(charts.curves(rows, "val_loss", "loss").to_dict(), "strokeDash")
    assert dash["field"] == "configuration"
    assert dash["scale"]["domain"] == [f"c{i}" for i in range(len(charts.PALETTE) + 1)]


def test_the_tolerances_are_lines_at_their_values():
    points, rules = charts.gradient_errors(ERRORS, TOLERANCES).to_dict()["layer"]
    assert (points["encoding"]["x"]["field"], rules["encoding"]["x"]["field"]) == ("error", "tolerance")
    assert rules["mark"]["strokeDash"]


def test_the_bars_of_the_ranking_are_one_standard_error_long_to_each_side():
    bars, points = charts.ranking(RANKING).to_dict()["layer"]
    ends = {step["as"]: step["calculate"] for step in bars["transform"]}
    assert ends == {
        "low": "datum.val_accuracy - datum.val_accuracy_se",
        "high": "datum.val_accuracy + datum.val_accuracy_se",
    }
    assert (bars["encoding"]["x"]["field"], bars["encoding"]["x2"]["field"]) == ("low", "high")
    assert points["encoding"]["x"]["field"] == "val_accuracy"


def test_a_cell_of_the_confusion_matrix_stands_at_its_classes():
    for layer in charts.confusion(MATRIX, CLASSES).to_dict()["layer"]:
        assert (layer["encoding"]["x"]["field"], layer["encoding"]["y"]["field"]) == ("predicted", "true")


def test_the_intervals_of_the_calibration_are_drawn_from_end_to_end():
    _, bars, points = charts.calibration(CALIBRATION).to_dict()["layer"]
    assert (bars["encoding"]["y"]["field"], bars["encoding"]["y2"]["field"]) == ("accuracy_low", "accuracy_high")
    assert points["encoding"]["y"]["field"] == "accuracy"


def test_a_class_has_the_same_colour_in_all_charts():
    for chart in (charts.roc(ROC, CLASSES), charts.class_balance({"test": dict.fromkeys(CLASSES, 1)})):
        (colour,) = [found for found in encodings(chart.to_dict(), "color") if found.get("field") == "class"]
        assert colour["scale"]["domain"] == list(CLASSES)


@pytest.mark.parametrize("n", [2, 8, 9, 10])
def test_no_two_classes_share_a_colour(n):
    names = cifar10.CLASSES[:n]
    for chart in (charts.roc(ROC, names), charts.class_balance({"test": dict.fromkeys(names, 1)})):
        (colour,) = [found for found in encodings(chart.to_dict(), "color") if found.get("field") == "class"]
        assert len(set(colour["scale"]["range"][:n])) == n


def test_two_classes_keep_their_colours():
    colour = encodings(charts.roc(ROC, CLASSES).to_dict(), "color")[0]
    assert colour["scale"]["range"][:2] == ["#0072B2", "#E69F00"]


def test_a_bar_of_the_classes_is_as_high_as_its_name():
    counts = {split: dict.fromkeys(cifar10.CLASSES, 1) for split in ("train", "val", "test")}
    assert charts.class_balance(COUNTS).to_dict()["height"] == 180
    assert charts.class_balance(counts).to_dict()["height"] >= 12 * 30


def test_a_click_on_a_class_fades_the_curves_of_the_others():
    specification = charts.roc(ROC, CLASSES).to_dict()
    (chosen,) = specification["params"]
    assert (chosen["select"]["fields"], chosen["bind"]) == (["class"], "legend")
    (opacity,) = encodings(specification, "opacity")
    assert opacity["condition"]["param"] == chosen["name"]


def test_the_ranking_keeps_its_order():
    specification = charts.ranking(RANKING).to_dict()
    assert all(y["sort"] == ["smooth", "cnn"] for y in encodings(specification, "y"))
    assert all(colour["scale"]["domain"] == ["mlp", "cnn"] for colour in encodings(specification, "color"))


def test_the_confusion_matrix_has_the_classes_in_their_order_and_shares_of_the_true_class():
    specification = charts.confusion([[3, 1], [0, 0]], CLASSES).to_dict()
    assert all(x["sort"] == ["bird", "airplane"] for axis in "xy" for x in encodings(specification, axis))
    shares = {(row["true"], row["predicted"]): row["share"] for row in data(specification)}
    assert shares == {
        ("bird", "bird"): 0.75,
        ("bird", "airplane"): 0.25,
        ("airplane", "bird"): 0,
        ("airplane", "airplane"): 0,
    }
    of_five = charts.confusion([[1] * 5] * 5, "abcde").to_dict()
    assert of_five["height"] > specification["height"]
    # Numbers and names that fit into a fifth of a phone.
    assert [encodings(s, "x")[0]["axis"]["labelAngle"] for s in (specification, of_five)] == [0, -90]


def test_a_roc_curve_is_drawn_from_end_to_end_and_not_by_its_height():
    assert encodings(charts.roc(ROC, CLASSES).to_dict(), "order")[0]["field"] == "false_positive_rate"
