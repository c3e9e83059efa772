import math

import pytest
import torch

from cifar2 import evaluation
from cifar2.uncertainty import standard_error

LABELS = torch.tensor([0, 0, 0, 1, 1, 1, 1, 0])
SCORES = torch.tensor([0.1, 0.2, 0.7, 0.9, 0.8, 0.4, 0.6, 0.3])
BINARY = torch.stack([1 - SCORES, SCORES], 1).double()


def wilson(k, n, z=1.959963984540054):
    """The formula of Wilson, 1927, with the 97.5 % point of the normal distribution."""
    p = k / n
    centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return [(centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)]


@pytest.mark.parametrize(("k", "n"), [(1696, 2000), (0, 10), (10, 10), (1, 3)])
def test_the_interval_is_wilsons(k, n):
    assert evaluation.accuracy_interval(k, n) == pytest.approx(wilson(k, n))


def test_the_accuracy_over_seeds_counted_by_hand():
    correct = torch.tensor([[True] * 6 + [False] * 2, [True] * 5 + [False] * 3, [True] * 7 + [False]])
    found = evaluation.accuracy_over_seeds(correct)
    assert found["mean"] == 6 / 8
    assert found["std"] == pytest.approx(1 / 8)
    margin = 1.96 * standard_error(correct)
    assert found["ci95"] == pytest.approx([0.75 - margin, min(1.0, 0.75 + margin)])
    assert margin > 1.96 * (1 / 8) / math.sqrt(3), "the spread of the seeds is only a part of it"


def test_one_seed_has_no_spread_and_an_interval_over_the_pictures():
    found = evaluation.accuracy_over_seeds(torch.tensor([[True] * 75 + [False] * 25]))
    margin = 1.96 * math.sqrt(0.75 * 0.25 / 99)
    assert found == {"mean": 0.75, "std": None, "ci95": pytest.approx([0.75 - margin, 0.75 + margin])}


def test_an_interval_over_seeds_ends_at_1():
    low, high = evaluation.accuracy_over_seeds(torch.tensor([[True] * 7 + [False]] * 2))["ci95"]
    assert low < 7 / 8 < high == 1


def test_two_classes_counted_by_hand():
    metrics = evaluation.classification_metrics(BINARY, LABELS, ("airplane", "bird"))
    assert metrics["test_accuracy"] == 6 / 8
    assert metrics["test_accuracy_ci95"] == pytest.approx(wilson(6, 8))
    assert metrics["confusion_matrix"] == [[3, 1], [1, 3]]
    assert metrics["per_class"]["bird"] == {"precision": 0.75, "recall": 0.75, "f1": 0.75}
    # 14 of the 16 pairs of an airplane and a bird are in the right order.
    assert metrics["roc_auc"] == 14 / 16


def test_a_class_that_is_never_predicted_has_precision_zero():
    metrics = evaluation.classification_metrics(torch.tensor([[0.9, 0.1]] * 8).double(), LABELS, ("airplane", "bird"))
    assert metrics["per_class"]["bird"] == {"precision": 0, "recall": 0, "f1": 0}
    assert metrics["confusion_matrix"] == [[4, 0], [4, 0]]


def test_more_classes_work_too():
    p = torch.softmax(torch.eye(3).repeat(4, 1).double() * 5, 1)
    labels = torch.arange(3).repeat(4)
    metrics = evaluation.classification_metrics(p, labels, ("airplane", "bird", "cat"))
    assert metrics["roc_auc"] == 1
    assert metrics["confusion_matrix"] == [[4, 0, 0], [0, 4, 0], [0, 0, 4]]


def test_the_most_confident_mistakes_come_first():
    assert evaluation.most_confident_mistakes(BINARY, LABELS, 5).tolist() == [2, 5]
    assert evaluation.most_confident_mistakes(BINARY, LABELS, 1).tolist() == [2]


def test_without_mistakes_there_are_none():
    assert evaluation.most_confident_mistakes(BINARY, BINARY.argmax(1), 5).tolist() == []
