from statistics import fmean

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cifar2.errors import UserError
from cifar2.evaluation.selection import rank


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


def test_a_clearly_better_accuracy_wins_whatever_loss_and_gap():
    ranked = rank({"worse": metrics(0.80, val_loss=0.1, gap=0.0), "better": metrics(0.85, val_loss=0.9, gap=0.3)})
    assert names(ranked) == ["better", "worse"]
    assert [row.tied for row in ranked] == [True, False]
    assert [row.rank for row in ranked] == [1, 2]


def test_within_one_standard_error_the_lower_loss_wins():
    ranked = rank({"best": metrics(0.85, val_loss=0.6), "tied": metrics(0.841, val_loss=0.5)})
    assert names(ranked) == ["tied", "best"]
    assert all(row.tied for row in ranked)


def test_the_standard_error_is_the_bests():
    ranked = rank({"best": metrics(0.85, val_loss=0.6), "wide": metrics(0.83, val_loss=0.5, accuracy_se=0.1)})
    assert names(ranked) == ["best", "wide"]


def test_a_steadier_loss_beats_a_lower_one_that_moves_more():
    ranked = rank({"wild": metrics(0.85, val_loss=0.45, loss_std=0.2), "steady": metrics(0.85, val_loss=0.5)})
    assert names(ranked) == ["steady", "wild"]
    assert ranked[0].bad_epoch_loss == 0.5


def test_tied_on_accuracy_and_loss_the_smaller_gap_wins():
    ranked = rank({"wide": metrics(0.85, val_loss=0.50, gap=0.2), "narrow": metrics(0.845, val_loss=0.51, gap=0.1)})
    assert names(ranked) == ["narrow", "wide"]
    assert all(row.tied_on_loss for row in ranked)


def test_tied_on_everything_the_first_named_wins():
    assert names(rank({"b": metrics(0.85), "a": metrics(0.85)})) == ["b", "a"]


def test_a_low_loss_without_a_tied_accuracy_sets_no_standard():
    ranked = rank(
        {
            "best": metrics(0.85, val_loss=0.6, gap=0.2),
            "tied": metrics(0.845, val_loss=0.61, gap=0.1),
            "lost": metrics(0.70, val_loss=0.1),
        }
    )
    assert names(ranked) == ["tied", "best", "lost"]


def test_the_others_follow_by_how_far_they_came():
    ranked = rank(
        {
            "lost more": metrics(0.70, val_loss=0.1),
            "lost": metrics(0.80, val_loss=0.2),
            "higher loss": metrics(0.85, val_loss=0.7),
            "high loss": metrics(0.845, val_loss=0.6),
            "wide": metrics(0.845, val_loss=0.3, gap=0.9),
            "narrow": metrics(0.845, val_loss=0.3, gap=0.8),
        }
    )
    assert names(ranked) == ["narrow", "wide", "high loss", "higher loss", "lost", "lost more"]


def test_without_a_standard_error_only_equals_are_tied():
    certain = {"accuracy_se": 0.0, "loss_se": 0.0}
    ranked = rank({"best": metrics(1.0, **certain), "equal": metrics(1.0, **certain), "less": metrics(0.99, **certain)})
    assert [(row.tied, row.tied_on_loss) for row in ranked] == [(True, True), (True, True), (False, False)]


@pytest.mark.parametrize("order", [["sure", "unsure", "worse"], ["unsure", "sure", "worse"]])
def test_of_equally_accurate_ones_the_surest_sets_the_standard(order):
    found = {
        "sure": metrics(0.85, accuracy_se=0.001),
        "unsure": metrics(0.85, accuracy_se=0.1),
        "worse": metrics(0.80, val_loss=0.1, gap=0.0),
    }
    assert names(rank({name: found[name] for name in order})) == order


@pytest.mark.parametrize("order", [["sure", "unsure", "worse"], ["unsure", "sure", "worse"]])
def test_of_equally_low_losses_the_surest_sets_the_standard(order):
    found = {
        "sure": metrics(0.85, loss_se=0.001),
        "unsure": metrics(0.85, loss_se=0.3),
        "worse": metrics(0.85, val_loss=0.7, gap=0.0),
    }
    assert names(rank({name: found[name] for name in order})) == order


def test_a_diverged_configuration_is_left_out():
    assert names(rank({"nan": DIVERGED, "fine": metrics(0.5)})) == ["fine"]


def test_with_nothing_left_the_reasons_are_told():
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
def test_whatever_the_results_the_first_is_within_one_standard_error_of_the_best_on_accuracy_and_then_on_loss(found):
    finished = {name: m for name, m in found.items() if m["val_accuracy"] is not None}
    assume(finished)
    ranked = rank(found)
    assert sorted(names(ranked)) == sorted(finished)
    assert [row.rank for row in ranked] == list(range(1, len(ranked) + 1))

    def bad_epoch_loss(m):
        return m["val_loss"] + fmean(m["val_loss_std"])

    best = max(m["val_accuracy"] for m in finished.values())
    spread = min(m["val_accuracy_se"] for m in finished.values() if m["val_accuracy"] == best)
    first = ranked[0].metrics
    assert first["val_accuracy"] >= best - spread
    tied = [row.metrics for row in ranked if row.tied]
    lowest = min(bad_epoch_loss(m) for m in tied)
    assert bad_epoch_loss(first) <= lowest + min(m["val_loss_se"] for m in tied if bad_epoch_loss(m) == lowest)
    assert first["gap"] == min(row.metrics["gap"] for row in ranked if row.tied_on_loss)
    assert all(row.tied for row in ranked if row.tied_on_loss)
    assert [row.tied for row in ranked] == sorted((row.tied for row in ranked), reverse=True)
    assert [row.tied_on_loss for row in ranked] == sorted((row.tied_on_loss for row in ranked), reverse=True)


@given(CANDIDATES, st.randoms(use_true_random=False))
def test_the_order_of_the_candidates_decides_only_between_those_that_the_rule_cannot_tell_apart(found, random):
    assume(any(m["val_accuracy"] is not None for m in found.values()))
    shuffled = list(found.items())
    random.shuffle(shuffled)
    here, there = rank(found), rank(dict(shuffled))
    assert {(row.name, row.tied, row.tied_on_loss) for row in here} == {
        (row.name, row.tied, row.tied_on_loss) for row in there
    }
    assert here[0].metrics["gap"] == there[0].metrics["gap"]
