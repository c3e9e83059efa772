import copy
import json
import re
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
        (["data", "clases"], ["bird"], "data has no key clases; did you mean classes?"),
        (["surprise"], 1, "params.yaml: has no key surprise; it has data, normalise, verify, train, "),
        (["configs", "fine", "lr"], "fast", "configs.fine.lr must be a number, not 'fast'"),
        (["configs", "fine", "lr"], -1, "configs.fine.lr must be above 0, not -1"),
        (["configs", "fine", "lr"], True, "configs.fine.lr must be a number, not true"),
        (["configs", "fine", "lr"], float("nan"), "configs.fine.lr must be a finite number, not nan"),
        (["configs", "fine", "momentum"], 1.0, "configs.fine.momentum must be below 1, not 1.0"),
        (["configs", "fine"], None, "configs.fine must be a mapping of names to values, not empty"),
        (["configs"], {}, "configs needs 1 or more entries, not {}"),
        (
            ["configs", "a/b"],
            {**ORIGINAL, **HYPERPARAMETERS},
            "configs.a/b is not a valid name: it must begin with a to z",
        ),
        (["configs", "fine", "channels"], [8], "configs.fine has no key channels; it has model, family, "),
        (["configs", "fine", "model"], "svm", "configs.fine.model must be one of 'mlp', 'cnn', 'transfer', not 'svm'"),
        (["configs", "fine"], HYPERPARAMETERS, "configs.fine.model is missing"),
        (["configs", "fine", "family"], "svm", "configs.fine.family must be 'mlp', 'mlp_augmented', 'cnn' or"),
        (
            ["configs", "fine", "input"],
            "raw",
            "configs.fine.input must be 'prepared' or 'features', not 'raw'",
        ),
        (
            ["configs", "fine", "input"],
            "features",
            "configs.fine has input: features, which only model: transfer may have",
        ),
        (["configs", "fine", "epochs"], 0, "configs.fine.epochs must be above 0, not 0"),
        (["configs", "fine", "batch_size"], 2.5, "configs.fine.batch_size must be an integer, not 2.5"),
        (
            ["configs", "fine", "schedule"],
            "step",
            "configs.fine.schedule must be 'constant', 'cosine' or 'one_cycle', not 'step'",
        ),
        (["configs", "fine", "label_smoothing"], 1.0, "configs.fine.label_smoothing must be below 1, not 1.0"),
        (["configs", "fine", "dropout"], 1.0, "configs.fine.dropout must be below 1, not 1.0"),
        (["configs", "fine", "dropout"], -0.1, "configs.fine.dropout must be at least 0, not -0.1"),
        (["configs", "fine", "flip"], 1, "configs.fine.flip must be true or false, not 1"),
        (["configs", "fine", "shift"], 32, "configs.fine.shift must be below 32, not 32"),
        (["configs", "fine", "jitter"], 1.0, "configs.fine.jitter must be below 1, not 1.0"),
        (
            ["configs", "fine", "early_stopping"],
            0,
            "configs.fine.early_stopping must be above 0, not 0",
        ),
        (
            ["configs", "fine"],
            {**ORIGINAL, **HYPERPARAMETERS, "momentum": 0.0, "nesterov": True},
            "configs.fine needs a momentum above 0 for nesterov",
        ),
        (["configs", "c"], CNN | {"channels": [8]}, "configs.c.channels needs 2 or more entries, not [8]"),
        (["configs", "c"], CNN | {"channels": [8] * 7}, "configs.c.channels may have 6 entries or fewer, not [8, "),
        (["configs", "c"], CNN | {"channels": [8, 0]}, "configs.c.channels[1] must be above 0, not 0"),
        *(
            (
                ["configs", "l"],
                LINEAR | change,
                "configs.l has input: features, which leaves no images to flip, shift or jitter, and no layer for",
            )
            for change in ({"flip": True}, {"shift": 1}, {"jitter": 0.1}, {"flip_average": True}, {"dropout": 0.1})
        ),
        *(
            (["configs", "l"], LINEAR | change, "configs.l has input: features, whose backbone is fixed; ")
            for change in ({"backbone": "resnet18"}, {"image_size": 64}, {"trainable_blocks": 1})
        ),
        (
            ["configs", "t"],
            LINEAR | {"input": "prepared"},
            "configs.t needs backbone and image_size for input: prepared",
        ),
        (["configs", "t"], TUNED | {"image_size": None}, "configs.t needs backbone and image_size for input: prepared"),
        (["configs", "t"], TUNED | {"trainable_blocks": -1}, "configs.t.trainable_blocks must be all, or an integer"),
        (["configs", "t"], TUNED | {"trainable_blocks": "some"}, "of at least 0, not 'some'"),
        (["beyond", "c"], CNN | {"channels": [8]}, "beyond.c.channels needs 2 or more entries"),
        (["beyond", "c"], CNN | {"family": "svm"}, "beyond.c.family must be 'mlp', 'mlp_augmented', 'cnn' or"),
        (["beyond", "fine"], CNN, "params.yaml: has fine both in configs and in beyond"),
        (["beyond"], None, "beyond must be a mapping"),
        (["features", "backbone"], 18, "features.backbone must be text, not 18"),
        (["features", "image_size"], 0, "features.image_size must be above 0, not 0"),
        (["features", "size"], 64, "features has no key size; it has backbone, image_size, flip_average"),
        (["train", "threads"], 0, "train.threads must be above 0, not 0"),
        (["data", "classes"], ["bird"], "data.classes needs 2 or more entries, not ['bird']"),
        (["data", "classes"], ["bird", "plane"], "data.classes[1] must be 'airplane', 'automobile'"),
        (["data", "classes"], ["bird", "bird"], "data.classes has bird twice"),
        (["data", "sources"], ["web"], "data.sources[0] must be 'folder', 'torchvision' or 'npm', not 'web'"),
        (["data", "val_fraction"], 1.0, "data.val_fraction must be below 1, not 1.0"),
        (["train", "epochs"], 1.5, "train.epochs must be an integer, not 1.5"),
        (["train", "seeds"], [1, 1], "train.seeds has 1 twice"),
        (["train", "gradients"], "magic", "train.gradients must be 'backpropagation' or 'autograd'"),
        (["train", "precision"], "half", "train.precision must be 'float32' or 'bfloat16', not 'half'"),
        (["train", "device"], "tpu", "train.device must be 'cpu', 'cuda', 'mps' or 'auto', not 'tpu'"),
        (["refit", "seed"], 0, "params.yaml: has refit.seed: 0, which is one of train.seeds"),
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


