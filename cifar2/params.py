"""params.yaml as typed, strict models: an unknown key, a wrong type or a bad range is one clear line."""

import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.constructor import ConstructorError, SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from cifar2.errors import UserError, did_you_mean

ClassName = Literal["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
Activation = Literal["tanh", "relu", "sigmoid", "identity"]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
PositiveInt = Annotated[int, Field(gt=0)]
# At least nothing, less than all.
Share = Annotated[float, Field(ge=0, lt=1)]
PerChannel = Annotated[list[float], Field(min_length=3, max_length=3)]
# A configuration's name becomes part of a command and of file names, on file systems that ignore case too.
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,40}$")]


def _differ(values: list[Any]) -> list[Any]:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"has {value} twice")
    return values


def _blocks(value: object) -> object:
    if value == "all" or (type(value) is int and value >= 0):
        return value
    raise ValueError(f"must be all, or an integer of at least 0, not {_shown(value)}")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _keys_are_known(cls, given: object) -> object:
        """Report a misspelled key only, and not also the key it was meant to be as missing."""
        unknown = [key for key in given if key not in cls.model_fields] if isinstance(given, dict) else []
        if unknown:
            raise ValueError(
                "; ".join(f"has no key {key}{did_you_mean(key, cls.model_fields, 'it has')}" for key in unknown)
            )
        return given


# Two runs with the same seed are one.
Seeds = Annotated[list[Seed], Field(min_length=1), AfterValidator(_differ)]


class Data(_Strict):
    """Which pictures, from where, and how they are split."""

    sources: Annotated[list[Literal["folder", "torchvision", "npm"]], Field(min_length=1), AfterValidator(_differ)]
    folder: str
    classes: Annotated[list[ClassName], Field(min_length=2), AfterValidator(_differ)]
    val_fraction: Annotated[float, Field(gt=0, lt=1)]
    split_seed: Seed


class Normalise(_Strict):
    """What is subtracted from, and divides, each channel's pixel values on the scale 0 to 1."""

    mean: PerChannel
    std: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=3, max_length=3)]


class Verify(_Strict):
    """The grid of gradient checks, the optimizer's trajectories, and how far apart two results may be."""

    seed: Seed
    depths: Annotated[list[PositiveInt], Field(min_length=1)]
    widths: Annotated[list[PositiveInt], Field(min_length=1)]
    activations: Annotated[list[Activation], Field(min_length=1)]
    batch_sizes: Annotated[list[PositiveInt], Field(min_length=1)]
    directions: PositiveInt
    sgd_steps: PositiveInt
    autograd_tolerance: Annotated[float, Field(gt=0)]
    finite_difference_tolerance: Annotated[float, Field(gt=0)]


class Train(_Strict):
    """What all configurations share."""

    hidden: list[PositiveInt]
    activation: Activation
    epochs: PositiveInt
    batch_size: PositiveInt
    seeds: Seeds
    gradients: Literal["in_place", "backpropagation", "autograd"]
    precision: Literal["float32", "bfloat16"]
    threads: PositiveInt
    device: Literal["cpu", "cuda", "mps", "auto"]

    @model_validator(mode="after")
    def _bfloat16_is_in_place(self) -> Self:
        if self.precision == "bfloat16" and self.gradients != "in_place":
            raise ValueError("needs gradients: in_place for precision: bfloat16")
        return self


class Checkpoints(_Strict):
    """How training gets over being killed."""

    every: PositiveInt


class Features(_Strict):
    """What makes features of pictures, once for all configurations that learn from them."""

    # efficientnet_lite0, or the name of one of torchvision's classifiers.
    backbone: str
    image_size: PositiveInt
    flip_average: bool


