from pathlib import Path

import pytest

from cifar2.evaluation import summary
from cifar2.evaluation.uncertainty import estimate
from tests.conftest import table

TABLE = Path("extended/metrics/ablation.csv")
CHANGES = {
    "downwards": ("augmented", {"without_flip": {"flip": False}, "without_average": {"flip_average": False}}),
    "upwards": ("precise", {"longer": {"epochs": 3}}),
}


@pytest.fixture
def extended(trained, run_stage):
    """The project with its ablation trained."""
    trained.params["extended"]["ablation"] = {
        direction: {"base": base, "changes": changes} for direction, (base, changes) in CHANGES.items()
    }
    trained.write_params()
    for _, changes in CHANGES.values():
        for name in changes:
            run_stage("train.py", name)
    return trained


def correct(root, name):
    return summary.load(Path(root, f"data/validated/{name}.safetensors")).correct.double()


def test_variants_are_compared_with_their_bases(extended, run_stage):
    run_stage("ablate.py")
    rows = iter(table(TABLE))
    for base, changes in CHANGES.values():
        of_base = correct("", base)
        row = next(rows)
        assert (row["base"], row["name"], row["difference"], row["low"]) == (base, base, "", "")
        assert float(row["val_accuracy"]) == pytest.approx(of_base.mean().item())
        for name in changes:
            row, variant = next(rows), correct("extended", name)
            difference = estimate(variant - of_base)
            assert (row["base"], row["name"]) == (base, name)
            assert float(row["val_accuracy_se"]) == pytest.approx(estimate(variant).standard_error)
            assert float(row["difference"]) == pytest.approx(difference.mean)
            assert float(row["difference_se"]) == pytest.approx(difference.standard_error)
            # Three comparisons, which hold together.
            assert [float(row["low"]), float(row["high"])] == pytest.approx(difference.interval(3))
    assert next(rows, None) is None


def test_second_run_writes_the_same_table(extended, run_stage):
    before = extended.snapshot()
    run_stage("ablate.py")
    after = extended.snapshot()
    assert after.keys() - before.keys() == {str(TABLE)}
    run_stage("ablate.py")
    assert extended.snapshot() == after


def test_untrained_configuration_is_one_line_and_writes_nothing(trained, fails_with):
    before = trained.snapshot()
    assert "extended/data/validated/without_flip.safetensors is missing" in fails_with("ablate.py")
    assert trained.snapshot() == before
