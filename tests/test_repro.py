import pytest

from tools.repro import main, shares

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
def test_the_stages_share_the_cores_evenly(stale, jobs, cores, side_by_side, threads):
    assert shares(stale, jobs, cores) == (side_by_side, threads)


@pytest.mark.parametrize("jobs", ["0", "-1", "many"])
def test_a_number_of_jobs_that_is_none_is_one_line(monkeypatch, capsys, jobs):
    monkeypatch.setattr("sys.argv", ["repro", f"--jobs={jobs}"])
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().err.endswith(f"error: argument --jobs: {jobs} is not a number from 1\n")
