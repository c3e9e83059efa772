import copy
import re
from functools import reduce
from operator import getitem, itemgetter
from pathlib import Path

import pytest
import yaml
from dvc.utils.serialize import parse_yaml
from pydantic import ValidationError

from cifar2 import params
from cifar2.errors import UserError
from tests.clone import read
from tests.conftest import ROOT


@pytest.fixture
def document():
    return read(ROOT / "params.yaml")


HYPERPARAMETERS = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.0}
ORIGINAL = {"model": "mlp", "family": "mlp", "input": "prepared"}
CNN = {"model": "cnn", "family": "cnn", "input": "prepared", "channels": [8, 16], **HYPERPARAMETERS}
LINEAR = {"model": "transfer", "family": "transfer", "input": "features", **HYPERPARAMETERS}
TUNED = LINEAR | {"input": "prepared", "backbone": "resnet18", "image_size": 64}


def load(tmp_path: Path, document: object) -> params.Params:
    path = tmp_path / "params.yaml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return params.load(path)


def place(document, key):
    """The mapping that holds ``key``, such as ``train.epochs``, and the last part of the key."""
    *parents, last = key.split(".")
    return reduce(getitem, parents, document), last


def test_params_yaml_has_the_five_original_configurations():
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


def test_optional_parameters_are_off_by_default(tmp_path, document):
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
    assert not fine.augments


@pytest.mark.parametrize("change", [{"flip": True}, {"shift": 1}, {"jitter": 0.1}])
def test_flip_shift_and_jitter_are_augmentations(tmp_path, document, change):
    document["configs"]["fine"] |= change
    assert load(tmp_path, document).configs["fine"].augments


def test_each_kind_of_model_has_its_own_keys(tmp_path, document):
    document["configs"] |= {
        "m": {**ORIGINAL, **HYPERPARAMETERS},
        "c": CNN,
        "l": LINEAR,
        "t": TUNED | {"trainable_blocks": "all", "dropout": 0.3, "flip": True, "flip_average": True},
    }
    kinds = {name: type(configuration) for name, configuration in load(tmp_path, document).configs.items()}
    assert [kinds[name] for name in "mclt"] == [params.Mlp, params.Cnn, params.Transfer, params.Transfer]


