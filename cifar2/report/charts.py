"""The interactive charts of the report: Vega-Lite specifications, made with Altair from rows of the metrics.

Each function takes the rows of a CSV file as ``files.read_csv`` returns them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from cifar2.figures.colours import BLUE, GREEN, GREY, ORANGE

Rows = Sequence[Mapping[str, Any]]
# Okabe and Ito's palette; beyond its eight colours, dashes tell configurations apart.
PALETTE = [BLUE, ORANGE, GREEN, "#CC79A7", "#D55E00", "#56B4E9", GREY, "#B8A900"]
# A colour for each of CIFAR-10's ten classes: Petroff's palette, also safe for colour-blind readers ("Accessible color
# sequences for data visualization", 2021).
TEN = ["#3F90DA", "#FFA90E", "#BD1F01", "#94A4A2", "#832DB6", "#A96B59", "#E76300", "#B9AC70", "#717581", "#92DADD"]
HEIGHT = 300
LINE_LEGEND = alt.Legend(symbolType="stroke", symbolStrokeWidth=3, symbolSize=400)


def curves(rows: Rows, quantity: str, title: str) -> alt.LayerChart:
    """A quantity by epoch: one line per configuration, the mean over the seeds, with a band of one standard error.

    Args:
        rows: of ``metrics/curves.csv``.
        quantity: one of its columns.
        title: of the axis.
    """
    names = list(dict.fromkeys(row["configuration"] for row in rows))
    kept = [{key: row[key] for key in ("configuration", "seed", "epoch", quantity)} for row in rows]
    chosen = alt.selection_point(fields=["configuration"], bind="legend")
    base = _chart(kept).encode(
        alt.X("epoch:Q", title="epoch"),
        alt.Color(
            "configuration:N",
            title="configuration",
            sort=names,
            scale=alt.Scale(domain=names, range=PALETTE),
            legend=LINE_LEGEND,
        ),
    )
    axis = alt.Y(f"{quantity}:Q", title=title, scale=alt.Scale(zero=False))
    band = base.mark_errorband(extent="stderr").encode(
        axis, opacity=alt.condition(chosen, alt.value(0.2), alt.value(0.02))
    )
    line = base.mark_line().encode(
        alt.Y(f"mean({quantity}):Q", title=title, scale=alt.Scale(zero=False)),
        strokeDash=alt.StrokeDash("configuration:N", title="configuration", sort=names, scale=alt.Scale(domain=names)),
        opacity=alt.condition(chosen, alt.value(1), alt.value(0.1)),
        tooltip=["configuration:N", "epoch:Q", alt.Tooltip(f"mean({quantity}):Q", title=title, format=".4f")],
    )
    return (band + line).add_params(chosen).properties(height=HEIGHT)


def ranking(rows: Rows) -> alt.LayerChart:
    """Validation accuracy with its standard error, the selected configuration on top."""
    names = [row["name"] for row in rows]
    families = list(dict.fromkeys(row["family"] for row in rows))
    base = _chart(rows).encode(
        alt.Y("name:N", title="configuration", sort=names),
        alt.Color("family:N", title="family", sort=families, scale=alt.Scale(domain=families, range=PALETTE)),
    )
    ends = {name: f"datum.val_accuracy {sign} datum.val_accuracy_se" for name, sign in (("low", "-"), ("high", "+"))}
    axis = alt.X("low:Q", title="validation accuracy", scale=alt.Scale(zero=False))
    bars = base.transform_calculate(**ends).mark_rule(size=2).encode(axis, alt.X2("high:Q"))
    points = base.mark_point(filled=True, opacity=1, size=70).encode(
        alt.X("val_accuracy:Q"),
        alt.Shape("family:N", sort=families, legend=None),
        tooltip=["rank:Q", "name:N", "family:N", *_tooltips("val_accuracy", "val_accuracy_se", "val_loss", "gap")],
    )
    return (bars + points).properties(height=26 * len(rows))


def roc(rows: Rows, classes: Sequence[str]) -> alt.LayerChart:
    """True against false positive rate, one line per class, and the diagonal of pure chance."""
    # One point per pixel: thousands more would enlarge the page, and not refine the curve.
    kept = {
        (row["class"], round(1000 * row["false_positive_rate"]), round(HEIGHT * row["true_positive_rate"])): row
        for row in rows
    }
    drawn = [name for name in classes if any(row["class"] == name for row in rows)]
    chosen = alt.selection_point(fields=["class"], bind="legend")
    line = (
        _chart(list(kept.values()))
        .mark_line(interpolate="linear")
        .encode(
            alt.X("false_positive_rate:Q", title="false positive rate"),
            alt.Y("true_positive_rate:Q", title="true positive rate"),
            alt.Color("class:N", title="class", scale=alt.Scale(domain=drawn, range=TEN), legend=LINE_LEGEND),
            opacity=alt.condition(chosen, alt.value(1), alt.value(0.1)),
            order="false_positive_rate:Q",
            tooltip=["class:N", *_tooltips("false_positive_rate", "true_positive_rate")],
        )
    )
    return (_diagonal(0.0) + line.add_params(chosen)).properties(height=HEIGHT)


def calibration(rows: Rows) -> alt.LayerChart:
    """Accuracy against confidence, with 95 % intervals, and the diagonal of perfect calibration."""
    least = min(min(row["confidence"], row["accuracy_low"]) for row in rows)
    base = _chart(rows).encode(alt.X("confidence:Q", title="mean confidence", scale=alt.Scale(zero=False)))
    bars = base.mark_rule(size=2, color=BLUE).encode(
        alt.Y("accuracy_low:Q", title="accuracy", scale=alt.Scale(zero=False)), alt.Y2("accuracy_high:Q")
    )
    points = base.mark_point(filled=True, opacity=1, size=60, color=BLUE).encode(
        alt.Y("accuracy:Q"), tooltip=["n:Q", *_tooltips("confidence", "accuracy")]
    )
    return (_diagonal(least) + bars + points).properties(height=HEIGHT)


def test_set(rows: Rows, classes: Sequence[str]) -> alt.LayerChart:
    """The map of the test set: a point per image, coloured by its class, with a cross if it is misclassified.

    Args:
        rows: results of ``page.points``.
        classes: the classes with a colour of their own; the others share one.
    """
    kept = [{**row, "colour": row["class"] if row["class"] in classes else "other classes"} for row in rows]
    names = [name for name in (*classes, "other classes") if any(row["colour"] == name for row in kept)]
    colours = dict(zip(classes, PALETTE if len(classes) == 2 else TEN, strict=False)) | {"other classes": GREY}
    chosen = alt.selection_point(fields=["colour"], bind="legend")
    base = _chart(kept).encode(
        alt.X("x:Q", title="first principal component"),
        alt.Y("y:Q", title="second principal component"),
        alt.Color(
            "colour:N",
            title="class",
            sort=names,
            scale=alt.Scale(domain=names, range=[colours[name] for name in names]),
        ),
        tooltip=["image:N", "class:N", "predicted:N", alt.Tooltip("confidence:Q", format=".3f")],
    )
    wrong = "datum.class !== datum.predicted"
    correct = (
        base.transform_filter(f"!({wrong})")
        .mark_point(filled=True, size=22)
        .encode(opacity=alt.condition(chosen, alt.value(0.6), alt.value(0.05)))
    )
    misclassified = (
        base.transform_filter(wrong)
        .mark_point(shape="cross", filled=True, size=110, stroke="black", strokeWidth=1)
        .encode(opacity=alt.condition(chosen, alt.value(1), alt.value(0.05)))
    )
    return (correct + misclassified).add_params(chosen).properties(height=480)


def _diagonal(start: float) -> alt.Chart:
    line = _chart([{"x": start, "y": start}, {"x": 1, "y": 1}]).mark_line(strokeDash=[4, 4], color=GREY)
    return line.encode(alt.X("x:Q"), alt.Y("y:Q"))


def _tooltips(*columns: str) -> list[alt.Tooltip]:
    return [alt.Tooltip(f"{column}:Q", format=".4f") for column in columns]


def _chart(rows: Rows) -> alt.Chart:
    return alt.Chart({"values": [dict(row) for row in rows]}).properties(width="container")
