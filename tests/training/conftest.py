"""Small configurations, networks and data to train."""

import pytest

from cifar2 import params
from cifar2.dataset.examples import examples
from cifar2.networks import classifier
from cifar2.params import Checkpoints, Cnn, Mlp, Normalise, Train
from cifar2.training import loop
from tests.conftest import ROOT, random_split

HYPERPARAMETERS = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.001}
CONFIGURATION = Mlp(model="mlp", family="mlp", input="prepared", **HYPERPARAMETERS)
CONVOLUTIONAL = Cnn(model="cnn", family="cnn", input="prepared", channels=[4, 8], **HYPERPARAMETERS)
NORMALISE = Normalise(mean=[0.5] * 3, std=[0.5] * 3)
# Small enough for float32 rounding not to grow much over the whole run.
SETTINGS = Train(
    hidden=[8, 8],
    activation="tanh",
    epochs=3,
    batch_size=16,
    seeds=[0],
    gradients="in_place",
    precision="float32",
    instructions="avx2",
    threads=1,
    device="cpu",
)
PARAMS = params.load(ROOT / "params.yaml").model_copy(
    update={"normalise": NORMALISE, "train": SETTINGS, "checkpoints": Checkpoints(seconds=0)}
)
SPLIT = random_split(70, 0)
EACH_MODEL = pytest.mark.parametrize("model", [CONFIGURATION, CONVOLUTIONAL], ids=["mlp", "cnn"])
EACH_METHOD = pytest.mark.parametrize("gradients", ["in_place", "backpropagation", "autograd"])


@pytest.fixture(scope="package")
def train():
    return examples(SPLIT, NORMALISE.mean, NORMALISE.std)


@pytest.fixture(scope="package")
def val():
    return examples(random_split(40, 1), NORMALISE.mean, NORMALISE.std)


def but(configuration=CONFIGURATION, **changes):
    """A configuration with changes, which are checked."""
    return type(configuration)(**configuration.model_dump() | changes)


def build(configuration=CONFIGURATION, seed=0):
    return classifier.build(classifier.describe("x", configuration, PARAMS, SPLIT), seed)


def fit(train, val, configuration=CONFIGURATION, seed=0, **changes):
    """A trained network and its curve."""
    network = build(configuration, seed)
    return network, list(loop.train(network, train, val, configuration, SETTINGS.model_copy(update=changes), seed))
