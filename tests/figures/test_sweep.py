import pytest

from cifar2 import params
from cifar2.figures import sweep
from tests.figures.test_canvas import texts

SPACE = {
    "lr": params.Range(log_uniform=[0.01, 1.0]),
    "momentum": params.Range(uniform=[0.5, 0.9]),
    "flip": params.Range(choice=[False, True]),
}
EACH_FIGURE = pytest.mark.parametrize("draw", [sweep.trials, sweep.by_parameter])


def swept(accuracies):
    points = [{"lr": 0.1, "momentum": 0.7, "flip": True}, {"lr": 0.01, "momentum": 0.9, "flip": False}]
    return [{**points[n % 2], "val_accuracy": a, "val_accuracy_se": 0.01} for n, a in enumerate(accuracies)]


@EACH_FIGURE
def test_a_sweep_names_its_parameters_and_their_bounds(draw):
    shown = texts(draw(swept([0.9, 0.88, 0.87, 0.86]), SPACE))
    for text in ("lr", "momentum", "flip", "0.01", "0.1", "0.7", "False", "validation accuracy", "4 trials"):
        assert text in shown
    assert "below" not in shown


@EACH_FIGURE
def test_an_outlier_does_not_squeeze_the_other_trials(draw):
    assert "; 1 below 0.847 drawn there" in texts(draw(swept([0.9, 0.89, 0.88, 0.875, 0.87, 0.5]), SPACE))


@EACH_FIGURE
def test_one_trial_of_one_parameter_is_drawn(draw):
    assert "1 trials" in texts(draw(swept([0.9]), {"lr": params.Range(grid=[0.1])}))


def test_each_trial_is_a_line_and_the_best_is_thick():
    axes = sweep.trials(swept([0.9, 0.8, 0.7]), SPACE).axes[0]
    lines = [line for line in axes.lines if len(line.get_xdata()) == 4]
    assert [list(line.get_ydata()) for line in lines] == [
        pytest.approx([0.5, 0.5, 1, 0]),
        pytest.approx([0, 1, 0, 0.5]),
        pytest.approx([0.5, 0.5, 1, 1]),
    ]
    assert lines[-1].get_linewidth() > lines[0].get_linewidth()