@pytest.mark.parametrize(
    ("keys", "wrong", "message"),
    [
        ([], {"config": "configs"}, "params.yaml: has no key config; did you mean configs?"),
        (["data"], {"source": "sources"}, "params.yaml: data has no key source; did you mean sources?"),
        (["configs", "fine"], {"inputs": "input"}, "params.yaml: configs.fine has no key inputs; did you mean input?"),
        (["configs", "fine"], {"Model": "model"}, "params.yaml: configs.fine has no key Model; did you mean model?"),
        (["configs", "fine"], {"modle": "model"}, "params.yaml: configs.fine has no key modle; did you mean model?"),
        (
            ["sweep", "space", "lr"],
            {"log-uniform": "log_uniform"},
            "lr has no key log-uniform; did you mean log_uniform?",
        ),
        (
            ["sweep", "space"],
            {"lr_": "lr"},
            "has sweep.space.lr_, which is no parameter of augmented; did you mean lr?",
        ),
    ],
)
def test_a_misspelled_key_is_one_line_with_the_key_meant(tmp_path, document, keys, wrong, message):
    place = reduce(getitem, keys, document)
    for misspelled, key in wrong.items():
        place[misspelled] = place.pop(key)
    with pytest.raises(UserError) as fault:
        load(tmp_path, document)
    assert str(fault.value).endswith(message)


