"""The report's interactive charts: Vega-Lite specifications, made with Altair from rows of the metrics.

Each function takes rows as ``csv.DictReader`` gives them, with numbers for text where numbers are meant.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from cifar2.figures.colours import BLUE, GREEN, GREY, ORANGE

Rows = Sequence[Mapping[str, Any]]
# Okabe and Ito's palette; with more configurations than colours the dashes tell them apart.
PALETTE = [BLUE, ORANGE, GREEN, "#CC79A7", "#D55E00", "#56B4E9", GREY, "#B8A900"]
# For more than eight classes.  Petroff's, told apart by colour-blind readers too ("Accessible color sequences for data
# visualization", 2021); as many colours as CIFAR-10 has classes.
TEN = ["#3F90DA", "#FFA90E", "#BD1F01", "#94A4A2", "#832DB6", "#A96B59", "#E76300", "#B9AC70", "#717581", "#92DADD"]
HEIGHT = 300
LINES = alt.Legend(symbolType="stroke", symbolStrokeWidth=3, symbolSize=400)


def curves(rows: Rows, quantity: str, title: str) -> alt.LayerChart:
    """A quantity by epoch: a line a configuration, with a band from seed to seed.

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
            legend=LINES,
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
    """Validation accuracy with its standard error, the best configuration on top."""
    names = [row["name"] for row in rows]
    families = list(dict.fromkeys(row["family"] for row in rows))
    base = _chart(rows).encode(
        alt.Y("name:N", title="configuration", sort=names),
        alt.Color("family:N", title="family", sort=families, scale=alt.Scale(domain=families, range=PALETTE)),
    )
    bars = (
        base.transform_calculate(
            low="datum.val_accuracy - datum.val_accuracy_se", high="datum.val_accuracy + datum.val_accuracy_se"
        )
        .mark_rule(size=2)
        .encode(
            alt.X("low:Q", title="validation accuracy", scale=alt.Scale(zero=False)),
            alt.X2("high:Q"),
        )
    )
    points = base.mark_point(filled=True, opacity=1, size=70).encode(
        alt.X("val_accuracy:Q"),
        alt.Shape("family:N", sort=families, legend=None),
        tooltip=[
            "rank:Q",
            "name:N",
            "family:N",
            *(alt.Tooltip(f"{key}:Q", format=".4f") for key in ("val_accuracy", "val_accuracy_se", "val_loss", "gap")),
        ],
    )
    return (bars + points).properties(height=26 * len(rows))


def roc(rows: Rows, classes: Sequence[str]) -> alt.LayerChart:
    """True against false positive rate, a line a class, and the diagonal of pure chance."""
    # One point a pixel: thousands more would make the page larger, and no curve finer.
    kept = {
        (row["class"], round(1000 * row["false_positive_rate"]), round(HEIGHT * row["true_positive_rate"])): row
        for row in rows
    }
    chosen = alt.selection_point(fields=["class"], bind="legend")
    palette = PALETTE if len(classes) <= len(PALETTE) else TEN
    line = (
        _chart(list(kept.values()))
        .mark_line(interpolate="linear")
        .encode(
            alt.X("false_positive_rate:Q", title="false positive rate"),
            alt.Y("true_positive_rate:Q", title="true positive rate"),
            alt.Color(
                "class:N",
                title="class",
                scale=alt.Scale(domain=classes, range=palette),
                legend=LINES,
            ),
            opacity=alt.condition(chosen, alt.value(1), alt.value(0.1)),
            order="false_positive_rate:Q",
            tooltip=["class:N", *(alt.Tooltip(f"{k}_positive_rate:Q", format=".4f") for k in ("false", "true"))],
        )
    )
    return (_diagonal(0.0) + line.add_params(chosen)).properties(height=HEIGHT)


def calibration(rows: Rows) -> alt.LayerChart:
    """How often answers are right against how sure they are, with 95 % intervals, and the diagonal of no error."""
    least = min(min(row["confidence"], row["accuracy_low"]) for row in rows)
    base = _chart(rows).encode(
        alt.X("confidence:Q", title="mean confidence of the answers", scale=alt.Scale(zero=False))
    )
    bars = base.mark_rule(size=2, color=BLUE).encode(
        alt.Y("accuracy_low:Q", title="share of right answers", scale=alt.Scale(zero=False)), alt.Y2("accuracy_high:Q")
    )
    points = base.mark_point(filled=True, opacity=1, size=60, color=BLUE).encode(
        alt.Y("accuracy:Q"),
        tooltip=["n:Q", *(alt.Tooltip(f"{key}:Q", format=".4f") for key in ("confidence", "accuracy"))],
    )
    return (_diagonal(least) + bars + points).properties(height=HEIGHT)


def _diagonal(start: float) -> alt.Chart:
    return (
        _chart([{"x": start, "y": start}, {"x": 1, "y": 1}])
        .mark_line(strokeDash=[4, 4], color=GREY)
        .encode(alt.X("x:Q"), alt.Y("y:Q"))
    )


def _chart(rows: Rows) -> alt.Chart:
    return alt.Chart({"values": [dict(row) for row in rows]}).properties(width="container")
