import math
from itertools import product

import pytest
import torch

from cifar2 import gradcheck
from cifar2.errors import UserError
from cifar2.gradcheck import STEP, Case, Errors, KinkError, check, check_directions, relative_error, worst
from cifar2.losses import LOSSES, Loss
from cifar2.mynet import ACTIVATIONS, MyNet, backpropagation, gradients

AUTOGRAD, DIFFERENCE = 1e-12, 1e-7
CASES = gradcheck.cases([1, 2, 4], [3], list(ACTIVATIONS), [1, 5])
# Square hidden layers: a transposed weight has the correct shape.
DEEP = Case((5, 4, 4, 3), "tanh", "identity", "cross_entropy", 6)


def assert_small(errors):
    assert errors.autograd <= AUTOGRAD
    assert errors.finite_difference <= DIFFERENCE


def assert_large(errors):
    assert errors.autograd > 1e3 * AUTOGRAD
    assert errors.finite_difference > 10 * DIFFERENCE


@pytest.mark.parametrize("case", CASES, ids=str)
def test_backpropagation_matches_both_references(case):
    assert_small(worst(check(case, seed=3)))


def test_cases_cover_the_grid_without_repetition():
    # The activation of hidden layers makes no difference where there are none.
    grid = gradcheck.cases([1, 2], [4, 6], ["relu", "tanh"], [7, 8])
    networks = {c if len(c.n_l) > 2 else c._replace(activation="") for c in grid}
    assert len(grid) == len(networks) == (2 * 2 + 2 * 2 * 3) * 2


def test_cases_have_each_loss_and_a_single_output():
    assert gradcheck.cases([2], [4], ["relu"], [7]) == [
        Case((5, 4, 3), "relu", "relu", "squared_error", 7),
        Case((5, 4, 1), "relu", "identity", "squared_error", 7),
        Case((5, 4, 3), "relu", "identity", "cross_entropy", 7),
    ]


def test_case_shows_all_its_fields():
    assert str(DEEP) == "5-4-4-3 tanh, identity output, cross_entropy, batch 6"


@pytest.fixture
def drawn(monkeypatch):
    """The network, the inputs and the targets that ``check`` draws for a case."""

    def draw(*case):
        calls = []
        for method in ("by_autograd", "by_finite_differences"):
            monkeypatch.setattr(gradcheck, method, lambda *a: calls.append(a) or gradcheck.by_backpropagation(*a))
        check(Case(*case), seed=3)
        model, x, y_true, loss = calls[0]
        assert loss == case[3]
        return model, x, y_true

    return draw


def test_case_is_checked_on_its_network_and_batch(drawn):
    model, x, y_true = drawn((5, 4, 3), "relu", "sigmoid", "squared_error", 7)
    assert [p.shape for p in model.parameters()] == [(4, 5), (4,), (3, 4), (3,)]
    assert (model.f[1], model.f[2]) == (torch.relu, torch.sigmoid)
    assert (x.shape, y_true.shape) == ((7, 5), (7, 3))
    assert {p.dtype for p in model.parameters()} | {x.dtype, y_true.dtype} == {torch.float64}


def test_single_output_is_checked_with_1d_targets(drawn):
    assert drawn((5, 4, 1), "tanh", "identity", "squared_error", 7)[2].shape == (7,)


def test_cross_entropy_is_checked_with_labels_of_every_class(drawn):
    labels = drawn((5, 4, 3), "tanh", "identity", "cross_entropy", 50)[2]
    assert labels.shape == (50,)
    assert labels.unique().tolist() == [0, 1, 2]


def test_weights_are_scaled_by_the_number_of_inputs(drawn):
    model, _, _ = drawn((400, 200, 3), "tanh", "identity", "cross_entropy", 7)
    assert [model.w(l).std().item() for l in (1, 2)] == pytest.approx([400**-0.5, 200**-0.5], rel=0.1)


def afterwards(change):
    """Backpropagation whose gradients are then changed."""

    def wrong(model, y_true, *arguments):
        backpropagation(model, y_true, *arguments)
        change(model, len(y_true))

    return wrong


def with_derivative_of_hidden_units(df):
    def wrong(model, *arguments):
        correct = model.df
        model.df = {l: df if l < model.L else correct[l] for l in correct}
        backpropagation(model, *arguments)
        model.df = correct

    return wrong


def transposed_weight(model, *arguments):
    w = {l: model.w(l) for l in range(1, model.L + 1)}
    model.w = lambda l: w[l].T if w[l].shape[0] == w[l].shape[1] else w[l]
    backpropagation(model, *arguments)
    del model.w


