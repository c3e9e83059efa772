import pytest
import torch

from cifar2 import files, params
from cifar2.dataset import splits
from cifar2.errors import UserError
from cifar2.networks import classifier, transfer
from tests.conftest import ROOT, random_features, random_split

FEATURES = params.Features(backbone="efficientnet_lite0", image_size=32, flip_average=True)
CARD = classifier.Card(
    configuration="fine",
    shape=classifier.MyNetShape(n_l=(3072, 4, 2), activation="relu"),
    features=None,
    flip_average=False,
    classes=("airplane", "bird"),
    mean=(0.5,) * 3,
    std=(0.5,) * 3,
)
SHAPES = {
    "mynet": classifier.MyNetShape(n_l=(3072, 4, 2), activation="tanh", dropout=0.5),
    "cnn": classifier.CnnShape(channels=(4, 8), n_classes=2, dropout=0.5),
    "transfer": classifier.TransferShape(
        backbone="efficientnet_lite0", image_size=32, trainable_blocks=2, n_classes=2, dropout=0.5
    ),
}
EVERYTHING = params.load(ROOT / "params.yaml")
COMMON = {"family": "mlp", "input": "prepared", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.0}
ACCURACIES = {"val_accuracy": 0.75, "train_accuracy": None}


def card(kind):
    return CARD.model_copy(update={"shape": SHAPES[kind]})


def first_weights(shape, seed):
    return next(p for name, p in classifier.build(shape, seed).named_parameters() if name.endswith("weight"))


