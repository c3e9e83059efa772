import copy
import json
import shlex
from functools import reduce
from operator import getitem
from pathlib import Path

import pytest
import yaml
from dvc.utils.serialize import parse_yaml
from hypothesis import assume, given
from hypothesis import strategies as st
from ruamel.yaml import YAML

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


@pytest.mark.parametrize(
    "text", ["a: [1, 2", "\x00", "a: b: c", "- 1\n- 2", "", "a: 2001-99-99", 'a: "\\UFFFFFFFF"', 'a: "\\U00110000"']
)
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


# The project's file, with less of the same.
DOCUMENT = read(ROOT / "params.yaml")
for kind, kept in (("configs", ("fine", "augmented", "linear")), ("beyond", ("convolutional", "fine_tuned"))):
    DOCUMENT[kind] = {name: DOCUMENT[kind][name] for name in kept}


def places(tree, at=()):
    """Where there is something in ``tree``, as keys from the top."""
    for key, below in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield *at, key
        if isinstance(below, dict | list):
            yield from places(below, (*at, key))


def value_at(at, document=DOCUMENT):
    return reduce(getitem, at, document)


def changed(at, change):
    """``DOCUMENT`` after ``change(mapping or list, key)`` at one place."""
    document = copy.deepcopy(DOCUMENT)
    change(value_at(at[:-1], document), at[-1])
    return document


NAMED = ("configs", "beyond")
PLACES = list(places(DOCUMENT))
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 2**32, 2**63, 10**12, 10**400, -(10**400), 1e308, 1e-320, -0.0]),
    st.floats(),
    st.sampled_from(["", "mlp", "cnn", "transfer", "features", "all", "nan", "1e-3", "${x}", "a\nb", "\x1b[0m"]),
    st.text(),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
KEYS = (
    st.text()
    | st.sampled_from(["fine", "lr", "a\nb", "[key]", "<<", "../x"])
    | st.none()
    | st.booleans()
    | st.integers()
)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("properties") / "params.yaml"


def fault_of(file):
    """None for an object that is valid, else the message, of one line that names the file."""
    try:
        loaded = params.load(file)
    except UserError as error:
        message = str(error)
        assert message.startswith(str(file))
        assert message.isprintable(), "one line, and nothing that a terminal obeys"
        return message
    assert params.Params.model_validate(loaded.model_dump(exclude_unset=True)) == loaded
    return None


def fault_with(file, document):
    YAML(typ="safe").dump(document, file)  # YAML 1.1 would leave the text "0E0" without its quotes
    return fault_of(file)


def test_the_document_that_the_properties_start_from_is_valid(file):
    assert fault_with(file, DOCUMENT) is None


@given(st.sampled_from(PLACES), VALUES)
def test_any_value_at_any_place_is_taken_or_named_by_its_key(file, at, value):
    fault = fault_with(file, changed(at, lambda place, key: place.__setitem__(key, value)))
    *above, name = [key for key in at if isinstance(key, str)]
    mapping = ".".join(above)
    if fault and name == "model":
        assert mapping in fault, "a value that is another kind's is missed or is one too many"
    elif fault:  # a fault of several keys together is the mapping's
        assert f"{mapping}.{name}".strip(".") in fault or (f"{mapping}: " in fault and name in fault)


@given(st.sampled_from([at for at in PLACES if isinstance(at[-1], str)]))
def test_without_any_one_key_a_document_is_taken_or_the_key_is_named(file, at):
    fault = fault_with(file, changed(at, lambda place, key: place.pop(key)))
    assert fault is None or at[-1] in fault


@given(st.sampled_from([(), *(at for at in PLACES if isinstance(value_at(at), dict) and at[-1] not in NAMED)]), KEYS)
def test_an_unknown_key_is_named(file, at, new):
    document = copy.deepcopy(DOCUMENT)
    place = value_at(at, document)
    assume(new not in place and new not in params.Transfer.model_fields)
    place[new] = {}
    fault = fault_with(file, document)
    assert ".".join(at) in fault
    assert all(part in fault for part in "".join(c if c.isprintable() else " " for c in str(new)).split())