def test_ablation_variants_are_the_base_with_changes(tmp_path, document):
    document["extended"]["ablation"] = {
        "downwards": {"base": "augmented", "changes": {"without_flip": {"flip": False, "epochs": 3}}},
        "upwards": {"base": "fine", "changes": {"longer": {"epochs": 60}}},
    }
    loaded = load(tmp_path, document)
    variants = {
        "without_flip": loaded.configs["augmented"].model_copy(update={"flip": False, "epochs": 3}),
        "longer": loaded.configs["fine"].model_copy(update={"epochs": 60}),
    }
    assert loaded.extended_configs == loaded.extended.configs | variants


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("data.clases", ["bird"], "data has no key clases; did you mean classes?"),
        ("surprise", 1, "params.yaml: has no key surprise; it has data, normalise, verify, train, "),
        ("configs.fine.lr", "fast", "configs.fine.lr must be a valid number, not 'fast'"),
        ("configs.fine.lr", -1, "configs.fine.lr must be greater than 0, not -1"),
        ("configs.fine.lr", True, "configs.fine.lr must be a valid number, not true"),
        ("configs.fine.lr", float("nan"), "configs.fine.lr must be a finite number, not nan"),
        ("configs.fine.momentum", 1.0, "configs.fine.momentum must be less than 1, not 1.0"),
        ("configs.fine", None, "configs.fine must be a mapping of names to values, not empty"),
        ("configs", {}, "configs must have at least 1 item, not 0"),
        ("configs.a/b", {**ORIGINAL, **HYPERPARAMETERS}, "configs.a/b must begin with a to z, then have up to 40 of"),
        ("configs.fine.channels", [8], "configs.fine has no key channels; it has model, family, "),
        ("configs.fine.model", "svm", "configs.fine.model must be 'mlp', 'cnn' or 'transfer', not 'svm'"),
        ("configs.fine", HYPERPARAMETERS, "configs.fine.model is missing"),
        ("configs.fine.family", "svm", "configs.fine.family must be 'mlp', 'mlp_augmented', 'cnn' or"),
        ("configs.fine.input", "raw", "configs.fine.input must be 'prepared' or 'features', not 'raw'"),
        ("configs.fine.input", "features", "configs.fine has input: features, which only model: transfer may have"),
        ("configs.fine.epochs", 0, "configs.fine.epochs must be greater than 0, not 0"),
        ("configs.fine.batch_size", 2.5, "configs.fine.batch_size must be a valid integer, not 2.5"),
        (
            "configs.fine.schedule",
            "step",
            "configs.fine.schedule must be 'constant', 'cosine' or 'one_cycle', not 'step'",
        ),
        ("configs.fine.label_smoothing", 1.0, "configs.fine.label_smoothing must be less than 1, not 1.0"),
        ("configs.fine.dropout", 1.0, "configs.fine.dropout must be less than 1, not 1.0"),
        ("configs.fine.dropout", -0.1, "configs.fine.dropout must be greater than or equal to 0, not -0.1"),
        ("configs.fine.flip", 1, "configs.fine.flip must be a valid boolean, not 1"),
        ("configs.fine.shift", 32, "has shift: 32 in fine of configs; it must be below data.image_size, 32"),
        (
            "extended.ablation.upwards.changes.with_augmentation.shift",
            40,
            "has shift: 40 in with_augmentation of extended; it must be below",
        ),
        ("configs.fine.jitter", 1.0, "configs.fine.jitter must be less than 1, not 1.0"),
        ("configs.fine.early_stopping", 0, "configs.fine.early_stopping must be greater than 0, not 0"),
        (
            "configs.fine",
            {**ORIGINAL, **HYPERPARAMETERS, "momentum": 0.0, "nesterov": True},
            "configs.fine needs a momentum above 0 for nesterov",
        ),
        ("configs.c", CNN | {"channels": [8]}, "configs.c.channels must have at least 2 items, not 1"),
        ("configs.c", CNN | {"channels": [8] * 7}, "configs.c.channels must have at most 6 items, not 7"),
        ("configs.c", CNN | {"channels": [8, 0]}, "configs.c.channels[1] must be greater than 0, not 0"),
        *(
            (
                "configs.l",
                LINEAR | change,
                "configs.l has input: features, which leaves no images to flip, shift or jitter, and no layer for",
            )
            for change in ({"flip": True}, {"shift": 1}, {"jitter": 0.1}, {"flip_average": True}, {"dropout": 0.1})
        ),
        *(
            ("configs.l", LINEAR | change, "configs.l has input: features, whose backbone is fixed; ")
            for change in ({"backbone": "resnet18"}, {"image_size": 64}, {"trainable_blocks": 1})
        ),
        ("configs.t", LINEAR | {"input": "prepared"}, "configs.t needs backbone and image_size for input: prepared"),
        ("configs.t", TUNED | {"image_size": None}, "configs.t needs backbone and image_size for input: prepared"),
        ("configs.t", TUNED | {"trainable_blocks": -1}, "configs.t.trainable_blocks must be all, or an integer"),
        ("configs.t", TUNED | {"trainable_blocks": "some"}, "of at least 0, not 'some'"),
        ("extended.configs.c", CNN | {"channels": [8]}, "extended.configs.c.channels must have at least 2 items"),
        ("extended.configs.c", CNN | {"family": "svm"}, "extended.configs.c.family must be 'mlp', 'mlp_aug"),
        ("extended.configs.fine", CNN, "params.yaml: has fine twice in configs and extended"),
        ("extended.configs.without_flip", CNN, "has without_flip twice in configs and extended"),
        ("extended", None, "extended must be a mapping"),
        ("extended.replication.configs", ["fin"], "configs: fin, which is not in configs; did you mean fine?"),
        ("extended.replication.configs", ["linear"], "replication.configs: linear, which needs input: prepared"),
        ("extended.replication.n_seeds", 1, "extended.replication.n_seeds must be greater than or equal to 2, not 1"),
        (
            "extended.ablation.downwards.base",
            "augment",
            "extended.ablation.downwards.base: augment, which is not in configs; did you mean",
        ),
        (
            "extended.ablation.downwards.base",
            "linear",
            "has extended.ablation.downwards.base: linear, which needs input: prepared",
        ),
        ("extended.ablation.downwards.changes", {}, "extended.ablation.downwards.changes must have at least 1 item"),
        (
            "extended.ablation.downwards.changes.a",
            {"model": "cnn"},
            "extended.ablation.downwards.changes.a.model, which a variant cannot change",
        ),
        (
            "extended.ablation.downwards.changes.a",
            {"lr": 0},
            "has extended.ablation.downwards.changes.a: lr must be greater than 0, not 0",
        ),
        ("extended.ablation.downwards.changes.a", {"flips": True}, "changes.a: has no key flips; did you mean flip?"),
        (
            "extended.ablation.downwards.changes.a/b",
            {"flip": True},
            "extended.ablation.downwards.changes.a/b must begin with a to z",
        ),
        ("features.backbone", 18, "features.backbone must be a valid string, not 18"),
        ("features.image_size", 0, "features.image_size must be greater than 0, not 0"),
        ("features.size", 64, "features has no key size; it has backbone, image_size, flip_average"),
        ("train.threads", 0, "train.threads must be greater than 0, not 0"),
        ("data.classes", ["bird"], "data.classes must have at least 2 items, not 1"),
        ("data.classes", ["bird", "plane"], "data.classes has plane, which CIFAR-10 lacks; did you mean airplane?"),
        ("data.classes", ["bird", "кот"], "data.classes has кот, which CIFAR-10 lacks; it has airplane, automobile"),
        ("data.image_size", 64, "data.image_size must be 32 for CIFAR-10, not 64"),
        ("data.sources", ["images", "npm"], "data.sources has images beside others; images stands alone"),
        ("data.classes", ["bird", "bird"], "data.classes has bird twice"),
        ("data.sources", ["web"], "data.sources[0] must be 'folder', 'torchvision', 'npm' or 'images', not 'web'"),
        ("data.val_fraction", 1.0, "data.val_fraction must be less than 1, not 1.0"),
        ("train.epochs", 1.5, "train.epochs must be a valid integer, not 1.5"),
        ("train.seeds", [1, 1], "train.seeds has 1 twice"),
        ("train.gradients", "magic", "train.gradients must be 'in_place', 'backpropagation' or"),
        ("train.precision", "half", "train.precision must be 'float32' or 'bfloat16', not 'half'"),
        ("train.instructions", "sse", "train.instructions must be 'avx2' or 'native', not 'sse'"),
        ("train.device", "tpu", "train.device must be 'cpu', 'cuda', 'mps' or 'auto', not 'tpu'"),
        ("refit.seed", 0, "params.yaml: has refit.seed: 0, which is one of train.seeds"),
        ("data.sources", ["npm", "npm"], "data.sources has npm twice"),
        ("sweep.seeds", [3, 3], "sweep.seeds has 3 twice"),
        ("sweep.base", "big", "has sweep.base: big, which is not in configs; they are augmented, "),
        ("sweep.base", "No", "sweep.base must begin with a to z, then have up to 40 of a to z, 0 to 9, - and _, not"),
        ("sweep.space.lr", {}, "sweep.space.lr needs exactly one of log_uniform, uniform, choice, grid"),
        ("sweep.space.lr", {"uniform": [2, 1]}, "sweep.space.lr needs a second bound above the first, not ["),
        ("sweep.space.epochs", {"grid": []}, "sweep.space.epochs.grid must have at least 1 item, not 0"),
        ("sweep.space.a", {"grid": [1]}, "has sweep.space.a, which is not a parameter of augmented; it has"),
    ],
)
def test_a_bad_value_is_one_line_with_its_key(tmp_path, document, key, value, message):
    mapping, name = place(document, key)
    mapping[name] = value
    with pytest.raises(UserError) as fault:
        load(tmp_path, document)
    assert message in str(fault.value)
    assert str(tmp_path / "params.yaml") in str(fault.value)
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("configs", "config"),
        ("data.sources", "source"),
        ("configs.fine.input", "inputs"),
        ("configs.fine.model", "Model"),
        ("configs.fine.model", "modle"),
        ("sweep.space.lr.log_uniform", "log-uniform"),
        ("sweep.space.lr", "lr_"),
    ],
)
def test_a_misspelled_key_is_one_line_with_the_intended_key(tmp_path, document, key, wrong):
    mapping, name = place(document, key)
    mapping[wrong] = mapping.pop(name)
    with pytest.raises(UserError, match=rf"\b{wrong}\b[^\n]*; did you mean {name}\?$"):
        load(tmp_path, document)


