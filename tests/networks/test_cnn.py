import pytest
import torch
from torch import nn

from cifar2.networks.cnn import Cnn


def network(channels=(4, 8, 16), n_classes=3, dropout=0.0):
    torch.manual_seed(0)
    return Cnn(channels, n_classes, dropout)


def test_convolutions_have_their_channels_and_halve_the_image():
    model = network((4, 6, 8, 16))
    shapes = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            assert module.kernel_size == (3, 3)
            module.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape[1:])))
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 3)
    assert shapes == [(4, 16, 16), (6, 16, 16), (8, 8, 8), (16, 4, 4)]
    assert model.classifier.in_features == 16


def test_convolutions_have_batch_normalisation_and_no_bias():
    convolutions = [m for m in network().modules() if isinstance(m, nn.Conv2d)]
    normalisations = [m for m in network().modules() if isinstance(m, nn.BatchNorm2d)]
    assert [c.out_channels for c in convolutions] == [n.num_features for n in normalisations]
    assert all(c.bias is None for c in convolutions)


def test_network_learns_a_class_that_no_mean_colour_shows():
    """Vertical stripes against horizontal ones."""
    generator = torch.Generator().manual_seed(0)
    stripes = (torch.arange(32) % 4 < 2).float().expand(32, 32)
    labels = torch.arange(64) % 2
    x = torch.stack([stripes if label else stripes.t() for label in labels]).unsqueeze(1).expand(-1, 3, -1, -1)
    x = x + 0.3 * torch.randn(64, 3, 32, 32, generator=generator)
    model = network(n_classes=2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9)
    for _ in range(15):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[:32]), labels[:32]).backward()
        optimizer.step()
    assert (model(x[32:]).argmax(1) == labels[32:]).float().mean() == 1


def test_weights_and_images_are_channels_last():
    model = network()
    seen = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.is_contiguous(memory_format=torch.channels_last)
            module.register_forward_hook(lambda _, inputs, output: seen.extend([inputs[0], output]))
    model(torch.randn(2, 3, 32, 32))
    assert len(seen) == 2 * 3
    assert all(maps.is_contiguous(memory_format=torch.channels_last) for maps in seen)


def test_dropout_drops_its_fraction_of_channels_in_training():
    dropping, plain = network(dropout=0.5), network()
    seen = []
    x = torch.randn(200, 3, 32, 32)
    for model in (dropping, plain):
        model.classifier.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
        model(x)
    dropped, complete = seen
    assert (complete > 0).all()
    assert (dropped == 0).float().mean() == pytest.approx(0.5, abs=0.05)
    torch.testing.assert_close(dropped[dropped > 0], 2 * complete[dropped > 0])
    assert torch.equal(dropping.eval()(x), plain.eval()(x))
