import pytest
import torch
from torch.nn.functional import cross_entropy, mse_loss

from cifar2.losses import LOSSES, balanced_weights, smooth_labels

N, C = 7, 3
TORCH = {
    "squared_error": lambda y_true, y_pred: mse_loss(y_pred, y_true, reduction="sum"),
    "cross_entropy": lambda y_true, y_pred: cross_entropy(y_pred, y_true),
}


def float64(*shape):
    return torch.randn(shape, dtype=torch.float64)


def assert_matches(loss, y_true, y_pred, expected):
    """The value is ``expected``, and the gradient is its gradient."""
    (gradient,) = torch.autograd.grad(expected, y_pred)
    torch.testing.assert_close(LOSSES[loss].value(y_true, y_pred), expected)
    torch.testing.assert_close(LOSSES[loss].gradient(y_true, y_pred.detach()), gradient)


@pytest.mark.parametrize(
    ("loss", "y_true", "n_outputs"),
    [
        ("squared_error", float64(N, C), C),
        ("squared_error", float64(N, 1), 1),
        ("squared_error", float64(N, 1), C),  # broadcast along the outputs
        ("squared_error", float64(N, 1), N),
        ("cross_entropy", torch.arange(N) % C, C),
        ("cross_entropy", float64(N, C).softmax(1), C),
    ],
)
@pytest.mark.filterwarnings("ignore:Using a target size:UserWarning")
def test_losses_and_gradients_match_torch(loss, y_true, n_outputs):
    y_pred = float64(N, n_outputs).requires_grad_()
    assert_matches(loss, y_true, y_pred, TORCH[loss](y_true, y_pred))


@pytest.mark.parametrize("shape", [(N, 1), (1, C)])
def test_1d_targets_for_as_many_outputs_are_elementwise(shape):
    y_true, y_pred = float64(max(shape)), float64(*shape).requires_grad_()
    assert_matches("squared_error", y_true, y_pred, ((y_pred - y_true.view(shape)) ** 2).sum())


@pytest.mark.parametrize(
    ("loss", "shape", "outputs"),
    [
        *(
            ("squared_error", shape, (N, C))
            for shape in [(N,), (C,), (C, N), (N - 1, 1), (N - 1, C), (1, C), (N, 1, C)]
        ),
        *(("squared_error", shape, (N, N)) for shape in [(N,), (1, N)]),
        *(("squared_error", shape, (N, 1)) for shape in [(N, N), (1, N), (N - 1,), ()]),
        *(("cross_entropy", shape, (N, C)) for shape in [(N - 1,), (N, 1), (), (N, C - 1), (N - 1, C), (N, C, 1)]),
    ],
)
def test_targets_of_another_shape_are_an_error(loss, shape, outputs):
    for function in LOSSES[loss]:
        with pytest.raises(ValueError, match="y_true has shape"):
            function(torch.zeros(shape, dtype=torch.int64), torch.zeros(outputs))


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.9])
def test_smoothed_labels_give_torchs_smoothed_loss(label_smoothing):
    y, y_pred = torch.randint(4, (9,)), float64(9, 4).requires_grad_()
    targets = smooth_labels(y, 4, label_smoothing, torch.float64)
    torch.testing.assert_close(targets.sum(1), torch.ones(9, dtype=torch.float64))
    assert_matches("cross_entropy", targets, y_pred, cross_entropy(y_pred, y, label_smoothing=label_smoothing))


@pytest.mark.parametrize("label_smoothing", [0.0, 0.3])
def test_class_weights_give_torchs_weighted_loss(label_smoothing):
    y, y_pred = torch.randint(4, (9,)), float64(9, 4).requires_grad_()
    weights = torch.tensor([0.5, 3.0, 1.0, 0.1], dtype=torch.float64)
    targets = smooth_labels(y, 4, label_smoothing, torch.float64, weights)
    expected = cross_entropy(y_pred, y, weights, reduction="sum", label_smoothing=label_smoothing) / 9
    assert_matches("cross_entropy", targets, y_pred, expected)


def test_balanced_weights_let_each_class_count_alike():
    y = torch.tensor([0] * 6 + [1] * 3 + [2])
    weights = balanced_weights(y)
    assert torch.allclose(weights * y.bincount(), torch.full((3,), 10 / 3))
    assert weights[y].mean().item() == pytest.approx(1)


def test_smoothed_labels_include_a_class_without_examples():
    targets = smooth_labels(torch.tensor([0, 0]), 4, 0.5, torch.float64)
    assert targets.tolist() == [[0.625, 0.125, 0.125, 0.125]] * 2


def test_cross_entropy_of_huge_logits_is_finite():
    y_true, logits = torch.tensor([1]), torch.tensor([[1e4, -1e4]])
    assert LOSSES["cross_entropy"].value(y_true, logits) == 2e4
    assert torch.equal(LOSSES["cross_entropy"].gradient(y_true, logits), torch.tensor([[1.0, -1.0]]))