class Configuration(_Strict):
    """What competes: a kind of network, and how it is trained.  Whatever has a default here is off by default."""

    model: str
    # The group in which it competes.
    family: Literal["mlp", "mlp_augmented", "cnn", "transfer"]
    # The folder of data/ that it learns from: the pictures, or the features that stage `features` makes of them.
    input: Literal["prepared", "features"]
    lr: Annotated[float, Field(gt=0)]
    momentum: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: Annotated[float, Field(ge=0)]
    nesterov: bool = False
    # None: train's.
    epochs: PositiveInt | None = None
    batch_size: PositiveInt | None = None
    schedule: Literal["constant", "cosine", "one_cycle"] = "constant"
    label_smoothing: Share = 0.0
    dropout: Share = 0.0
    # Done to the training pictures: mirror images, shifts by so many pixels, changes of colour by such a share.
    flip: bool = False
    shift: Annotated[int, Field(ge=0, lt=32)] = 0
    jitter: Share = 0.0
    # Answers are the mean over a picture and its mirror image.
    flip_average: bool = False
    # Stop after so many epochs without a lower validation loss, and keep the best epoch.
    early_stopping: PositiveInt | None = None

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError("needs a momentum above 0 for nesterov")
        return self

    @model_validator(mode="after")
    def _features_are_no_pictures(self) -> Self:
        if self.input == "features":
            if self.model != "transfer":
                raise ValueError("has input: features, which only model: transfer may have")
            if self.augments or self.flip_average or self.dropout:
                raise ValueError(
                    "has input: features, which leaves no images to flip, shift or jitter, and no layer for dropout"
                )
        return self

    @property
    def augments(self) -> bool:
        """Whether the training images are augmented."""
        return self.flip or self.shift > 0 or self.jitter > 0


class Mlp(Configuration):
    """The network with hand-written backpropagation; its layers are those of ``train``."""

    model: Literal["mlp"]


class Cnn(Configuration):
    """A convolutional network trained from scratch."""

    model: Literal["cnn"]
    # Of each convolution.
    channels: Annotated[list[PositiveInt], Field(min_length=2, max_length=6)]


class Transfer(Configuration):
    """A linear classifier on a network that learned from other pictures."""

    model: Literal["transfer"]
    # For input: prepared; for input: features they are those of the top level's `features`.
    backbone: str | None = None
    image_size: PositiveInt | None = None
    # How many of the backbone's last parts learn too.
    trainable_blocks: Annotated[int | Literal["all"], PlainValidator(_blocks)] = 0

    @model_validator(mode="after")
    def _has_one_backbone(self) -> Self:
        if self.input == "features" and (self.backbone or self.image_size or self.trainable_blocks):
            raise ValueError(
                "has input: features, whose backbone is fixed; backbone, image_size and trainable_blocks are for "
                "input: prepared"
            )
        if self.input == "prepared" and not (self.backbone and self.image_size):
            raise ValueError("needs backbone and image_size for input: prepared")
        return self


AnyConfiguration = Annotated[Mlp | Cnn | Transfer, Field(discriminator="model")]


class Ablation(_Strict):
    """Variants of a configuration: the name of the base, and for each variant the parameters that differ."""

    base: Name
    changes: Annotated[dict[Name, dict[str, Any]], Field(min_length=1)]


class Extended(_Strict):
    """The configurations of the extended pipeline."""

    configs: dict[Name, AnyConfiguration]
    ablation: Ablation


def changed(base: Configuration, changes: Mapping[str, Any]) -> AnyConfiguration:
    """``base`` with other values for some of its parameters.

    Raises:
        ValidationError: a parameter is unknown, or its value is not allowed.
    """
    return TypeAdapter[AnyConfiguration](AnyConfiguration).validate_python(base.model_dump() | dict(changes))


