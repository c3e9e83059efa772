"""Test metrics with confidence intervals."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support, roc_auc_score, roc_curve
from torch import Tensor

from cifar2.evaluation.uncertainty import standard_error


def accuracy_interval(n_correct: int, n: int) -> list[float]:
    """Wilson's 95 % interval for a fraction of correct predictions, [low, high] (Wilson, 1927)."""
    interval = binomtest(n_correct, n).proportion_ci(0.95, method="wilson")
    return [float(interval.low), float(interval.high)]


def accuracy_over_seeds(correct: Tensor) -> dict[str, Any]:
    """The mean accuracy of models that differ by their seed.

    Args:
        correct: bool, seeds x examples.

    Returns:
        ``mean``; ``std``, the standard deviation over seeds (None for one seed); ``ci95``, the mean plus and minus 1.96
        standard errors over seeds and images, [low, high].
    """
    over_seeds = correct.double().mean(1)
    mean, margin = over_seeds.mean().item(), 1.96 * standard_error(correct)
    return {
        "mean": mean,
        "std": over_seeds.std().item() if len(correct) > 1 else None,
        "ci95": [max(0.0, mean - margin), min(1.0, mean + margin)],
    }


def classification_metrics(probabilities: Tensor, labels: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """The metrics of a classifier.

    Args:
        probabilities: N x classes, each row a distribution.
        labels: N true labels.
        classes: the names of the labels.

    Returns:
        ``accuracy`` with ``accuracy_ci95``; ``roc_auc`` (the second class against the first, or with more classes the
        mean over each class against the rest); ``calibration_error``; ``per_class``, a list of class name, precision,
        recall and F1; ``confusion_matrix`` (rows true, columns predicted).
    """
    predicted = probabilities.argmax(1)
    labels_, predicted_ = labels.numpy(), predicted.numpy()
    indices = list(range(len(classes)))
    precision, recall, f1, _ = precision_recall_fscore_support(labels_, predicted_, labels=indices, zero_division=0.0)
    scores = probabilities.double().numpy()
    n_correct = int((predicted == labels).sum())
    return {
        "accuracy": n_correct / len(labels),
        "accuracy_ci95": accuracy_interval(n_correct, len(labels)),
        "roc_auc": float(roc_auc_score(labels_, scores[:, 1] if len(classes) == 2 else scores, multi_class="ovr")),
        "calibration_error": calibration_error(calibration(probabilities, labels)),
        "per_class": [
            {"class": name, "precision": float(precision[i]), "recall": float(recall[i]), "f1": float(f1[i])}
            for i, name in enumerate(classes)
        ],
        "confusion_matrix": confusion_matrix(labels_, predicted_, labels=indices).tolist(),
    }


def metrics_of_seeds(logits: Tensor, labels: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """The metrics of the first seed, and the accuracy over all of them; ``logits``: seeds x N x classes."""
    over_seeds = accuracy_over_seeds(logits.argmax(2) == labels)
    first = classification_metrics(torch.softmax(logits[0].double(), 1), labels, classes)
    return first | {f"seeds_{key}": value for key, value in over_seeds.items()}


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
        Rows of class, false positive rate and true positive rate, 0 to 1 (scikit-learn's ``roc_curve``, which leaves
        out points on straight lines).
    """
    positives = list(enumerate(classes))[1 if len(classes) == 2 else 0 :]
    curves = [(name, roc_curve(labels.numpy() == i, probabilities[:, i].numpy())) for i, name in positives]
    return [(name, float(x), float(y)) for name, (fpr, tpr, _) in curves for x, y in zip(fpr, tpr, strict=True)]


class Bin(NamedTuple):
    """Predictions of similar confidence: their number, mean confidence, and accuracy with its 95 % interval."""

    n: int
    confidence: float
    accuracy: float
    accuracy_low: float
    accuracy_high: float


def calibration(probabilities: Tensor, labels: Tensor, n_bins: int = 10) -> list[Bin]:
    """Accuracy by confidence.

    Args:
        probabilities: N x classes.
        labels: N true labels.
        n_bins: number of bins; predictions are sorted by confidence, and bins have the same size up to one.
    """
    confidence, predicted = probabilities.max(1)
    order = confidence.argsort(stable=True)
    correct = predicted == labels
    return [
        Bin(
            len(part),
            confidence[part].mean().item(),
            correct[part].double().mean().item(),
            *accuracy_interval(int(correct[part].sum()), len(part)),
        )
        for part in order.tensor_split(min(n_bins, len(order)))
    ]


def calibration_error(bins: Sequence[Bin]) -> float:
    """The expected calibration error: the mean difference of confidence and accuracy, weighted by predictions.

    (Naeini et al., "Obtaining well calibrated probabilities using Bayesian binning", 2015.)
    """
    return sum(b.n * abs(b.confidence - b.accuracy) for b in bins) / sum(b.n for b in bins)
