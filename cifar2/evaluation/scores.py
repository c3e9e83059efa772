"""Loss and correctness of each example."""

import math
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cifar2.dataset.examples import Examples
from cifar2.networks.inference import logits


class Scores(NamedTuple):
    """The results of a model on N examples, on the CPU.

    Attributes:
        losses: cross-entropy, float32, N.
        correct: whether the predicted class is the label, bool, N.
    """

    losses: Tensor
    correct: Tensor

    @property
    def loss(self) -> float:
        """The mean loss.  The sum is exact before it is rounded once, so the number of threads does not matter."""
        return math.fsum(self.losses.tolist()) / len(self.losses)

    @property
    def accuracy(self) -> float:
        """The fraction of correct predictions, 0 to 1."""
        return self.correct.double().mean().item()


def score(model: nn.Module, examples: Examples, flip_average: bool = False) -> Scores:
    """The scores of a model in evaluation mode."""
    model.eval()
    return scores_of(logits(model, examples.x, flip_average), examples.y)


def scores_of(outputs: Tensor, y: Tensor) -> Scores:
    """The scores of ``outputs``, N x classes, for the labels ``y``."""
    losses = cross_entropy(outputs.float(), y, reduction="none")
    return Scores(losses.cpu(), (outputs.argmax(1) == y).cpu())
