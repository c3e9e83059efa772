import sys
from pathlib import Path

import torch

from cifar2.dataset import image_file, splits
from tools import examples


def test_the_first_validation_images_of_each_class_are_saved(project, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["examples", "images"])
    examples.main()
    val = splits.load(Path("data/prepared/val.safetensors"))
    names = [f"images/{name}{number}.png" for name in val.classes for number in (1, 2, 3)]
    assert capsys.readouterr().out.split() == names
    for label, name in enumerate(val.classes):
        expected = val.x[val.labels == label][:3]
        assert torch.equal(
            torch.stack([image_file.read(Path(f"images/{name}{n}.png"), 32) for n in (1, 2, 3)]), expected
        )
