import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cifar2.gradcheck import by_autograd, by_backpropagation, relative_error
from cifar2.mynet import ACTIVATIONS, LOSSES, MyNet, backpropagation, gradients, smoothed


@pytest.fixture
def model():
    torch.manual_seed(0)
    return MyNet([4, 5, 3])


def test_forward_is_the_same_as_the_layers_one_after_the_other(model):
    x = torch.randn(7, 2, 2)
    layers = nn.Sequential(nn.Flatten(), model.fc["1"], nn.Tanh(), model.fc["2"], nn.Tanh())
    assert torch.equal(model(x), layers(x))


def test_the_names_of_the_course(model):
    x = torch.randn(7, 4)
    y_pred = model(x)
    assert model.L == 2
    assert list(model.fc) == ["1", "2"]
    assert torch.equal(model.a[0], x)
    assert model.a[2] is y_pred
    assert [tuple(model.z[l].shape) for l in (1, 2)] == [(7, 5), (7, 3)]
    assert torch.equal(model.f[1](model.z[1]), model.a[1])
    assert torch.equal(model.df[1](model.z[1]), 1 - torch.tanh(model.z[1]) ** 2)


def test_gradients_have_the_shape_of_their_parameters(model):
    backpropagation(model, torch.randn(7, 3), model(torch.randn(7, 4)))
    for l in (1, 2):
        assert model.dL_dw[l].shape == model.fc[str(l)].weight.shape
        assert model.dL_db[l].shape == model.fc[str(l)].bias.shape


@pytest.mark.parametrize("batch_size", [1, 2, 33])
def test_the_gradient_is_autograds(model, batch_size):
    x, y_true = torch.randn(batch_size, 4), torch.randn(batch_size, 3)
    y_pred = model(x)
    backpropagation(model, y_true, y_pred)
    ((y_pred - y_true) ** 2).sum().backward()
    for found, parameter in zip(gradients(model), model.parameters(), strict=True):
        torch.testing.assert_close(found, parameter.grad)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_gradient_with_dropout_is_autograds(activation):
    model = MyNet([4, 30, 20, 3], activation, "identity", dropout=0.4).double()
    x, labels = torch.randn(7, 4, dtype=torch.float64), torch.randint(3, (7,))
    y_pred = model(x)
    backpropagation(model, labels, y_pred, "cross_entropy")
    nn.functional.cross_entropy(y_pred, labels).backward()
    for found, parameter in zip(gradients(model), model.parameters(), strict=True):
        torch.testing.assert_close(found, parameter.grad)


def test_dropout_hides_its_share_of_the_hidden_units_and_weighs_the_others_up():
    model = MyNet([4, 100, 50, 3], "sigmoid", "identity", dropout=0.25)
    model(torch.randn(200, 4))
    assert list(model.mask) == [1, 2]
    for l, mask in model.mask.items():
        assert mask.shape == model.z[l].shape
        assert mask.unique().tolist() == pytest.approx([0, 4 / 3])
        assert (mask == 0).float().mean() == pytest.approx(0.25, abs=0.02)
        assert torch.equal(model.a[l], torch.sigmoid(model.z[l]) * mask)


def test_in_float64_dropout_weighs_up_as_exactly_as_float64_can():
    model = MyNet([4, 100, 3], "tanh", "identity", dropout=0.4).double()
    model(torch.randn(20, 4, dtype=torch.float64))
    assert model.mask[1].max().item() == 1 / (1 - 0.4)


def test_dropout_draws_from_the_global_random_state_and_anew_each_time():
    dropping = MyNet([4, 50, 3], dropout=0.5)
    x = torch.randn(7, 4)
    torch.manual_seed(3)
    first, second = dropping(x), dropping(x)
    torch.manual_seed(3)
    assert torch.equal(dropping(x), first)
    assert not torch.equal(first, second)