WRONG = {
    "wrong sign": afterwards(lambda model, _: model.dL_db[1].neg_()),
    "missing derivative": with_derivative_of_hidden_units(torch.ones_like),
    "derivative on the wrong side of zero": with_derivative_of_hidden_units(lambda z: (z < 0).to(z.dtype)),
    "transposed weight": transposed_weight,
    "sum over the batch": afterwards(lambda model, n: [g.mul_(n) for g in gradients(model)]),
    "first layer without its bias gradient": afterwards(lambda model, _: model.dL_db[1].zero_()),
    "last layer a hundredth off": afterwards(lambda model, _: model.dL_dw[model.L].mul_(1.01)),
    "one entry wrong": afterwards(lambda model, _: model.dL_dw[2][0, 0].add_(0.01)),
}


@pytest.mark.parametrize("layer", [1, 2, 3])
@pytest.mark.parametrize("gradient", ["dL_dw", "dL_db"])
def test_fault_in_one_layer_shows_in_the_errors_of_that_layer(monkeypatch, layer, gradient):
    wrong = afterwards(lambda model, _: getattr(model, gradient)[layer].view(-1)[0].add_(0.01))
    monkeypatch.setattr(gradcheck, "backpropagation", wrong)
    errors = check(DEEP, seed=3)
    assert len(errors) == 3
    for l, of_layer in enumerate(errors, 1):
        assert (of_layer.autograd > 1e3 * AUTOGRAD) == (l == layer)
        assert (of_layer.finite_difference > 10 * DIFFERENCE) == (l == layer)


def test_worst_is_the_largest_of_each_kind_or_nan():
    nan = float("nan")
    assert worst([Errors(0.1, 0.2), Errors(0.3, 0.0)]) == Errors(0.3, 0.2)
    for errors in ([Errors(nan, 1.0), Errors(5.0, 2.0)], [Errors(5.0, 2.0), Errors(nan, 1.0)]):
        assert math.isnan(worst(errors).autograd)
        assert worst(errors).finite_difference == 2


def test_nan_gradient_is_a_nan_error_of_its_layer(monkeypatch):
    monkeypatch.setattr(gradcheck, "backpropagation", afterwards(lambda model, _: model.dL_db[2][0].fill_(math.nan)))
    assert math.isnan(check(DEEP, seed=3)[1].autograd)


def test_wrong_gradient_of_a_loss_is_caught(monkeypatch):
    loss = LOSSES["cross_entropy"]
    monkeypatch.setitem(LOSSES, "cross_entropy", Loss(loss.value, lambda t, p: loss.gradient(t, p) * len(t)))
    assert min(worst(check(DEEP, seed=3))) > 10 * DIFFERENCE


def test_relative_error_is_relative_to_the_largest_entry():
    assert relative_error([torch.tensor([1.0, 0.0])], [torch.tensor([1.0, 0.5])]) == 0.5
    assert relative_error([torch.zeros(2)], [torch.zeros(2)]) == 0
    assert (
        relative_error([torch.tensor([1.0]), torch.tensor([4.0])], [torch.tensor([2.0]), torch.tensor([4.0])]) == 0.25
    )


def test_missing_gradient_is_an_error():
    with pytest.raises(ValueError, match="longer"):
        relative_error([torch.zeros(2)], [torch.zeros(2), torch.zeros(2)])


@pytest.fixture
def kinks(monkeypatch):
    """The kinks met by the central differences so far."""
    met, central_difference = [], gradcheck._central_difference

    def recorded(*arguments):
        try:
            return central_difference(*arguments)
        except KinkError as kink:
            met.append(kink)
            raise

    monkeypatch.setattr(gradcheck, "_central_difference", recorded)
    return met


def one_unit(activation, w, b, x):
    """A network of one hidden unit with z[1] = w x + b, and its batch and targets."""
    model = MyNet((1, 1, 1), activation, "identity").double()
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), (w, b, 1.0, 1.0), strict=True):
            parameter.fill_(value)
    return model, torch.tensor([[x]], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)


# z[1] is moved by STEP through b and by x STEP through w.
ON_A_KINK = [(1.0, -0.5 + 0.5 * STEP, 0.5), (1.0, -2 + 1.5 * STEP, 2.0), (1.0, -2 - 1.5 * STEP, 2.0), (0.0, 0.0, 0.0)]
OFF_A_KINK = [(1.0, -0.5 + 2 * STEP, 0.5), (1.0, -0.5 - 2 * STEP, 0.5), (1.0, 1.0, 0.0)]


