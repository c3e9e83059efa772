"""The page that goes with a model: what it is, what it learned from, how good it is, and what it is not for."""

from collections.abc import Mapping
from typing import Any

from cifar2 import params
from cifar2.networks.classifier import Card


def kind(card: Card) -> str:
    """What kind of classifier a model is, in a phrase that begins with its article."""
    if card.features:
        return (
            f"a linear classifier on features of the pictures at {card.features.image_size} pixels, found by "
            f"{card.features.backbone}, which had learned from ImageNet"
        )
    if isinstance(card.configuration, params.Transfer):
        return f"{card.configuration.backbone}, which had learned from ImageNet, with a new last layer"
    if isinstance(card.configuration, params.Cnn):
        return "a convolutional network"
    return "a fully connected network (MyNet)"


def text(card: Card, prepare: Mapping[str, Any], refit: Mapping[str, Any], final: Mapping[str, Any]) -> str:
    """The page, in Markdown, with the sections of Mitchell et al., "Model cards for model reporting" (2019).

    Args:
        card: of the model.
        prepare: ``metrics/prepare.json``.
        refit: ``metrics/refit.json``.
        final: ``metrics/evaluate/final.json``.
    """
    *first, last = card.classes
    classes = f"{', '.join(first)} or {last}"
    roc_auc = "area under the ROC curve" if len(card.classes) == 2 else "mean area under the classes' ROC curves"
    low, high = final["test_accuracy_ci95"]
    everything, unseen = final["subsets"]
    n_images = sum(prepare[f"n_{split}"] for split in refit["trained_on"])
    others = "of them" if "val" in refit["trained_on"] else "further ones"
    rows = "\n".join(
        f"| {m['class']} | {m['precision']:.4f} | {m['recall']:.4f} | {m['f1']:.4f} |" for m in everything["per_class"]
    )
    return f"""# CIFAR-2, final model

## What it is
A classifier of pictures of 32 x 32 pixels: {classes}. It is {kind(card)};
{final["n_parameters"]:,} parameters learned from these pictures, as configuration `{card.name}` says.
`final.safetensors` holds its weights for `cifar2 predict` and `cifar2.networks.classifier.load`, `final.onnx` the
whole of it, from uint8 pictures (N x 3 x 32 x 32, red, green, blue) to logits; on all test images onnxruntime's logits
match PyTorch's up to rounding.

## What it learned from
{n_images:,} images of CIFAR-10's training part (Krizhevsky, 2009). Its configuration was selected by
{prepare["n_val"]:,} {others}; its seed played no part in that.

## How good it is
On {everything["n"]:,} test images that nothing was tuned on:

* accuracy {final["test_accuracy"]:.4f}, 95 % interval {low:.4f} to {high:.4f} (Wilson)
* without the {everything["n"] - unseen["n"]} that have a near-duplicate in CIFAR-10's training part: \
{unseen["accuracy"]:.4f}
* {roc_auc} {everything["roc_auc"]:.4f}; expected calibration error {everything["calibration_error"]:.4f}

| class | precision | recall | F1 |
|---|---|---|---|
{rows}

## What it is not for
* Every picture is one of its classes to it; of anything else its answer means nothing, however sure it is.
* Its pictures were small, with the thing in the middle. Large photographs are made as small, and may lose it.
* The numbers hold for pictures drawn as CIFAR-10's were. On others expect less, and measure.
* Nothing that matters should be decided by it: it is for learning and teaching.
"""
