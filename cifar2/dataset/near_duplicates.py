"""Near-duplicates: images made from the same photograph, in another crop, size or colour, or mirrored.

CIFAR-10 has some (Barz and Denzler, "Do we train on test data? Purging CIFAR of near-duplicates", 2020, find 3.3 % of
the test images).  A model that remembers them looks better than it is.

The search compares drawings.  The drawing of an image is the image minus its local mean: skies all look alike, drawings
do not.  There are three steps, from coarse and fast to fine and slow:

1. *Candidates*: the training images with the most similar coarse drawings, reduced to 8 x 8 pixels.
2. *Shift*: for each candidate the best shift by whole pixels.  Fourier transforms give the correlations at all shifts.
3. *Alignment*: for the best candidates, a few steps of gradient ascent on position, width and height.

An aligned pair counts if its fine drawings are similar, and its images too.

The constants were set on pairs within the training set, looked at one by one: of airplanes and birds, and of all ten
classes.  Two of them were changed after a first measurement on the test set, again by pairs within the training set.
``MIN_SIMILARITY`` was 0.75, where about 5 % of the training set's pairs of airplanes and birds, and 11 of 142 in the
test set, were not one photograph, such as two airliners in one pose.  It became 0.8, where 5 of the training set's 214
pairs are wrong.  ``N_STEPS`` was 10 and became 20, which finds more pairs.

In the test set, 124 airplanes and birds have a near-duplicate among the training and validation images, and 464 images
of all classes; judged by eye, 4 and 9 of these pairs are not one photograph.  Barz and Denzler list 54 and 249 images,
of which 52 and 227 are found (tests/dataset/test_near_duplicates.py).
"""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.fft import irfft2, rfft2
from torch.nn.functional import avg_pool1d, avg_pool2d, grid_sample, interpolate

from cifar2.progress_bar import steps

# Side of the square of the local mean, in pixels, for each kind of drawing.
COARSE, MEDIUM, FINE = 17, 9, 3
# Candidates for each image and for its mirror image, and how many of them all are aligned.
N_CANDIDATES, N_ALIGNED = 20, 2
# Largest shift in pixels, and the smallest correlation there for which alignment is worth its time.
MAX_SHIFT, MIN_SHIFTED = 4, 0.4
# Alignment by Adam.  With so few steps, its averages must forget quickly.
N_STEPS, STEP_SIZE, BETAS = 20, 0.05, (0.5, 0.9)
# Smallest correlation of the fine drawings, and of the images, after alignment.
MIN_SIMILARITY = 0.8
# Images at a time, to save memory.
BATCH = 100


class Pairs(NamedTuple):
    """Test images with their near-duplicates, the most similar pairs first.

    Attributes:
        test: indices of the test images, int64.
        train: indices of the training images, int64.
        flipped: whether one is similar to the other's mirror image, bool.
        similarity: correlation of the two fine drawings after alignment, -1 to 1, float64.
    """

    test: Tensor
    train: Tensor
    flipped: Tensor
    similarity: Tensor


NONE = Pairs(*(torch.empty(0, dtype=dtype) for dtype in (torch.int64, torch.int64, torch.bool, torch.float64)))


def find(train: Tensor, test: Tensor) -> Pairs:
    """The test images with a near-duplicate in ``train``, each with the most similar one.

    Args:
        train: the images to search, uint8, N x 3 x H x W.
        test: the images to search for, uint8, M x 3 x H x W.
    """
    return most_similar(_search(train, test, within=False))


def find_within(images: Tensor) -> Pairs:
    """The images with a near-duplicate among the others, each with the most similar one.

    Args:
        images: uint8, N x 3 x H x W; the pairs are indices of two of them.
    """
    return most_similar(_search(images, images, within=True))


def groups(images: Tensor) -> Tensor:
    """The group of each image, int64, N: near-duplicates are in one group, and so are theirs.

    Args:
        images: uint8, N x 3 x H x W.
    """
    pairs = _search(images, images, within=True)
    return join(torch.arange(len(images)), pairs.test, pairs.train)


