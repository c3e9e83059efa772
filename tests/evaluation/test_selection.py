from statistics import fmean

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cifar2.evaluation import selection
from cifar2.evaluation.selection import Candidate, frequencies, rank, select
from cifar2.evaluation.summary import Results
from cifar2.evaluation.uncertainty import estimate

N = 100


def candidate(wrong, loss=0.5, gap=0.1, loss_std=0.0, label_smoothing=0.0, n_seeds=2, class_weights="equal"):
    """A configuration that classifies all images but ``wrong`` correctly, with the same loss on every image."""
    correct = torch.ones(n_seeds, N, dtype=torch.bool)
    correct[:, list(wrong)] = False
    accuracy = correct.double().mean(1)
    losses = torch.full((n_seeds, N), loss)
    return Candidate(
        Results(correct, losses, torch.full((n_seeds,), loss_std).double(), accuracy + gap),
        label_smoothing,
        class_weights,
    )


# Equally accurate, on different images: tied with each other.
A, B, C = range(20), range(20, 40), range(40, 60)


def noisy(c, seed, spread=1.0):
    """The candidate with losses that vary from image to image, around the same mean."""
    noise = torch.randn(N, generator=torch.Generator().manual_seed(seed))
    return c._replace(results=c.results._replace(losses=c.results.losses + spread * (noise - noise.mean())))


def names(ranked):
    return [row.name for row in ranked]


@pytest.mark.parametrize(
    "ranked",
    [
        {"more accurate": candidate(A, loss=0.9, gap=0.3), "other": candidate(range(40), loss=0.1, gap=0.0)},
        {"lower loss": candidate(range(21, 42), loss=0.5), "most accurate": candidate(A, loss=0.6)},
        {"steady": candidate(A, loss=0.5), "unsteady": candidate(B, loss=0.45, loss_std=0.2)},
        {"narrow": noisy(candidate(A, 0.51, 0.1), 0), "wide": noisy(candidate(B, 0.50, 0.2), 1)},
        {"narrow": candidate(A, 0.9, 0.1, label_smoothing=0.1), "wide": candidate(B, 0.5, 0.2)},
        {"narrow": candidate(A, 0.9, 0.1, class_weights="balanced"), "wide": candidate(B, 0.5, 0.2)},
        {"smoothed": candidate(A, 0.6, 0.3, label_smoothing=0.1), "more": candidate(B, 0.7, 0.0, label_smoothing=0.1)},
        {
            "tied": noisy(candidate(A, 0.61, 0.1), 0),
            "best": noisy(candidate(B, 0.6, 0.2), 1),
            "lowest loss of a lower accuracy": candidate(range(50), 0.1),
        },
        {
            "narrow": candidate(A, 0.3, 0.8),
            "wide": candidate(B, 0.3, 0.9),
            "high loss": candidate(C, 0.6),
            "higher loss": candidate(range(60, 80), 0.7),
            "lost": candidate(range(40), 0.2),
            "lost more": candidate(range(50), 0.1),
        },
    ],
    ids=" > ".join,
)
def test_candidates_are_ranked_by_the_rule(ranked):
    assert names(rank(dict(reversed(ranked.items())))) == list(ranked)


def test_first_named_wins_if_everything_is_tied():
    assert names(rank({"b": candidate(A), "a": candidate(A)})) == ["b", "a"]


def test_difference_on_the_same_images_is_no_tie():
    """Three images of a hundred: within a standard error of the accuracy, but not of the paired difference."""
    best, other = candidate(range(20)), candidate(range(23))
    assert estimate(best.results.correct).standard_error > 0.03
    assert [row.tied for row in rank({"best": best, "other": other})] == [True, False]
    assert [row.tied for row in rank({"best": best, "other": candidate(range(40, 63))})] == [True, True]


