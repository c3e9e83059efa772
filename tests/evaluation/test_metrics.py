import math
from itertools import pairwise
from statistics import fmean

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, roc_curve

from cifar2.evaluation import metrics
from cifar2.evaluation.uncertainty import estimate, wilson_interval

NAMES = ("airplane", "bird")
LABELS = torch.tensor([0, 0, 0, 1, 1, 1, 1, 0])
SCORES = torch.tensor([0.1, 0.2, 0.7, 0.9, 0.8, 0.4, 0.6, 0.3])
BINARY = torch.stack([1 - SCORES, SCORES], 1).double()


def logits(*probabilities):
    """Logits, seeds x N x classes, of models with these probabilities."""
    return torch.stack(probabilities).log()


def means(result):
    """Each metric's mean over the seeds."""
    return {key: value["mean"] for key, value in result.items() if isinstance(value, dict) and "mean" in value}


def test_balanced_accuracy_is_scikit_learns_where_classes_differ():
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0] * 30 + [1] * 15 + [2] * 5)
    logits = torch.randn(2, 50, 3, generator=generator)
    found = metrics.measure(logits, labels, "abc")["balanced_accuracy"]
    expected = [balanced_accuracy_score(labels, of_seed.argmax(1)) for of_seed in logits]
    assert found["of_seeds"] == pytest.approx(expected)
    assert found["ci95"][0] < found["mean"] < found["ci95"][1]
    assert "balanced_accuracy" not in metrics.measure(logits[:, 20:40, :2], labels[20:40], "ab")


def test_metrics_of_two_classes_counted_by_hand():
    result = metrics.measure(logits(BINARY), LABELS, NAMES)
    # 14 of the 16 pairs of an airplane and a bird are in the correct order.  With fewer predictions than bins, the
    # calibration error is the distance of each confidence from 1, or from 0 if misclassified.
    error = (0.1 + 0.2 + 0.7 + 0.1 + 0.2 + 0.6 + 0.4 + 0.3) / 8
    assert result["n"] == 8
    assert means(result) == {"accuracy": 6 / 8, "roc_auc": 14 / 16, "calibration_error": pytest.approx(error)}
    assert result["confusion_matrix"] == [[3, 1], [1, 3]]
    assert result["per_class"][1]["class"] == "bird"
    assert means(result["per_class"][1]) == {"precision": 0.75, "recall": 0.75, "f1": 0.75}
    assert result["accuracy"]["ci95"] == wilson_interval(6, 8)
    assert result["accuracy"]["of_seeds"] == [6 / 8]


def test_metrics_of_several_seeds_are_means_with_t_intervals():
    other = torch.stack([SCORES, 1 - SCORES], 1).double()
    result = metrics.measure(logits(BINARY, BINARY, other), LABELS, NAMES)
    singles = [metrics.measure(logits(p), LABELS, NAMES) for p in (BINARY, BINARY, other)]
    for name in ("accuracy", "roc_auc", "calibration_error"):
        assert result[name]["of_seeds"] == [single[name]["mean"] for single in singles]
        assert result[name]["mean"] == pytest.approx(fmean(result[name]["of_seeds"]))
    assert result["confusion_matrix"] == [[7, 5], [5, 7]]
    correct = torch.stack([(p.argmax(1) == LABELS).double() for p in (BINARY, BINARY, other)])
    low, high = estimate(correct).interval()
    assert result["accuracy"]["ci95"] == pytest.approx([max(0, low), min(1, high)])


@pytest.mark.parametrize("n_classes", [2, 3])
def test_contributions_are_those_of_the_jackknife(n_classes):
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(30) % n_classes
    p = torch.softmax(torch.randn(30, n_classes, generator=generator).double() + torch.eye(n_classes)[labels], 1)
    p[3] = p[3 + n_classes]  # equal scores
    wholes = statistics(p, labels)
    for i in range(30):
        kept = torch.arange(30) != i
        for name, without in statistics(p[kept], labels[kept]).items():
            expected = 30 * wholes[name].value - 29 * without.value
            assert float(wholes[name].contributions[i]) == pytest.approx(expected, abs=1e-9), (name, i)


