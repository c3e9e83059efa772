"""How good a classifier is on pictures it never saw, and how sure one can be of that."""

from collections.abc import Sequence
from typing import Any

import torch
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support, roc_auc_score
from torch import Tensor

from cifar2.uncertainty import standard_error


def accuracy_interval(n_correct: int, n: int) -> list[float]:
    """Wilson's 95 % interval for a share of right answers, [low, high] (Wilson, 1927; scipy's ``proportion_ci``)."""
    interval = binomtest(n_correct, n).proportion_ci(0.95, method="wilson")
    return [float(interval.low), float(interval.high)]


def accuracy_over_seeds(correct: Tensor) -> dict[str, Any]:
    """The accuracy of several models that differ by their seed, as a mean.

    Args:
        correct: bool, seeds x examples.

    Returns:
        ``mean``; ``std``, the standard deviation between seeds (None for one); ``ci95``, 1.96 standard errors to both
        sides, [low, high], which count seeds and pictures.
    """
    over_seeds = correct.double().mean(1)
    mean, margin = over_seeds.mean().item(), 1.96 * standard_error(correct)
    return {
        "mean": mean,
        "std": over_seeds.std().item() if len(correct) > 1 else None,
        "ci95": [max(0.0, mean - margin), min(1.0, mean + margin)],
    }


def classification_metrics(probabilities: Tensor, labels: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """Everything that follows from a classifier's answers.

    Args:
        probabilities: N x classes, each row a distribution.
        labels: N true labels.
        classes: the names of the labels.

    Returns:
        ``test_accuracy`` with ``test_accuracy_ci95``; ``roc_auc`` (of the second class against the first, or for more
        classes the mean over each against the rest); ``per_class`` precision, recall and F1 by name;
        ``confusion_matrix`` (rows true, columns predicted).
    """
    predicted = probabilities.argmax(1)
    labels_, predicted_ = labels.numpy(), predicted.numpy()
    everything = list(range(len(classes)))
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels_, predicted_, labels=everything, zero_division=0.0
    )
    scores = probabilities.double().numpy()
    n_correct = int((predicted == labels).sum())
    return {
        "test_accuracy": n_correct / len(labels),
        "test_accuracy_ci95": accuracy_interval(n_correct, len(labels)),
        "roc_auc": float(roc_auc_score(labels_, scores[:, 1] if len(classes) == 2 else scores, multi_class="ovr")),
        "per_class": {
            name: {"precision": float(precision[i]), "recall": float(recall[i]), "f1": float(f1[i])}
            for i, name in enumerate(classes)
        },
        "confusion_matrix": confusion_matrix(labels_, predicted_, labels=everything).tolist(),
    }


def most_confident_mistakes(probabilities: Tensor, labels: Tensor, n: int) -> Tensor:
    """The places of at most ``n`` wrong answers, the most confident first."""
    confidence, predicted = probabilities.max(1)
    wrong = torch.nonzero(predicted != labels).squeeze(1)
    return wrong[confidence[wrong].argsort(descending=True, stable=True)][:n]
