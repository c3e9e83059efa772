from pathlib import Path

import pytest
import yaml

from cifar2 import params
from cifar2.errors import UserError
from tests.conftest import ROOT


@pytest.fixture
def document():
    return yaml.safe_load((ROOT / "params.yaml").read_text())


def load(tmp_path: Path, document: object) -> params.Params:
    path = tmp_path / "params.yaml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return params.load(path)


def test_the_projects_own_file_holds_the_five_configurations_of_the_original():
    configs = params.load(ROOT / "params.yaml").configs
    assert {n: (c.lr, c.momentum, c.weight_decay) for n, c in configs.items()} == {
        "precise": (0.005, 0.9, 0.001),
        "fast": (0.02, 0.8, 0.005),
        "fine": (0.01, 0.7, 0.002),
        "balanced": (0.015, 0.85, 0.01),
        "smooth": (0.008, 0.95, 0.003),
    }


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["data", "clases"], ["bird"], "data.clases: extra inputs are not permitted"),
        (["surprise"], 1, "surprise: extra inputs are not permitted"),
        (["configs", "fine", "lr"], "fast", "configs.fine.lr: input should be a valid number, not 'fast'"),
        (["configs", "fine", "lr"], -1, "configs.fine.lr: input should be greater than 0, not -1"),
        (["configs", "fine", "lr"], True, "configs.fine.lr: input should be a valid number, not True"),
        (["configs", "fine", "lr"], float("nan"), "configs.fine.lr: input should be a finite number, not nan"),
        (["configs", "fine", "momentum"], 1.0, "configs.fine.momentum: input should be less than 1, not 1.0"),
        (["configs", "fine"], None, "configs.fine: input should be a valid dictionary"),
        (["configs"], {}, "configs: dictionary should have at least 1 item"),
        (["configs", "a/b"], {"lr": 0.1, "momentum": 0, "weight_decay": 0}, "configs.a/b: string should match pattern"),
        (["data", "classes"], ["bird"], "data.classes: list should have at least 2 items"),
        (["data", "classes"], ["bird", "plane"], "data.classes.1: input should be 'airplane', 'automobile'"),
        (["data", "classes"], ["bird", "bird"], "data: classes: a class is named twice"),
        (["data", "sources"], ["web"], "data.sources.0: input should be 'folder', 'torchvision' or 'npm', not 'web'"),
        (["data", "val_fraction"], 1.0, "data.val_fraction: input should be less than 1, not 1.0"),
        (["train", "epochs"], 1.5, "train.epochs: input should be a valid integer, not 1.5"),
        (["train", "seeds"], [1, 1], "train: seeds: a seed stands twice"),
        (["train", "gradients"], "magic", "train.gradients: input should be 'backpropagation' or 'autograd'"),
        (["train", "precision"], "half", "train.precision: input should be 'float32' or 'bfloat16', not 'half'"),
        (["train", "device"], "tpu", "train.device: input should be 'cpu', 'cuda', 'mps' or 'auto', not 'tpu'"),
        (["refit", "seed"], 0, "refit.seed: 0 is one of train.seeds"),
    ],
)
def test_a_bad_value_is_one_line_that_names_the_key(tmp_path, document, keys, value, message):
    place = document
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    with pytest.raises(UserError) as fault:
        load(tmp_path, document)
    assert message in str(fault.value)
    assert str(tmp_path / "params.yaml") in str(fault.value)
    assert "\n" not in str(fault.value)


def test_bfloat16_without_the_hand_written_gradients_is_one_line(tmp_path, document):
    document["train"] |= {"precision": "bfloat16", "gradients": "autograd"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(UserError, match="train: precision: bfloat16 needs gradients: backpropagation"):
        params.load(tmp_path / "params.yaml")


def test_a_missing_key_is_named(tmp_path, document):
    del document["train"]["epochs"]
    with pytest.raises(UserError, match=r"train\.epochs: field required"):
        load(tmp_path, document)


@pytest.mark.parametrize("text", ["a: [1, 2", "\x00", "a: b: c", "- 1\n- 2", "", "a: 2001-99-99"])
def test_a_file_that_is_no_yaml_mapping_is_one_line(tmp_path, text):
    with pytest.raises(UserError) as fault:
        load(tmp_path, text)
    assert "\n" not in str(fault.value)


def test_bytes_that_are_no_text_are_one_line(tmp_path):
    (tmp_path / "params.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(UserError, match="is not YAML"):
        params.load(tmp_path / "params.yaml")


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(UserError, match="is not here"):
        params.load(tmp_path / "params.yaml")


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "+1e-3", "0.001", "1.0e-3"])
def test_every_spelling_of_a_number_that_dvc_reads_as_one_is_one(tmp_path, document, text):
    document["configs"] = {"fine": {"lr": "LR", "momentum": 0.7, "weight_decay": 0.002}}
    assert load(tmp_path, yaml.safe_dump(document).replace("LR", text)).configs["fine"].lr == 0.001
