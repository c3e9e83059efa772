"""Test metrics with 95 % intervals."""

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cifar2.evaluation.uncertainty import estimate, pseudo_values, wilson_interval

# Bins of predictions with similar confidence.
N_BINS = 10
# The draws behind the calibration error of a perfectly calibrated classifier.
DRAWS = 1000


class Statistic(NamedTuple):
    """A statistic of one model, and the contribution of each of N examples to it.

    The contributions are such that the uncertainty of their mean is that of the statistic.  A fraction has its counts
    too: how many, of how many.
    """

    value: float
    contributions: Tensor
    counts: tuple[int, int] | None = None


def measure(logits: Tensor, labels: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """The metrics of models that differ by their seed.

    Args:
        logits: seeds x N x classes.
        labels: N true labels.
        classes: the names of the labels.

    Returns:
        ``n``, the number of examples; ``accuracy``; ``balanced_accuracy``, the mean recall of the classes, if they
        differ in size; ``roc_auc`` (the second class against the first, or with more
        classes the mean over each class against the rest); ``calibration_error``, and ``calibration_error_if_perfect``,
        the mean that a perfectly calibrated classifier with the same confidences would have, above 0 by chance alone;
        ``per_class``, a list of class name, precision, recall and F1; ``confusion_matrix`` (rows true, columns
        predicted), the sum over the seeds.  Accuracy, area, calibration error and those of each class are as from
        ``over_seeds``.
    """
    probabilities = torch.softmax(logits.double(), 2)
    matrices = [_confusion(p, labels) for p in probabilities]
    by_seed = [
        {
            "accuracy": accuracy(p, labels),
            **({"balanced_accuracy": balanced_accuracy(p, labels)} if len(set(labels.bincount().tolist())) > 1 else {}),
            "roc_auc": roc_auc(p, labels),
            "calibration_error": calibration_error(p, labels),
        }
        for p in probabilities
    ]
    per_class = [class_metrics(matrix, labels, p.argmax(1)) for matrix, p in zip(matrices, probabilities, strict=True)]
    return {
        "n": len(labels),
        **{name: over_seeds([of_seed[name] for of_seed in by_seed]) for name in by_seed[0]},
        "calibration_error_if_perfect": fmean(chance_calibration_error(p) for p in probabilities),
        "per_class": [
            {"class": name} | {key: over_seeds([rows[i][key] for rows in per_class]) for key in per_class[0][i]}
            for i, name in enumerate(classes)
        ],
        "confusion_matrix": torch.stack(matrices).sum(0).tolist(),
    }


def over_seeds(statistics: Sequence[Statistic]) -> dict[str, Any]:
    """A statistic of models that differ by their seed, with its values.

    Returns:
        ``mean``; ``std``, the standard deviation over the seeds, None for one; ``ci95``, the 95 % interval of the mean,
        cut off at 0 and 1; ``kind``, of this interval: t over seeds and examples (see ``uncertainty``), or for a
        fraction of a single model Wilson's; ``of_seeds``.
    """
    values = [statistic.value for statistic in statistics]
    mean = fmean(values)
    contributions = torch.stack([statistic.contributions for statistic in statistics])
    if len(values) == 1 and statistics[0].counts:
        n_correct, n = statistics[0].counts
        interval = wilson_interval(n_correct, n) if n else [0.0, 1.0]
        kind = "Wilson, over images"
    else:
        low, high = estimate(contributions)._replace(mean=mean).interval()
        interval = [max(0.0, low), min(1.0, high)]
        kind = "t, over seeds and images" if len(values) > 1 else "t, over images"
    std = stdev(values) if len(values) > 1 else None
    return {"mean": mean, "std": std, "ci95": interval, "kind": kind, "of_seeds": values}


def accuracy(probabilities: Tensor, labels: Tensor) -> Statistic:
    """The fraction of correct predictions."""
    correct = probabilities.argmax(1) == labels
    return Statistic(correct.double().mean().item(), correct, (int(correct.sum()), len(labels)))


def balanced_accuracy(probabilities: Tensor, labels: Tensor) -> Statistic:
    """The mean over the classes of the fraction of correct predictions, which is the recall."""
    correct, counts = (probabilities.argmax(1) == labels).double(), labels.bincount()
    recall = correct.new_zeros(len(counts)).index_add(0, labels, correct) / counts
    value = recall.mean()
    # An example counts by how much its class has, against the recall of its class.
    return Statistic(value.item(), value + (len(labels) / (len(counts) * counts))[labels] * (correct - recall[labels]))


def roc_auc(probabilities: Tensor, labels: Tensor) -> Statistic:
    """The area under the ROC curve of the second class, or with more classes the mean over all of them.

    It is the fraction of pairs of an example of the class and one of another that are in the right order, an equal
    score counting half.  Without one example, its pairs are missing.  (DeLong et al., 1988.)
    """
    n_classes = probabilities.shape[1]
    areas = [_area(probabilities[:, i], labels == i) for i in ([1] if n_classes == 2 else range(n_classes))]
    return Statistic(fmean(a.value for a in areas), torch.stack([a.contributions for a in areas]).mean(0))


def _area(scores: Tensor, positive: Tensor) -> Statistic:
    scores = scores.double().contiguous()
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    # The pairs of each example that are in the right order.
    in_order = torch.where(
        positive, _n_below(scores, scores[~positive]), n_positive - _n_below(scores, scores[positive])
    )
    value = (in_order[positive].sum() / (n_positive * n_negative)).item()
    n_left = n_positive * n_negative - torch.where(positive, n_negative, n_positive)
    without = (in_order[positive].sum() - in_order) / n_left.clamp_min(1)
    return Statistic(value, pseudo_values(value, without))


def _n_below(scores: Tensor, others: Tensor) -> Tensor:
    """How many of ``others`` each score exceeds; an equal one counts half."""
    others = others.sort().values
    return (torch.searchsorted(others, scores) + torch.searchsorted(others, scores, right=True)).double() / 2


def _confusion(probabilities: Tensor, labels: Tensor) -> Tensor:
    n = probabilities.shape[1]
    return (labels * n + probabilities.argmax(1)).bincount(minlength=n * n).view(n, n)


def class_metrics(matrix: Tensor, labels: Tensor, predicted: Tensor) -> list[dict[str, Statistic]]:
    """``precision``, ``recall`` and ``f1`` of each class, 0 where nothing was predicted or there is no example.

    Args:
        matrix: the confusion matrix, rows true, columns predicted.
        labels: N true labels.
        predicted: N predicted labels.
    """
    whole = _precision_recall_f1(matrix)
    # Without an example, its cell of the matrix is smaller by one; all examples of a cell are alike.
    cells, of_example = torch.unique(labels * len(matrix) + predicted, return_inverse=True)
    by_cell = []
    for cell in cells:
        smaller = matrix.clone()
        smaller.view(-1)[cell] -= 1
        by_cell.append(torch.stack(_precision_recall_f1(smaller)))
    without = torch.stack(by_cell)[of_example]  # N x metric x class
    # Precision and recall are fractions, of what was predicted and of what there is; F1 is none.
    of = (matrix.sum(0).tolist(), matrix.sum(1).tolist())
    return [
        {
            key: Statistic(
                whole[k][i].item(),
                pseudo_values(whole[k][i].item(), without[:, k, i]),
                (int(matrix[i, i]), of[k][i]) if k < len(of) else None,
            )
            for k, key in enumerate(("precision", "recall", "f1"))
        }
        for i in range(len(matrix))
    ]


def _precision_recall_f1(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    correct, n_predicted, n_true = matrix.diagonal().double(), matrix.sum(0), matrix.sum(1)
    return (
        correct / n_predicted.clamp_min(1),
        correct / n_true.clamp_min(1),
        2 * correct / (n_predicted + n_true).clamp_min(1),
    )


def misclassified(probabilities: Tensor, labels: Tensor) -> Tensor:
    """The indices of the misclassified images, the most confident predictions first."""
    confidence, predicted = probabilities.max(1)
    indices = torch.nonzero(predicted != labels).squeeze(1)
    return indices[confidence[indices].argsort(descending=True, stable=True)]


def roc(probabilities: Tensor, labels: Tensor, classes: Sequence[str]) -> list[tuple[str, float, float]]:
    """The receiver operating characteristic of each class against the rest; for two classes, of the second only.

    Args:
        probabilities: N x classes.
        labels: N true labels.
        classes: the names of the labels.

    Returns:
        Rows of class, false positive rate and true positive rate, 0 to 1, without points on straight lines.
    """
    positives = list(enumerate(classes))[1 if len(classes) == 2 else 0 :]
    return [(name, x, y) for i, name in positives for x, y in _rates(probabilities[:, i], labels == i)]


def _rates(scores: Tensor, positive: Tensor) -> list[tuple[float, float]]:
    order = scores.argsort(descending=True)
    # For each threshold, the examples above it that do not belong to the class, and those that do.
    threshold = torch.cat([scores[order].diff() != 0, torch.tensor([True])])
    above = torch.stack([~positive, positive])[:, order].cumsum(1)[:, threshold].double()
    corner = torch.ones_like(above[0], dtype=torch.bool)
    corner[1:-1] = (above.diff(n=2) != 0).any(0)
    rates = above[:, corner] / above[:, -1:]
    return [(0.0, 0.0), *zip(*rates.tolist(), strict=True)]


class Bin(NamedTuple):
    """Predictions of similar confidence: their number, mean confidence, and accuracy with its 95 % interval."""

    n: int
    confidence: float
    accuracy: float
    accuracy_low: float
    accuracy_high: float


def calibration(probabilities: Tensor, labels: Tensor, n_bins: int) -> list[Bin]:
    """Accuracy by confidence.

    Args:
        probabilities: N x classes.
        labels: N true labels.
        n_bins: number of bins; predictions are sorted by confidence, and bins have the same size up to one.
    """
    confidence, predicted = probabilities.max(1)
    correct = predicted == labels
    return [
        Bin(
            len(part),
            confidence[part].mean().item(),
            correct[part].double().mean().item(),
            *wilson_interval(int(correct[part].sum()), len(part)),
        )
        for part in _bins(confidence, n_bins)
    ]


def calibration_error(probabilities: Tensor, labels: Tensor) -> Statistic:
    """The expected calibration error: the mean difference of confidence and accuracy in bins of equal size.

    (Naeini et al., "Obtaining well calibrated probabilities using Bayesian binning", 2015.)
    """
    confidence, predicted = probabilities.max(1)
    excess = confidence - (predicted == labels).double()
    bins = _bins(confidence, N_BINS)
    sums = torch.stack([excess[part].sum() for part in bins])
    total, without = sums.abs().sum(), torch.zeros_like(excess)
    for part, of_bin in zip(bins, sums, strict=True):
        without[part] = total - of_bin.abs() + (of_bin - excess[part]).abs()
    n = len(excess)
    value = (total / n).item()
    return Statistic(value, pseudo_values(value, without / max(1, n - 1)))


def chance_calibration_error(probabilities: Tensor) -> float:
    """The mean calibration error of a classifier with these confidences whose every prediction is calibrated.

    Chance alone moves the accuracy of a bin away from its confidence, so it is not 0.  Its correct predictions are
    drawn at random.
    """
    confidence = probabilities.max(1).values
    draws = torch.rand(DRAWS, len(confidence), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    excess = confidence - (draws < confidence).double()
    sums = torch.stack([excess[:, part].sum(1) for part in _bins(confidence, N_BINS)])
    return (sums.abs().sum(0).mean() / len(confidence)).item()


def _bins(confidence: Tensor, n_bins: int) -> Sequence[Tensor]:
    """The indices of the predictions, sorted by confidence, in bins of the same size up to one."""
    return confidence.argsort(stable=True).tensor_split(min(n_bins, len(confidence)))