@pytest.mark.parametrize("kind", ["mynet", "cnn"])
def test_weights_are_the_seeds_alone_and_the_global_random_state_stays(kind):
    state = torch.get_rng_state()
    a, b, c = (first_weights(SHAPES[kind], seed) for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_pretrained_networks_new_classifier_is_the_seeds_alone_and_its_backbone_is_what_it_learned():
    state = torch.get_rng_state()
    a, b, c = (classifier.build(SHAPES["transfer"], seed) for seed in (0, 0, 1))
    assert torch.equal(a.classifier.weight, b.classifier.weight)
    assert not torch.equal(a.classifier.weight, c.classifier.weight)
    assert torch.equal(next(a.backbone.parameters()), next(c.backbone.parameters()))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", SHAPES)
def test_models_of_each_shape_come_back_from_disk_ready_for_use(tmp_path, monkeypatch, kind):
    saved = {f"seed{seed}": classifier.build(SHAPES[kind], seed) for seed in (3, 1)}
    for network in saved.values():
        network(torch.randn(8, 3, 32, 32))  # in training, which moves the statistics of batch normalisation
    classifier.save(tmp_path / "m", card(kind), saved, ACCURACIES)
    monkeypatch.setattr(torch, "load", None)  # the weights are all in the file
    found, loaded, accuracies = classifier.load(tmp_path / "m")
    assert found == card(kind)
    assert list(loaded) == ["seed3", "seed1"]
    assert accuracies == ACCURACIES
    x = torch.randn(5, 3, 32, 32)
    for key in saved:
        assert not any(module.training for module in loaded[key].modules())
        assert torch.equal(classifier.logits(saved[key].eval(), x), classifier.logits(loaded[key], x))


def test_what_is_to_be_done_with_pictures_comes_back_too(tmp_path):
    told = CARD.model_copy(update={"features": FEATURES, "flip_average": True, "mean": (0.1, 0.2, 0.3)})
    classifier.save(tmp_path / "m", told, {}, ACCURACIES)
    assert classifier.load(tmp_path / "m") == (told, {}, ACCURACIES)


def test_no_model_at_all_comes_back_too(tmp_path):
    classifier.save(tmp_path / "m", CARD, {}, {})
    assert classifier.load(tmp_path / "m") == (CARD, {}, {})


ABOUT = {"card": CARD.model_dump(), "keys": ["seed0"], "accuracies": {}}


@pytest.mark.parametrize(
    ("tensors", "about"),
    [
        ({}, ABOUT | {"card": {"n_l": 3}, "keys": []}),
        ({}, ABOUT | {"card": CARD.model_dump() | {"shape": {"kind": "surprise"}}, "keys": []}),
        ({}, {"card": CARD.model_dump(), "keys": []}),
        ({}, ABOUT),
        ({"seed0/fc.1.weight": torch.zeros(1)}, ABOUT),
    ],
)
def test_a_file_that_holds_no_such_model_is_named(tmp_path, tensors, about):
    files.write_tensors(tmp_path / "m", tensors, about)
    with pytest.raises(UserError, match="m is damaged"):
        classifier.load(tmp_path / "m")


def test_a_file_that_is_no_model_is_named_with_what_it_holds(tmp_path):
    splits.save(tmp_path / "d", random_split(3, 0))
    line = f"^{tmp_path / 'd'} is not a model, but holds images, index, labels; the models are in data/models/$"
    with pytest.raises(UserError, match=line):
        classifier.load(tmp_path / "d")


def test_probabilities_are_a_distribution():
    p = classifier.probabilities(classifier.build(CARD.shape, 0), torch.randn(5, 3, 32, 32))
    assert p.shape == (5, 2)
    assert p.dtype == torch.float64
    torch.testing.assert_close(p.sum(1), torch.ones(5, dtype=torch.float64))


def test_logits_in_several_batches_are_those_in_one():
    model = classifier.build(CARD.shape, 0)
    x = torch.randn(2 * classifier.BATCH + 4, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(classifier.logits(model, x), model(x))


def test_an_average_over_mirror_images_is_the_mean_of_their_logits():
    model = classifier.build(SHAPES["cnn"], 0).eval()
    x = torch.randn(5, 3, 32, 32)
    mirrored = torch.stack([torch.stack([channel.fliplr() for channel in picture]) for picture in x])
    wanted = (classifier.logits(model, x) + classifier.logits(model, mirrored)) / 2
    assert not torch.equal(wanted, classifier.logits(model, x))
    torch.testing.assert_close(classifier.logits(model, x, flip_average=True), wanted)
    p = classifier.probabilities(model, x, flip_average=True)
    torch.testing.assert_close(p, torch.softmax(wanted.double(), 1), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(p, classifier.probabilities(model, mirrored, flip_average=True), rtol=1e-6, atol=1e-7)


def test_a_mlp_is_described_with_the_layers_that_all_share():
    configuration = params.Mlp(model="mlp", **COMMON, dropout=0.2, flip_average=True)
    found = classifier.describe("m", configuration, EVERYTHING, random_split(3, 0, ("cat", "dog", "frog")))
    train, normalise = EVERYTHING.train, EVERYTHING.normalise
    assert found.configuration == "m"
    assert found.shape == classifier.MyNetShape(n_l=(3072, *train.hidden, 3), activation=train.activation, dropout=0.2)
    assert (found.features, found.flip_average, found.classes) == (None, True, ("cat", "dog", "frog"))
    assert (list(found.mean), list(found.std)) == (normalise.mean, normalise.std)
    assert not found.convolves


def test_a_cnn_is_described_with_its_channels():
    configuration = params.Cnn(model="cnn", **COMMON, channels=[4, 8], dropout=0.1)
    found = classifier.describe("c", configuration, EVERYTHING, random_split(3, 0))
    assert found.shape == classifier.CnnShape(channels=(4, 8), n_classes=2, dropout=0.1)
    assert list(found.mean) == EVERYTHING.normalise.mean
    assert found.convolves


def test_a_network_that_is_tuned_further_is_described_with_its_backbone_and_imagenets_normalisation():
    configuration = params.Transfer(
        model="transfer", **COMMON, backbone="resnet18", image_size=64, trainable_blocks="all"
    )
    found = classifier.describe("t", configuration, EVERYTHING, random_split(3, 0))
    assert found.shape == classifier.TransferShape(
        backbone="resnet18", image_size=64, trainable_blocks="all", n_classes=2, dropout=0.0
    )
    assert (found.features, found.mean, found.std) == (None, transfer.MEAN, transfer.STD)
    assert found.convolves


def test_a_classifier_of_features_is_described_as_one_linear_layer_and_with_what_makes_them():
    configuration = params.Transfer(model="transfer", **COMMON | {"input": "features"})
    found = classifier.describe("l", configuration, EVERYTHING, random_features(random_split(3, 0), FEATURES, 0))
    assert found.shape.n_l == (1280, 2)
    assert found.features == FEATURES
    assert not found.convolves


def test_a_network_reads_pictures_normalised_as_its_card_says():
    images = random_split(3, 0).images
    told = CARD.model_copy(update={"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)})
    assert torch.equal(classifier.inputs(told, images), splits.normalise(images, told.mean, told.std))


def test_a_classifier_of_features_reads_features_made_as_its_card_says():
    images = random_split(3, 0).images
    found = classifier.inputs(CARD.model_copy(update={"features": FEATURES}), images)
    assert torch.equal(found, transfer.features(images, "efficientnet_lite0", 32, flip_average=True))


def test_the_parameters_that_count_are_those_that_learn():
    network = classifier.build(classifier.MyNetShape(n_l=(2, 3, 2), activation="relu"), seed=0)
    assert classifier.n_parameters(network) == (2 + 1) * 3 + (3 + 1) * 2
    next(network.parameters()).requires_grad_(requires_grad=False)
    assert classifier.n_parameters(network) == 3 + (3 + 1) * 2
