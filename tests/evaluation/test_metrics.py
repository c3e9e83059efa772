import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cifar2.evaluation import metrics
from cifar2.evaluation.uncertainty import standard_error

NAMES = ("airplane", "bird")
LABELS = torch.tensor([0, 0, 0, 1, 1, 1, 1, 0])
SCORES = torch.tensor([0.1, 0.2, 0.7, 0.9, 0.8, 0.4, 0.6, 0.3])
BINARY = torch.stack([1 - SCORES, SCORES], 1).double()


def wilson(k, n, z=1.959963984540054):
    """The formula of Wilson, 1927, with the 97.5 % point of the normal distribution."""
    p = k / n
    centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return [(centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)]


@given(st.integers(1, 100_000), st.floats(0, 1))
def test_accuracy_interval_is_wilsons(n, accuracy):
    k = round(accuracy * n)
    low, high = interval = metrics.accuracy_interval(k, n)
    assert interval == pytest.approx(wilson(k, n), abs=1e-12)
    assert 0 <= low <= k / n <= high <= 1
    assert low < high


def test_accuracy_over_seeds_counted_by_hand():
    correct = torch.tensor([[True] * 6 + [False] * 2, [True] * 5 + [False] * 3, [True] * 7 + [False]])
    result = metrics.accuracy_over_seeds(correct)
    margin = 1.96 * standard_error(correct)
    assert result == {
        "mean": 6 / 8,
        "std": pytest.approx(1 / 8),
        "ci95": pytest.approx([0.75 - margin, min(1.0, 0.75 + margin)]),
    }
    assert margin > 1.96 * (1 / 8) / math.sqrt(3), "the seeds are only one source of the error"


def test_accuracy_of_one_seed_has_an_interval_over_the_images():
    result = metrics.accuracy_over_seeds(torch.tensor([[True] * 75 + [False] * 25]))
    margin = 1.96 * math.sqrt(0.75 * 0.25 / 99)
    assert result == {"mean": 0.75, "std": None, "ci95": pytest.approx([0.75 - margin, 0.75 + margin])}


@given(st.lists(st.lists(st.booleans(), min_size=7, max_size=7), min_size=1, max_size=4))
def test_interval_over_seeds_holds_the_mean(correct):
    result = metrics.accuracy_over_seeds(torch.tensor(correct))
    low, high = result["ci95"]
    assert result["mean"] == pytest.approx(sum(map(sum, correct)) / 7 / len(correct))
    assert 0 <= low <= result["mean"] <= high <= 1


def test_metrics_of_two_classes_counted_by_hand():
    result = metrics.classification_metrics(BINARY, LABELS, NAMES)
    assert result["accuracy"] == 6 / 8
    assert result["accuracy_ci95"] == pytest.approx(wilson(6, 8))
    assert result["confusion_matrix"] == [[3, 1], [1, 3]]
    assert result["per_class"][1] == {"class": "bird", "precision": 0.75, "recall": 0.75, "f1": 0.75}
    # 14 of the 16 pairs of an airplane and a bird are in the correct order.
    assert result["roc_auc"] == 14 / 16
    # Fewer predictions than bins: the distance of each confidence from 1, or from 0 if misclassified.
    assert result["calibration_error"] == pytest.approx((0.1 + 0.2 + 0.7 + 0.1 + 0.2 + 0.6 + 0.4 + 0.3) / 8)


@pytest.mark.filterwarnings("error")
def test_class_that_is_never_predicted_has_precision_zero():
    result = metrics.classification_metrics(torch.tensor([[0.9, 0.1]] * 8).double(), LABELS, NAMES)
    assert result["per_class"][1] == {"class": "bird", "precision": 0, "recall": 0, "f1": 0}
    assert result["confusion_matrix"] == [[4, 0], [4, 0]]


# The last of these classes is in no row of some examples, and often predicted in none.
@given(st.integers(2, 5), st.data())
def test_metrics_of_any_predictions_match_plain_counting(n_classes, data):
    predictions = st.tuples(st.integers(0, n_classes - 1), st.integers(0, n_classes - 1), st.integers(1, 4))
    rows = data.draw(st.lists(predictions, max_size=40))
    # The area under a curve needs an image of each class.
    rows += [(i, data.draw(st.integers(0, n_classes - 1)), 1) for i in range(n_classes)]
    labels = torch.tensor([label for label, _, _ in rows])
    p = torch.ones(len(rows), n_classes, dtype=torch.float64)
    for i, (_, predicted, confidence) in enumerate(rows):
        p[i, predicted] += confidence
    p /= p.sum(1, keepdim=True)
    names = [f"class {i}" for i in range(n_classes)]

    result = metrics.classification_metrics(p, labels, names)

    matrix = [[0] * n_classes for _ in names]
    for label, predicted, _ in rows:
        matrix[label][predicted] += 1
    correct = [matrix[i][i] for i in range(n_classes)]
    assert result["confusion_matrix"] == matrix
    assert result["accuracy"] == sum(correct) / len(rows)
    assert result["accuracy_ci95"] == pytest.approx(wilson(sum(correct), len(rows)), abs=1e-12)
    for i, row in enumerate(result["per_class"]):
        n_predicted, n_labels = sum(of_label[i] for of_label in matrix), sum(matrix[i])
        assert row["class"] == names[i]
        assert row["precision"] == pytest.approx(correct[i] / n_predicted if n_predicted else 0)
        assert row["recall"] == pytest.approx(correct[i] / n_labels)
        assert row["f1"] == pytest.approx(2 * correct[i] / (n_predicted + n_labels))
    areas = [pairs_in_order(p[:, i].tolist(), (labels == i).tolist()) for i in range(n_classes)]
    assert result["roc_auc"] == pytest.approx(areas[1] if n_classes == 2 else sum(areas) / n_classes)
    assert metrics.misclassified(p, labels).tolist() == sorted(
        (i for i, (label, predicted, _) in enumerate(rows) if label != predicted), key=lambda i: -p[i].max().item()
    )


