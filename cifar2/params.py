"""params.yaml as typed, strict models. An unknown key, a wrong type or a value out of range is reported in one line."""

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
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from cifar2.errors import UserError, did_you_mean

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
Activation = Literal["tanh", "relu", "sigmoid", "identity"]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
PositiveInt = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
PerChannel = Annotated[list[float], Field(min_length=3, max_length=3)]
# Names of configurations appear in commands and file names; some file systems ignore case.
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
        """Report a misspelled key, without also reporting the intended key as missing."""
        unknown = [key for key in given if key not in cls.model_fields] if isinstance(given, dict) else []
        if unknown:
            raise ValueError(
                "; ".join(f"has no key {key}{did_you_mean(key, cls.model_fields, 'it has')}" for key in unknown)
            )
        return given


Seeds = Annotated[list[Seed], Field(min_length=1), AfterValidator(_differ)]


class Data(_Strict):
    """The images: sources, classes and split."""

    sources: Annotated[
        list[Literal["folder", "torchvision", "npm", "images"]], Field(min_length=1), AfterValidator(_differ)
    ]
    folder: str
    classes: Annotated[list[str], Field(min_length=2), AfterValidator(_differ)]
    image_size: PositiveInt
    val_fraction: Annotated[float, Field(gt=0, lt=1)]
    test_fraction: Annotated[float, Field(gt=0, lt=1)]
    split_seed: Seed
    near_duplicates: bool
    skip_unreadable: bool

    @property
    def own_images(self) -> bool:
        """Whether the images are those of a folder per class, not CIFAR-10's."""
        return self.sources == ["images"]

    @field_validator("sources")
    @classmethod
    def _own_images_stand_alone(cls, sources: list[str]) -> list[str]:
        if "images" in sources and len(sources) > 1:
            raise ValueError("has images beside others; images stands alone")
        return sources

    @field_validator("classes")
    @classmethod
    def _classes_exist(cls, classes: list[str], info: ValidationInfo) -> list[str]:
        for name in classes:
            if "images" not in info.data.get("sources", ()) and name not in CIFAR10:
                raise ValueError(f"has {name}, which CIFAR-10 lacks{did_you_mean(name, CIFAR10, 'it has')}")
            if not name or name[0] == "." or "/" in name:
                raise ValueError(f"has {name!r}, which is no name of a folder of images")
        return classes

    @field_validator("image_size")
    @classmethod
    def _cifar10_has_one_size(cls, size: int, info: ValidationInfo) -> int:
        if "images" not in info.data.get("sources", ()) and size != 32:
            raise ValueError(f"must be 32 for CIFAR-10, not {size}")
        return size

    @model_validator(mode="after")
    def _some_images_are_to_train_on(self) -> Self:
        if self.own_images and self.val_fraction + self.test_fraction >= 1:
            raise ValueError("has val_fraction and test_fraction that leave nothing to train on")
        return self


class Normalise(_Strict):
    """Mean and standard deviation of each channel, for pixel values in [0, 1]."""

    mean: PerChannel
    std: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=3, max_length=3)]


class Verify(_Strict):
    """The grid of gradient checks, the length of optimizer trajectories, and the tolerances."""

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
    """Training parameters shared by all configurations."""

    hidden: list[PositiveInt]
    activation: Activation
    epochs: PositiveInt
    batch_size: PositiveInt
    seeds: Seeds
    gradients: Literal["in_place", "backpropagation", "autograd"]
    precision: Literal["float32", "bfloat16"]
    instructions: Literal["avx2", "native"]
    threads: PositiveInt
    device: Literal["cpu", "cuda", "mps", "auto"]

    @model_validator(mode="after")
    def _bfloat16_is_in_place(self) -> Self:
        if self.precision == "bfloat16" and self.gradients != "in_place":
            raise ValueError("needs gradients: in_place for precision: bfloat16")
        return self


class Checkpoints(_Strict):
    """When training saves a checkpoint."""

    seconds: Annotated[float, Field(ge=0)]


class Features(_Strict):
    """The feature extractor shared by all configurations with input: features."""

    # efficientnet_lite0, or the name of a torchvision classifier.
    backbone: str
    image_size: PositiveInt
    flip_average: bool


