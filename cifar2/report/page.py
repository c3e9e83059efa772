"""The report: one page with all results of a run, which needs no network and no other file."""

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import altair as alt
import torch
import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image
from torch import Tensor

TEMPLATE = Path(__file__).with_name("page.html")


def render(values: Mapping[str, Any], charts: Mapping[str, alt.Chart | alt.LayerChart]) -> bytes:
    """The page.

    Args:
        values: variables of the template ``page.html``.
        charts: the charts by their name in the template.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    style = alt.Config(
        background="transparent",
        font="system-ui, sans-serif",
        axis=alt.AxisConfig(labelFontSize=12, titleFontSize=12, labelFlush=False, labelSeparation=8),
        legend=alt.LegendConfig(orient="top", columns=3, labelFontSize=12, titleFontSize=12, symbolOpacity=1),
        # The page describes each chart in words.
        aria=False,
        mark=alt.MarkConfig(aria=False),
    )
    specifications = {name: chart.properties(config=style).to_dict() for name, chart in charts.items()}
    # A "<" could end the script early, or keep it open.
    escaped = json.dumps(specifications, allow_nan=False).replace("<", "\\u003c")
    vega = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # the argument is optional, but not in its stub
    page = environment.get_template(TEMPLATE.name).render(
        **values,
        vega=Markup(vega),  # noqa: S704 (the library's own text)
        specifications=Markup(escaped),  # noqa: S704 (escaped above)
    )
    return page.encode()


def reason(ranking: Sequence[Mapping[str, Any]]) -> str:
    """Why the first row of ``metrics/ranking.csv`` is selected, in one or two sentences (see ``selection``)."""
    selected = ranking[0]["name"]
    tied = [row["name"] for row in ranking if row["tied"]]
    tied_on_loss = [row["name"] for row in ranking if row["tied_on_loss"]]
    if len(tied) == 1:
        return f"{selected} has the best validation accuracy; no other is within one standard error of it."
    near = f"{_listed(tied)} are within one standard error of the best validation accuracy."
    if len(tied_on_loss) == 1:
        return (
            f"{near} Of these, {selected} has the lowest bad-epoch loss; no other is within one standard error of it."
        )
    return (
        f"{near} Of these, {_listed(tied_on_loss)} are within one standard error of the lowest bad-epoch loss, "
        f"and {selected} has the smallest gap."
    )


class Step(NamedTuple):
    """The gain in test accuracy from one family's best to the next one's, and its standard error."""

    before: str
    after: str
    gain: float
    error: float

    @property
    def is_significant(self) -> bool:
        """Whether the gain or loss is larger than 1.96 standard errors."""
        return abs(self.gain) > 1.96 * self.error


def steps(families: Mapping[str, Mapping[str, Any]]) -> list[Step]:
    """The step from each family to the next, by their ``metrics/evaluate/FAMILY.json``.

    All families are evaluated on the same images; ignoring this makes the standard error too large, if anything.
    """
    scores = {family: metrics["subsets"][0] for family, metrics in families.items()}
    means = {family: s["seeds_mean"] for family, s in scores.items()}
    # From the lower end of the interval: the upper end may be cut off, at 1.
    errors = {family: (s["seeds_mean"] - s["seeds_ci95"][0]) / 1.96 for family, s in scores.items()}
    return [Step(a, b, means[b] - means[a], math.hypot(errors[a], errors[b])) for a, b in pairwise(families)]


def misclassified(evaluated: Mapping[str, Tensor], classes: Sequence[str], n: int) -> list[dict[str, Any]]:
    """The first ``n`` misclassified images of ``data/evaluated/NAME.safetensors``, the most confident first."""
    confidence, predicted = torch.softmax(evaluated["logits"][0].double(), 1).max(1)
    return [
        {
            "true": classes[int(evaluated["labels"][i])],
            "predicted": classes[int(predicted[i])],
            "confidence": confidence[i].item(),
            "url": url,
        }
        for i, url in zip(evaluated["mistakes"][:n], thumbnails(evaluated["mistaken_images"][:n]), strict=True)
    ]


def thumbnails(images: Tensor) -> list[str]:
    """Images, uint8, N x 3 x 32 x 32, as data URLs."""
    urls = []
    for image in images:
        content = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(content, format="png")
        urls.append(data_url(content.getvalue()))
    return urls


def data_url(png: bytes) -> str:
    """The content of a PNG file as a URL inside the page."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _listed(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