def test_there_is_no_dropout_in_evaluation():
    torch.manual_seed(0)
    dropping = MyNet([4, 50, 3], dropout=0.5)
    torch.manual_seed(0)
    plain = MyNet([4, 50, 3])
    x, y_true = torch.randn(7, 4), torch.randn(7, 3)
    dropping(x)
    assert torch.equal(dropping.eval()(x), plain(x))
    for net in (dropping, plain):
        backpropagation(net, y_true, net(x))
    assert all(torch.equal(p, q) for p, q in zip(gradients(dropping), gradients(plain), strict=True))


def test_without_dropout_nothing_is_drawn(model):
    before = torch.get_rng_state()
    model(torch.zeros(7, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert model.mask == {}


def test_autograd_is_neither_used_nor_disturbed(model):
    y_pred = model(torch.randn(7, 4))
    backpropagation(model, torch.randn(7, 3), y_pred)
    assert all(not g.requires_grad for g in gradients(model))
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert y_pred.grad_fn is not None


def test_a_forward_pass_without_autograd_is_enough(model):
    x, y_true = torch.randn(7, 4), torch.randn(7, 3)
    backpropagation(model, y_true, model(x))
    with_graph = [g.clone() for g in gradients(model)]
    with torch.no_grad():
        y_pred = model(x)
    backpropagation(model, y_true, y_pred)
    assert all(torch.equal(a, b) for a, b in zip(with_graph, gradients(model), strict=True))


def test_a_1d_target_means_the_same_as_a_column():
    model = MyNet([4, 5, 1])
    x, y_true = torch.randn(7, 4), torch.randn(7)
    backpropagation(model, y_true, model(x))
    flat = [g.clone() for g in gradients(model)]
    backpropagation(model, y_true.unsqueeze(1), model(x))
    assert all(torch.equal(a, b) for a, b in zip(flat, gradients(model), strict=True))
    assert torch.equal(LOSSES["squared_error"].value(y_true, model(x)), ((model(x)[:, 0] - y_true) ** 2).sum())


def test_a_1d_target_for_one_example_with_several_outputs(model):
    backpropagation(model, torch.ones(3), model(torch.ones(1, 4)))
    flat = [g.clone() for g in gradients(model)]
    backpropagation(model, torch.ones(1, 3), model(torch.ones(1, 4)))
    assert all(torch.equal(a, b) for a, b in zip(flat, gradients(model), strict=True))


@pytest.mark.parametrize("shape", [(7,), (3, 7), (7, 1), (6, 3)])
def test_a_target_that_does_not_fit_is_an_error_and_not_broadcast(model, shape):
    with pytest.raises(ValueError, match="y_true has shape"):
        backpropagation(model, torch.zeros(shape), model(torch.randn(7, 4)))


@pytest.mark.parametrize("shape", [(5,), (8,), (7, 1), ()])
def test_labels_that_do_not_fit_are_an_error(model, shape):
    with pytest.raises(ValueError, match="y_true has shape"):
        backpropagation(model, torch.zeros(shape, dtype=torch.int64), model(torch.randn(7, 4)), "cross_entropy")


def test_cross_entropy_is_torchs():
    logits, labels = torch.randn(9, 4), torch.randint(4, (9,))
    torch.testing.assert_close(
        LOSSES["cross_entropy"].value(labels, logits), nn.functional.cross_entropy(logits, labels)
    )


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.9])
def test_smoothed_labels_give_torchs_cross_entropy_and_its_gradient(label_smoothing):
    logits, labels = torch.randn(9, 4, dtype=torch.float64, requires_grad=True), torch.randint(4, (9,))
    targets = smoothed(labels, 4, label_smoothing, torch.float64)
    torch.testing.assert_close(targets.sum(1), torch.ones(9, dtype=torch.float64))
    wanted = nn.functional.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    torch.testing.assert_close(LOSSES["cross_entropy"].value(targets, logits), wanted)
    (gradient,) = torch.autograd.grad(wanted, logits)
    torch.testing.assert_close(LOSSES["cross_entropy"].gradient(targets, logits.detach()), gradient)


