import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cifar2.evaluation import metrics as evaluation
from cifar2.evaluation.uncertainty import standard_error

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
    found = evaluation.accuracy_over_seeds(torch.tensor([[True] * 7 + [False]] * 2))
    low, high = found["ci95"]
    assert low < 7 / 8 < high == 1
    assert found["std"] == 0


def test_two_classes_counted_by_hand():
    metrics = evaluation.classification_metrics(BINARY, LABELS, ("airplane", "bird"))
    assert metrics["accuracy"] == 6 / 8
    assert metrics["accuracy_ci95"] == pytest.approx(wilson(6, 8))
    assert metrics["confusion_matrix"] == [[3, 1], [1, 3]]
    assert metrics["per_class"][1] == {"class": "bird", "precision": 0.75, "recall": 0.75, "f1": 0.75}
    # 14 of the 16 pairs of an airplane and a bird are in the right order.
    assert metrics["roc_auc"] == 14 / 16
    # Fewer answers than bins: how far the confidence of each is from 1, or of a wrong one from 0.
    assert metrics["calibration_error"] == pytest.approx((0.1 + 0.2 + 0.7 + 0.1 + 0.2 + 0.6 + 0.4 + 0.3) / 8)


@pytest.mark.filterwarnings("error")
def test_a_class_that_is_never_predicted_has_precision_zero_without_a_warning():
    metrics = evaluation.classification_metrics(torch.tensor([[0.9, 0.1]] * 8).double(), LABELS, ("airplane", "bird"))
    assert metrics["per_class"][1] == {"class": "bird", "precision": 0, "recall": 0, "f1": 0}
    assert metrics["confusion_matrix"] == [[4, 0], [4, 0]]


def test_more_classes_work_too():
    p = torch.softmax(torch.eye(3).repeat(4, 1).double() * 5, 1)
    labels = torch.arange(3).repeat(4)
    metrics = evaluation.classification_metrics(p, labels, ("airplane", "bird", "cat"))
    assert metrics["roc_auc"] == 1
    assert metrics["confusion_matrix"] == [[4, 0, 0], [0, 4, 0], [0, 0, 4]]


def test_the_most_confident_mistakes_come_first():
    assert evaluation.mistakes(BINARY, LABELS).tolist() == [2, 5]


def test_mistakes_that_are_equally_confident_keep_their_order():
    p = torch.tensor([[0.6, 0.4], [0.2, 0.8], [0.4, 0.6]]).repeat(20, 1)
    found = evaluation.mistakes(p, torch.tensor([1, 0, 0]).repeat(20)).tolist()
    assert found == [i for i in range(60) if i % 3 == 1] + [i for i in range(60) if i % 3 != 1]


def test_without_mistakes_there_are_none():
    assert evaluation.mistakes(BINARY, BINARY.argmax(1)).tolist() == []


def area(rows, name):
    """Under the curve of one class, by trapezoids."""
    points = [(x, y) for of, x, y in rows if of == name]
    return sum((x2 - x1) * (y1 + y2) / 2 for (x1, y1), (x2, y2) in pairwise(points))


def test_two_classes_have_one_roc_curve_whose_area_is_the_auc():
    rows = evaluation.roc(BINARY, LABELS, ("airplane", "bird"))
    assert {name for name, _, _ in rows} == {"bird"}
    assert rows[0] == ("bird", 0, 0)
    assert rows[-1] == ("bird", 1, 1)
    assert area(rows, "bird") == 14 / 16


def test_three_classes_have_a_roc_curve_each_and_the_auc_is_their_mean():
    generator = torch.Generator().manual_seed(0)
    labels, names = torch.arange(60) % 3, ("airplane", "bird", "cat")
    p = torch.softmax(torch.randn(60, 3, generator=generator).double() + torch.eye(3)[labels], 1)
    rows = evaluation.roc(p, labels, names)
    assert list(dict.fromkeys(name for name, _, _ in rows)) == list(names)
    for name in names:
        of_class = [row for row in rows if row[0] == name]
        assert of_class[0][1:] == (0, 0)
        assert of_class[-1][1:] == (1, 1)
    wanted = evaluation.classification_metrics(p, labels, names)["roc_auc"]
    assert sum(area(rows, name) for name in names) / 3 == pytest.approx(wanted)
    assert 0.5 < wanted < 1