class Range(_Strict):
    """The values that a parameter has in a sweep: random ones of an interval, or one after the other of a list."""

    log_uniform: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=2, max_length=2)] | None = None
    uniform: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    choice: Annotated[list[Any], Field(min_length=1)] | None = None
    grid: Annotated[list[Any], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise ValueError(f"needs exactly one of {', '.join(type(self).model_fields)}")
        interval = self.log_uniform or self.uniform
        if interval and interval[0] >= interval[1]:
            raise ValueError(f"needs a second bound above the first, not {interval}")
        return self


class Asha(_Strict):
    """Which trials of a sweep are stopped early (Li et al. 2020, https://arxiv.org/abs/1810.05934).

    After ``grace_epochs``, and after ``reduction_factor`` times as many, and so on, a trial goes on when its validation
    accuracy is among the best 1 in ``reduction_factor`` that got so far before it.
    """

    grace_epochs: PositiveInt
    reduction_factor: Annotated[int, Field(ge=2)]


class Sweep(_Strict):
    """Which configurations a sweep tries."""

    base: Name
    space: Annotated[dict[str, Range], Field(min_length=1)]
    trials: PositiveInt
    seed: Seed
    seeds: Seeds
    asha: Asha | None


class Refit(_Strict):
    """The final model: a seed that no configuration was judged by, and whether it also learns from val."""

    seed: Seed
    include_val: bool


class Params(_Strict):
    """The whole of params.yaml; each key is explained there."""

    data: Data
    normalise: Normalise
    verify: Verify
    train: Train
    checkpoints: Checkpoints
    features: Features
    configs: Annotated[dict[Name, AnyConfiguration], Field(min_length=1)]
    extended: Extended
    refit: Refit
    sweep: Sweep

    @model_validator(mode="after")
    def _sweep_starts_from_a_configuration(self) -> Self:
        if self.sweep.base not in self.configs:
            raise ValueError(
                f"has sweep.base: {self.sweep.base}, which is not in configs"
                + did_you_mean(self.sweep.base, self.configs, "they are")
            )
        known = set(type(self.configs[self.sweep.base]).model_fields) - {"model", "family", "input"}
        for name in self.sweep.space:
            if name not in known:
                raise ValueError(
                    f"has sweep.space.{name}, which is no parameter of {self.sweep.base}"
                    + did_you_mean(name, sorted(known), "it has")
                )
        return self

    @property
    def extended_configs(self) -> dict[str, AnyConfiguration]:
        """All configurations of the extended pipeline, by name: its own, and the variants of the ablation."""
        ablation = self.extended.ablation
        base = self.configs[ablation.base]
        return self.extended.configs | {name: changed(base, changes) for name, changes in ablation.changes.items()}

    @model_validator(mode="after")
    def _ablation_changes_a_configuration(self) -> Self:
        ablation = self.extended.ablation
        if ablation.base not in self.configs:
            raise ValueError(
                f"has extended.ablation.base: {ablation.base}, which is not in configs"
                + did_you_mean(ablation.base, self.configs, "they are")
            )
        if self.configs[ablation.base].input != "prepared":
            raise ValueError(f"has extended.ablation.base: {ablation.base}, which needs input: prepared")
        for name, changes in ablation.changes.items():
            for fixed in sorted({"model", "family", "input"} & changes.keys()):
                raise ValueError(f"has extended.ablation.changes.{name}.{fixed}, which a variant cannot change")
            try:
                changed(self.configs[ablation.base], changes)
            except ValidationError as error:
                raise ValueError(f"has extended.ablation.changes.{name}: {explain(error)}") from None
        return self

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        extended = [*self.extended.configs, *self.extended.ablation.changes]
        for name in extended:
            if name in self.configs or extended.count(name) > 1:
                raise ValueError(f"has {name} twice in configs and extended; rename one of them")
        return self

    @model_validator(mode="after")
    def _refit_seed_is_fresh(self) -> Self:
        if self.refit.seed in self.train.seeds:
            raise ValueError(
                f"has refit.seed: {self.refit.seed}, which is one of train.seeds; the final model needs a fresh one"
            )
        return self


# What pydantic finds, by its types of error: what follows the key.
_SENTENCES = {
    "missing": "is missing",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "int_type": "must be an integer",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "list_type": "must be a list",
    "dict_type": "must be a mapping of names to values",
    "model_type": "must be a mapping of names to values",
    "model_attributes_type": "must be a mapping of names to values",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "too_short": "needs {min_length} or more entries",
    "too_long": "may have {max_length} entries or fewer",
    "literal_error": "must be {expected}",
    "string_pattern_mismatch": "must begin with a to z, then have up to 40 of a to z, 0 to 9, - and _",
    "union_tag_invalid": "must be one of {expected_tags}",
    "union_tag_not_found": "is missing",
}


# A few aliases of aliases stand for more than fits into memory.
_REPR = reprlib.Repr()
_REPR.maxlevel = 1


class _Constructor(SafeConstructor):
    """DVC's, less what no key of params.yaml is, and what it passes over: a key that stands twice beside a ``<<``."""

    yaml_constructors = {  # noqa: RUF012
        tag: construct
        for tag, construct in SafeConstructor.yaml_constructors.items()
        if tag is None or tag.rpartition(":")[2] in ("null", "bool", "int", "float", "str", "seq", "map")
    }

    def flatten_mapping(self, node: MappingNode) -> None:
        if node.merge is None:  # what is merged in may stand here again
            seen: set[str] = set()
            for key, _ in node.value:
                if not isinstance(key, ScalarNode):
                    raise ConstructorError(problem="a list or mapping for a key", problem_mark=key.start_mark)
                if key.value in seen:
                    raise ConstructorError(problem=f"{key.value} stands twice", problem_mark=key.start_mark)
                seen.add(key.value)
        super().flatten_mapping(node)

    def construct_object(self, node: Node, deep: bool = False) -> Any:  # noqa: ANN401
        try:
            value = super().construct_object(node, deep)
            # Python reads what it cannot write: a hexadecimal number of thousands of digits, half of a surrogate pair.
            if isinstance(value, int | str):
                str(value).encode()
        except (ValueError, LookupError) as error:
            shown = _REPR.repr(node.value)
            raise ConstructorError(
                problem=f"{shown} is no {str(node.tag).rpartition(':')[2]}", problem_mark=node.start_mark
            ) from error
        return value


def load(path: Path = Path("params.yaml")) -> Params:
    """Read and check ``path``.

    Raises:
        UserError: the file is missing, is no YAML, or a value in it is not allowed; the message names the key.
    """
    # As DVC reads it, so that a stage takes each value for what DVC compares and records; but parsed in Python: the
    # parser in C crashes on brackets that lie deep within each other.
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _Constructor
    try:
        document: Any = yaml.load(path.read_text("utf-8"))
        return Params.model_validate(document)
    except FileNotFoundError:
        raise UserError(f"{path} is not here; run from the folder that holds it") from None
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error)}") from None
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1
        raise UserError(f"{path} is not YAML: line {line}: {_printable(str(error.problem))}") from error
    except (YAMLError, ValueError, OverflowError) as error:  # the last two: bytes that are no text, \UFFFFFFFF
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    except RecursionError:
        raise UserError(f"{path} has too many brackets within each other") from None


