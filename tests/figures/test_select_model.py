import pytest

from cifar2.figures import select_model
from tests.figures.test_canvas import texts

ROW = {
    "rank": 1,
    "name": "a",
    "family": "mlp",
    "tied": True,
    "tied_on_loss": True,
    "val_accuracy": 0.85,
    "val_accuracy_se": 0.01,
    "bad_epoch_loss": 0.5,
    "val_loss_se": 0.02,
    "gap": 0.1,
    "gap_se": 0.0,
    "fraction_of_family": 0.25,
}


def test_the_ranking_names_every_configuration_in_order():
    rows = [ROW, ROW | {"rank": 2, "name": "b", "family": "cnn", "fraction_of_family": 1.0}]
    figure = select_model.ranking(rows, ["a", "b"], 3)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["a (mlp)  1", "b (cnn)  2"]
    for text in ("3 seeds", "25%", "100%"):
        assert text in texts(figure)


@pytest.mark.parametrize(
    ("changes", "best", "status"),
    [
        ({}, [], "selected"),
        ({"rank": 2}, ["a"], "selected from its family"),
        ({"rank": 2}, [], "tied on accuracy and loss"),
        ({"rank": 2, "tied_on_loss": False}, [], "tied on accuracy"),
        ({"rank": 2, "tied_on_loss": False, "tied": False}, [], "not tied"),
    ],
)
def test_colours_tell_how_far_the_rule_kept_a_configuration(changes, best, status):
    figure = select_model.ranking([ROW | changes], best, 1)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [status]
