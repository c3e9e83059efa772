"""The data: samples of each class, the class balance."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from cifar2.figures.canvas import Figure, short
from cifar2.figures.colours import BLUE, CHANNELS

# Classes with images in the figure.
MOST = 10


def samples(images: Tensor, normalised: Tensor, labels: Tensor, classes: Sequence[str]) -> Figure:
    """The first images of the first classes before and after normalisation, and histograms of all values.

    Args:
        images: uint8, N x 3 x H x W.
        normalised: the same images, normalised.
        labels: N.
        classes: the name of each label.
    """
    columns, n_classes = 8, min(MOST, len(classes))
    low, high = normalised.min().item(), normalised.max().item()
    shown = (normalised - low) / (high - low)
    figure = Figure((9, 2.3 * n_classes + 3), layout="constrained")
    rows = figure.add_gridspec(2, 1, height_ratios=[2.3 * n_classes, 2.7])
    top, bottom = figure.add_subfigure(rows[0]), figure.add_subfigure(rows[1])

    grid = top.subplots(2 * n_classes, columns, squeeze=False)
    for label, name in enumerate(short(classes[:n_classes])):
        indices = (labels == label).nonzero().squeeze(1)[:columns].tolist()
        for row, (source, when) in enumerate(((images, "original"), (shown, "normalised")), 2 * label):
            for axes, index in zip(grid[row], indices, strict=False):
                axes.imshow(source[index].permute(1, 2, 0).numpy())
            for axes in grid[row]:
                axes.set_axis_off()
            grid[row][0].set_axis_on()
            grid[row][0].spines[:].set_visible(False)
            grid[row][0].set(xticks=[], yticks=[])
            grid[row][0].set_ylabel(f"{name}\n{when}")
    top.suptitle(f"Normalisation changes the scale, not the image: {low:.2f} to {high:.2f} drawn as black to white")

    before, after = bottom.subplots(1, 2, sharey=True)
    for axes, source, title, bounds in (
        (before, images.float(), "original pixel values", (0, 255)),
        (after, normalised, "normalised pixel values", (low, high)),
    ):
        for channel, (name, colour) in enumerate(CHANNELS.items()):
            counts = source[:, channel].histc(64, *bounds) / source[:, channel].numel()
            width = (bounds[1] - bounds[0]) / 64
            axes.stairs(counts.numpy(), [bounds[0] + i * width for i in range(65)], color=colour, label=name)
        axes.set(xlabel=title, xlim=bounds)
        axes.grid(visible=True)
    before.set_ylabel("fraction of pixels")
    after.legend(frameon=False)
    return figure


def class_distribution(counts: Mapping[str, Mapping[str, int]]) -> Figure:
    """Bars of the number of images by split and class; ``counts[split][name]``."""
    n_classes = max(map(len, counts.values()))
    many = n_classes > 3  # names and numbers need a line each
    figure = Figure((11, 1 + 0.3 * n_classes) if many else (8, 3.8), layout="constrained")
    panels = figure.subplots(1, len(counts), sharey=many)
    for axes, (split, by_class) in zip(panels, counts.items(), strict=True):
        total, names = sum(by_class.values()), short(list(by_class))
        if many:
            bars = axes.barh(range(n_classes), list(by_class.values()), color=BLUE, height=0.6)
            axes.set_yticks(range(n_classes), names)
            axes.bar_label(bars, [f"{n:,} ({n / total:.1%})" for n in by_class.values()], padding=3)
            axes.set(xlabel="images", xmargin=0.4)
        else:
            bars = axes.bar(range(n_classes), list(by_class.values()), color=BLUE, width=0.6)
            axes.set_xticks(range(n_classes), names)
            axes.bar_label(bars, [f"{n:,}\n{n / total:.1%}" for n in by_class.values()], padding=2)
            axes.margins(y=0.2)
        axes.set_title(f"{split}: {total:,} images")
    if many:
        panels[0].invert_yaxis()
    else:
        panels[0].set_ylabel("images")
    return figure
