import pytest
import torch

from cifar2 import files, params
from cifar2.dataset import splits
from cifar2.errors import UserError
from cifar2.mynet import MyNet
from cifar2.networks import classifier, transfer
from cifar2.networks.cnn import Cnn
from cifar2.networks.inference import logits
from tests.conftest import N_FEATURES, ROOT, random_features, random_split

PARAMS = params.load(ROOT / "params.yaml")
FEATURES = params.Features(backbone="efficientnet_lite0", image_size=32, flip_average=True)
IMAGES = random_split(3, 0)
COMMON = {"family": "mlp", "input": "prepared", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.0}
CONFIGURATIONS = {
    "mlp": params.Mlp(model="mlp", **COMMON, dropout=0.5, flip_average=True),
    "cnn": params.Cnn(model="cnn", **COMMON, channels=[4, 8], dropout=0.5),
    "fine_tuned": params.Transfer(
        model="transfer", **COMMON, backbone="efficientnet_lite0", image_size=32, trainable_blocks=2, dropout=0.5
    ),
    "linear": params.Transfer(model="transfer", **COMMON | {"input": "features"}),
}
SPLITS = dict.fromkeys(CONFIGURATIONS, IMAGES) | {"linear": random_features(IMAGES, FEATURES, 0)}
CARDS = {name: classifier.describe(name, c, PARAMS, SPLITS[name]) for name, c in CONFIGURATIONS.items()}
CARD = classifier.Card(
    name="fine",
    configuration=PARAMS.configs["fine"],
    n_l=(3072, 4, 2),
    activation="relu",
    features=None,
    classes=("airplane", "bird"),
    mean=(0.5,) * 3,
    std=(0.5,) * 3,
)
ACCURACIES = {"val_accuracy": 0.75, "train_accuracy": None}


def test_card_of_an_mlp_has_the_layers_of_all_mlps():
    split = random_split(3, 0, ("cat", "dog", "frog"))
    card = classifier.describe("m", CONFIGURATIONS["mlp"], PARAMS, split)
    assert (card.name, card.configuration, card.features) == ("m", CONFIGURATIONS["mlp"], None)
    assert (card.n_l, card.activation) == ((3072, *PARAMS.train.hidden, 3), PARAMS.train.activation)
    assert card.classes == ("cat", "dog", "frog")
    assert (list(card.mean), list(card.std)) == (PARAMS.normalise.mean, PARAMS.normalise.std)
    assert not card.convolves


@pytest.mark.parametrize(
    ("name", "n_l", "features", "mean"),
    [
        ("cnn", (), None, PARAMS.normalise.mean),
        ("fine_tuned", (), None, transfer.MEAN),
        ("linear", (N_FEATURES, 2), FEATURES, PARAMS.normalise.mean),
    ],
)
def test_card_of_another_model_has_its_inputs(name, n_l, features, mean):
    card = CARDS[name]
    assert (card.n_l, card.features, card.classes) == (n_l, features, ("airplane", "bird"))
    assert (card.mean, card.configuration) == (tuple(mean), CONFIGURATIONS[name])
    assert card.convolves == (not n_l)


def test_networks_are_built_as_the_card_says():
    mlp, cnn, fine_tuned, linear = (classifier.build(card, 0) for card in CARDS.values())
    assert isinstance(mlp, MyNet)
    assert (mlp.n_l, mlp.activation) == (CARDS["mlp"].n_l, PARAMS.train.activation)
    assert (mlp.output_activation, mlp.dropout) == ("identity", 0.5)
    assert isinstance(cnn, Cnn)
    assert cnn.classifier.in_features == 8
    assert (fine_tuned.image_size, len(fine_tuned.trainable), fine_tuned.dropout.p) == (32, 2, 0.5)
    assert (linear.L, linear.n_l, linear.output_activation) == (1, (N_FEATURES, 2), "identity")


@pytest.mark.parametrize("name", CARDS)
def test_new_weights_depend_on_the_seed_alone(name):
    state = torch.get_rng_state()
    a, b, c = (list(classifier.build(CARDS[name], seed).state_dict().values()) for seed in (0, 0, 1))
    assert all(map(torch.equal, a, b))
    assert not torch.equal(a[-2], c[-2])  # the weights of the last layer
    assert torch.equal(a[0], c[0]) == (name == "fine_tuned"), "a backbone has its pretrained weights"
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", CARDS)
def test_networks_come_back_from_disk_in_evaluation_mode(tmp_path, monkeypatch, name):
    x = torch.randn(8, N_FEATURES) if name == "linear" else torch.randn(8, 3, 32, 32)
    saved = {f"seed{seed}": classifier.build(CARDS[name], seed) for seed in (3, 1)}
    for network in saved.values():
        network(x)  # in training mode, which changes the statistics of batch normalisation
    classifier.save(tmp_path / "m", CARDS[name], saved, ACCURACIES)
    monkeypatch.setattr(torch, "load", None)  # all weights are in the file
    card, loaded, accuracies = classifier.load(tmp_path / "m")
    assert card == CARDS[name]
    assert type(card.configuration) is type(CONFIGURATIONS[name])
    assert list(loaded) == ["seed3", "seed1"]
    assert accuracies == ACCURACIES
    for key in saved:
        assert not any(module.training for module in loaded[key].modules())
        assert torch.equal(logits(saved[key].eval(), x), logits(loaded[key], x))


ABOUT = {"card": CARD.model_dump(), "keys": ["seed0"], "accuracies": {}}


@pytest.mark.parametrize(
    ("tensors", "about"),
    [
        ({}, ABOUT | {"card": {"n_l": 3}, "keys": []}),
        ({}, ABOUT | {"card": CARD.model_dump() | {"configuration": {"model": "surprise"}}, "keys": []}),
        ({}, {"card": CARD.model_dump(), "keys": []}),
        ({}, ABOUT),
        ({"seed0/fc.1.weight": torch.zeros(1)}, ABOUT),
    ],
)
def test_file_with_an_invalid_model_is_named(tmp_path, tensors, about):
    files.write_tensors(tmp_path / "m", tensors, about)
    with pytest.raises(UserError, match="m is corrupted"):
        classifier.load(tmp_path / "m")


def test_file_that_is_no_model_is_named_with_its_content(tmp_path):
    splits.save(tmp_path / "d", IMAGES)
    line = f"^{tmp_path / 'd'} is not a model, but holds images, index, labels; the models are in data/models/$"
    with pytest.raises(UserError, match=line):
        classifier.load(tmp_path / "d")


def test_frozen_parameters_do_not_count():
    network = MyNet((2, 3, 2))
    assert classifier.n_parameters(network) == (2 + 1) * 3 + (3 + 1) * 2
    network.fc["1"].weight.requires_grad_(requires_grad=False)
    assert classifier.n_parameters(network) == 3 + (3 + 1) * 2
