import pytest

from benchmarks.measure import interleaved, row


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
