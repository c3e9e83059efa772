import csv
import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from cifar2 import params
from cifar2.networks import classifier
from cifar2.params import Cnn, Mlp, Normalise, Train, Transfer
from cifar2.training import loop, schedule
from cifar2.training.checkpoint import Checkpoint
from tests.conftest import ROOT, random_features, random_split

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
    gradients="backpropagation",
    precision="float32",
    threads=1,
    device="cpu",
)
EVERYTHING = params.load(ROOT / "params.yaml").model_copy(update={"normalise": NORMALISE, "train": SETTINGS})
SPLIT = random_split(70, 0)
AUGMENTATION = {"flip": True, "shift": 2, "jitter": 0.1}
BOTH = pytest.mark.parametrize("gradients", ["backpropagation", "autograd"])


@pytest.fixture(scope="module")
def train():
    return loop.examples(SPLIT, NORMALISE.mean, NORMALISE.std)


@pytest.fixture(scope="module")
def val():
    return loop.examples(random_split(40, 1), NORMALISE.mean, NORMALISE.std)


def but(configuration=CONFIGURATION, **changes):
    """A configuration with changes, which are checked."""
    return type(configuration)(**configuration.model_dump() | changes)


def build(configuration=CONFIGURATION, seed=0):
    return classifier.build(classifier.describe("x", configuration, EVERYTHING, SPLIT).shape, seed)


def fit(train, val, configuration=CONFIGURATION, seed=0, **changes):
    settings = SETTINGS.model_copy(update=changes)
    network = build(configuration, seed)
    return network, list(loop.train(network, train, val, configuration, settings, seed))


def assert_equal(a, b):
    """Two networks with the same bits, statistics of batch normalisation included."""
    assert all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_training_learns(train, val):
    network, curve = fit(train, val, epochs=10)
    assert curve[-1].train_loss < curve[0].train_loss / 2
    assert loop.score(network, val).accuracy > 0.9


def test_there_is_one_record_an_epoch(train, val):
    network, curve = fit(train, val, seed=4)
    assert [(e.seed, e.epoch) for e in curve] == [(4, 1), (4, 2), (4, 3)]
    scores = loop.score(network, val)
    assert (curve[-1].val_loss, curve[-1].val_accuracy) == (scores.loss, scores.accuracy)


def test_without_a_validation_set_its_numbers_are_none(train):
    _, curve = fit(train, None)
    assert all(e.val_loss is None and e.val_accuracy is None for e in curve)


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(train, val):
    (a, curve_a), (b, curve_b), (c, _) = (fit(train, val, seed=seed) for seed in (0, 0, 1))
    assert curve_a == curve_b
    assert_equal(a, b)
    assert not torch.equal(a.fc["1"].weight, c.fc["1"].weight)


def test_measuring_on_a_validation_set_changes_no_weight(train, val):
    (a, _), (b, _) = fit(train, val), fit(train, None)
    assert_equal(a, b)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"nesterov": True},
        {"schedule": "one_cycle"},
        {"label_smoothing": 0.2},
        {"dropout": 0.3},
        {"flip": True},
        {"shift": 3},
        {"jitter": 0.2},
        {"nesterov": True, "schedule": "cosine", "label_smoothing": 0.1, "dropout": 0.2, **AUGMENTATION},
    ],
    ids=" ".join,
)
def test_autograd_gives_the_same_result_to_rounding(train, val, changes):
    configuration = but(**changes)
    (a, by_hand), (b, by_autograd) = (
        fit(train, val, configuration, gradients=g) for g in ("backpropagation", "autograd")
    )
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)
    for e, f in zip(by_hand, by_autograd, strict=True):
        torch.testing.assert_close(torch.tensor(e), torch.tensor(f), rtol=1e-4, atol=1e-6)


@BOTH
@pytest.mark.parametrize(
    "changes",
    [{"schedule": "cosine"}, {"label_smoothing": 0.2}, {"dropout": 0.3}, {"flip": True}, {"shift": 3}, {"jitter": 0.2}],
    ids=" ".join,
)
def test_whatever_a_configuration_switches_on_changes_the_result(train, gradients, changes):
    (plain, _), (changed, _) = (
        fit(train, None, configuration, gradients=gradients, epochs=1)
        for configuration in (CONFIGURATION, but(**changes))
    )
    assert not torch.equal(plain.fc["1"].weight, changed.fc["1"].weight)


