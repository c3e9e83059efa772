"""The report: one page with everything that a run found, that needs no network and no other file."""

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

from cifar2 import files

TEMPLATE = Path(__file__).with_name("page.html")


def render(facts: Mapping[str, Any], charts: Mapping[str, alt.Chart | alt.LayerChart]) -> bytes:
    """The page.

    Args:
        facts: what the template ``page.html`` speaks of.
        charts: by the name under which the template places each.
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
        # The page says in words what a chart shows.
        aria=False,
        mark=alt.MarkConfig(aria=False),
    )
    # A "<" might end the script that it stands in, or keep it from ending.
    specifications = {name: chart.properties(config=style).to_dict() for name, chart in charts.items()}
    vega = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its stub forgets that this may be left out
    page = environment.get_template(TEMPLATE.name).render(
        **facts,
        vega=Markup(vega),  # noqa: S704 (the library's own text)
        specifications=Markup(json.dumps(specifications, allow_nan=False).replace("<", "\\u003c")),  # noqa: S704 (escaped just here)
    )
    return page.encode()


def reason(ranked: Sequence[Mapping[str, Any]]) -> str:
    """Why the first row of ``metrics/ranking.csv`` won, in a sentence (see ``selection``)."""
    winner = ranked[0]["name"]
    tied = [row["name"] for row in ranked if row["tied"]]
    tied_on_loss = [row["name"] for row in ranked if row["tied_on_loss"]]
    if len(tied) == 1:
        return f"By it, {winner} has the best validation accuracy, and no other is within one standard error of it."
    told = f"Within one standard error of the best validation accuracy are {_listed(tied)}"
    if len(tied_on_loss) == 1:
        loss = "the lowest loss on a bad epoch, and no other is within one standard error of that"
        return f"{told}; of these {winner} has {loss}."
    near = f"near the lowest loss on a bad epoch among them are {_listed(tied_on_loss)}"
    return f"{told}; {near}, and of these {winner} has the smallest gap."


class Step(NamedTuple):
    """What one family's best gains in test accuracy over another's, with the standard error of that."""

    before: str
    after: str
    gain: float
    error: float

    @property
    def is_signal(self) -> bool:
        """Whether the gain is too large to be chance: more than 1.96 standard errors."""
        return abs(self.gain) > 1.96 * self.error


def steps(families: Mapping[str, Mapping[str, Any]]) -> list[Step]:
    """From each family to the next, by their ``metrics/evaluate/FAMILY.json``.

    The families are measured on the same images, which the standard error does not make use of: it is rather too large.
    """
    scores = {family: evaluated["subsets"][0] for family, evaluated in families.items()}
    means = {family: s["seeds_mean"] for family, s in scores.items()}
    # The upper end may be cut off, at 1.
    errors = {family: (s["seeds_mean"] - s["seeds_ci95"][0]) / 1.96 for family, s in scores.items()}
    return [Step(a, b, means[b] - means[a], math.hypot(errors[a], errors[b])) for a, b in pairwise(families)]


def mistakes(evaluated: Mapping[str, Tensor], classes: Sequence[str], n: int) -> list[dict[str, Any]]:
    """The ``n`` most confident of the misclassified images that ``evaluate`` found, the most confident first."""
    confidence, predicted = torch.softmax(evaluated["logits"][0].double(), 1).max(1)
    return [
        {
            "true": classes[int(evaluated["labels"][i])],
            "predicted": classes[int(predicted[i])],
            "confidence": confidence[i].item(),
            "address": address,
        }
        for i, address in zip(evaluated["mistakes"][:n], thumbnails(evaluated["mistaken_images"][:n]), strict=True)
    ]


def _listed(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def picture(path: Path) -> str:
    """A PNG file as the address of an image that stands in the page itself."""
    return _address(files.read(path))


def thumbnails(images: Tensor) -> list[str]:
    """Pictures, uint8, N x 3 x 32 x 32, as such addresses."""
    return [_address(_png(image)) for image in images]


def _png(image: Tensor) -> bytes:
    """A uint8 image, 3 x H x W, as the content of a PNG file."""
    content = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(content, format="png")
    return content.getvalue()


def _address(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
