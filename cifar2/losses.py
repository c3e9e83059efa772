"""The losses with their gradients, label smoothing and class weights.

Both losses are scalars and functions of ``(y_true, y_pred)``; their gradients are with respect to ``y_pred``, N x C.
(Bishop, "Pattern Recognition and Machine Learning", sections 4.3.4 and 5.2.)
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot


class Loss(NamedTuple):
    """A loss, and its gradient with respect to ``y_pred``."""

    value: Callable[[Tensor, Tensor], Tensor]
    gradient: Callable[[Tensor, Tensor], Tensor]


def _squared_error(y_true: Tensor, y_pred: Tensor) -> Tensor:
    return ((y_pred - _targets(y_true, y_pred)) ** 2).sum()


def _squared_error_gradient(y_true: Tensor, y_pred: Tensor) -> Tensor:
    return 2 * (y_pred - _targets(y_true, y_pred))


def _targets(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """One target for each output.  N targets for N x 1 outputs would broadcast to N x N, without an error."""
    if y_true.dim() == 1 and y_true.numel() == y_pred.numel():
        return y_true.view_as(y_pred)
    if y_true.shape == (len(y_pred), 1):
        return y_true.expand_as(y_pred)
    return _of_same_shape(y_true, y_pred)


def _cross_entropy(y_true: Tensor, y_pred: Tensor) -> Tensor:
    target = _probabilities(y_true, y_pred)
    return (torch.logsumexp(y_pred, 1) * target.sum(1) - (target * y_pred).sum(1)).mean()


def _cross_entropy_gradient(y_true: Tensor, y_pred: Tensor) -> Tensor:
    target = _probabilities(y_true, y_pred)
    return (torch.softmax(y_pred, 1) * target.sum(1, keepdim=True) - target) / len(y_true)


def _probabilities(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """The target probability of each class, times its weight: 1 for a label, or as given."""
    if y_true.shape == y_pred.shape[:1]:
        return one_hot(y_true, y_pred.shape[1]).to(y_pred.dtype)
    return _of_same_shape(y_true, y_pred)


def _of_same_shape(y_true: Tensor, y_pred: Tensor) -> Tensor:
    if y_true.shape != y_pred.shape:
        raise ValueError(f"y_true has shape {tuple(y_true.shape)}, y_pred {tuple(y_pred.shape)}")
    return y_true


LOSSES = {
    # The sum of squared residuals over batch and outputs.  y_true: N x C; N x 1, one target for all outputs of an
    # example, as torch.nn.MSELoss broadcasts it; or N, if C is 1.
    "squared_error": Loss(_squared_error, _squared_error_gradient),
    # Softmax cross-entropy, the mean over the batch.  y_pred: logits; y_true: N labels, or N x C probabilities, which
    # may be weighted (see ``smooth_labels``).
    "cross_entropy": Loss(_cross_entropy, _cross_entropy_gradient),
}


def smooth_labels(
    y: Tensor, n_classes: int, label_smoothing: float, dtype: torch.dtype, class_weights: Tensor | None = None
) -> Tensor:
    """Labels as probabilities, N x classes: a fraction of ``label_smoothing`` is spread evenly over all classes.

    With ``class_weights``, one per class, the probability of each class is multiplied by its weight, and so is its part
    of the cross-entropy, as in ``torch.nn.CrossEntropyLoss``.

    Szegedy et al., "Rethinking the Inception architecture for computer vision", 2016, section 7.
    """
    probabilities = one_hot(y, n_classes).to(dtype) * (1 - label_smoothing) + label_smoothing / n_classes
    return probabilities if class_weights is None else probabilities * class_weights.to(dtype)


def balanced_weights(y: Tensor) -> Tensor:
    """Weights with which each class counts as much as any other, float32; their mean over the labels ``y`` is 1.

    King and Zeng, "Logistic regression in rare events data", 2001, section 4.1.
    """
    counts = y.bincount()
    return len(y) / (len(counts) * counts).float()
