from pathlib import Path

import pytest
import yaml

from cifar2 import params
from cifar2.errors import UserError
from tests.conftest import ROOT


@pytest.fixture
def document():
    return yaml.safe_load((ROOT / "params.yaml").read_text())


HYPERPARAMETERS = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.0}
ORIGINAL = {"model": "mlp", "family": "mlp", "input": "prepared"}
CNN = {"model": "cnn", "family": "cnn", "input": "prepared", "channels": [8, 16], **HYPERPARAMETERS}
LINEAR = {"model": "transfer", "family": "transfer", "input": "features", **HYPERPARAMETERS}
TUNED = LINEAR | {"input": "prepared", "backbone": "resnet18", "image_size": 64}


def load(tmp_path: Path, document: object) -> params.Params:
    path = tmp_path / "params.yaml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return params.load(path)


def test_the_projects_own_file_holds_the_five_configurations_of_the_original():
    configs = {n: c for n, c in params.load(ROOT / "params.yaml").configs.items() if c.family == "mlp"}
    assert {n: (c.lr, c.momentum, c.weight_decay) for n, c in configs.items()} == {
        "precise": (0.005, 0.9, 0.001),
        "fast": (0.02, 0.8, 0.005),
        "fine": (0.01, 0.7, 0.002),
        "balanced": (0.015, 0.85, 0.01),
        "smooth": (0.008, 0.95, 0.003),
    }
    for configuration in configs.values():
        assert configuration == params.Mlp(**ORIGINAL, **configuration.model_dump(include=set(HYPERPARAMETERS)))


def test_whatever_a_configuration_does_not_name_is_off(tmp_path, document):
    document["configs"]["fine"] = {**ORIGINAL, **HYPERPARAMETERS}
    fine = load(tmp_path, document).configs["fine"]
    assert fine.model_dump() == {
        **ORIGINAL,
        **HYPERPARAMETERS,
        "nesterov": False,
        "epochs": None,
        "batch_size": None,
        "schedule": "constant",
        "label_smoothing": 0.0,
        "dropout": 0.0,
        "flip": False,
        "shift": 0,
        "jitter": 0.0,
        "flip_average": False,
        "early_stopping": None,
    }
    assert not fine.alters_pictures


@pytest.mark.parametrize("change", [{"flip": True}, {"shift": 1}, {"jitter": 0.1}])
def test_a_configuration_tells_whether_it_alters_pictures(tmp_path, document, change):
    document["configs"]["fine"] |= change
    assert load(tmp_path, document).configs["fine"].alters_pictures


