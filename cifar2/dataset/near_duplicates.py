"""Test images that are also among the training images, in another crop, size or colour.

CIFAR-10 has some (Barz and Denzler, "Do we train on test data? Purging CIFAR of near-duplicates", 2020, find 3.3 % of
the test images).  A model that remembers them looks better than it is.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

# The drawing of an image is the image minus its local mean over a square of this size.  Skies all look alike; drawings
# do not.
NEIGHBOURHOOD = 9
# Smallest correlation of two drawings, and of the two images.  Set by eye on the figure of the pairs: lower values give
# more pairs of different airplanes on the same blue, higher values lose crops of one image.
MIN_DRAWING, MIN_IMAGE = 0.7, 0.85


class Pairs(NamedTuple):
    """Test images with their near-duplicates, the most similar pairs first.

    Attributes:
        test: indices of the test images, int64.
        train: indices of the training images, int64.
        flipped: whether one is similar to the other's mirror image, bool.
        similarity: correlation of the two drawings, -1 to 1, float32.
    """

    test: Tensor
    train: Tensor
    flipped: Tensor
    similarity: Tensor


def find(train: Tensor, test: Tensor) -> Pairs:
    """The test images with a near-duplicate in ``train``, each with the most similar one.

    Args:
        train: the images to search, uint8, N x 3 x 32 x 32.
        test: the images to search for, uint8, M x 3 x 32 x 32.
    """
    similarity = torch.full((len(test),), -1.0)
    best = torch.zeros(len(test), dtype=torch.int64)
    flipped = torch.zeros(len(test), dtype=torch.bool)
    candidates, drawings = _standardised(_drawing(train)).t(), _drawing(test)
    for flip in (False, True):
        correlation, nearest = (_standardised(drawings.flip(-1) if flip else drawings) @ candidates).max(1)
        better = correlation > similarity
        similarity[better], best[better], flipped[better] = correlation[better], nearest[better], flip
    partners = torch.where(flipped.view(-1, 1, 1, 1), train[best].flip(-1), train[best])
    of_images = (_standardised(test.float()) * _standardised(partners.float())).sum(1)
    pairs = torch.nonzero((similarity >= MIN_DRAWING) & (of_images >= MIN_IMAGE)).squeeze(1)
    pairs = pairs[similarity[pairs].argsort(descending=True, stable=True)]
    return Pairs(pairs, best[pairs], flipped[pairs], similarity[pairs])


def _drawing(images: Tensor) -> Tensor:
    pixels, margin = images.float(), NEIGHBOURHOOD // 2
    along_rows = avg_pool2d(pixels, (1, NEIGHBOURHOOD), 1, (0, margin), count_include_pad=False)
    return pixels - avg_pool2d(along_rows, (NEIGHBOURHOOD, 1), 1, (margin, 0), count_include_pad=False)


def _standardised(pixels: Tensor) -> Tensor:
    """Rows of mean 0 and length 1, so that their products are correlations; an image of one colour gives zeros."""
    rows = pixels.flatten(1)
    rows = rows - rows.mean(1, keepdim=True)
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / lengths.clamp_min(1e-6)
