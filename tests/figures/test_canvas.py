import io
import itertools
import re
import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from cifar2 import params
from cifar2.dataset import cifar10, splits
from cifar2.evaluation import selection
from cifar2.figures import canvas as figures
from cifar2.gradcheck import Case, Errors
from tests.conftest import ROOT, random_split

MATRIX = [[862, 138], [175, 825]]


def texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(match=lambda artist: hasattr(artist, "get_text")))


def test_a_figure_has_the_same_bytes_every_time_and_names_no_software(tmp_path):
    for name in ("a", "b"):
        figures.write(tmp_path / name, figures.confusion(MATRIX, ("airplane", "bird"), "title"))
    content = (tmp_path / "a").read_bytes()
    assert content == (tmp_path / "b").read_bytes()
    assert b"tEXt" not in content
    assert matplotlib.image.imread(io.BytesIO(content)).std() > 0


def test_the_backend_of_a_notebook_does_not_matter(monkeypatch):
    """A child process, since matplotlib reads the variable once."""
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    subprocess.run(
        [sys.executable, "-c", "from cifar2.figures import canvas; canvas.Figure().subplots()"], cwd=ROOT, check=True
    )


def test_confusion_shows_counts_and_shares():
    shown = texts(figures.confusion(MATRIX, ("airplane", "bird"), "2,000 test images"))
    for text in ("862\n86.2%", "175\n17.5%", "2,000 test images", "predicted", "true"):
        assert text in shown


@pytest.mark.parametrize("classes", [("airplane", "bird"), ("cat", "dog", "frog", "ship")])
def test_samples_show_every_class_before_and_after(classes):
    split = random_split(60, 0, classes)
    x = splits.normalise(split.images, [0.5] * 3, [0.5] * 3)
    shown = texts(figures.samples(split.images, x, split.labels, classes))
    for name in classes:
        assert f"{name}\nas it is" in shown
        assert f"{name}\nnormalised" in shown


def test_samples_cope_with_a_class_of_few_pictures():
    split = random_split(3, 0)
    x = splits.normalise(split.images, [0.5] * 3, [0.5] * 3)
    assert "bird" in texts(figures.samples(split.images, x, split.labels, split.classes))


def test_the_class_distribution_shows_counts_and_shares():
    counts = {"train": {"airplane": 4518, "bird": 4506}, "test": {"airplane": 1000, "bird": 1000}}
    shown = texts(figures.class_distribution(counts))
    for text in ("train: 9,024 images", "4,518\n50.1%", "1,000\n50.0%"):
        assert text in shown


@pytest.mark.parametrize("classes", [cifar10.CLASSES[:n] for n in (2, 3, 4, 10)], ids=len)
def test_no_text_of_the_class_distribution_overlaps_another(classes):
    counts = {name: dict.fromkeys(classes, n) for name, n in (("train", 4518), ("val", 502), ("test", 1000))}
    figure = figures.class_distribution(counts)
    figure.savefig(io.BytesIO())
    # Matplotlib keeps ticks beyond the ends of an axis, and draws none of them.
    texts = (text for text in figure.findobj(Text) if text.get_visible())
    shown = [text for text in texts if re.search(r"[a-z]|%", text.get_text())]
    boxes = [text.get_window_extent() for text in shown]
    for (a, one), (b, other) in itertools.combinations(zip(shown, boxes, strict=True), 2):
        assert not one.overlaps(other), (a.get_text(), b.get_text())
    edge = figure.bbox
    assert all(edge.x0 <= box.x0 and box.x1 <= edge.x1 for box in boxes)


def test_gradient_errors_show_each_group_and_both_tolerances():
    case = Case((5, 3), "relu", "identity", "cross_entropy", 4)
    figure = figures.gradient_errors([(case, Errors(0.0, 1e-9))], Errors(1e-12, 1e-7))
    shown = texts(figure)
    for text in ("relu, cross entropy", "tolerance, autograd", "tolerance, central difference"):
        assert text in shown
    points = [c.get_offsets()[0][0] for c in figure.axes[0].collections]
    assert points == [1e-17, 1e-9]


def test_the_ranking_names_every_configuration_in_order():
    m = {"val_accuracy": 0.85, "val_accuracy_se": 0.01, "val_loss": 0.5, "val_loss_se": 0.02, "val_loss_std": [0.01]}
    ranked = selection.rank({"a": m | {"gap": 0.2}, "b": m | {"gap": 0.1}, "c": m | {"val_accuracy": 0.7, "gap": 0.0}})
    figure = figures.ranking(ranked, {"a": "mlp", "b": "cnn", "c": "mlp"}, 3)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        "b (cnn)  1",
        "a (mlp)  2",
        "c (mlp)  3",
    ]
    assert "3 seeds" in texts(figure)