def answers(confidence, n, n_right):
    """So sure answers, so many of them right: probabilities and labels."""
    p = torch.tensor([[1 - confidence, confidence]] * n).double()
    return p, torch.tensor([1] * n_right + [0] * (n - n_right))


@pytest.mark.parametrize("n", [20, 23, 39])
def test_the_bins_hold_equally_many_answers_but_one_in_the_order_of_confidence(n):
    p = torch.linspace(0.99, 0.51, n).double()
    bins = evaluation.calibration(torch.stack([p, 1 - p], 1), torch.zeros(n, dtype=torch.long))
    assert len(bins) == 10
    assert sum(b.n for b in bins) == n
    assert max(b.n for b in bins) - min(b.n for b in bins) == min(1, n % 10)
    assert [b.confidence for b in bins] == sorted(b.confidence for b in bins)
    assert sum(b.n * b.confidence for b in bins) == pytest.approx(p.sum().item())


def test_answers_that_are_equally_confident_keep_their_order():
    bins = evaluation.calibration(*answers(0.9, 40, 20), n_bins=2)
    assert [b.accuracy for b in bins] == [1, 0]


def test_answers_that_are_right_as_often_as_they_claim_have_no_error():
    (only,) = bins = evaluation.calibration(*answers(0.75, 8, 6), n_bins=1)
    assert only == (8, 0.75, 0.75, *evaluation.accuracy_interval(6, 8))
    assert evaluation.calibration_error(bins) == 0


def test_overconfident_answers_have_the_distance_for_an_error():
    (only,) = bins = evaluation.calibration(*answers(0.9, 10, 5), n_bins=1)
    assert only.confidence == pytest.approx(0.9)
    assert only.accuracy == 0.5
    assert evaluation.calibration_error(bins) == pytest.approx(0.4)


def test_the_error_is_a_mean_over_the_answers_and_nothing_cancels():
    (p, right), (q, wrong) = answers(0.6, 3, 3), answers(0.8, 2, 0)
    bins = evaluation.calibration(torch.cat([p, q]), torch.cat([right, wrong]), n_bins=2)
    assert [(b.n, b.accuracy) for b in bins] == [(3, 1), (2, 0)]
    assert evaluation.calibration_error(bins) == pytest.approx((3 * 0.4 + 2 * 0.8) / 5)


def test_fewer_answers_than_bins_have_a_bin_each():
    bins = evaluation.calibration(*answers(0.9, 3, 3))
    assert [b.n for b in bins] == [1, 1, 1]
    assert evaluation.calibration_error(bins) == pytest.approx(0.1)


@given(st.integers(1, 100_000), st.floats(0, 1))
def test_whatever_the_counts_the_interval_is_wilsons_and_holds_the_share(n, share):
    k = round(share * n)
    low, high = found = evaluation.accuracy_interval(k, n)
    assert found == pytest.approx(wilson(k, n), abs=1e-12)
    assert 0 <= low <= k / n <= high <= 1
    assert low < high


@given(st.integers(1, 1000), st.floats(0, 1), st.integers(2, 50))
def test_more_pictures_with_the_same_share_make_the_interval_narrower(n, share, times):
    k = round(share * n)
    (low, high), (low_, high_) = (evaluation.accuracy_interval(m * k, m * n) for m in (1, times))
    assert high_ - low_ < high - low


@given(st.integers(0, 1000), st.integers(1, 1000))
def test_one_more_right_answer_moves_both_ends_up(k, wrong):
    n = k + wrong
    fewer, more = evaluation.accuracy_interval(k, n), evaluation.accuracy_interval(k + 1, n)
    assert fewer[0] < more[0]
    assert fewer[1] < more[1] or fewer[1] == 1