def test_contributions_to_the_calibration_error_keep_the_bins():
    p = torch.softmax(torch.randn(30, 2, generator=torch.Generator().manual_seed(1)).double(), 1)
    labels = torch.arange(30) % 2
    confidence, predicted = p.max(1)
    excess = confidence - (predicted == labels).double()
    bins = confidence.argsort().tensor_split(10)
    whole = metrics.calibration_error(p, labels)
    for i in range(30):
        without = sum(abs(excess[b[b != i]].sum().item()) for b in bins) / 29
        assert whole.contributions[i].item() == pytest.approx(30 * whole.value - 29 * without)


def statistics(p, labels):
    """All statistics of predictions by name."""
    matrix = torch.zeros(p.shape[1], p.shape[1], dtype=torch.int64)
    predicted = p.argmax(1)
    for t, q in zip(labels, predicted, strict=True):
        matrix[t, q] += 1
    of_classes = metrics.class_metrics(matrix, labels, predicted)
    return {
        "accuracy": metrics.accuracy(p, labels),
        "roc_auc": metrics.roc_auc(p, labels),
    } | {f"{key} {i}": value for i, of_class in enumerate(of_classes) for key, value in of_class.items()}


def test_interval_of_the_roc_auc_holds_in_95_percent():
    """Scores of two normal distributions, for which the area is known."""
    generator = torch.Generator().manual_seed(0)
    labels, area = torch.arange(120) % 2, 0.5 * (1 + math.erf(1 / 2))
    held = []
    for _ in range(2000):
        score = torch.randn(120, generator=generator).double() + labels
        p = torch.sigmoid(score)
        found = metrics.over_seeds([metrics.roc_auc(torch.stack([1 - p, p], 1), labels)])
        held.append(found["ci95"][0] <= area <= found["ci95"][1])
    assert fmean(held) == pytest.approx(0.95, abs=0.015)


def test_calibration_error_by_chance_is_that_of_calibrated_draws():
    generator = torch.Generator().manual_seed(0)
    confidence = 0.5 + 0.5 * torch.rand(300, generator=generator).double()
    p = torch.stack([confidence, 1 - confidence], 1)
    draws = [(torch.rand(300, generator=generator) > confidence).long() for _ in range(500)]
    expected = fmean(metrics.calibration_error(p, labels).value for labels in draws)
    assert metrics.chance_calibration_error(p) == pytest.approx(expected, rel=0.05)


@pytest.mark.filterwarnings("error")
def test_class_that_is_never_predicted_has_precision_zero():
    result = metrics.measure(logits(torch.tensor([[0.9, 0.1]] * 8).double()), LABELS, NAMES)
    assert means(result["per_class"][1]) == {"precision": 0, "recall": 0, "f1": 0}
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

    result = metrics.measure(logits(p), labels, names)

    matrix = [[0] * n_classes for _ in names]
    for label, predicted, _ in rows:
        matrix[label][predicted] += 1
    correct = [matrix[i][i] for i in range(n_classes)]
    assert result["confusion_matrix"] == matrix
    assert result["accuracy"]["mean"] == pytest.approx(sum(correct) / len(rows))
    assert result["accuracy"]["ci95"] == wilson_interval(sum(correct), len(rows))
    for i, row in enumerate(result["per_class"]):
        n_predicted, n_labels = sum(of_label[i] for of_label in matrix), sum(matrix[i])
        assert row["class"] == names[i]
        assert row["precision"]["mean"] == pytest.approx(correct[i] / n_predicted if n_predicted else 0)
        assert row["recall"]["mean"] == pytest.approx(correct[i] / n_labels)
        assert row["recall"]["ci95"] == wilson_interval(correct[i], n_labels)
        if n_predicted:
            assert row["precision"]["ci95"] == wilson_interval(correct[i], n_predicted)
        assert row["f1"]["mean"] == pytest.approx(2 * correct[i] / (n_predicted + n_labels))
    scores = logits(p)[0].softmax(1)  # as rounded as those that are measured
    areas = [pairs_in_order(scores[:, i].tolist(), (labels == i).tolist()) for i in range(n_classes)]
    assert result["roc_auc"]["mean"] == pytest.approx(areas[1] if n_classes == 2 else sum(areas) / n_classes)
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


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_roc_curve_is_that_of_scikit_learn(examples):
    """With equal scores, and with points on straight lines."""
    scores, positive = (torch.tensor(column) for column in zip(*examples, strict=True))
    assume(0 < positive.sum() < len(positive))
    p = torch.stack([5 - scores, scores], 1).double() / 5
    rows = metrics.roc(p, positive.long(), NAMES)
    false, true, _ = roc_curve(positive, p[:, 1])
    assert [row[1:] for row in rows] == list(zip(false, true, strict=True))


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1))
def test_confusion_matrix_is_that_of_scikit_learn(examples):
    labels, predicted = (torch.tensor(column) for column in zip(*examples, strict=True))
    matrix = metrics._confusion(torch.eye(3)[predicted], labels)
    assert matrix.tolist() == confusion_matrix(labels, predicted, labels=range(3)).tolist()


