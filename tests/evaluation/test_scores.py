import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from cifar2.dataset.examples import Examples
from cifar2.evaluation.scores import score, scores_of
from cifar2.networks.inference import logits

generator = torch.Generator().manual_seed(0)
EXAMPLES = Examples(
    torch.randn(200, 3, 4, 4, generator=generator),
    torch.randint(2, (200,), generator=generator),
    [0.5] * 3,
    [0.5] * 3,
)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 2))


@pytest.mark.parametrize("flip_average", [False, True])
def test_scores_match_torch_without_dropout(model, flip_average):
    outputs = logits(model.eval(), EXAMPLES.x, flip_average)
    scores = score(model.train(), EXAMPLES, flip_average)
    torch.testing.assert_close(scores.losses, cross_entropy(outputs, EXAMPLES.y, reduction="none"))
    assert scores.loss == pytest.approx(cross_entropy(outputs, EXAMPLES.y).item(), rel=1e-6)
    assert torch.equal(scores.correct, outputs.argmax(1) == EXAMPLES.y)
    assert scores.accuracy == (outputs.argmax(1) == EXAMPLES.y).double().mean()


def test_scores_of_bfloat16_outputs_are_float32():
    outputs = torch.randn(200, 2).bfloat16()
    assert torch.equal(scores_of(outputs, EXAMPLES.y).losses, scores_of(outputs.float(), EXAMPLES.y).losses)


def test_mean_loss_does_not_depend_on_the_order():
    scores = scores_of(100 * torch.randn(2000, 2), torch.randint(2, (2000,)))
    assert scores._replace(losses=scores.losses.flip(0)).loss == scores.loss
