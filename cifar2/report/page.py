"""The report: one page with all results of a run, which needs no network and no other file."""

import base64
import io
import json
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

from cifar2.evaluation.uncertainty import Estimate, estimate
from cifar2.mynet import MyNet

TEMPLATE = Path(__file__).with_name("page.html")
# Largest height and width of an image on the map, in pixels.
THUMBNAIL = 32


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


def reason(ranking: Sequence[Mapping[str, Any]], resamples: int) -> str:
    """Why the first row of ``metrics/ranking.csv`` is selected, and how often it would be (see ``selection``)."""
    selected = ranking[0]["name"]
    tied = [row["name"] for row in ranking if row["tied"]]
    tied_on_loss = [row["name"] for row in ranking if row["tied_on_loss"]]
    often = (
        f"On {100 * ranking[0]['fraction']:.0f} % of {resamples:,} resamples of images and seeds it is selected too."
    )
    if len(tied) == 1:
        return f"{selected} has the best validation accuracy, and no other is tied with it. {often}"
    near = f"{_listed(tied)} are tied on validation accuracy."
    if len(tied_on_loss) == 1:
        return f"{near} Of these, {selected} has the lowest bad-epoch loss, and no other is tied with it. {often}"
    return (
        f"{near} Of these, {_listed(tied_on_loss)} are tied on the bad-epoch loss, and {selected} has the smallest "
        f"gap. {often}"
    )


class Step(NamedTuple):
    """The gain in test accuracy from the selected configuration of one family to that of the next."""

    before: str
    after: str
    gain: Estimate

    @property
    def is_significant(self) -> bool:
        """Whether the 95 % interval of the gain leaves out 0."""
        low, high = self.gain.interval()
        return low > 0 or high < 0


def steps(evaluated: Mapping[str, Mapping[str, Tensor]]) -> list[Step]:
    """The step from each family to the next, image by image, by their ``data/evaluated/FAMILY.safetensors``."""
    correct = {family: (t["logits"].argmax(2) == t["labels"]).double() for family, t in evaluated.items()}
    return [Step(a, b, estimate(correct[b] - correct[a])) for a, b in pairwise(correct)]


def layers(network: MyNet) -> list[tuple[int, int, int, int]]:
    """The layers with weights: number, inputs, outputs, parameters."""
    sizes = list(pairwise(network.n_l))
    return [(l, n_in, n_out, (n_in + 1) * n_out) for l, (n_in, n_out) in enumerate(sizes, 1)]


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


def points(
    evaluated: Mapping[str, Tensor], positions: Tensor, images: Tensor, classes: Sequence[str], n: int
) -> list[dict[str, Any]]:
    """Test images on the map of the test set, ``n`` at most, evenly spaced.

    Args:
        evaluated: ``data/evaluated/NAME.safetensors``.
        positions: N x 2.
        images: uint8, N x 3 x H x W.
        classes: the names of the classes.
        n: the largest number of points.
    """
    confidence, predicted = torch.softmax(evaluated["logits"][0].double(), 1).max(1)
    shown = torch.linspace(0, len(images) - 1, min(n, len(images))).long().tolist()
    return [
        {
            "x": round(positions[i, 0].item(), 3),
            "y": round(positions[i, 1].item(), 3),
            "class": classes[int(evaluated["labels"][i])],
            "predicted": classes[int(predicted[i])],
            "confidence": round(confidence[i].item(), 3),
            "image": thumbnail(images[i]),
        }
        for i in shown
    ]


def confusions(matrix: Sequence[Sequence[int]], classes: Sequence[str], n: int) -> list[tuple[str, str, int]]:
    """The ``n`` most frequent confusions of a confusion matrix: true class, predicted class, number of images."""
    off_diagonal = [
        (classes[t], classes[p], count)
        for t, row in enumerate(matrix)
        for p, count in enumerate(row)
        if t != p and count
    ]
    return sorted(off_diagonal, key=lambda found: -found[2])[:n]


def thumbnails(images: Tensor) -> list[str]:
    """Images, uint8, N x 3 x H x W, as data URLs."""
    urls = []
    for image in images:
        content = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(content, format="png")
        urls.append(data_url(content.getvalue()))
    return urls


def thumbnail(image: Tensor) -> str:
    """An image, uint8, 3 x H x W, as a data URL of less than a kilobyte."""
    content = io.BytesIO()
    small = Image.fromarray(image.permute(1, 2, 0).numpy())
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    small.save(content, format="webp", quality=70, method=6)
    return data_url(content.getvalue(), "webp")


def data_url(content: bytes, kind: str = "png") -> str:
    """The content of an image file as a URL inside the page."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _listed(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
