import io
import sys

from cifar2.progress import Progress
from cifar2.training import Epoch

EPOCH = Epoch(0, 3, 0.51234, 0.75, 0.6, 0.7)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_gets_one_plain_line_an_epoch(capsys):
    with Progress("fine", 2) as progress:
        progress.show(EPOCH)
        progress.show(EPOCH._replace(val_loss=None, val_accuracy=None))
    out, err = capsys.readouterr()
    assert out == (
        "fine seed 0 epoch 3: train loss 0.5123 acc 0.7500, val loss 0.6000 acc 0.7000\n"
        "fine seed 0 epoch 3: train loss 0.5123 acc 0.7500\n"
    )
    assert err == ""


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("fine", 2) as progress:
        progress.show(EPOCH)
    assert "fine:" in terminal.getvalue()
    assert "1/2" in terminal.getvalue()
    assert "val loss 0.6000" in terminal.getvalue()
    assert capsys.readouterr().out == ""
