"""Long work shows that it moves: a bar on a terminal, one plain line an epoch in a log."""

from types import TracebackType
from typing import Self

from tqdm import tqdm

from cifar2.training import Epoch


class Progress:
    """Progress of several training runs of one configuration.

    Args:
        name: what is trained.
        epochs: the total over all runs.
    """

    def __init__(self, name: str, epochs: int) -> None:
        self.name = name
        self.bar = tqdm(total=epochs, desc=name, unit="epoch", disable=None)  # None: only where there is a terminal

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.bar.close()

    def show(self, epoch: Epoch) -> None:
        """Show one more finished epoch."""
        line = (
            f"seed {epoch.seed} epoch {epoch.epoch}: train loss {epoch.train_loss:.4f} acc {epoch.train_accuracy:.4f}"
        )
        if epoch.val_loss is not None:
            line += f", val loss {epoch.val_loss:.4f} acc {epoch.val_accuracy:.4f}"
        self.bar.set_postfix_str(line, refresh=False)
        self.bar.update()
        if self.bar.disable:
            print(f"{self.name} {line}", flush=True)