@pytest.mark.parametrize(
    ("key", "value", "meant"),
    [
        ("configs.fine.model", "mlpp", "mlp"),
        ("configs.fine.model", "CNN", "cnn"),
        ("configs.fine.schedule", "one-cycle", "one_cycle"),
        ("data.classes", ["plane", "bird"], "airplane"),
        ("train.activation", "tahn", "tanh"),
        ("sweep.base", "augment", "augmented"),
    ],
)
def test_a_misspelled_value_is_one_line_with_the_intended_value(tmp_path, document, key, value, meant):
    mapping, name = place(document, key)
    mapping[name] = value
    with pytest.raises(UserError, match=rf"{key}[^\n]*; did you mean {meant}\?$"):
        load(tmp_path, document)


def test_bfloat16_needs_the_in_place_gradients(tmp_path, document):
    document["train"] |= {"precision": "bfloat16", "gradients": "autograd"}
    with pytest.raises(UserError, match="train needs gradients: in_place for precision: bfloat16"):
        load(tmp_path, document)


@pytest.mark.parametrize("key", ["train.epochs", *(f"configs.fine.{name}" for name in ("model", "family", "lr"))])
def test_a_missing_key_is_named(tmp_path, document, key):
    mapping, name = place(document, key)
    del mapping[name]
    with pytest.raises(UserError, match=rf"{re.escape(key)} is missing$"):
        load(tmp_path, document)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"params\.yaml is missing; run this in the folder that contains it$"):
        params.load(tmp_path / "params.yaml")


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "a'b", "$(true)", "a\n", "-a", "_a", "1a", "Fine", "a" * 42])
@pytest.mark.parametrize("configs", [itemgetter("configs"), lambda document: document["extended"]["configs"]])
def test_a_name_unsafe_in_commands_or_files_is_refused(tmp_path, document, configs, name):
    configs(document)[name] = CNN
    with pytest.raises(UserError, match="must begin with a to z, then have up to 40 of"):
        load(tmp_path, document)


