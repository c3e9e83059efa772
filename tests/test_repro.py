import pytest

from tools.repro import shares

FIVE = ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize(
    ("stale", "jobs", "cores", "side_by_side", "threads"),
    [
        (FIVE, 2, 2, FIVE[:4], 1),  # the fifth has both cores, afterwards
        (FIVE, 5, 5, FIVE, 1),
        (FIVE, 16, 16, FIVE, 3),
        (FIVE, 4, 2, FIVE[:4], 1),
        (FIVE, 1, 8, [], 8),
        (FIVE[:1], 2, 2, [], 2),
        ([], 2, 2, [], 2),
    ],
)
def test_cores_are_shared_and_none_is_left_idle(stale, jobs, cores, side_by_side, threads):
    assert shares(stale, jobs, cores) == (side_by_side, threads)