def plain_loop(train, configuration, epochs, seed=0):
    """Training as PyTorch's documentation shows it: its own optimizer, the mean loss, a rate a step."""
    network = build(configuration, seed)
    optimizer = torch.optim.SGD(network.parameters(), **HYPERPARAMETERS)
    rates = schedule.learning_rates(configuration.schedule, configuration.lr, epochs * 5)
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(epochs):
        order = torch.randperm(70, generator=generator)
        for start in range(0, 70, 16):
            batch = order[start : start + 16]
            optimizer.param_groups[0]["lr"] = rates.pop(0)
            optimizer.zero_grad()
            loss = cross_entropy(network(train.x[batch]), train.y[batch])
            loss.backward()
            optimizer.step()
            losses += [loss.item()] * len(batch)
    return network, losses


def test_one_epoch_is_the_same_as_a_plain_pytorch_loop(train):
    """Every example once, a last batch that is smaller, the mean loss, torch's own optimizer."""
    network, (epoch,) = fit(train, None, epochs=1)
    other, losses = plain_loop(train, CONFIGURATION, epochs=1)
    for p, q in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q)
    assert epoch.train_loss == pytest.approx(sum(losses) / 70, rel=1e-6)


@pytest.mark.parametrize(
    ("model", "gradients"), [(CONFIGURATION, "backpropagation"), (CONFIGURATION, "autograd"), (CONVOLUTIONAL, "")]
)
@pytest.mark.parametrize("name", ["cosine", "one_cycle"])
def test_a_schedule_goes_over_the_steps_of_the_whole_run(train, model, gradients, name):
    configuration = but(model, schedule=name)
    network, _ = fit(train, None, configuration, gradients=gradients, epochs=2)
    other, _ = plain_loop(train, configuration, epochs=2)
    for p, q in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)


@BOTH
def test_a_configurations_own_epochs_and_batch_size_come_before_the_common_ones(train, val, gradients):
    own, own_curve = fit(train, val, but(epochs=2, batch_size=32), gradients=gradients)
    common, common_curve = fit(train, val, epochs=2, batch_size=32, gradients=gradients)
    assert own_curve == common_curve
    assert_equal(own, common)


def test_a_convolutional_network_learns(train, val):
    network, curve = fit(train, val, but(CONVOLUTIONAL, batch_size=8), epochs=8)
    assert curve[-1].train_loss < curve[0].train_loss / 2
    assert loop.score(network, val).accuracy > 0.9


def test_a_linear_classifier_learns_from_features_as_they_are(train):
    features = loop.examples(random_features(SPLIT, EVERYTHING.features, 0), NORMALISE.mean, NORMALISE.std)
    assert torch.equal(features.x, random_features(SPLIT, EVERYTHING.features, 0).images)
    configuration = Transfer(model="transfer", family="transfer", input="features", **HYPERPARAMETERS | {"lr": 0.001})
    card = classifier.describe("x", configuration, EVERYTHING, random_features(SPLIT, EVERYTHING.features, 0))
    network = classifier.build(card.shape, 0)
    *_, last = loop.train(network, features, features, configuration, SETTINGS, 0)
    assert last.val_accuracy > 0.9


def test_parameters_that_are_frozen_stay_as_they_are(train):
    network = build(CONVOLUTIONAL)
    frozen = network.convolutions[0].requires_grad_(False)
    before = [p.clone() for p in network.parameters()]
    list(loop.train(network, train, None, CONVOLUTIONAL, SETTINGS, 0))
    for parameter, was in zip(network.parameters(), before, strict=True):
        assert torch.equal(parameter, was) == (parameter.requires_grad is False)
    assert not any(p.requires_grad for p in frozen.parameters())


@pytest.mark.parametrize(
    "configuration", [but(dropout=0.2, **AUGMENTATION), but(CONVOLUTIONAL, dropout=0.2, flip=True)]
)
def test_what_is_random_in_an_epoch_depends_on_the_seed_alone_and_leaves_the_global_state(train, val, configuration):
    networks, curves = [], []
    for state in (1, 2):
        torch.manual_seed(state)
        before = torch.get_rng_state()
        network, curve = fit(train, val, configuration)
        assert torch.equal(torch.get_rng_state(), before)
        networks.append(network)
        curves.append(curve)
    assert curves[0] == curves[1]
    assert_equal(*networks)


@pytest.mark.parametrize("model", [CONFIGURATION, CONVOLUTIONAL], ids=["mlp", "cnn"])
def test_every_epoch_of_every_seed_changes_the_pictures_in_its_own_way(train, monkeypatch, model):
    drawn = []

    def augment(x, **_):
        drawn.append(torch.rand(()).item())
        return x

    monkeypatch.setattr(loop, "augment", augment)
    for seed in (0, 1):
        fit(train, None, but(model, flip=True), seed)
    assert len(drawn) == 2 * 3 * 5
    assert len(set(drawn)) == len(drawn)