@pytest.mark.parametrize(("w", "b", "x"), ON_A_KINK)
def test_relu_across_its_kink_has_no_central_difference(w, b, x):
    model, *batch = one_unit("relu", w, b, x)
    with pytest.raises(KinkError):
        gradcheck.by_finite_differences(model, *batch, "squared_error")
    assert [p.item() for p in model.parameters()] == [w, b, 1, 1]


@pytest.mark.parametrize(
    ("activation", "unit"),
    [*product(["relu"], OFF_A_KINK), *product(["tanh", "sigmoid", "identity"], ON_A_KINK)],
)
def test_activation_without_a_kink_close_by_is_compared(activation, unit):
    model, *batch = one_unit(activation, *unit)
    before = [p.item() for p in model.parameters()]
    by_hand = gradcheck.by_backpropagation(model, *batch, "squared_error")
    assert relative_error(by_hand, gradcheck.by_finite_differences(model, *batch, "squared_error")) <= DIFFERENCE
    assert [p.item() for p in model.parameters()] == before


RELU_CHECKS = [
    (Case((5, 8, 8, 8, 3), "relu", "identity", "cross_entropy", 16), 850),
    (Case((5, 8, 8, 8, 3), "relu", "relu", "squared_error", 16), 985),
]


@pytest.mark.parametrize(("case", "seed"), RELU_CHECKS)
def test_seed_whose_network_is_on_a_kink_passes(kinks, case, seed):
    assert_small(worst(check(case, seed)))
    assert kinks


def test_case_whose_networks_are_all_on_a_kink_is_one_line(monkeypatch):
    monkeypatch.setattr(gradcheck, "_random_problem", lambda *_: one_unit("relu", *ON_A_KINK[0]))
    with pytest.raises(UserError, match=r"^params.yaml: verify\.seed gives 100 networks .*; choose another$"):
        check(DEEP._replace(loss="squared_error"), seed=3)


def many_relus(seed):
    """A network and a batch with many ReLUs: about half the seeds take one across its kink."""
    torch.manual_seed(seed)
    model = MyNet((10, 35, 35, 2), "relu", "identity").double()
    return model, torch.randn(3000, 10, dtype=torch.float64), torch.randint(2, (3000,)), "cross_entropy"


@pytest.mark.parametrize("seeds", [range(3, 6), pytest.param(range(6, 200), marks=pytest.mark.slow)], ids=len)
def test_directions_raise_no_false_alarm_with_any_seed(kinks, seeds):
    for seed in seeds:
        assert_small(check_directions(*many_relus(seed), 5, seed))
    assert kinks


def test_image_on_a_kink_is_left_out_along_that_direction(monkeypatch):
    batches, compared, central_difference = [], [], gradcheck._central_difference

    def recorded(model, x, y_true, loss, parameters, direction):
        batches.append(len(x))
        difference = central_difference(model, x, y_true, loss, parameters, direction)
        compared.append((len(x), direction))
        return difference

    monkeypatch.setattr(gradcheck, "_central_difference", recorded)
    model, x, y_true, loss = many_relus(4)
    check_directions(model, x[:800], y_true[:800], loss, 5, 4)
    assert batches.count(800) == len(compared) == 5
    assert 0 < sum(n < 800 for n, _ in compared) < 5
    assert min(batches) > 790
    # The directions are the drawn ones, in this order.
    generator = torch.Generator().manual_seed(4)
    for _, direction in compared:
        drawn = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in model.parameters()]
        flat = [torch.cat([t.flatten() for t in tensors]) for tensors in (direction, drawn)]
        assert torch.cosine_similarity(*flat, dim=0).item() == pytest.approx(1)


def test_batch_with_every_image_on_a_kink_is_one_line():
    with pytest.raises(UserError, match=r"^params.yaml: with verify\.seed every image .*; choose another$"):
        check_directions(*one_unit("relu", 0.0, 0.0, 0.0), "squared_error", 1, 0)


CHECKS = {
    "smooth": lambda: worst(check(DEEP, seed=3)),
    "kinks": lambda: worst(check(*RELU_CHECKS[0])),
    "kinks along directions": lambda: check_directions(*many_relus(3), 5, 3),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("kind", CHECKS)
def test_wrong_backpropagation_is_caught_by_both_references(monkeypatch, kinks, kind, wrong):
    monkeypatch.setattr(gradcheck, "backpropagation", wrong)
    assert_large(CHECKS[kind]())
    assert bool(kinks) == ("kinks" in kind)
