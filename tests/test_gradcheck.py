import math

import pytest
import torch

from cifar2 import gradcheck, mynet
from cifar2.gradcheck import Case, Errors, check, check_directions, relative_error, worst
from cifar2.mynet import ACTIVATIONS, LOSSES, Activation, Loss, MyNet, backpropagation

AUTOGRAD, DIFFERENCE = 1e-12, 1e-7
CASES = gradcheck.cases([1, 2, 4], [3], list(ACTIVATIONS), [1, 5])
# Square hidden layers: a transposed weight has the shape of the right one.
DEEP = Case((5, 4, 4, 3), "tanh", "identity", "cross_entropy", 6)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_backpropagation_agrees_with_autograd_and_with_central_differences(case):
    errors = worst(check(case, seed=3))
    assert errors.autograd <= AUTOGRAD
    assert errors.finite_difference <= DIFFERENCE


def test_the_cases_cover_both_losses_every_activation_and_single_outputs():
    assert {c.loss for c in CASES} == set(LOSSES)
    assert {c.activation for c in CASES} == set(ACTIVATIONS)
    assert {len(c.n_l) - 1 for c in CASES} == {1, 2, 4}
    assert {c.n_l[-1] for c in CASES} == {1, 3}
    assert len(set(CASES)) == len(CASES)


def test_a_network_is_checked_with_each_loss_and_with_a_single_output():
    assert gradcheck.cases([2], [4], ["relu"], [7]) == [
        Case((5, 4, 3), "relu", "relu", "squared_error", 7),
        Case((5, 4, 1), "relu", "identity", "squared_error", 7),
        Case((5, 4, 3), "relu", "identity", "cross_entropy", 7),
    ]


def test_a_case_is_named_by_all_that_it_is():
    assert str(DEEP) == "5-4-4-3 tanh, identity output, cross_entropy, batch 6"


@pytest.fixture
def drawn(monkeypatch):
    """The network, the inputs and the targets that ``check`` draws for a case."""

    def draw(*case):
        found = []
        for method in ("by_autograd", "by_finite_differences"):
            monkeypatch.setattr(gradcheck, method, lambda *a: found.append(a) or gradcheck.by_backpropagation(*a))
        check(Case(*case), seed=3)
        model, x, y_true, loss = found[0]
        assert loss == case[3]
        return model, x, y_true

    return draw


def test_a_case_is_checked_on_the_network_and_the_batch_that_it_names(drawn):
    model, x, y_true = drawn((5, 4, 3), "relu", "sigmoid", "squared_error", 7)
    assert [p.shape for p in model.parameters()] == [(4, 5), (4,), (3, 4), (3,)]
    assert (model.f[1], model.f[2]) == (torch.relu, torch.sigmoid)
    assert (x.shape, y_true.shape) == ((7, 5), (7, 3))
    assert {p.dtype for p in model.parameters()} | {x.dtype, y_true.dtype} == {torch.float64}


def test_a_single_output_is_checked_with_1d_targets(drawn):
    assert drawn((5, 4, 1), "tanh", "identity", "squared_error", 7)[2].shape == (7,)


def test_cross_entropy_is_checked_with_labels_of_every_class(drawn):
    labels = drawn((5, 4, 3), "tanh", "identity", "cross_entropy", 50)[2]
    assert labels.shape == (50,)
    assert labels.unique().tolist() == [0, 1, 2]


def test_the_weights_keep_what_units_add_up_near_1(drawn):
    model, _, _ = drawn((400, 200, 3), "tanh", "identity", "cross_entropy", 7)
    assert [model.w(l).std().item() for l in (1, 2)] == pytest.approx([400**-0.5, 200**-0.5], rel=0.1)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_seed_decides_what_a_case_is_checked_on(loss):
    case = DEEP._replace(loss=loss)
    first = check(case, seed=3)
    assert check(case, seed=3) == first
    assert check(case, seed=4) != first


def wrong_sign(model, y_true, y_pred, loss="squared_error"):
    backpropagation(model, y_true, y_pred, loss)
    model.dL_db[1] = -model.dL_db[1]


@torch.no_grad()
def missing_derivative(model, y_true, y_pred, loss="squared_error"):
    delta = LOSSES[loss].gradient(y_true, y_pred) * model.df[model.L](model.z[model.L])
    for l in range(model.L, 0, -1):
        model.dL_dw[l], model.dL_db[l] = delta.T @ model.a[l - 1], delta.sum(0)
        if l > 1:
            delta = delta @ model.w(l)


@torch.no_grad()
def transposed_weight(model, y_true, y_pred, loss="squared_error"):
    delta = LOSSES[loss].gradient(y_true, y_pred) * model.df[model.L](model.z[model.L])
    for l in range(model.L, 0, -1):
        model.dL_dw[l], model.dL_db[l] = delta.T @ model.a[l - 1], delta.sum(0)
        if l > 1:
            w = model.w(l)
            delta = (delta @ (w.T if w.shape[0] == w.shape[1] else w)) * model.df[l - 1](model.z[l - 1])


