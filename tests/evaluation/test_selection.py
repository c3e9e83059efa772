from statistics import fmean

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cifar2.errors import UserError
from cifar2.evaluation.selection import rank
from cifar2.evaluation.summary import NUMBERS, Summary


def metrics(val_accuracy, val_loss=0.5, gap=0.1, accuracy_se=0.01, loss_se=0.02, loss_std=0.0):
    return {
        "diverged": None,
        "val_accuracy": val_accuracy,
        "val_accuracy_se": accuracy_se,
        "val_loss": val_loss,
        "val_loss_se": loss_se,
        "val_loss_std": [loss_std - 0.01, loss_std + 0.01],
        "gap": gap,
    }


DIVERGED = dict.fromkeys(metrics(0)) | {"diverged": "seed 0, epoch 1, step 2: the loss is nan"}


def names(ranked):
    return [row.name for row in ranked]


@pytest.mark.parametrize(
    "ranked",
    [
        {"clearly more accurate": metrics(0.85, val_loss=0.9, gap=0.3), "other": metrics(0.80, val_loss=0.1, gap=0.0)},
        {"lower loss": metrics(0.841, val_loss=0.5), "most accurate": metrics(0.85, val_loss=0.6)},
        {"best": metrics(0.85, val_loss=0.6), "uncertain": metrics(0.83, val_loss=0.5, accuracy_se=0.1)},
        {"steady loss": metrics(0.85, val_loss=0.5), "unsteady": metrics(0.85, val_loss=0.45, loss_std=0.2)},
        {"narrow": metrics(0.845, val_loss=0.51, gap=0.1), "wide": metrics(0.85, val_loss=0.50, gap=0.2)},
        {
            "tied": metrics(0.845, val_loss=0.61, gap=0.1),
            "best": metrics(0.85, val_loss=0.6, gap=0.2),
            "lowest loss of a lower accuracy": metrics(0.70, val_loss=0.1),
        },
        {
            "narrow": metrics(0.845, val_loss=0.3, gap=0.8),
            "wide": metrics(0.845, val_loss=0.3, gap=0.9),
            "high loss": metrics(0.845, val_loss=0.6),
            "higher loss": metrics(0.85, val_loss=0.7),
            "lost": metrics(0.80, val_loss=0.2),
            "lost more": metrics(0.70, val_loss=0.1),
        },
    ],
    ids=" > ".join,
)
def test_candidates_are_ranked_by_the_rule(ranked):
    assert names(rank(dict(reversed(ranked.items())))) == list(ranked)


def test_first_named_wins_if_everything_is_tied():
    assert names(rank({"b": metrics(0.85), "a": metrics(0.85)})) == ["b", "a"]


def test_only_equals_are_tied_without_a_standard_error():
    zero = {"accuracy_se": 0.0, "loss_se": 0.0}
    ranked = rank({"best": metrics(1.0, **zero), "equal": metrics(1.0, **zero), "less": metrics(0.99, **zero)})
    assert [(row.tied, row.tied_on_loss) for row in ranked] == [(True, True), (True, True), (False, False)]


@pytest.mark.parametrize("order", [["certain", "uncertain", "worse"], ["uncertain", "certain", "worse"]])
@pytest.mark.parametrize(
    ("certain", "uncertain", "worse"),
    [
        ({"accuracy_se": 0.001}, {"accuracy_se": 0.1}, {"val_accuracy": 0.80, "val_loss": 0.1, "gap": 0.0}),
        ({"loss_se": 0.001}, {"loss_se": 0.3}, {"val_loss": 0.7, "gap": 0.0}),
    ],
)
def test_smallest_standard_error_of_equals_counts(order, certain, uncertain, worse):
    candidates = {"certain": certain, "uncertain": uncertain, "worse": worse}
    assert names(rank({name: metrics(**{"val_accuracy": 0.85} | candidates[name]) for name in order})) == order


def test_numbers_are_the_fields_of_a_summary_for_all_seeds():
    assert set(Summary._fields) - set(NUMBERS) == {"val_loss_std", "kept_epoch"}
    assert NUMBERS[:2] == ("val_accuracy", "val_accuracy_se")


def test_diverged_configuration_is_left_out():
    assert names(rank({"nan": DIVERGED, "fine": metrics(0.5)})) == ["fine"]


def test_reasons_are_reported_if_everything_diverged():
    message = "nothing to select from: nan diverged at seed 0, epoch 1, step 2: the loss is nan; inf diverged at end$"
    with pytest.raises(UserError, match=message):
        rank({"nan": DIVERGED, "inf": DIVERGED | {"diverged": "end"}})


# From few values, so that ties are common.
COARSE = st.builds(
    metrics,
    st.sampled_from([0.80, 0.81, 0.82, 0.85]),
    st.sampled_from([0.40, 0.42, 0.5]),
    st.sampled_from([0.0, 0.1, 0.2]),
    st.sampled_from([0.0, 0.01, 0.03]),
    st.sampled_from([0.0, 0.02, 0.1]),
    st.sampled_from([0.0, 0.05]),
)
FINE = st.builds(metrics, *[st.floats(0, 1)] * 3, *[st.floats(0, 0.1)] * 3)
CANDIDATES = st.dictionaries(st.sampled_from("abcdefgh"), COARSE | FINE | st.just(DIVERGED), min_size=1)


@given(CANDIDATES)
def test_first_of_any_ranking_follows_the_rule(candidates):
    finished = {name: m for name, m in candidates.items() if m["val_accuracy"] is not None}
    assume(finished)
    ranked = rank(candidates)
    assert sorted(names(ranked)) == sorted(finished)
    assert [row.rank for row in ranked] == list(range(1, len(ranked) + 1))

    def bad_epoch_loss(m):
        return m["val_loss"] + fmean(m["val_loss_std"])

    best = max(m["val_accuracy"] for m in finished.values())
    spread = min(m["val_accuracy_se"] for m in finished.values() if m["val_accuracy"] == best)
    first = ranked[0].metrics
    assert first["val_accuracy"] >= best - spread
    assert ranked[0].bad_epoch_loss == bad_epoch_loss(first)
    tied = [row.metrics for row in ranked if row.tied]
    lowest = min(bad_epoch_loss(m) for m in tied)
    assert bad_epoch_loss(first) <= lowest + min(m["val_loss_se"] for m in tied if bad_epoch_loss(m) == lowest)
    assert first["gap"] == min(row.metrics["gap"] for row in ranked if row.tied_on_loss)
    assert all(row.tied for row in ranked if row.tied_on_loss)
    assert [row.tied for row in ranked] == sorted((row.tied for row in ranked), reverse=True)
    assert [row.tied_on_loss for row in ranked] == sorted((row.tied_on_loss for row in ranked), reverse=True)


@given(CANDIDATES, st.randoms(use_true_random=False))
def test_order_of_candidates_decides_only_between_ties(candidates, random):
    assume(any(m["val_accuracy"] is not None for m in candidates.values()))
    shuffled = list(candidates.items())
    random.shuffle(shuffled)
    a, b = rank(candidates), rank(dict(shuffled))
    assert {(row.name, row.tied, row.tied_on_loss) for row in a} == {
        (row.name, row.tied, row.tied_on_loss) for row in b
    }
    assert a[0].metrics["gap"] == b[0].metrics["gap"]
