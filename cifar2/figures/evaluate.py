"""Test results: the confusion matrix and the misclassified images."""

from collections.abc import Sequence

from torch import Tensor

from cifar2.figures.canvas import Figure, image_grid, short

# Classes with a number in each cell of the confusion matrix.
MOST = 20


def confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str], title: str) -> Figure:
    """A confusion matrix; each cell shows its fraction of the true class, and its count too unless there are many."""
    many = len(classes) > MOST
    size = 14.0 if many else max(4.2, 0.9 * len(classes) + 1.5)
    figure = Figure((size + 0.6, size), layout="constrained")
    axes = figure.subplots()
    fractions = [[n / max(1, sum(row)) for n in row] for row in matrix]
    image = axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    for i, row in enumerate(matrix):
        for j, n in enumerate(row):
            colour = "white" if fractions[i][j] > 0.5 else "black"
            if not many:
                axes.text(j, i, f"{n:,}\n{fractions[i][j]:.1%}", ha="center", va="center", color=colour)
    names, font = short(classes), 7 if many else 10
    horizontal = len(names) < 5 and max(map(len, names)) <= 10
    axes.set_xticks(range(len(names)), names, rotation=0 if horizontal else 90, fontsize=font)
    axes.set_yticks(range(len(names)), names, fontsize=font)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, label="fraction of the true class", shrink=0.8)
    return figure


def misclassified(images: Tensor, labels: Tensor, probabilities: Tensor, classes: Sequence[str], title: str) -> Figure:
    """A gallery of uint8 images, N x 3 x H x W, each under its class and its prediction with the confidence."""
    confidence, predicted = probabilities.max(1)
    names = short(classes)
    captions = [
        f"{names[t]}, predicted\n{names[p]} ({c:.2%})"
        for t, p, c in zip(labels.tolist(), predicted.tolist(), confidence.tolist(), strict=True)
    ]
    return image_grid(images, title, 6, (9.6, 0.6, 2.05), captions, fontsize=9)
