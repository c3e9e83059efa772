"""Pairs of images made from the same photograph."""

import torch

from cifar2.dataset.near_duplicates import Pairs
from cifar2.dataset.splits import Split
from cifar2.figures.canvas import Figure, image_grid, short

# Pairs in the figure.
N_PAIRS = 72


def gallery(train: Split, test: Split, pairs: Pairs | None) -> Figure:
    """The least similar ``pairs``, each under its test image's class: the test image, then the training image.

    ``pairs`` are None if there was no search.
    """
    size = (12, 0.6, 0.95)
    if pairs is None:
        return image_grid(test.x[:0], "data.near_duplicates is false: no search for near-duplicates", 9, size, ())
    n, shown = len(pairs.test), slice(-N_PAIRS, None)
    title = f"{n} of {len(test.labels):,} test images (left) with a near-duplicate in the training or validation set"
    if n > N_PAIRS:
        title += f"; the {N_PAIRS} least similar"
    left, right = test.x[pairs.test[shown]], train.x[pairs.train[shown]]
    names = short(test.classes)
    captions = [names[label] for label in test.labels[pairs.test[shown]]]
    gap = left.new_full((len(left), 3, left.shape[2], 1), 255)
    return image_grid(torch.cat([left, gap, right], 3), title, 9, size, captions, fontsize=8, pad=2)