@BOTH
def test_the_recorded_training_loss_is_plain_cross_entropy(train, gradients):
    """With a learning rate of next to nothing all outputs are those of the new network."""
    _, (epoch,) = fit(train, None, but(lr=1e-12, label_smoothing=0.5), gradients=gradients, epochs=1)
    scores = loop.score(build(), train)
    assert epoch.train_loss == pytest.approx(scores.loss, rel=1e-5)
    assert epoch.train_accuracy == scores.accuracy


def test_a_configuration_that_averages_over_mirror_images_is_scored_that_way(train, val):
    configuration = but(flip_average=True, lr=0.001)
    network, curve = fit(train, val, configuration)
    averaged, plain = loop.score(network, val, flip_average=True), loop.score(network, val)
    assert averaged.loss != plain.loss
    assert curve[-1].val_loss == averaged.loss
    summary = loop.summarise([curve], [network], train, val, configuration)
    assert summary["val_loss"] == pytest.approx(averaged.loss)


def test_accuracies_on_the_training_pictures_are_averaged_over_mirror_images_too(train, val):
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(200, 3, 32, 32, generator=generator), torch.randint(2, (200,), generator=generator)
    pictures, network = loop.Examples(*noise, [0.5] * 3, [0.5] * 3), build()
    averaged, plain = (loop.score(network, pictures, flip_average).accuracy for flip_average in (True, False))
    assert averaged != plain
    _, curve = fit(train, val, epochs=1)
    summary = loop.summarise([curve], [network], pictures, val, but(flip_average=True))
    assert summary["train_accuracy"] == averaged


def test_a_score_is_that_of_a_network_that_drops_nothing(train):
    network = build(but(dropout=0.5)).train()
    assert loop.score(network, train).loss == loop.score(build(), train).loss


def script(monkeypatch, losses):
    """Validation losses that are laid down beforehand."""
    scripted = iter(losses)
    monkeypatch.setattr(loop, "score", lambda *_: loop.Scores(torch.tensor([next(scripted)]), torch.tensor([True])))


@pytest.mark.parametrize(
    ("losses", "patience", "n_epochs", "kept"),
    [
        ([5, 4, 6, 3, 3, 3.5, 1, 1], 2, 6, 4),  # an equal loss is no lower one; a better epoch starts the count anew
        ([5, 4, 6, 3, 3, 3.5, 1, 1], 3, 8, 7),
        ([1, 2, 3], 1, 2, 1),
        ([5, 4, 3, 2], 1, 4, 4),
    ],
)
@pytest.mark.parametrize("model", [CONFIGURATION, CONVOLUTIONAL], ids=["mlp", "cnn"])
def test_early_stopping_stops_and_gives_the_best_epochs_weights_back(
    train, val, monkeypatch, model, losses, patience, n_epochs, kept
):
    script(monkeypatch, map(float, losses))
    configuration = but(model, early_stopping=patience, epochs=len(losses))
    network = build(configuration)
    curve, weights = [], []
    for epoch in loop.train(network, train, val, configuration, SETTINGS, 0):
        curve.append(epoch)
        weights.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
    assert len(curve) == n_epochs
    assert loop.kept_epoch(curve, configuration) == kept
    found = network.state_dict()
    for i, there in enumerate(weights, 1):
        assert all(torch.equal(found[name], there[name]) for name in found) == (i == kept)


def test_without_early_stopping_the_last_epoch_is_kept(train, val, monkeypatch):
    script(monkeypatch, [1.0, 2.0, 3.0])
    _, curve = fit(train, val)
    assert loop.kept_epoch(curve, CONFIGURATION) == 3


def test_without_a_validation_set_nothing_stops_early(train):
    assert len(fit(train, None, but(early_stopping=1))[1]) == 3


def test_the_summary_is_of_the_weights_that_were_kept(train, val):
    # So high a rate that the loss soon rises.
    configuration = but(early_stopping=1, lr=0.5, epochs=30)
    runs = [fit(train, val, configuration, seed) for seed in (0, 1)]
    curves = [curve for _, curve in runs]
    assert all(len(curve) < 30 for curve in curves)
    summary = loop.summarise(curves, [network for network, _ in runs], train, val, configuration)
    best = [min(curve, key=lambda e: e.val_loss) for curve in curves]
    assert summary["val_loss"] == pytest.approx((best[0].val_loss + best[1].val_loss) / 2)
    assert summary["kept_epoch"] == [best[0].epoch, best[1].epoch]


