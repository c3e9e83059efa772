import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import mse_loss

from cifar2.gradcheck import by_autograd, by_backpropagation, relative_error
from cifar2.mynet import ACTIVATIONS, MyNet, backpropagation, gradients


@pytest.fixture
def model():
    torch.manual_seed(0)
    return MyNet([4, 5, 3])


def test_forward_pass_matches_a_stack_of_torchs_layers(model):
    x = torch.randn(7, 2, 2)
    layers = nn.Sequential(nn.Flatten(), model.fc["1"], nn.Tanh(), model.fc["2"], nn.Tanh())
    assert torch.equal(model(x), layers(x))


def test_network_has_the_names_of_the_course(model):
    x = torch.randn(7, 4)
    y_pred = model(x)
    assert model.L == 2
    assert model.n_l == (4, 5, 3)
    assert list(model.fc) == ["1", "2"]
    assert torch.equal(model.a[0], x)
    assert model.a[2] is y_pred
    assert [tuple(model.z[l].shape) for l in (1, 2)] == [(7, 5), (7, 3)]
    assert torch.equal(model.f[1](model.z[1]), model.a[1])
    assert torch.equal(model.df[1](model.z[1]), 1 - torch.tanh(model.z[1]) ** 2)


def test_network_knows_its_activations():
    assert (MyNet([4, 5, 3]).activation, MyNet([4, 5, 3], "relu").output_activation) == ("tanh", "relu")
    model = MyNet([4, 5, 3], "relu", "identity")
    assert (model.activation, model.output_activation) == ("relu", "identity")
    model(torch.randn(7, 4))
    assert torch.equal(model.a[1], model.z[1].clamp(min=0))
    assert torch.equal(model.a[2], model.z[2])


@pytest.mark.parametrize("n_targets", [3, 1])
@pytest.mark.filterwarnings("ignore:Using a target size:UserWarning")
def test_backpropagation_matches_torchs_loss_and_backward(model, n_targets):
    """With one target per example, which torch broadcasts, as the test of the course does."""
    y_true, y_pred = torch.randn(33, n_targets), model(torch.randn(33, 4))
    backpropagation(model, y_true, y_pred)
    mse_loss(y_pred, y_true, reduction="sum").backward()
    for l in (1, 2):
        torch.testing.assert_close(model.dL_dw[l], model.fc[str(l)].weight.grad)
        torch.testing.assert_close(model.dL_db[l], model.fc[str(l)].bias.grad)


def test_backpropagation_of_targets_that_do_not_fit_is_an_error(model):
    with pytest.raises(ValueError, match=r"y_true has shape \(7,\), y_pred \(7, 3\)"):
        backpropagation(model, torch.zeros(7), model(torch.randn(7, 4)))


def test_dropout_drops_its_fraction_and_scales_up_the_rest():
    model = MyNet([4, 100, 50, 3], "sigmoid", "identity", dropout=0.25)
    model(torch.randn(200, 4))
    assert list(model.mask) == [1, 2]
    for l, mask in model.mask.items():
        assert mask.shape == model.z[l].shape
        assert mask.unique().tolist() == pytest.approx([0, 4 / 3])
        assert (mask == 0).float().mean() == pytest.approx(0.25, abs=0.02)
        assert torch.equal(model.a[l], torch.sigmoid(model.z[l]) * mask)


def test_dropout_is_off_in_evaluation():
    torch.manual_seed(0)
    dropping = MyNet([4, 50, 3], dropout=0.5)
    torch.manual_seed(0)
    plain = MyNet([4, 50, 3])
    x, y_true = torch.randn(7, 4), torch.randn(7, 3)
    dropping(x)
    assert torch.equal(dropping.eval()(x), plain(x))
    for network in (dropping, plain):
        backpropagation(network, y_true, network(x))
    assert all(torch.equal(p, q) for p, q in zip(gradients(dropping), gradients(plain), strict=True))


def test_backpropagation_neither_uses_nor_disturbs_autograd(model):
    x, y_true = torch.randn(7, 4), torch.randn(7, 3)
    y_pred = model(x)
    backpropagation(model, y_true, y_pred)
    with_graph = gradients(model)
    assert all(not g.requires_grad for g in with_graph)
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert y_pred.grad_fn is not None
    with torch.no_grad():
        backpropagation(model, y_true, model(x))
    assert all(torch.equal(p, q) for p, q in zip(with_graph, gradients(model), strict=True))


def float64(*shape):
    return torch.randn(shape, dtype=torch.float64)


TARGETS = {
    "N x C": ("squared_error", float64),
    "N": ("squared_error", lambda n, _: float64(n)),
    "N x 1": ("squared_error", lambda n, _: float64(n, 1)),
    "labels": ("cross_entropy", lambda n, n_outputs: torch.randint(n_outputs, (n,))),
    "probabilities": ("cross_entropy", lambda n, n_outputs: float64(n, n_outputs).softmax(1)),
}


@given(
    n_l=st.lists(st.integers(1, 9), min_size=2, max_size=6),
    activations=st.tuples(st.sampled_from(list(ACTIVATIONS)), st.sampled_from(list(ACTIVATIONS))),
    dropout=st.sampled_from([0.0, 0.3]),
    targets=st.sampled_from(list(TARGETS)),
    batch_size=st.integers(1, 20),
    seed=st.integers(0, 2**32 - 1),
)
def test_gradients_of_any_network_and_loss_match_autograd(n_l, activations, dropout, targets, batch_size, seed):
    loss, make = TARGETS[targets]
    n_l = [*n_l[:-1], 1] if targets == "N" else n_l
    torch.manual_seed(seed)
    model = MyNet(n_l, *activations, dropout).double()
    x, y_true = float64(batch_size, n_l[0]), make(batch_size, n_l[-1])
    results = []
    for method in (by_backpropagation, by_autograd):
        torch.manual_seed(seed)  # the same units are dropped
        results.append(method(model, x, y_true, loss))
    by_hand, expected = results
    if max(gradient.abs().max() for gradient in expected) < 1e-15:  # the probability of a single class is always 1
        assert max(gradient.abs().max() for gradient in by_hand) < 1e-15
    else:
        assert relative_error(by_hand, expected) < 1e-12