# The last of these classes is in no row of some examples, and often answered by nobody.
@given(st.integers(2, 5), st.data())
def test_whatever_the_answers_every_number_is_the_one_counted_one_by_one(n_classes, data):
    answers = st.tuples(st.integers(0, n_classes - 1), st.integers(0, n_classes - 1), st.integers(1, 4))
    rows = data.draw(st.lists(answers, max_size=40))
    # The area under a curve needs a picture of each class.
    rows += [(i, data.draw(st.integers(0, n_classes - 1)), 1) for i in range(n_classes)]
    labels = torch.tensor([label for label, _, _ in rows])
    p = torch.ones(len(rows), n_classes, dtype=torch.float64)
    for i, (_, answer, sureness) in enumerate(rows):
        p[i, answer] += sureness
    p /= p.sum(1, keepdim=True)
    names = [f"class {i}" for i in range(n_classes)]

    found = evaluation.classification_metrics(p, labels, names)

    matrix = [[0] * n_classes for _ in names]
    for label, answer, _ in rows:
        matrix[label][answer] += 1
    assert found["confusion_matrix"] == matrix
    right = [matrix[i][i] for i in range(n_classes)]
    assert found["accuracy"] == sum(right) / len(rows)
    assert found["accuracy_ci95"] == pytest.approx(wilson(sum(right), len(rows)), abs=1e-12)
    for i, row in enumerate(found["per_class"]):
        answered, present = sum(of[i] for of in matrix), sum(matrix[i])
        assert row["class"] == names[i]
        assert row["precision"] == pytest.approx(right[i] / answered if answered else 0)
        assert row["recall"] == pytest.approx(right[i] / present)
        assert row["f1"] == pytest.approx(2 * right[i] / (answered + present))
    wanted = [pairs_in_order(p[:, i].tolist(), (labels == i).tolist()) for i in range(n_classes)]
    assert found["roc_auc"] == pytest.approx(wanted[1] if n_classes == 2 else sum(wanted) / n_classes)
    wrong = evaluation.mistakes(p, labels).tolist()
    assert wrong == sorted(
        (i for i, (label, answer, _) in enumerate(rows) if label != answer), key=lambda i: -p[i].max().item()
    )


def pairs_in_order(scores, positive):
    """The share of pairs of a positive and a negative in which the positive scores higher; equal scores are a half."""
    pairs = [
        (s, t)
        for s, is_one in zip(scores, positive, strict=True)
        if is_one
        for t, is_other in zip(scores, positive, strict=True)
        if not is_other
    ]
    return sum((s > t) + (s == t) / 2 for s, t in pairs) / len(pairs)


@given(st.integers(1, 60), st.integers(2, 4), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_whatever_the_answers_the_bins_hold_each_once_and_the_error_is_a_share(n, n_classes, n_bins, seed):
    generator = torch.Generator().manual_seed(seed)
    p = torch.randn(n, n_classes, generator=generator).double().softmax(1)
    labels = torch.randint(n_classes, (n,), generator=generator)
    bins = evaluation.calibration(p, labels, n_bins)
    assert sum(b.n for b in bins) == n
    assert max(b.n for b in bins) - min(b.n for b in bins) <= 1
    assert sum(b.n * b.accuracy for b in bins) == pytest.approx((p.argmax(1) == labels).sum().item())
    assert sum(b.n * b.confidence for b in bins) == pytest.approx(p.max(1).values.sum().item())
    assert all(b.accuracy_low <= b.accuracy <= b.accuracy_high for b in bins)
    assert 0 <= evaluation.calibration_error(bins) <= 1


@given(st.lists(st.lists(st.booleans(), min_size=7, max_size=7), min_size=1, max_size=4))
def test_an_interval_over_seeds_holds_the_mean_and_stays_within_0_and_1(correct):
    found = evaluation.accuracy_over_seeds(torch.tensor(correct))
    low, high = found["ci95"]
    assert found["mean"] == pytest.approx(sum(map(sum, correct)) / 7 / len(correct))
    assert 0 <= low <= found["mean"] <= high <= 1