def join(groups: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """The groups, int64, N, after those of the images ``first`` and ``second`` became one, pair by pair."""
    n = len(groups)
    graph = coo_array((torch.ones(len(first)), (groups[first], groups[second])), (n, n))
    return torch.from_numpy(connected_components(graph, directed=False)[1]).long()[groups]


def most_similar(*found: Pairs) -> Pairs:
    """All pairs in one, with the most similar pair of each test image."""
    pairs = Pairs(*map(torch.cat, zip(*found, strict=True)))
    best: dict[int, int] = {}
    for n in pairs.similarity.argsort(descending=True, stable=True).tolist():
        best.setdefault(int(pairs.test[n]), n)
    return Pairs(*(column[list(best.values())] for column in pairs))


def _search(train: Tensor, test: Tensor, *, within: bool) -> Pairs:
    """All pairs that are found, of which a test image may have several."""

    def search(batch: Tensor) -> Pairs:
        halves = []
        for images in (test[batch], test[batch].flip(-1)):
            correlation = _coarse(images) @ coarse.t()
            if within:
                correlation[torch.arange(len(batch)), batch] = -torch.inf
            nearest = correlation.topk(n_candidates).indices
            halves.append((nearest, *_best_shift(_spectra(images), spectra[nearest])))
        # One row per image: first the candidates for the image, then those for its mirror image.
        candidates, correlation, shifts = (torch.cat(pair, 1) for pair in zip(*halves, strict=True))
        best, columns = correlation.topk(min(N_ALIGNED, 2 * n_candidates))
        rows, ranks = (best >= MIN_SHIFTED).nonzero(as_tuple=True)
        columns = columns[rows, ranks]
        i, j, flipped = batch[rows], candidates[rows, columns], columns >= n_candidates
        images = torch.where(flipped.view(-1, 1, 1, 1), test[i].flip(-1), test[i])
        of_drawings, of_images = _align(images.double(), train[j].double(), shifts[rows, columns].double())
        similar = torch.minimum(of_drawings, of_images) >= MIN_SIMILARITY
        return Pairs(*(column[similar] for column in (i, j, flipped, of_drawings)))

    # Each batch is the work of one thread: several would mostly wait for each other.
    with ThreadPoolExecutor(torch.get_num_threads(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        train, test = (torch.cat([*pool.map(_small, torch.split(images, BATCH))]) for images in (train, test))
        coarse, spectra = (torch.cat([*pool.map(f, torch.split(train, BATCH))]) for f in (_coarse, _spectra))
        n_candidates = min(N_CANDIDATES, len(train) - within)
        batches = torch.split(torch.arange(len(test)), BATCH)
        found = [*steps(pool.map(search, batches), len(batches), "near-duplicates")]
    return Pairs(*map(torch.cat, zip(*found, strict=True)))


def _small(images: Tensor) -> Tensor:
    """Images of 32 x 32 pixels, for which the constants were set."""
    if images.shape[2:] == (32, 32):
        return images
    return interpolate(images.float(), (32, 32), mode="bilinear", antialias=True).round().byte()


def _best_shift(images: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
    """The largest correlation of drawings over the shifts, B x K, and that shift in pixels (x, y), B x K x 2.

    Args:
        images: spectra of B images.
        candidates: spectra of K candidates for each of them.
    """
    correlation = irfft2((images.conj().unsqueeze(1) * candidates).sum(2))
    side = 2 * MAX_SHIFT + 1
    correlation = correlation.roll((MAX_SHIFT, MAX_SHIFT), (-2, -1))[..., :side, :side]
    best, at = correlation.flatten(-2).max(-1)
    return best, torch.stack([at % side, at // side], -1) - MAX_SHIFT


def _align(images: Tensor, candidates: Tensor, shifts: Tensor) -> tuple[Tensor, Tensor]:
    """The correlations of the fine drawings, and of the images, after aligning each candidate with its image.

    Drawings of medium size guide the alignment: finer ones have too many local maxima.  In float64, so that rounding,
    which differs between processors, does not show in the results.
    """
    # Of each image's frame in its candidate: x and y, in halves of an image, and the logarithms of width and height.
    # Not exactly on the pixels: the interpolation has no derivative there, and rounding would choose the direction.
    position = torch.cat([shifts * 2 / 31, torch.full_like(shifts, 0.01)], 1).requires_grad_()
    optimiser = torch.optim.Adam([position], lr=STEP_SIZE, betas=BETAS)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1, 0.1, N_STEPS)
    guides = _drawing(images, MEDIUM), _drawing(candidates, MEDIUM)
    for _ in range(N_STEPS):
        optimiser.zero_grad()
        (-_correlation(*guides, position).sum()).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    position = position.detach()
    of_drawings = _correlation(_drawing(images, FINE), _drawing(candidates, FINE), position)
    return of_drawings, _correlation(images, candidates, position)


def _correlation(images: Tensor, candidates: Tensor, position: Tensor) -> Tensor:
    """Correlation of each image with its candidate in this position, over the pixels where they overlap."""
    offset, scale = position.view(-1, 2, 2, 1).unbind(1)
    x, y = (torch.linspace(-1, 1, 32, dtype=position.dtype) * scale.exp() + offset).unbind(1)
    grid = torch.stack([x.unsqueeze(1).expand(-1, 32, 32), y.unsqueeze(2).expand(-1, 32, 32)], -1)
    overlap = (grid.detach().abs() <= 1).all(-1).unsqueeze(1)
    n = 3 * overlap.sum((1, 2, 3), keepdim=True)
    pair = images, grid_sample(candidates, grid, padding_mode="border", align_corners=True)
    a, b = ((pixels - (pixels * overlap).sum((1, 2, 3), keepdim=True) / n) * overlap for pixels in pair)
    correlation: Tensor = (a * b).sum((1, 2, 3)) / ((a * a).sum((1, 2, 3)) * (b * b).sum((1, 2, 3))).sqrt()
    return correlation


def _coarse(images: Tensor) -> Tensor:
    """Coarse drawings of 8 x 8 pixels, as rows whose products are correlations."""
    return _standardised(avg_pool2d(_drawing(images.float(), COARSE), 4)).flatten(1)


def _spectra(images: Tensor) -> Tensor:
    """Fourier transforms of the medium drawings: products in frequency are correlations at all shifts."""
    spectra: Tensor = rfft2(_standardised(_drawing(images.float(), MEDIUM)))
    return spectra


def _drawing(images: Tensor, size: int) -> Tensor:
    # Column j has the weights of the pixels whose mean is pixel j's; a window at the border holds fewer pixels.
    window = avg_pool1d(torch.eye(32, dtype=images.dtype), size, 1, size // 2, count_include_pad=False)
    return images - window.t() @ images @ window


def _standardised(images: Tensor) -> Tensor:
    """Images of mean 0 and length 1; an image of one colour gives zeros."""
    images = images - images.mean((1, 2, 3), keepdim=True)
    lengths: Tensor = torch.linalg.vector_norm(images, dim=(1, 2, 3), keepdim=True)
    return images / lengths.clamp_min(1)