@pytest.mark.parametrize("n", [0, 1, 11])
def test_pairs_stand_side_by_side_under_their_captions(n):
    left, right = random_split(11, 0).images[:n], random_split(11, 1).images[:n]
    figure = figures.pairs(left, right, [f"picture {i}" for i in range(n)], "title")
    shown = [axes for axes in figure.axes if axes.images]
    assert len(shown) == n
    for i, axes in enumerate(shown):
        pixels = torch.from_numpy(axes.images[0].get_array().data).permute(2, 0, 1)
        assert torch.equal(pixels[:, :, :32], left[i])
        assert torch.equal(pixels[:, :, -32:], right[i])
        assert axes.get_title() == f"picture {i}"
    assert "title" in texts(figure)


@pytest.mark.parametrize("n", [0, 1, 7])
def test_the_gallery_shows_each_picture_under_its_caption(n):
    figure = figures.mistakes(random_split(8, 0).images[:n], [f"picture {i}" for i in range(n)], "title")
    assert sum(bool(axes.images) for axes in figure.axes) == n
    assert all(f"picture {i}" in texts(figure) for i in range(n))


def test_pictures_are_shown_with_channels_last():
    image = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    image[0, 0] = 200
    (axes,) = [a for a in figures.mistakes(image, ["red"], "title").axes if a.images]
    assert axes.images[0].get_array()[5, 5].tolist() == [200, 0, 0]


@pytest.mark.parametrize("n", [0, 1, 13])
def test_the_units_of_the_first_layer_are_pictures_on_their_own_scale_around_grey(n):
    weights = torch.randn(13, 3, 32, 32, generator=torch.Generator().manual_seed(0))[:n]
    figure = figures.first_layer(weights, "title")
    shown = [axes for axes in figure.axes if axes.images]
    assert len(shown) == n
    for unit, axes in zip(weights, shown, strict=True):
        pixels = torch.from_numpy(axes.images[0].get_array().data).permute(2, 0, 1)
        assert (pixels - 0.5).abs().max().item() == pytest.approx(0.5)
        assert torch.allclose(pixels - 0.5, 0.5 * unit / unit.abs().max(), atol=1e-6)
    assert "title" in texts(figure)


def test_a_png_holds_the_very_pixels():
    image = random_split(1, 0).images[0]
    content = figures.png(image)
    assert content == figures.png(image)
    pixels = torch.from_numpy(np.array(Image.open(io.BytesIO(content)))).permute(2, 0, 1)
    assert torch.equal(pixels, image)


SPACE = {
    "lr": params.Range(log_uniform=[0.01, 1.0]),
    "momentum": params.Range(uniform=[0.5, 0.9]),
    "flip": params.Range(choice=[False, True]),
}


def swept(accuracies):
    points = [{"lr": 0.1, "momentum": 0.7, "flip": True}, {"lr": 0.01, "momentum": 0.9, "flip": False}]
    return [{**points[n % 2], "val_accuracy": a, "val_accuracy_se": 0.01} for n, a in enumerate(accuracies)]


@pytest.mark.parametrize("draw", [figures.trials, figures.by_parameter])
def test_a_sweep_names_its_parameters_and_their_bounds(draw):
    shown = texts(draw(swept([0.9, 0.88, 0.87, 0.86]), SPACE))
    for text in ("lr", "momentum", "flip", "0.01", "0.1", "0.7", "False", "validation accuracy", "4 trials"):
        assert text in shown
    assert "below" not in shown


@pytest.mark.parametrize("draw", [figures.trials, figures.by_parameter])
def test_a_trial_that_learned_nothing_does_not_press_the_others_together(draw):
    assert "; 1 below 0.847 drawn there" in texts(draw(swept([0.9, 0.89, 0.88, 0.875, 0.87, 0.5]), SPACE))


def test_each_trial_is_a_line_through_its_values_and_the_best_is_the_thick_one():
    axes = figures.trials(swept([0.9, 0.8, 0.7]), SPACE).axes[0]
    lines = [line for line in axes.lines if len(line.get_xdata()) == 4]
    assert [list(line.get_ydata()) for line in lines] == [
        pytest.approx([0.5, 0.5, 1, 0]),
        pytest.approx([0, 1, 0, 0.5]),
        pytest.approx([0.5, 0.5, 1, 1]),
    ]
    assert lines[-1].get_linewidth() > lines[0].get_linewidth()


def test_a_sweep_of_one_trial_and_one_parameter_can_be_drawn():
    for draw in (figures.trials, figures.by_parameter):
        assert "1 trials" in texts(draw(swept([0.9]), {"lr": params.Range(grid=[0.1])}))
