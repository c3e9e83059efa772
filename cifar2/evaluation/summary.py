"""The validation results of a configuration."""

from typing import NamedTuple


class Summary(NamedTuple):
    """The results of a configuration on validation, from the final weights of its runs.

    Attributes:
        val_accuracy, val_loss, train_accuracy: means over the seeds.
        val_accuracy_se, val_loss_se: standard errors of these means (see ``uncertainty``).
        val_loss_std: per seed, the standard deviation of the validation loss over the last epochs.
        gap: training minus validation accuracy.
        kept_epoch: per seed, the epoch of the weights: the last one, or with early stopping the best one.
    """

    val_accuracy: float
    val_accuracy_se: float
    val_loss: float
    val_loss_se: float
    val_loss_std: list[float]
    train_accuracy: float
    gap: float
    kept_epoch: list[int]


# The fields with one number for all seeds.
NUMBERS = tuple(field for field, kind in Summary.__annotations__.items() if kind is float)