@given(st.sampled_from(NAMED), st.text() | st.from_regex(r"\A[a-z][a-z0-9_/. $;-]*\Z"))
def test_a_configurations_name_is_safe_in_a_command_and_as_a_file_or_is_refused(file, kind, name):
    fault = fault_with(file, changed((kind,), lambda place, key: place[key].update({name: place[key].popitem()[1]})))
    if fault is None:
        assert shlex.quote(name) == name
        assert (Path("metrics") / name).parent == Path("metrics")
        assert not name.startswith(("-", "."))
        assert name == name.lower()
        assert len(f"{name}.safetensors.partial") < 100
    else:
        assert kind in fault
        assert "string should match pattern" in fault


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../fine",
        "a/b",
        "a\\b",
        "a b",
        " a",
        "a'b",
        'a"b',
        "$(true)",
        "a;b",
        "a\n",
        "-a",
        "_a",
        "1a",
        "Fine",
        "f\u0131ne",
        "a*",
        "a" * 42,
    ],
)
@pytest.mark.parametrize("kind", NAMED)
def test_a_name_that_is_unsafe_is_told(file, kind, name):
    fault = fault_with(
        file, changed((kind,), lambda place, key: place[key].update({name: {**ORIGINAL, **HYPERPARAMETERS}}))
    )
    assert f"{kind}.{name}: string should match".replace("\n", "\\n") in fault


@pytest.mark.parametrize("name", ["a", "fine-2_b", "a" * 41, "on", "null_"])
def test_a_name_that_is_safe_is_taken(file, name):
    assert fault_with(file, changed(("configs",), lambda place, key: place[key].update({name: CNN}))) is None


@given(st.text() | st.text("[]{}:,-?!&*#|>@`\"'% \n\tax01."))
def test_any_text_is_one_line(file, text):
    file.write_bytes(text.encode())
    assert fault_of(file)


@given(
    st.binary()
    | st.text().map(lambda text: text.encode("utf-16"))
    | st.text().map(lambda text: b"\xff" + text.encode())
)
def test_any_bytes_are_one_line(file, content):
    file.write_bytes(content)
    assert fault_of(file)


def spelled(key, text):
    """``DOCUMENT`` with ``text``, as it is, for the value of ``configs.augmented``'s ``key``."""
    document = changed(("configs", "augmented"), lambda place, name: place[name].update({key: "SPELLED"}))
    return yaml.safe_dump(document, sort_keys=False).replace("SPELLED", text)


def as_dvc_has_it(file, text):
    """Whether it is taken; if so, for what DVC takes it."""
    file.write_text(text, "utf-8")
    if fault_of(file):
        return False
    assert params.load(file) == params.Params.model_validate(parse_yaml(text, file))
    return True


@given(st.sampled_from(["lr", "shift", "epochs"]), st.from_regex(r"\A[-+]?[0-9.][0-9_.:eEobx+-]{0,6}\Z"))
def test_a_number_is_what_dvc_takes_it_for_however_it_is_spelled(file, key, text):
    as_dvc_has_it(file, spelled(key, text))


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("shift", "010", 10),
        ("shift", "0o10", 8),
        ("shift", "0x1F", 31),
        ("shift", "0b11", 3),
        ("shift", "1_0", 10),
        ("shift", "!!int '3'", 3),
        ("lr", "1e-3", 0.001),
        ("lr", "5.", 5.0),
        ("lr", ".5", 0.5),
        ("lr", "+.5", 0.5),
        ("flip", "True", True),
        ("flip", "FALSE", False),
    ],
)
def test_a_value_is_yaml_1_2s(file, key, text, value):
    assert as_dvc_has_it(file, spelled(key, text))
    assert getattr(params.load(file).configs["augmented"], key) == value


@pytest.mark.parametrize(
    ("key", "text"),
    [
        *(("flip", text) for text in ("yes", "no", "on", "off", "y", "1", "'true'", "")),
        *(("shift", text) for text in ("1:30", "2.0", "2e0", "08x", "~")),
        *(("lr", text) for text in ("1:30.5", ".5e3x", ".nan", ".inf", "-.inf", "1e400", "0x.8", "'0.1'", "[0.1]")),
    ],
)
def test_what_yaml_1_2_takes_for_something_else_is_named(file, key, text):
    file.write_text(spelled(key, text))
    assert f"configs.augmented.{key}: input should be a" in fault_of(file)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("split_seed", 2**32 - 1),
        ("epochs", 10**12),
        ("image_size", 10**9),
        ("lr", 1e308),
        ("lr", 5e-324),
        ("val_fraction", 5e-324),
        ("val_fraction", 1 - 2**-53),
    ],
)
def test_a_number_is_not_too_large_or_small_to_be_loaded(file, key, text):
    at = next(at for at in PLACES if at[-1] == key)
    assert fault_with(file, changed(at, lambda place, key: place.__setitem__(key, text))) is None