@pytest.mark.parametrize(
    ("keys", "value", "meant"),
    [
        (["configs", "fine", "model"], "mlpp", "mlp"),
        (["configs", "fine", "model"], "CNN", "cnn"),
        (["configs", "fine", "schedule"], "one-cycle", "one_cycle"),
        (["data", "classes", 0], "plane", "airplane"),
        (["train", "activation"], "tahn", "tanh"),
        (["sweep", "base"], "augment", "augmented"),
    ],
)
def test_a_misspelled_value_is_one_line_with_the_value_meant(tmp_path, document, keys, value, meant):
    reduce(getitem, keys[:-1], document)[keys[-1]] = value
    with pytest.raises(UserError, match=rf"{value}.*; did you mean {meant}\?$"):
        load(tmp_path, document)


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["data", "sources"], ["npm", "npm"], "data.sources has npm twice"),
        (["sweep", "seeds"], [3, 3], "sweep.seeds has 3 twice"),
        (["sweep", "base"], "big", "has sweep.base: big, which is not in configs; they are augmented, "),
        (
            ["sweep", "base"],
            "No",
            "sweep.base must begin with a to z, then have up to 40 of a to z, 0 to 9, - and _, not",
        ),
        (["sweep", "space", "lr"], {}, "sweep.space.lr needs exactly one of log_uniform, uniform, choice, grid"),
        (["sweep", "space", "lr"], {"uniform": [2, 1]}, "sweep.space.lr needs a second bound above the first, not ["),
        (["sweep", "space", "epochs"], {"grid": []}, "sweep.space.epochs.grid needs 1 or more entries, not []"),
        (
            ["sweep", "space", "surprise"],
            {"grid": [1]},
            "has sweep.space.surprise, which is no parameter of augmented; it has",
        ),
    ],
)
def test_a_bad_sweep_or_source_is_one_line(tmp_path, document, keys, value, message):
    reduce(getitem, keys[:-1], document)[keys[-1]] = value
    with pytest.raises(UserError) as fault:
        load(tmp_path, document)
    assert message in str(fault.value)


def test_bfloat16_without_the_hand_written_gradients_is_one_line(tmp_path, document):
    document["train"] |= {"precision": "bfloat16", "gradients": "autograd"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(UserError, match="train needs gradients: backpropagation for precision: bfloat16"):
        params.load(tmp_path / "params.yaml")


@pytest.mark.parametrize("key", ["model", "family", "input", "lr"])
def test_what_every_configuration_must_have_is_named(tmp_path, document, key):
    del document["configs"]["fine"][key]
    with pytest.raises(UserError, match=rf"configs\.fine\.{key} is missing$"):
        load(tmp_path, document)


def test_a_missing_key_is_named(tmp_path, document):
    del document["train"]["epochs"]
    with pytest.raises(UserError, match=r"train\.epochs is missing$"):
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
        assert not re.search(r"[Ii]nput should|is not allowed|pydantic|Value error", message), "a sentence of ours"
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
        assert f"{mapping}.{name}".strip(".") in fault or (f"{mapping} " in fault and name in fault)


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
        assert "is not a valid name: it must begin with a to z" in fault


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
    assert f"{kind}.{name} is not a valid name".replace("\n", "\\n") in fault


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
    assert f"configs.augmented.{key} must be " in fault_of(file)


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
        (LINES + "a: &a [*a]\n", "has no key a; it has data, "),
        (LINES + "a: &a {b: *a}\n", "has no key a; it has data, "),
        (LINES.replace("configs:", "configs: &a\n  a: *a"), "configs.a.model is missing"),
        (LINES + "? [a]\n: 1\n", f"line {END}: a list or mapping for a key"),
        (LINES + "? {a: 1}\n: 1\n", f"line {END}: a list or mapping for a key"),
        (LINES + "1: 2\n", "has no key 1; it has data, "),
        (LINES.replace("  fine:", "  ~:"), "configs.None is not a valid name"),
        (LINES + "a: !!python/object/apply:os.getcwd []\n", f"line {END}: could not determine a constructor"),
        (LINES + "a: !!set {b}\n", f"line {END}: could not determine a constructor"),
        (LINES + "a: !b 1\n", f"line {END}: could not determine a constructor"),
        (LINES + "a: 2001-99-99\n", f"line {END}: could not determine a constructor"),
        (LINES + "a: !!int ''\n", f"line {END}: '' is no int"),
        (LINES + "a: !!bool b\n", f"line {END}: 'b' is no bool"),
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
    assert "has no key a11" in fault_of(file)
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
