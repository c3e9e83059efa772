import pytest

from cifar2 import params
from cifar2.deploy import model_card
from cifar2.networks import classifier
from tests.networks.test_classifier import CARD

PREPARE = {"n_train": 9024, "n_val": 976}
REFIT = {"trained_on": ["train"]}
FINAL = {
    "n_parameters": 1_643_234,
    "test_accuracy": 0.9765,
    "test_accuracy_ci95": [0.96889, 0.98228],
    "subsets": [
        {
            "n": 2000,
            "roc_auc": 0.996624,
            "calibration_error": 0.01234,
            "per_class": [
                {"class": "airplane", "precision": 0.9713, "recall": 0.982, "f1": 0.97663},
                {"class": "bird", "precision": 0.9818, "recall": 0.971, "f1": 0.97637},
            ],
        },
        {"n": 1935, "accuracy": 0.97571},
    ],
}


def text(card=CARD, refit=REFIT):
    return model_card.text(card, PREPARE, refit, FINAL)


def test_its_sections_say_what_the_model_is_learned_can_do_and_is_not_for():
    sections = [line.removeprefix("## ") for line in text().splitlines() if line.startswith("## ")]
    assert sections == ["What it is", "What it learned from", "How good it is", "What it is not for"]


@pytest.mark.parametrize(
    "fact",
    [
        "airplane or bird",
        "It is a fully connected network (MyNet);\n1,643,234 parameters learned from these pictures",
        "9,024 images",
        "976 further ones",
        "On 2,000 test images",
        "accuracy 0.9765, 95 % interval 0.9689 to 0.9823",
        "without the 65 that have a near-duplicate in CIFAR-10's training part: 0.9757",
        "* area under the ROC curve 0.9966;",
        "calibration error 0.0123",
        "| airplane | 0.9713 | 0.9820 | 0.9766 |",
        "| bird | 0.9818 | 0.9710 | 0.9764 |",
    ],
)
def test_every_number_stands_in_it(fact):
    assert fact in text()


def test_all_classes_are_named():
    page = text(CARD.model_copy(update={"classes": ("cat", "dog", "frog")}))
    assert "32 x 32 pixels: cat, dog or frog." in page
    assert "* mean area under the classes' ROC curves 0.9966;" in page


def test_what_makes_the_features_is_named_where_there_are_any():
    features = params.Features(backbone="resnet18", image_size=112, flip_average=False)
    found = text(CARD.model_copy(update={"features": features}))
    assert "features of the pictures at 112 pixels, found by resnet18, which had learned from ImageNet" in found
    assert "ImageNet" not in text()


def test_a_network_that_had_learned_elsewhere_is_told_as_one():
    shape = classifier.TransferShape(backbone="resnet18", image_size=64, trainable_blocks=1, n_classes=2, dropout=0.0)
    found = text(CARD.model_copy(update={"shape": shape}))
    assert "It is resnet18, which had learned from ImageNet, with a new last layer" in found
    shape = classifier.CnnShape(channels=(4, 8), n_classes=2, dropout=0.0)
    assert "It is a convolutional network;" in text(CARD.model_copy(update={"shape": shape}))


def test_images_that_selected_it_and_that_it_then_learned_from_are_no_further_ones():
    found = text(refit={"trained_on": ["train", "val"]})
    assert "10,000 images" in found
    assert "selected by\n976 of them" in found