def test_any_distribution_over_the_classes_is_a_target():
    logits = torch.randn(9, 4, requires_grad=True)
    targets = torch.softmax(torch.randn(9, 4), 1)
    wanted = nn.functional.cross_entropy(logits, targets)
    torch.testing.assert_close(LOSSES["cross_entropy"].value(targets, logits), wanted)
    (gradient,) = torch.autograd.grad(wanted, logits)
    torch.testing.assert_close(LOSSES["cross_entropy"].gradient(targets, logits.detach()), gradient)


def test_a_class_without_an_example_gets_its_share_of_smoothed_labels_too():
    assert smoothed(torch.tensor([0, 0]), 4, 0.5, torch.float64).tolist() == [[0.625, 0.125, 0.125, 0.125]] * 2


@pytest.mark.parametrize("shape", [(7, 2), (6, 3), (7, 3, 1)])
def test_distributions_that_do_not_fit_are_an_error(model, shape):
    with pytest.raises(ValueError, match="y_true has shape"):
        backpropagation(model, torch.zeros(shape), model(torch.randn(7, 4)), "cross_entropy")


def test_cross_entropy_stays_finite_for_huge_logits():
    logits = torch.tensor([[1e4, -1e4]])
    assert LOSSES["cross_entropy"].value(torch.tensor([1]), logits) == 2e4
    assert torch.equal(LOSSES["cross_entropy"].gradient(torch.tensor([1]), logits), torch.tensor([[1.0, -1.0]]))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_derivative_of_an_activation_is_autograds(name):
    z = torch.linspace(-3, 3, 13, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(ACTIVATIONS[name].f(z).sum(), z)
    torch.testing.assert_close(ACTIVATIONS[name].df(z.detach()), slope)


def test_the_output_may_have_an_activation_of_its_own():
    model = MyNet([4, 5, 3], "relu", "identity")
    model(torch.randn(7, 4))
    assert torch.equal(model.a[2], model.z[2])
    assert torch.equal(model.a[1], model.z[1].clamp(min=0))


def test_the_network_of_the_original_has_its_number_of_parameters():
    assert sum(p.numel() for p in MyNet([3072, 512, 128, 32, 2]).parameters()) == 1_643_234


TARGETS = {
    "squares": ("squared_error", lambda n, outputs: torch.randn(n, outputs, dtype=torch.float64)),
    "1-D squares": ("squared_error", lambda n, _: torch.randn(n, dtype=torch.float64)),
    "labels": ("cross_entropy", lambda n, outputs: torch.randint(outputs, (n,))),
    "probabilities": ("cross_entropy", lambda n, outputs: torch.randn(n, outputs, dtype=torch.float64).softmax(1)),
}


@given(
    n_l=st.lists(st.integers(1, 9), min_size=2, max_size=6),
    activations=st.tuples(st.sampled_from(list(ACTIVATIONS)), st.sampled_from(list(ACTIVATIONS))),
    dropout=st.sampled_from([0.0, 0.3]),
    target=st.sampled_from(list(TARGETS)),
    batch_size=st.integers(1, 20),
    seed=st.integers(0, 2**32 - 1),
)
def test_whatever_the_network_the_loss_and_the_batch_the_gradient_is_autograds_to_rounding(
    n_l, activations, dropout, target, batch_size, seed
):
    loss, make = TARGETS[target]
    n_l = [*n_l[:-1], 1] if target == "1-D squares" else n_l
    torch.manual_seed(seed)
    model = MyNet(n_l, *activations, dropout).double()
    x, y_true = torch.randn(batch_size, n_l[0], dtype=torch.float64), make(batch_size, n_l[-1])
    found = []
    for method in (by_backpropagation, by_autograd):
        torch.manual_seed(seed)  # the same units are dropped
        found.append(method(model, x, y_true, loss))
    by_hand, wanted = found
    if max(gradient.abs().max() for gradient in wanted) < 1e-15:  # no loss moves a single class's probability of 1
        assert max(gradient.abs().max() for gradient in by_hand) < 1e-15
    else:
        assert relative_error(by_hand, wanted) < 1e-12
