from cifar2.evaluation import selection
from cifar2.figures import select_model
from tests.figures.test_canvas import texts


def test_the_ranking_names_every_configuration_in_order():
    m = {"val_accuracy": 0.85, "val_accuracy_se": 0.01, "val_loss": 0.5, "val_loss_se": 0.02, "val_loss_std": [0.01]}
    ranked = selection.rank({"a": m | {"gap": 0.2}, "b": m | {"gap": 0.1}, "c": m | {"val_accuracy": 0.7, "gap": 0.0}})
    figure = select_model.ranking(ranked, {"a": "mlp", "b": "cnn", "c": "mlp"}, 3)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["b (cnn)  1", "a (mlp)  2", "c (mlp)  3"]
    assert "3 seeds" in texts(figure)