def explain(error: ValidationError) -> str:
    """What is wrong, on one line: for each fault the key, what is allowed, and what there is."""
    return _printable("; ".join(map(_sentence, error.errors())))


def _sentence(fault: ErrorDetails) -> str:
    place, kind, given, context = list(fault["loc"]), fault["type"], fault["input"], fault.get("ctx", {})
    if place[-1:] == ["[key]"] and kind.startswith("string_"):
        return f"{_key([*place[:-2], str(given)])} is not a valid name: it {_SENTENCES['string_pattern_mismatch']}"
    tag = 2 if place[:1] == ["configs"] else 3 if place[:2] == ["extended", "configs"] else 0
    if place[tag : tag + 1] in (["mlp"], ["cnn"], ["transfer"]):
        del place[tag]
    if kind == "value_error":
        return f"{_key(place)} {context['error']}".strip()
    if kind == "union_tag_not_found":
        for key in given:
            if did_you_mean(key, ["model"]):
                return f"{_key(place)} has no key {key}; did you mean model?"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        place, given = [*place, "model"], given.get("model")
    limits = {name: int(v) if isinstance(v, float) and v.is_integer() else v for name, v in context.items()}
    message = f"{_key(place)} {_SENTENCES.get(kind, 'is not allowed').format(**limits)}".strip()
    if kind in ("missing", "union_tag_not_found"):
        return message
    allowed = re.findall("'(.*?)'", message)
    return f"{message}, not {_shown(given)}{did_you_mean(given, allowed)}"


def _key(place: list[int | str]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")


def _shown(value: object) -> str:
    """A value as params.yaml would have it, in a few words."""
    shown = _REPR.repr(value)
    return {"None": "empty", "True": "true", "False": "false"}.get(shown, shown)


def _printable(text: str) -> str:
    """One line, with nothing in it that a terminal would obey."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
