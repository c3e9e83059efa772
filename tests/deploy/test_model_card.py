import re

import pytest

from cifar2 import params
from cifar2.deploy import model_card
from tests.networks.test_classifier import CARD


def metric(mean):
    return {"mean": mean, "ci95": [mean - 0.004, mean + 0.003]}


PREPARE = {"own_images": False, "n_train": 9024, "n_val": 976}
REFIT = {"trained_on": ["train"]}
FINAL = {
    "n_parameters": 1_643_234,
    "test_accuracy": 0.9765,
    "test_accuracy_ci95": [0.96889, 0.98228],
    "subsets": [
        {
            "n": 2000,
            "roc_auc": metric(0.996624),
            "calibration_error": metric(0.01234),
            "calibration_error_if_perfect": 0.00489,
            "per_class": [
                {"class": "airplane", "precision": metric(0.9713), "recall": metric(0.982), "f1": metric(0.97663)},
                {"class": "bird", "precision": metric(0.9818), "recall": metric(0.971), "f1": metric(0.97637)},
            ],
        },
        {"n": 1935, "accuracy": metric(0.97571)},
    ],
}
COMMON = {"family": "transfer", "input": "prepared", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.0}


def text(card=CARD, refit=REFIT, prepare=PREPARE, final=FINAL):
    return model_card.text(card, prepare, refit, final)


def test_the_card_has_its_sections():
    sections = [line.removeprefix("## ") for line in text().splitlines() if line.startswith("## ")]
    assert sections == ["Model", "Training data", "Data and licence", "Test results", "Limitations"]


@pytest.mark.parametrize(
    "fact",
    [
        "airplane or bird",
        "It is a fully connected network (MyNet),\nwith 1,643,234 trainable parameters (configuration `fine`).",
        "9,024 images",
        "selected on\n976 other images",
        "On 2,000 test images, never used for training or selection.",
        "accuracy 0.9765, 95 % interval 0.9689 to 0.9823",
        "without the 65 images that have a near-duplicate among the training and validation images: 0.9757",
        "* area under the ROC curve 0.9966 (0.9926 to 0.9996)\n",
        "calibration error 0.0123 (0.0083 to 0.0153); a perfectly",
        "would have 0.0049, by chance",
        "| airplane | 0.9713 (0.9673 to 0.9743) | 0.9820 (0.9780 to 0.9850) | 0.9766 (0.9726 to 0.9796) |",
    ],
)
def test_the_card_contains_every_number(fact):
    assert fact in text()


def test_the_card_names_all_classes():
    card = text(CARD.model_copy(update={"classes": ("cat", "dog", "frog")}))
    assert "32 x 32 pixels: cat, dog or frog." in card
    assert "* mean area under the classes' ROC curves 0.9966 (" in card


def test_a_bar_in_a_class_name_does_not_end_its_cell():
    (whole, _) = FINAL["subsets"]
    shown = text(final=FINAL | {"subsets": [whole | {"per_class": [whole["per_class"][0] | {"class": "a|b"}]}]})
    assert r"| a\|b | 0.9713" in shown


FINE_TUNED = params.Transfer(model="transfer", **COMMON, backbone="resnet18", image_size=64, trainable_blocks=1)
CONVOLUTIONAL = params.Cnn(model="cnn", **COMMON, channels=[4, 8], dropout=0.5)
FEATURES = params.Features(backbone="resnet18", image_size=112, flip_average=False)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"configuration": FINE_TUNED}, "a fine-tuned resnet18, pretrained on ImageNet, with a new last layer"),
        ({"configuration": CONVOLUTIONAL}, "a convolutional network"),
        (
            {"features": FEATURES},
            "a linear classifier on features of resnet18, pretrained on ImageNet (images resized to 112 pixels)",
        ),
    ],
)
def test_the_card_names_the_kind_of_network(changes, kind):
    card = CARD.model_copy(update=changes)
    assert model_card.kind(card) == kind
    assert ("terms allow non-commercial research" in text(card)) == isinstance(card.configuration, params.Transfer)


def test_images_used_for_selection_and_training_are_named_so():
    card = text(refit={"trained_on": ["train", "val"]})
    assert "10,000 images" in card
    assert "selected on\n976 of these images" in card


def test_a_card_of_own_images_says_nothing_of_cifar10():
    card = CARD.model_copy(update={"classes": ("cat", "dog"), "image_size": 96})
    (whole, _), balanced = FINAL["subsets"], {"balanced_accuracy": metric(0.61)}
    shown = text(card, prepare=PREPARE | {"own_images": True}, final=FINAL | {"subsets": [whole | balanced]})
    assert not re.search("CIFAR|airplane(?! \\|)|bird(?! \\|)|near-duplicate", shown)
    assert "images of 96 x 96 pixels: cat or dog" in shown
    assert "(N x 3 x 96 x 96, red, green, blue)" in shown
    assert "* balanced accuracy, the mean recall of the classes 0.6100 (0.6060 to 0.6130)" in shown