def one_weight_a_thousandth_off(model, y_true, y_pred, loss="squared_error"):
    backpropagation(model, y_true, y_pred, loss)
    model.dL_dw[2].view(-1)[0] *= 1.001


WRONG = [wrong_sign, missing_derivative, transposed_weight, one_weight_a_thousandth_off]


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_backpropagation_is_caught_by_both_methods(monkeypatch, wrong):
    monkeypatch.setattr(gradcheck, "backpropagation", wrong)
    errors = worst(check(DEEP, seed=3))
    assert errors.autograd > 1e3 * AUTOGRAD
    assert errors.finite_difference > 10 * DIFFERENCE


@pytest.mark.parametrize("wrong", WRONG[:3])
def test_a_wrong_backpropagation_is_caught_along_random_directions(monkeypatch, wrong):
    torch.manual_seed(0)
    model = MyNet((30, 20, 20, 2), "tanh", "identity").double()
    x, y_true = torch.randn(8, 30, dtype=torch.float64), torch.randint(2, (8,))
    arguments = (model, x, y_true, "cross_entropy", 3, 0)
    assert check_directions(*arguments).finite_difference <= DIFFERENCE
    monkeypatch.setattr(gradcheck, "backpropagation", wrong)
    errors = check_directions(*arguments)
    assert errors.autograd > 1e3 * AUTOGRAD
    assert errors.finite_difference > 10 * DIFFERENCE


def test_the_seed_decides_the_directions():
    model = MyNet((4, 3, 2)).double()
    x, y_true = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    first, same, other = (check_directions(model, x, y_true, "squared_error", 3, seed) for seed in (0, 0, 1))
    assert first == same != other


@pytest.mark.parametrize("layer", [1, 2, 3])
@pytest.mark.parametrize("gradient", ["dL_dw", "dL_db"])
def test_a_fault_in_one_layer_shows_in_the_errors_of_that_layer(monkeypatch, layer, gradient):
    def wrong(model, y_true, y_pred, loss):
        backpropagation(model, y_true, y_pred, loss)
        getattr(model, gradient)[layer].view(-1)[0] += 0.01

    monkeypatch.setattr(gradcheck, "backpropagation", wrong)
    errors = check(DEEP, seed=3)
    assert len(errors) == 3
    for l, found in enumerate(errors, 1):
        assert (found.autograd > 1e3 * AUTOGRAD) == (l == layer)
        assert (found.finite_difference > 10 * DIFFERENCE) == (l == layer)


def test_the_worst_is_the_largest_of_each_kind_and_keeps_what_is_no_number():
    nan = float("nan")
    assert worst([Errors(0.1, 0.2), Errors(0.3, 0.0)]) == Errors(0.3, 0.2)
    for errors in ([Errors(nan, 1.0), Errors(5.0, 2.0)], [Errors(5.0, 2.0), Errors(nan, 1.0)]):
        assert math.isnan(worst(errors).autograd)
        assert worst(errors).finite_difference == 2


def test_a_gradient_that_is_no_number_is_one_in_its_layer(monkeypatch):
    def wrong(model, y_true, y_pred, loss):
        backpropagation(model, y_true, y_pred, loss)
        model.dL_db[2][0] = float("nan")

    monkeypatch.setattr(gradcheck, "backpropagation", wrong)
    assert math.isnan(check(DEEP, seed=3)[1].autograd)


def test_a_wrong_derivative_of_an_activation_is_caught(monkeypatch):
    monkeypatch.setitem(mynet.ACTIVATIONS, "tanh", Activation(torch.tanh, lambda z: 1 - z**2))
    errors = worst(check(DEEP, seed=3))
    assert min(errors) > 10 * DIFFERENCE


def test_a_wrong_gradient_of_a_loss_is_caught(monkeypatch):
    right = mynet.LOSSES["cross_entropy"]
    monkeypatch.setitem(mynet.LOSSES, "cross_entropy", Loss(right.value, lambda t, p: right.gradient(t, p) * len(t)))
    errors = worst(check(DEEP, seed=3))
    assert min(errors) > 10 * DIFFERENCE


def test_the_parameters_are_left_as_they_were():
    torch.manual_seed(0)
    model = MyNet((4, 3, 2)).double()
    before = [p.clone() for p in model.parameters()]
    x, y_true = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    gradcheck.by_finite_differences(model, x, y_true, "squared_error")
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


def test_the_relative_error_is_relative_to_the_largest_entry():
    assert relative_error([torch.tensor([1.0, 0.0])], [torch.tensor([1.0, 0.5])]) == 0.5
    assert relative_error([torch.zeros(2)], [torch.zeros(2)]) == 0
    assert (
        relative_error([torch.tensor([1.0]), torch.tensor([4.0])], [torch.tensor([2.0]), torch.tensor([4.0])]) == 0.25
    )


def test_a_gradient_too_few_is_an_error():
    with pytest.raises(ValueError, match="longer"):
        relative_error([torch.zeros(2)], [torch.zeros(2), torch.zeros(2)])