class Configuration(_Strict):
    """A network and its training parameters. Everything with a default here is off by default."""

    model: str
    # The best configuration of each family is evaluated.
    family: Literal["mlp", "mlp_augmented", "cnn", "transfer"]
    # The folder of data/ with the training inputs: images, or the features extracted by stage `features`.
    input: Literal["prepared", "features"]
    lr: Annotated[float, Field(gt=0)]
    momentum: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: Annotated[float, Field(ge=0)]
    nesterov: bool = False
    # None: the value in train.
    epochs: PositiveInt | None = None
    batch_size: PositiveInt | None = None
    schedule: Literal["constant", "cosine", "one_cycle"] = "constant"
    label_smoothing: Fraction = 0.0
    # Of the loss: equal, or balanced, with which each class counts as much as any other.
    class_weights: Literal["equal", "balanced"] = Field(default="equal", exclude_if=lambda weights: weights == "equal")
    dropout: Fraction = 0.0
    # Data augmentation: random mirroring, shifts by up to N pixels, color jitter by up to a fraction.
    flip: bool = False
    shift: Annotated[int, Field(ge=0)] = 0
    jitter: Fraction = 0.0
    # Average predictions over each image and its mirror image.
    flip_average: bool = False
    # Stop after N epochs without a lower validation loss, and keep the best epoch.
    early_stopping: PositiveInt | None = None

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError("needs a momentum above 0 for nesterov")
        return self

    @model_validator(mode="after")
    def _features_allow_no_augmentation(self) -> Self:
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
    """The network with hand-written backpropagation; ``train`` defines its layers."""

    model: Literal["mlp"]


class Cnn(Configuration):
    """A convolutional network trained from scratch."""

    model: Literal["cnn"]
    # Output channels of each convolution.
    channels: Annotated[list[PositiveInt], Field(min_length=2, max_length=6)]


class Transfer(Configuration):
    """A linear classifier on a pretrained backbone."""

    model: Literal["transfer"]
    # For input: prepared. For input: features, the top-level `features` defines them.
    backbone: str | None = None
    image_size: PositiveInt | None = None
    # Number of the backbone's last blocks that are fine-tuned.
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


class Variants(_Strict):
    """Variants of a configuration: the name of the base, and for each variant the parameters that differ."""

    base: Name
    changes: Annotated[dict[Name, dict[str, Any]], Field(min_length=1)]


class Ablation(_Strict):
    """Variants that take something away from a configuration, and variants that add something to one."""

    downwards: Variants
    upwards: Variants


class Replication(_Strict):
    """Configurations to train with many seeds: 0 to ``n_seeds`` - 1."""

    configs: Annotated[list[Name], Field(min_length=1)]
    n_seeds: Annotated[int, Field(ge=2)]


class Extended(_Strict):
    """The configurations of the extended pipeline."""

    configs: dict[Name, AnyConfiguration]
    ablation: Ablation
    replication: Replication


def changed(base: Configuration, changes: Mapping[str, Any]) -> AnyConfiguration:
    """``base`` with other values for some of its parameters.

    Raises:
        ValidationError: a parameter is unknown, or its value is not allowed.
    """
    return TypeAdapter[AnyConfiguration](AnyConfiguration).validate_python(base.model_dump() | dict(changes))


class Range(_Strict):
    """Values of a parameter in a sweep: drawn from an interval or a list, or each value of a grid."""

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
    """Early stopping of trials (Li et al. 2020, https://arxiv.org/abs/1810.05934).

    After ``grace_epochs``, ``reduction_factor`` times as many, and so on, a trial continues only if its validation
    accuracy is in the top 1 / ``reduction_factor`` of the trials that reached that epoch before it.
    """

    grace_epochs: PositiveInt
    reduction_factor: Annotated[int, Field(ge=2)]


class Sweep(_Strict):
    """The configurations that a sweep tries."""

    base: Name
    space: Annotated[dict[str, Range], Field(min_length=1)]
    trials: PositiveInt
    seed: Seed
    seeds: Seeds
    asha: Asha | None


class Refit(_Strict):
    """The final model: a seed not used for selection, and whether to train on the validation set too."""

    seed: Seed
    include_val: bool