def pairs_in_order(scores, positive):
    """The fraction of pairs with the positive's score above the negative's; equal scores are a half."""
    pairs = [
        (s, t)
        for s, is_positive in zip(scores, positive, strict=True)
        if is_positive
        for t, is_other in zip(scores, positive, strict=True)
        if not is_other
    ]
    return sum((s > t) + (s == t) / 2 for s, t in pairs) / len(pairs)


def test_equally_confident_misclassified_images_keep_their_order():
    p = torch.tensor([[0.6, 0.4], [0.2, 0.8], [0.4, 0.6]]).repeat(20, 1)
    indices = metrics.misclassified(p, torch.tensor([1, 0, 0]).repeat(20)).tolist()
    assert indices == [i for i in range(60) if i % 3 == 1] + [i for i in range(60) if i % 3 != 1]


def area(curve):
    """The area under a curve, by trapezoids."""
    assert curve[0] == (0, 0)
    assert curve[-1] == (1, 1)
    return sum((x2 - x1) * (y1 + y2) / 2 for (x1, y1), (x2, y2) in pairwise(curve))


@pytest.mark.parametrize(("names", "curves"), [(NAMES, ["bird"]), ((*NAMES, "cat"), ["airplane", "bird", "cat"])])
def test_roc_auc_is_the_mean_area_under_the_curves(names, curves):
    generator = torch.Generator().manual_seed(0)
    labels, n = torch.arange(60) % len(names), len(names)
    p = torch.softmax(torch.randn(60, n, generator=generator).double() + torch.eye(n)[labels], 1)
    rows = metrics.roc(p, labels, names)
    assert list(dict.fromkeys(name for name, _, _ in rows)) == curves
    areas = [area([(x, y) for of_class, x, y in rows if of_class == name]) for name in curves]
    auc = metrics.classification_metrics(p, labels, names)["roc_auc"]
    assert sum(areas) / len(areas) == pytest.approx(auc)
    assert 0.5 < auc < 1


def predictions(confidence, n, n_correct):
    """Probabilities and labels of ``n`` predictions of the same confidence, the first ``n_correct`` of them correct."""
    p = torch.tensor([[1 - confidence, confidence]] * n).double()
    return p, torch.tensor([1] * n_correct + [0] * (n - n_correct))


@given(st.integers(1, 60), st.integers(2, 4), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_bins_divide_any_predictions_by_confidence(n, n_classes, n_bins, seed):
    generator = torch.Generator().manual_seed(seed)
    p = torch.randn(n, n_classes, generator=generator).double().softmax(1)
    labels = torch.randint(n_classes, (n,), generator=generator)
    bins = metrics.calibration(p, labels, n_bins)
    assert len(bins) == min(n, n_bins)
    assert sum(b.n for b in bins) == n
    assert max(b.n for b in bins) - min(b.n for b in bins) <= 1
    assert [b.confidence for b in bins] == sorted(b.confidence for b in bins)
    assert sum(b.n * b.accuracy for b in bins) == pytest.approx((p.argmax(1) == labels).sum().item())
    assert sum(b.n * b.confidence for b in bins) == pytest.approx(p.max(1).values.sum().item())
    assert all(b.accuracy_low <= b.accuracy <= b.accuracy_high for b in bins)
    assert 0 <= metrics.calibration_error(bins) <= 1


def test_equally_confident_predictions_keep_their_order():
    bins = metrics.calibration(*predictions(0.9, 40, 20), n_bins=2)
    assert [b.accuracy for b in bins] == [1, 0]


@pytest.mark.parametrize(
    ("confidence", "n", "n_correct", "error"), [(0.75, 8, 6, 0), (0.9, 10, 5, 0.4), (0.6, 3, 3, 0.4)]
)
def test_calibration_error_is_confidence_against_accuracy(confidence, n, n_correct, error):
    bins = metrics.calibration(*predictions(confidence, n, n_correct), n_bins=1)
    accuracy = n_correct / n
    assert bins == [(n, pytest.approx(confidence), accuracy, *metrics.accuracy_interval(n_correct, n))]
    assert metrics.calibration_error(bins) == pytest.approx(error)


def test_calibration_errors_of_bins_do_not_cancel():
    p, labels = map(torch.cat, zip(predictions(0.6, 3, 3), predictions(0.8, 2, 0), strict=True))
    bins = metrics.calibration(p, labels, n_bins=2)
    assert [(b.n, b.accuracy) for b in bins] == [(3, 1), (2, 0)]
    assert metrics.calibration_error(bins) == pytest.approx((3 * 0.4 + 2 * 0.8) / 5)
