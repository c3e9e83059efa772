"""The model card: what the final model is, its training data and their licence, test results and limitations."""

from collections.abc import Mapping
from typing import Any

from cifar2 import params
from cifar2.networks.classifier import Card


def kind(card: Card) -> str:
    """The kind of classifier, as a phrase with its article."""
    if card.features:
        return (
            f"a linear classifier on features of {card.features.backbone}, pretrained on ImageNet "
            f"(images resized to {card.features.image_size} pixels)"
        )
    if isinstance(card.configuration, params.Transfer):
        return f"a fine-tuned {card.configuration.backbone}, pretrained on ImageNet, with a new last layer"
    if isinstance(card.configuration, params.Cnn):
        return "a convolutional network"
    return "a fully connected network (MyNet)"


# The origin of the images, what limits them, and how the search for near-duplicates was tuned.
CIFAR10 = (
    """\
CIFAR-10 has no licence; its page asks to cite its report (Krizhevsky, "Learning multiple layers of features from tiny
images", 2009). Its images come from Tiny Images, which programs collected from the web without asking for consent, and
which its authors withdrew in 2020. About 0.5 % of CIFAR-10's test labels are wrong (Northcutt, Athalye and Mueller,
"Pervasive label errors in test sets", 2021).""",
    """\
The thresholds for near-duplicates were set on
pairs of training images, judged by eye. One became stricter after a first search on the test images found too many
different ones. No prediction and no label was used.""",
    """\
* The training images were small, with the object in the middle. Large photographs are resized to 32 x 32 pixels, and
  may lose the object.
* The results hold for images like CIFAR-10's. On others expect less, and measure.""",
)
OWN_IMAGES = (
    """\
The origin and licence of the images are not recorded; anyone who passes on this model should name them here.""",
    """\
The thresholds for near-duplicates were set on CIFAR-10's
photographs of airplanes and birds.""",
    """\
* All images are cropped to their central square and resized, and may lose the object.
* The results hold for images like these. On others expect less, and measure.""",
)


def text(card: Card, prepare: Mapping[str, Any], refit: Mapping[str, Any], final: Mapping[str, Any]) -> str:
    """The card, in Markdown, after Mitchell et al., "Model cards for model reporting" (2019).

    Args:
        card: the description of the model.
        prepare: ``metrics/prepare.json``.
        refit: ``metrics/refit/final.json``.
        final: ``metrics/evaluate/final.json``.
    """
    *first, last = card.classes
    classes = f"{', '.join(first)} or {last}"
    n_images = sum(prepare[f"n_{split}"] for split in refit["trained_on"])
    selected_on = f"{prepare['n_val']:,} {'of these' if 'val' in refit['trained_on'] else 'other'} images"
    imagenet = """
The backbone's weights were trained on ImageNet, whose terms allow non-commercial research and education only. Some of
the test images may be among ImageNet's. This has not been measured; the test accuracy may be too high because of it.
"""
    origin, thresholds, limits = OWN_IMAGES if prepare["own_images"] else CIFAR10
    title, of_set = "CIFAR-2, final model", "CIFAR-10's training set (Krizhevsky, 2009)"
    if prepare["own_images"]:
        title, of_set = "Final model", "the training set"
    size = card.image_size
    return f"""# {title}

## Model
A classifier of images of {size} x {size} pixels: {classes}. It is {kind(card)},
with {final["n_parameters"]:,} trainable parameters (configuration `{card.name}`).
`final.safetensors` holds its weights, for `cifar2 predict` and `cifar2.networks.classifier.load`. `final.onnx` is the
whole model, from uint8 images (N x 3 x {size} x {size}, red, green, blue) to logits. On all test images its logits
match PyTorch's up to rounding.

## Training data
{n_images:,} images of {of_set}. The configuration was selected on
{selected_on}; the seed of the model took no part in the selection.

## Data and licence
{origin}
{imagenet if isinstance(card.configuration, params.Transfer) else ""}
## Test results
{_test_results(card, final, thresholds)}

## Limitations
* Every image is assigned one of these classes. On any other subject the prediction means nothing, however confident.
{limits}
* The model is for learning and teaching. Base no decision that matters on it.
"""


def _test_results(card: Card, final: Mapping[str, Any], thresholds: str) -> str:
    """The metrics in ``metrics/evaluate/final.json``, in Markdown.

    Args:
        card: the description of the model.
        final: the content of that file.
        thresholds: how the search for near-duplicates was tuned.
    """
    all_images, *unseen = final["subsets"]
    low, high = final["test_accuracy_ci95"]
    calibration, by_chance = all_images["calibration_error"], all_images["calibration_error_if_perfect"]
    roc_auc = "area under the ROC curve" if len(card.classes) == 2 else "mean area under the classes' ROC curves"
    balanced, without = "", ""
    if "balanced_accuracy" in all_images:
        balanced = (
            f"\n* balanced accuracy, the mean recall of the classes {_with_interval(all_images['balanced_accuracy'])}"
        )
    if unseen:
        without = (
            f"\n* accuracy without the {all_images['n'] - unseen[0]['n']} images that have a near-duplicate among the "
            f"training and validation images: {unseen[0]['accuracy']['mean']:.4f}"
        )
    rows = "\n".join(
        f"| {_cell(m['class'])} | {' | '.join(_with_interval(m[key]) for key in ('precision', 'recall', 'f1'))} |"
        for m in all_images["per_class"]
    )
    return f"""\
On {all_images["n"]:,} test images, never used for training or selection.{" " + thresholds if unseen else ""}

* accuracy {final["test_accuracy"]:.4f}, 95 % interval {low:.4f} to {high:.4f} (Wilson, as for precision and recall; the
  other intervals in brackets are 95 % t intervals over images){balanced}{without}
* {roc_auc} {_with_interval(all_images["roc_auc"])}
* expected calibration error {_with_interval(calibration)}; a perfectly calibrated classifier with the same confidences
  would have {by_chance:.4f}, by chance

| class | precision | recall | F1 |
|---|---|---|---|
{rows}"""


def _cell(name: str) -> str:
    """``name`` in a cell of a table, where an unescaped bar ends the cell."""
    return name.replace("|", r"\|")


def _with_interval(metric: Mapping[str, Any]) -> str:
    low, high = metric["ci95"]
    return f"{metric['mean']:.4f} ({low:.4f} to {high:.4f})"