LINES = yaml.safe_dump(DOCUMENT, sort_keys=False)
END = LINES.count("\n") + 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LINES + "refit: {seed: 5, include_val: true}\n", f"line {END}: refit stands twice"),
        (LINES.replace("  include_val:", "  seed: 5\n  include_val:"), "seed stands twice"),
        (LINES.replace("    lr:", "    'lr': 0.1\n    lr:", 1), "lr stands twice"),
        (LINES + "a: {<<: {seed: 1}, b: 1, b: 2}\n", f"line {END}: b stands twice"),
        (LINES + "a: {<<: {b: 1}, <<: {c: 1}}\n", f"line {END}: << stands twice"),
        (LINES + "a: {<<: 3}\n", f"line {END}: expected a mapping"),
        (LINES + "a: *b\n", f"line {END}: found undefined alias"),
        (LINES + "a: &a [*a]\n", "a: extra inputs are not permitted, not [[...]]"),
        (LINES + "a: &a {b: *a}\n", "a: extra inputs are not permitted"),
        (LINES.replace("configs:", "configs: &a\n  a: *a"), "configs.a: unable to extract tag"),
        (LINES + "? [a]\n: 1\n", f"line {END}: a list or mapping for a key"),
        (LINES + "? {a: 1}\n: 1\n", f"line {END}: a list or mapping for a key"),
        (LINES + "1: 2\n", "1: keys should be strings"),
        (LINES.replace("  fine:", "  ~:"), "configs.None: input should be a valid string"),
        (LINES + "a: !!python/object/apply:os.getcwd []\n", f"line {END}: could not determine a constructor"),
        (LINES + "a: !!set {b}\n", f"line {END}: could not determine a constructor"),
        (LINES + "a: !b 1\n", f"line {END}: could not determine a constructor"),
        (LINES + "a: 2001-99-99\n", f"line {END}: could not determine a constructor"),
        (LINES + "a: !!int ''\n", f"line {END}: '' is no tag:yaml.org,2002:int"),
        (LINES + "a: !!bool b\n", f"line {END}: 'b' is no tag:yaml.org,2002:bool"),
        (LINES + "a: -0x" + "f" * 5000 + "\n", f"line {END}: '-0xfffffffff...fffffffffffff' is no"),
        (LINES + "a: " + "9" * 5000 + "\n", f"line {END}: '999999999999...9999999999999' is no"),
        (LINES + 'a: "\\ud800"\n', f"line {END}: '\\ud800' is no"),
        (LINES + "---\na: 1\n", f"line {END}: but found another document"),
        (LINES + "\ta: 1\n", f"line {END}: found character '\\t' that cannot start any token"),
        (LINES + "a: " + "[" * 10_000, "has too many brackets within each other"),
        (LINES + "a: " + "[" * 100_000 + "]" * 100_000, "has too many brackets within each other"),
        (LINES + "? " * 10_000, "has too many brackets within each other"),
        (LINES + "x" * 10_000_000, f"line {END}: could not find expected ':'"),
    ],
    ids=lambda text: text[len(LINES) :][:20] if text.startswith(LINES) else text[:20],
)
def test_a_document_that_is_no_plain_mapping_is_named_by_line_or_key(file, text, message):
    file.write_text(text)
    assert message in fault_of(file)


def test_a_few_aliases_that_stand_for_billions_of_values_are_not_written_out(file):
    bomb = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    file.write_text(LINES + bomb)
    assert "a11: extra inputs are not permitted" in fault_of(file)
    file.write_text(LINES + bomb + "a11: *a11\n")
    assert "a11 stands twice" in fault_of(file)
    file.write_text(LINES + bomb + "? *a11\n: 1\n")
    assert "a list or mapping for a key" in fault_of(file)


def test_ten_megabytes_of_comments_change_nothing(file):
    file.write_text(LINES + "# and so on, and so on, and so on, and so on, and so on, and so on\n" * 150_000)
    assert file.stat().st_size > 10_000_000
    assert fault_of(file) is None


def test_anchors_aliases_and_merge_keys_mean_what_they_mean_to_dvc(file):
    text = LINES.replace("  augmented:\n", "  augmented: &augmented\n")
    text = text.replace(
        "beyond:\n", "beyond:\n  longer: {<<: *augmented, epochs: 120, flip: false}\n  same: *augmented\n"
    )
    assert as_dvc_has_it(file, text)
    loaded = params.load(file)
    augmented = loaded.configs["augmented"]
    assert loaded.beyond["same"] == augmented
    assert loaded.beyond["longer"] == augmented.model_copy(update={"epochs": 120, "flip": False})
    assert augmented.epochs == 60


@pytest.mark.parametrize(
    "text", [LINES, "\ufeff" + LINES, LINES.replace("\n", "\r\n"), f"---\n{LINES}...\n", json.dumps(DOCUMENT)]
)
def test_the_same_document_in_another_dress_is_the_same(file, text):
    file.write_bytes(text.encode())
    assert params.load(file) == params.Params.model_validate(DOCUMENT)