@pytest.mark.parametrize("name", ["a", "fine-2_b", "a" * 41, "on", "null_"])
def test_a_safe_name_is_accepted(tmp_path, document, name):
    document["configs"][name] = CNN
    assert name in load(tmp_path, document).configs


def leaves(tree, keys=()):
    """The keys from the top to each value that is not a mapping or list."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        if isinstance(value, dict | list):
            yield from leaves(value, (*keys, key))
        else:
            yield *keys, key


SMALL = read(ROOT / "params.yaml")
SMALL["configs"] = {name: SMALL["configs"][name] for name in ("fine", "augmented", "linear")}
SMALL["extended"]["ablation"]["upwards"] = {"base": "fine", "changes": {"sixty_epochs": {"epochs": 60}}}
SMALL["extended"]["replication"]["configs"] = ["fine"]


@pytest.mark.parametrize("value", [None, -1, 2**70, float("nan"), "a", [], {}], ids=repr)
def test_any_wrong_value_is_one_line_without_pydantic_jargon(value):
    for keys in leaves(SMALL):
        document = copy.deepcopy(SMALL)
        reduce(getitem, keys[:-1], document)[keys[-1]] = value
        try:
            params.Params.model_validate(document)
        except ValidationError as error:
            line = params.explain(error)
            assert keys[0] in line
            assert not re.search(r"\n|[Ii]nput should|pydantic|Value error", line)


TEXT = yaml.safe_dump(SMALL, sort_keys=False)
END = TEXT.count("\n") + 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TEXT + "refit: {seed: 5, include_val: true}\n", f'not YAML: line {END}: found duplicate key "refit"'),
        (TEXT.replace("  include_val:", "  seed: 5\n  include_val:"), 'found duplicate key "seed"'),
        (TEXT + "a: [1, 2", f"line {END}: expected ',' or ']'"),
        (TEXT + "a: b: c", f"line {END}: mapping values are not allowed here"),
        (TEXT + "a: *b\n", f"line {END}: found undefined alias"),
        (TEXT + "\ta: 1\n", f"line {END}: found character '\\t' that cannot start any token"),
        (TEXT + "a: !b 1\n", f"line {END}: could not determine a constructor"),
        (TEXT + "---\na: 1\n", f"line {END}: but found another document"),
        (TEXT + "a: 2001-99-99\n", "not YAML: month must be in 1..12"),
        (TEXT + "\x00", "not YAML: unacceptable character"),
        (TEXT + "a: " + "[" * 10_000, "has too many nested brackets"),
        (TEXT + "1: 2\n", "has no key 1; it has data, "),
        (TEXT.replace("  fine:", "  ~:"), "configs.None must be a valid string, not empty"),
        ("- 1\n- 2", "must be a mapping of names to values"),
        ("", "must be a mapping of names to values, not empty"),
    ],
    ids=lambda text: text.removeprefix(TEXT)[:20],
)
def test_a_file_that_is_not_a_yaml_mapping_is_one_line(tmp_path, text, message):
    with pytest.raises(UserError) as fault:
        load(tmp_path, text)
    assert message in str(fault.value)
    assert "\n" not in str(fault.value)


def test_a_file_that_is_not_utf_8_is_one_line(tmp_path):
    (tmp_path / "params.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(UserError, match="is not YAML: 'utf-8' codec can't decode byte 0xff"):
        params.load(tmp_path / "params.yaml")


def test_anchors_and_merge_keys_work_as_in_dvc(tmp_path):
    text = TEXT.replace("  fine:\n", "  fine: &fine\n").replace(
        "extended:\n  configs:\n",
        "extended:\n  configs:\n    longer: {<<: *fine, epochs: 120}\n    same: *fine\n",
    )
    loaded = load(tmp_path, text)
    assert loaded == params.Params.model_validate(parse_yaml(text, "params.yaml"))
    fine = loaded.configs["fine"]
    assert loaded.extended.configs["same"] == fine
    assert loaded.extended.configs["longer"] == fine.model_copy(update={"epochs": 120})


def spelled(key, text):
    """``TEXT`` with an unquoted ``text`` for the value of ``configs.fine``'s ``key``."""
    document = copy.deepcopy(SMALL)
    document["configs"]["fine"][key] = "SPELLED"
    return yaml.safe_dump(document, sort_keys=False).replace("SPELLED", text)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("shift", "010", 10),
        ("shift", "0o10", 8),
        ("shift", "0x1F", 31),
        ("shift", "1_0", 10),
        *(("lr", text, 0.001) for text in ("1e-3", "1E-3", "+1e-3", "0.001", "1.0e-3", ".001")),
        ("lr", "5.", 5.0),
        ("flip", "True", True),
        ("flip", "FALSE", False),
    ],
)
def test_values_follow_yaml_1_2_as_in_dvc(tmp_path, key, text, value):
    loaded = load(tmp_path, spelled(key, text))
    assert loaded == params.Params.model_validate(parse_yaml(spelled(key, text), "params.yaml"))
    assert getattr(loaded.configs["fine"], key) == value


@pytest.mark.parametrize(
    ("key", "text"),
    [
        *(("flip", text) for text in ("yes", "no", "on", "off", "y", "1", "'true'", "")),
        *(("shift", text) for text in ("1:30", "2.0", "2e0", "~")),
        *(("lr", text) for text in (".nan", ".inf", "-.inf", "1e400", "'0.1'", "[0.1]")),
    ],
)
def test_values_of_other_types_in_yaml_1_2_are_refused(tmp_path, key, text):
    with pytest.raises(UserError, match=rf"configs\.fine\.{key} must be "):
        load(tmp_path, spelled(key, text))