def test_differences_are_reported_with_their_standard_errors():
    best, other = noisy(candidate(A, 0.5), 0), noisy(candidate(range(21, 42), 0.6, loss_std=0.1), 1)
    first, second = rank({"best": best, "other": other})
    accuracy = estimate(best.results.correct.double() - other.results.correct.double())
    loss = estimate(other.results.losses.double() + 0.1 - best.results.losses.double())
    assert (second.behind, second.behind_se) == pytest.approx(accuracy[:2])
    assert (second.loss_above, second.loss_above_se) == pytest.approx(loss[:2])
    assert second.bad_epoch_loss == pytest.approx(0.7)
    assert (first.behind, first.loss_above) == (0, 0)


def test_family_has_its_own_selection(monkeypatch):
    """A configuration tied with the best of its family need not be tied with the best of all."""
    monkeypatch.setattr(selection, "RESAMPLES", 100)
    candidates = {"cnn": candidate(()), "a": candidate(A, 0.9), "b": candidate(B, 0.1)}
    found = select(candidates, {"cnn": "cnn", "a": "mlp", "b": "mlp"})
    assert names(found.ranked) == ["cnn", "a", "b"]
    assert found.best == {"cnn": "cnn", "mlp": "b"}
    assert found.fraction["cnn"] == found.fraction_of_family["cnn"] == 1
    assert found.fraction_of_family["b"] > 0.5 > found.fraction["b"]


def random_candidate(seed, chance, n_seeds=3):
    generator = torch.Generator().manual_seed(seed)
    correct = torch.rand(n_seeds, N, generator=generator) < chance
    rest = torch.rand(n_seeds, N, generator=generator), torch.rand(n_seeds, generator=generator).double()
    results = Results(correct, *rest, torch.rand(n_seeds, generator=generator).double())
    return Candidate(results, 0.1 * (seed % 2), "equal")


def test_frequencies_are_those_of_a_bootstrap(monkeypatch):
    monkeypatch.setattr(selection, "RESAMPLES", 200)
    clear = {"best": candidate(A), "worse": candidate(range(60))}
    assert frequencies(clear) == {"best": 1, "worse": 0}
    equal = {str(seed): random_candidate(seed, 0.8) for seed in (2, 4, 6)}
    found = frequencies(equal)
    assert fmean(found.values()) == pytest.approx(1 / 3)
    assert found == frequencies(equal)
    assert max(found.values()) < 1
    assert found != frequencies(equal, n_seeds=1)


def test_only_candidate_is_always_selected():
    assert frequencies({"only": random_candidate(0, 0.5)}) == {"only": 1}


@given(st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from([0.5, 0.52, 0.7])), min_size=1, max_size=6))
def test_first_of_any_ranking_follows_the_rule(drawn):
    candidates = {str(i): random_candidate(seed, chance) for i, (seed, chance) in enumerate(drawn)}
    ranked = rank(candidates)
    assert [row.rank for row in ranked] == list(range(1, len(candidates) + 1))
    assert sorted(names(ranked)) == sorted(candidates)
    accuracy = {name: c.results.correct.double().mean().item() for name, c in candidates.items()}
    gap = {name: c.results.train_accuracy.mean().item() - accuracy[name] for name, c in candidates.items()}
    first = ranked[0]
    assert first.tied_on_loss
    assert first.behind == pytest.approx(max(accuracy.values()) - accuracy[first.name])
    assert gap[first.name] == pytest.approx(min(gap[row.name] for row in ranked if row.tied_on_loss))
    for row in ranked:
        assert row.tied == (row.behind <= row.behind_se)
        assert row.tied_on_loss == (row.tied and row.loss_above <= row.loss_above_se)
    for smoothing in {c.label_smoothing for c in candidates.values()}:
        lowest = [r.loss_above for r in ranked if r.tied and candidates[r.name].label_smoothing == smoothing]
        assert not lowest or min(lowest) == 0
    assert [(row.tied, row.tied_on_loss) for row in ranked] == sorted(
        ((row.tied, row.tied_on_loss) for row in ranked), reverse=True
    )