def test_each_kind_of_model_has_its_own_keys(tmp_path, document):
    document["configs"] |= {
        "m": {**ORIGINAL, **HYPERPARAMETERS},
        "c": CNN,
        "l": LINEAR,
        "t": TUNED | {"trainable_blocks": "all", "dropout": 0.3, "flip": True, "flip_average": True},
    }
    kinds = {name: type(configuration) for name, configuration in load(tmp_path, document).configs.items()}
    assert [kinds[name] for name in "mclt"] == [params.Mlp, params.Cnn, params.Transfer, params.Transfer]


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
        (["configs", "a/b"], {**ORIGINAL, **HYPERPARAMETERS}, "configs.a/b: string should match pattern"),
        (["configs", "fine", "channels"], [8], "configs.fine.channels: extra inputs are not permitted"),
        (["configs", "fine", "model"], "svm", "configs.fine: input tag 'svm' found using 'model' does not match any"),
        (["configs", "fine"], HYPERPARAMETERS, "configs.fine: unable to extract tag using discriminator 'model'"),
        (["configs", "fine", "family"], "svm", "configs.fine.family: input should be 'mlp', 'mlp_augmented', 'cnn' or"),
        (
            ["configs", "fine", "input"],
            "raw",
            "configs.fine.input: input should be 'prepared' or 'features', not 'raw'",
        ),
        (["configs", "fine", "input"], "features", "configs.fine: input: features is for model: transfer"),
        (["configs", "fine", "epochs"], 0, "configs.fine.epochs: input should be greater than 0, not 0"),
        (["configs", "fine", "batch_size"], 2.5, "configs.fine.batch_size: input should be a valid integer, not 2.5"),
        (
            ["configs", "fine", "schedule"],
            "step",
            "configs.fine.schedule: input should be 'constant', 'cosine' or 'one_",
        ),
        (["configs", "fine", "label_smoothing"], 1.0, "configs.fine.label_smoothing: input should be less than 1"),
        (["configs", "fine", "dropout"], 1.0, "configs.fine.dropout: input should be less than 1, not 1.0"),
        (["configs", "fine", "dropout"], -0.1, "configs.fine.dropout: input should be greater than or equal to 0"),
        (["configs", "fine", "flip"], 1, "configs.fine.flip: input should be a valid boolean, not 1"),
        (["configs", "fine", "shift"], 32, "configs.fine.shift: input should be less than 32, not 32"),
        (["configs", "fine", "jitter"], 1.0, "configs.fine.jitter: input should be less than 1, not 1.0"),
        (
            ["configs", "fine", "early_stopping"],
            0,
            "configs.fine.early_stopping: input should be greater than 0, not 0",
        ),
        (
            ["configs", "fine"],
            {**ORIGINAL, **HYPERPARAMETERS, "momentum": 0.0, "nesterov": True},
            "configs.fine: nesterov: needs a momentum above 0",
        ),
        (["configs", "c"], CNN | {"channels": [8]}, "configs.c.channels: list should have at least 2 items"),
        (["configs", "c"], CNN | {"channels": [8] * 7}, "configs.c.channels: list should have at most 6 items"),
        (["configs", "c"], CNN | {"channels": [8, 0]}, "configs.c.channels.1: input should be greater than 0, not 0"),
        *(
            (
                ["configs", "l"],
                LINEAR | change,
                "configs.l: input: features leaves no pictures to flip, shift or jitter, and no layer for dropout",
            )
            for change in ({"flip": True}, {"shift": 1}, {"jitter": 0.1}, {"flip_average": True}, {"dropout": 0.1})
        ),
        *(
            (["configs", "l"], LINEAR | change, "configs.l: input: features is of a fixed backbone; fine-tuning needs")
            for change in ({"backbone": "resnet18"}, {"image_size": 64}, {"trainable_blocks": 1})
        ),
        (["configs", "t"], LINEAR | {"input": "prepared"}, "configs.t: input: prepared needs backbone and image_size"),
        (["configs", "t"], TUNED | {"image_size": None}, "configs.t: input: prepared needs backbone and image_size"),
        (["configs", "t"], TUNED | {"trainable_blocks": -1}, "configs.t.trainable_blocks"),
        (["configs", "t"], TUNED | {"trainable_blocks": "some"}, "configs.t.trainable_blocks"),
        (["beyond", "c"], CNN | {"channels": [8]}, "beyond.c.channels: list should have at least 2 items"),
        (["beyond", "c"], CNN | {"family": "svm"}, "beyond.c.family: input should be 'mlp', 'mlp_augmented', 'cnn' or"),
        (["beyond", "fine"], CNN, "beyond.fine: configs has a configuration of this name"),
        (["beyond"], None, "beyond: input should be a valid dictionary"),
        (["features", "backbone"], 18, "features.backbone: input should be a valid string, not 18"),
        (["features", "image_size"], 0, "features.image_size: input should be greater than 0, not 0"),
        (["features", "size"], 64, "features.size: extra inputs are not permitted"),
        (["train", "threads"], 0, "train.threads: input should be greater than 0, not 0"),
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


@pytest.mark.parametrize("key", ["model", "family", "input", "lr"])
def test_what_every_configuration_must_have_is_named(tmp_path, document, key):
    del document["configs"]["fine"][key]
    with pytest.raises(UserError, match=r"configs\.fine(\.\w+: field required|: unable to extract tag)"):
        load(tmp_path, document)


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
    document["configs"]["fine"]["lr"] = "LR"
    assert load(tmp_path, yaml.safe_dump(document).replace("LR", text)).configs["fine"].lr == 0.001
