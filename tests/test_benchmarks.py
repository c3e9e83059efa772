import pytest

from benchmarks import pipeline
from benchmarks.limit import flops
from benchmarks.measure import interleaved, row
from tools.repro import Ran


def test_contenders_take_turns_and_the_warm_up_does_not_count():
    turns = []

    def contender(name):
        turns.append(name)
        return len(turns)

    found = interleaved({"a": lambda: contender("a"), "b": lambda: contender("b")}, rounds=2)
    assert turns == ["a", "b"] * 3
    assert found == {"a": [3, 5], "b": [4, 6]}


@pytest.mark.parametrize(
    ("target", "faster", "ratio", "met"),
    [(">= 4", True, 2.0, False), (">= 2", True, 2.0, True), ("<= 0.4", False, 0.5, False), (None, False, 0.5, None)],
)
def test_a_ratio_is_a_speed_up_or_a_fraction(target, faster, ratio, met):
    found = row("r", "", ours=[1, 2, 3], rival=[2, 4, 6], unit="s", target=target, faster=faster)
    assert (found["ours"], found["rival"]) == (2, 4)
    assert found["ratio"] == ratio
    assert found["met"] is met


def test_ratios_are_taken_within_a_round():
    """A round in which the machine is ten times slower changes no ratio."""
    found = row("r", "", ours=[1, 10, 1, 1], rival=[2, 20, 2, 2], unit="s", faster=True)
    assert found["ratio"] == 2
    assert found["spread"] == [2, 2]


def test_the_operations_of_an_epoch_are_those_of_its_products():
    """Forward, the gradients of the weights, and the deltas of all layers but the first."""
    assert flops(5, (4, 3)) == 2 * 2 * 5 * 4 * 3
    assert flops(5, (4, 3, 2)) == 2 * 5 * (2 * 4 * 3 + 3 * 3 * 2)


TIMELINE = {"a": Ran(2, 0, 10), "b": Ran(1, 10, 40), "train@c": Ran(1, 10, 25), "d": Ran(1, 26, 30)}


def test_a_stage_is_drawn_on_the_cores_that_were_free():
    assert pipeline.cores_of(TIMELINE) == {"a": [0, 1], "b": [0], "train@c": [1], "d": [1]}


@pytest.mark.parametrize(("cores", "of_training"), [(1, 15), (8, 7.5)])
def test_training_alone_is_faster_on_more_cores(monkeypatch, cores, of_training):
    """Of eight cores, it gets two."""
    slept = []
    monkeypatch.setattr(pipeline.time, "sleep", slept.append)
    graph = {"a": set(), "b": {"a"}, "train@c": {"a"}, "d": {"train@c"}}
    assert pipeline.scheduled(graph, TIMELINE, cores, n_seeds=3) > 0
    assert sorted(slept) == [seconds / pipeline.FASTER for seconds in sorted([10, 30, of_training, 4])]


def test_more_seeds_make_training_longer_and_nothing_else():
    assert pipeline.longer(TIMELINE, 2) == TIMELINE | {"train@c": Ran(1, 10, 40)}