@BOTH
def test_a_loss_that_is_no_number_stops_the_run_and_says_where(train, val, gradients):
    with pytest.raises(loop.Diverged, match=r"^seed 0, epoch \d, step [2-5]: the loss is not finite$"):
        fit(train, val, but(lr=1e30), gradients=gradients)


def test_a_validation_loss_that_is_no_number_stops_the_run(train, val):
    broken = val._replace(x=val.x.clone().fill_(math.nan))
    with pytest.raises(loop.Diverged, match=r"^seed 0, epoch 1: the validation loss is not finite$"):
        fit(train, broken)


def test_scores_are_torchs(train):
    network, _ = fit(train, None)
    scores = loop.score(network, train)
    outputs = classifier.logits(network, train.x)
    assert scores.loss == pytest.approx(cross_entropy(outputs, train.y).item(), rel=1e-6)
    assert scores.accuracy == (outputs.argmax(1) == train.y).double().mean()


def test_the_summary_is_over_seeds(train, val):
    runs = [fit(train, val, seed=seed, epochs=12) for seed in (0, 1)]
    summary = loop.summarise([curve for _, curve in runs], [network for network, _ in runs], train, val, CONFIGURATION)
    assert tuple(summary) == loop.SUMMARY
    last = [curve[-1] for _, curve in runs]
    assert summary["val_accuracy"] == pytest.approx((last[0].val_accuracy + last[1].val_accuracy) / 2)
    assert summary["val_loss"] == pytest.approx((last[0].val_loss + last[1].val_loss) / 2)
    assert summary["gap"] == summary["train_accuracy"] - summary["val_accuracy"]
    assert summary["kept_epoch"] == [12, 12]
    moves = [torch.tensor([e.val_loss for e in curve[-10:]]).double().std(correction=0) for _, curve in runs]
    assert summary["val_loss_std"] == pytest.approx([move.item() for move in moves])


def test_curves_are_written_with_their_configuration(tmp_path, train):
    _, curve = fit(train, None)
    loop.write_curves(tmp_path / "c.csv", "fine", [curve])
    with (tmp_path / "c.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["configuration"] for row in rows] == ["fine"] * 3
    assert float(rows[1]["train_loss"]) == curve[1].train_loss
    assert rows[0]["val_loss"] == ""


RESUMED = {
    "by hand": (CONFIGURATION, {}),
    "by autograd": (CONFIGURATION, {"gradients": "autograd"}),
    "without momentum": (but(momentum=0.0), {"gradients": "autograd"}),
    "everything random": (but(dropout=0.3, nesterov=True, schedule="one_cycle", **AUGMENTATION), {}),
    "convolutions": (but(CONVOLUTIONAL, dropout=0.3, **AUGMENTATION), {}),
    "early stopping": (but(early_stopping=2, lr=0.5, epochs=9), {}),
}


@pytest.mark.parametrize("case", RESUMED)
def test_from_a_checkpoint_on_a_run_has_the_bits_of_one_that_was_never_stopped(train, val, tmp_path, case):
    configuration, changes = RESUMED[case]
    settings = SETTINGS.model_copy(update={"epochs": 5} | changes)
    whole, curve = fit(train, val, configuration, **{"epochs": 5} | changes)
    for n in range(1, len(curve) + 1):
        kept = Checkpoint(tmp_path / f"{n}.safetensors", every=1)

        def run(kept=kept):
            network = build(configuration)
            return network, loop.train(network, train, val, configuration, settings, 0, kept)

        _, epochs = run()
        assert [next(epochs) for _ in range(n)] == curve[:n]
        epochs.close()
        network, epochs = run()
        torch.rand(7)
        resumed = list(epochs)
        assert resumed == curve
        assert [epoch.resumed for epoch in resumed] == [True] * n + [False] * (len(curve) - n)
        assert_equal(network, whole)
        again, epochs = run()
        assert list(epochs) == curve, "a run that was done gives its records again"
        assert_equal(again, whole)


def test_a_run_with_fewer_checkpoints_goes_on_from_the_last(train, val, tmp_path):
    whole, curve = fit(train, val, epochs=7)
    kept = Checkpoint(tmp_path / "x.safetensors", every=2)
    settings = SETTINGS.model_copy(update={"epochs": 7})
    epochs = loop.train(build(), train, val, CONFIGURATION, settings, 0, kept)
    assert [next(epochs) for _ in range(5)] == curve[:5]
    epochs.close()
    assert len(kept.load()[1]["curve"]) == 4
    network = build()
    assert list(loop.train(network, train, val, CONFIGURATION, settings, 0, kept)) == curve
    assert_equal(network, whole)