@pytest.mark.parametrize(("names", "curves"), [(NAMES, ["bird"]), ((*NAMES, "cat"), ["airplane", "bird", "cat"])])
def test_roc_auc_is_the_mean_area_under_the_curves(names, curves):
    generator = torch.Generator().manual_seed(0)
    labels, n = torch.arange(60) % len(names), len(names)
    p = torch.softmax(torch.randn(60, n, generator=generator).double() + torch.eye(n)[labels], 1)
    rows = metrics.roc(p, labels, names)
    assert list(dict.fromkeys(name for name, _, _ in rows)) == curves
    areas = [area([(x, y) for of_class, x, y in rows if of_class == name]) for name in curves]
    auc = metrics.roc_auc(p, labels).value
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
    assert 0 <= metrics.calibration_error(p, labels).value <= 1


def test_equally_confident_predictions_keep_their_order():
    bins = metrics.calibration(*predictions(0.9, 40, 20), n_bins=2)
    assert [b.accuracy for b in bins] == [1, 0]


@pytest.mark.parametrize(
    ("confidence", "n", "n_correct", "error"), [(0.75, 8, 6, 0), (0.9, 10, 5, 0.4), (0.6, 3, 3, 0.4)]
)
def test_calibration_error_is_confidence_against_accuracy(monkeypatch, confidence, n, n_correct, error):
    monkeypatch.setattr(metrics, "N_BINS", 1)
    p, labels = predictions(confidence, n, n_correct)
    accuracy = n_correct / n
    interval = wilson_interval(n_correct, n)
    assert metrics.calibration(p, labels, n_bins=1) == [(n, pytest.approx(confidence), accuracy, *interval)]
    assert metrics.calibration_error(p, labels).value == pytest.approx(error, abs=1e-7)


def test_calibration_errors_of_bins_do_not_cancel(monkeypatch):
    monkeypatch.setattr(metrics, "N_BINS", 2)
    p, labels = map(torch.cat, zip(predictions(0.6, 3, 3), predictions(0.8, 2, 0), strict=True))
    bins = metrics.calibration(p, labels, n_bins=2)
    assert [(b.n, b.accuracy) for b in bins] == [(3, 1), (2, 0)]
    assert metrics.calibration_error(p, labels).value == pytest.approx((3 * 0.4 + 2 * 0.8) / 5)


def test_contributions_to_the_balanced_accuracy_are_the_jackknifes():
    """Up to n / (n - 1) in the recall of each class."""
    labels = torch.tensor([0] * 400 + [1] * 100)
    p = torch.rand(500, 2, generator=torch.Generator().manual_seed(0)).double()
    p /= p.sum(1, keepdim=True)
    whole = metrics.balanced_accuracy(p, labels)
    assert whole.contributions.mean().item() == pytest.approx(whole.value)
    for i in (0, 1, 2, 3, 497, 498, 499):
        keep = torch.arange(500) != i
        without = metrics.balanced_accuracy(p[keep], labels[keep]).value
        assert whole.contributions[i].item() == pytest.approx(500 * whole.value - 499 * without, rel=0.02, abs=0.02)


def test_balanced_accuracy_of_faultless_predictions_is_certain():
    labels = torch.tensor([0] * 1000 + [1] * 10)
    p = torch.eye(2).double()[labels]
    assert metrics.over_seeds([metrics.balanced_accuracy(p, labels)])["ci95"] == [1.0, 1.0]
