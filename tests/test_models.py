import pytest
import torch

from cifar2 import files, models
from cifar2.errors import UserError

CARD = models.Card(
    configuration="fine",
    n_l=(3072, 4, 2),
    activation="relu",
    classes=("airplane", "bird"),
    mean=(0.5,) * 3,
    std=(0.5,) * 3,
)


def test_weights_are_the_seeds_alone_and_the_global_random_state_stays():
    state = torch.get_rng_state()
    a, b, c = (models.build(CARD, seed).fc["1"].weight for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(torch.get_rng_state(), state)


def test_models_come_back_from_disk(tmp_path):
    saved = {f"seed{seed}": models.build(CARD, seed) for seed in (3, 1)}
    models.save(tmp_path / "m", CARD, saved)
    card, loaded = models.load(tmp_path / "m")
    assert card == CARD
    assert list(loaded) == ["seed3", "seed1"]
    x = torch.randn(5, 3, 32, 32)
    for key in saved:
        assert torch.equal(models.logits(saved[key], x), models.logits(loaded[key], x))


def test_no_model_at_all_comes_back_too(tmp_path):
    models.save(tmp_path / "m", CARD, {})
    assert models.load(tmp_path / "m") == (CARD, {})


@pytest.mark.parametrize(
    ("tensors", "about"),
    [
        ({}, {}),
        ({}, {"card": {"n_l": 3}, "keys": []}),
        ({}, {"card": CARD.model_dump(), "keys": ["seed0"]}),
        ({"seed0/fc.1.weight": torch.zeros(1)}, {"card": CARD.model_dump(), "keys": ["seed0"]}),
    ],
)
def test_a_file_that_holds_no_such_model_is_named(tmp_path, tensors, about):
    files.write_tensors(tmp_path / "m", tensors, about)
    with pytest.raises(UserError, match="m is damaged"):
        models.load(tmp_path / "m")


def test_probabilities_are_a_distribution():
    p = models.probabilities(models.build(CARD, 0), torch.randn(5, 3, 32, 32))
    assert p.shape == (5, 2)
    assert p.dtype == torch.float64
    torch.testing.assert_close(p.sum(1), torch.ones(5, dtype=torch.float64))


def test_logits_in_several_batches_are_those_in_one():
    model = models.build(CARD, 0)
    x = torch.randn(4100, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(models.logits(model, x), model(x))
