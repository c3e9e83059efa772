"""Test pictures that stand in the training part too, in another crop, size or colour.

CIFAR-10 has some (Barz and Denzler, "Do we train on test data? Purging CIFAR of near-duplicates", 2020, find 3.3 % of
the test images).  A model that remembers them looks better than it is.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

# What is left of a picture without its mean over so many pixels around: its drawing.  Skies all look alike; drawings
# do not.
NEIGHBOURHOOD = 9
# Correlation of two drawings, and of the two whole pictures.  Set by eye on the figure of the pairs: with less, there
# are more pairs of different airplanes on the same blue; with more, the crops of one picture get lost.
DRAWING, WHOLE = 0.7, 0.85


class Pairs(NamedTuple):
    """Test pictures and what they repeat, the surest first.

    Attributes:
        test: int64, places in the test split.
        train: int64, places in the training pictures.
        flipped: bool, whether one is the other's mirror image.
        similarity: float32, correlation of the two drawings, -1 to 1.
    """

    test: Tensor
    train: Tensor
    flipped: Tensor
    similarity: Tensor


def find(train: Tensor, test: Tensor) -> Pairs:
    """The test pictures with a near-duplicate in ``train``, each with the most similar one.

    Args:
        train: where to search; uint8, N x 3 x 32 x 32.
        test: what to search for; uint8, M x 3 x 32 x 32.
    """
    similarity = torch.full((len(test),), -1.0)
    best = torch.zeros(len(test), dtype=torch.int64)
    flipped = torch.zeros(len(test), dtype=torch.bool)
    of_train, of_test = _drawing(train), _drawing(test)
    candidates = _standardised(of_train).t()
    for flip in (False, True):
        found, where = (_standardised(of_test.flip(-1) if flip else of_test) @ candidates).max(1)
        better = found > similarity
        similarity[better], best[better], flipped[better] = found[better], where[better], flip
    partners = torch.where(flipped.view(-1, 1, 1, 1), train[best].flip(-1), train[best])
    whole = (_standardised(test.float()) * _standardised(partners.float())).sum(1)
    places = torch.nonzero((similarity >= DRAWING) & (whole >= WHOLE)).squeeze(1)
    places = places[similarity[places].argsort(descending=True, stable=True)]
    return Pairs(places, best[places], flipped[places], similarity[places])


def _drawing(images: Tensor) -> Tensor:
    pixels, margin = images.float(), NEIGHBOURHOOD // 2
    along_rows = avg_pool2d(pixels, (1, NEIGHBOURHOOD), 1, (0, margin), count_include_pad=False)
    return pixels - avg_pool2d(along_rows, (NEIGHBOURHOOD, 1), 1, (margin, 0), count_include_pad=False)


def _standardised(pixels: Tensor) -> Tensor:
    """Rows of mean 0 and length 1, so that their products are correlations; a picture of one colour is all zeros."""
    rows = pixels.flatten(1)
    rows = rows - rows.mean(1, keepdim=True)
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / lengths.clamp_min(1e-6)
