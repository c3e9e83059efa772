import pytest

from cifar2.report import original


def test_test_accuracy_is_that_of_its_counts():
    assert pytest.approx(0.848) == original.TEST_ACCURACY
    assert original.interval() == pytest.approx([0.8316, 0.8631], abs=1e-4)