class Params(_Strict):
    """All of params.yaml, which documents each key."""

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
                    f"has sweep.space.{name}, which is not a parameter of {self.sweep.base}"
                    + did_you_mean(name, sorted(known), "it has")
                )
        return self

    @property
    def extended_configs(self) -> dict[str, AnyConfiguration]:
        """All configurations of the extended pipeline, by name: its own, and the variants of the ablation."""
        variants = {
            name: changed(self.configs[group.base], changes)
            for _, group in self.extended.ablation
            for name, changes in group.changes.items()
        }
        return self.extended.configs | variants

    @model_validator(mode="after")
    def _ablation_changes_a_configuration(self) -> Self:
        for direction, group in self.extended.ablation:
            place = f"extended.ablation.{direction}"
            if group.base not in self.configs:
                raise ValueError(
                    f"has {place}.base: {group.base}, which is not in configs"
                    + did_you_mean(group.base, self.configs, "they are")
                )
            if self.configs[group.base].input != "prepared":
                raise ValueError(f"has {place}.base: {group.base}, which needs input: prepared")
            for name, changes in group.changes.items():
                for fixed in sorted({"model", "family", "input"} & changes.keys()):
                    raise ValueError(f"has {place}.changes.{name}.{fixed}, which a variant cannot change")
                try:
                    changed(self.configs[group.base], changes)
                except ValidationError as error:
                    raise ValueError(f"has {place}.changes.{name}: {explain(error)}") from None
        return self

    @model_validator(mode="after")
    def _replicated_configurations_exist(self) -> Self:
        for name in self.extended.replication.configs:
            if name not in self.configs:
                raise ValueError(
                    f"has extended.replication.configs: {name}, which is not in configs"
                    + did_you_mean(name, self.configs, "they are")
                )
            if self.configs[name].input != "prepared":
                raise ValueError(f"has extended.replication.configs: {name}, which needs input: prepared")
        return self

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        extended = [*self.extended.configs, *(name for _, group in self.extended.ablation for name in group.changes)]
        for name in extended:
            if name in self.configs or extended.count(name) > 1:
                raise ValueError(f"has {name} twice in configs and extended; rename one of them")
        return self

    @model_validator(mode="after")
    def _shifts_are_within_the_image(self) -> Self:
        size = self.data.image_size
        for name, configuration in (self.configs | self.extended_configs).items():
            if configuration.shift >= size:
                section = "configs" if name in self.configs else "extended"
                raise ValueError(
                    f"has shift: {configuration.shift} in {name} of {section}; it must be below data.image_size, {size}"
                )
        return self

    @model_validator(mode="after")
    def _refit_seed_is_fresh(self) -> Self:
        if self.refit.seed in self.train.seeds:
            raise ValueError(
                f"has refit.seed: {self.refit.seed}, which is one of train.seeds; the final model needs a fresh one"
            )
        return self


# Messages by pydantic's error type, where its own is unclear. Each follows the name of the key.
_MESSAGES = {
    "missing": "is missing",
    "model_type": "must be a mapping of names to values",
    "model_attributes_type": "must be a mapping of names to values",
    "string_pattern_mismatch": "must begin with a to z, then have up to 40 of a to z, 0 to 9, - and _",
    "union_tag_invalid": "must be 'mlp', 'cnn' or 'transfer'",
    "union_tag_not_found": "is missing",
}


def load(path: Path = Path("params.yaml")) -> Params:
    """Read and validate ``path``.

    Raises:
        UserError: the file is missing, is not YAML, or has an invalid key or value, which the message names.
    """
    # As DVC reads it, except that it is parsed in Python: the parser in C crashes on deeply nested brackets.
    yaml = YAML(typ="safe", pure=True)
    try:
        return Params.model_validate(yaml.load(path.read_text("utf-8")))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run this in the folder that contains it") from None
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error)}") from None
    except MarkedYAMLError as error:
        problem = str(error.problem).partition(" with value")[0]
        raise UserError(f"{path} is not YAML: line {error.problem_mark.line + 1}: {problem}") from error
    except (YAMLError, ValueError) as error:  # ValueError: not UTF-8, or not a date
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    except RecursionError:
        raise UserError(f"{path} has too many nested brackets") from None


def explain(error: ValidationError) -> str:
    """All errors in one line: the key, what is allowed, and the given value."""
    return "; ".join(map(_sentence, error.errors()))


def _sentence(fault: ErrorDetails) -> str:
    place, kind, given = [part for part in fault["loc"] if part != "[key]"], fault["type"], fault["input"]
    tag = 2 if place[:1] == ["configs"] else 3 if place[:2] == ["extended", "configs"] else 0
    if place[tag : tag + 1] in (["mlp"], ["cnn"], ["transfer"]):
        del place[tag]
    if kind == "union_tag_not_found":
        for key in given:
            if did_you_mean(key, ["model"]):
                return f"{_key(place)} has no key {key}; did you mean model?"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        place, given = [*place, "model"], given.get("model")
    # Pydantic begins: "Value error, ", "Input should be ", "List should have ".
    message = _MESSAGES.get(kind, re.sub("^Value error, | after validation", "", fault["msg"]))
    message = re.sub(r"^\w+ should", "must", message)
    if kind not in ("missing", "union_tag_not_found", "value_error", "too_short", "too_long"):
        message += f", not {_shown(given)}" + did_you_mean(given, re.findall("'(.*?)'", message))
    return f"{_key(place)} {message}".strip()


def _key(place: list[int | str]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")


def _shown(value: object) -> str:
    """A value as in params.yaml, shortened."""
    shown = reprlib.repr(value)
    return {"None": "empty", "True": "true", "False": "false"}.get(shown, shown)
