import functools
import sys
import warnings

import numpy as np
import onnx
import pytest
import torch

from cifar2 import params
from cifar2.deploy import export
from cifar2.networks import classifier as models
from cifar2.networks import transfer
from tests.conftest import N_FEATURES, ROOT, random_split
from tests.networks.test_classifier import CARD
from tests.networks.test_transfer import LITE0, small_network

IMAGES = random_split(60, 0).images
CNN = models.CnnShape(channels=(4, 8), n_classes=2, dropout=0.5)
KINDS = {
    "mlp": {},
    "mlp, flipped": {"flip_average": True},
    "cnn": {"shape": CNN},
    "cnn, flipped": {"shape": CNN, "flip_average": True},
    "features": {"features": params.Features(backbone=LITE0, image_size=32, flip_average=False)},
    "small features, flipped": {"features": params.Features(backbone="small", image_size=32, flip_average=True)},
}
N_INPUTS = {LITE0: N_FEATURES, "small": 6}
NETWORK = transfer._network


@pytest.fixture(autouse=True)
def small_backbone(monkeypatch):
    def choose(name, *arguments):
        return small_network() if name == "small" else NETWORK(name, *arguments)

    monkeypatch.setattr(transfer, "_network", choose)


def classifier(kind):
    """One whose every part shows in its answers."""
    card = CARD.model_copy(
        update={
            "shape": models.MyNetShape(n_l=(3072, 8, 2), activation="tanh", dropout=0.5),
            "mean": (0.4, 0.5, 0.6),
            "std": (0.2, 0.25, 0.3),
            **KINDS[kind],
        }
    )
    if card.features:
        n_l = (N_INPUTS[card.features.backbone], 2)
        card = card.model_copy(update={"shape": models.MyNetShape(n_l=n_l, activation="relu")})
    network = models.build(card.shape, seed=0)
    with torch.no_grad():
        network(models.inputs(card, IMAGES))  # in training, which moves the statistics of batch normalisation
        for parameter in network.parameters():
            parameter.mul_(3)
    return card, network


@functools.cache
def exported(kind):
    return export.to_onnx(*classifier(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_onnxruntime_finds_the_logits_that_pytorch_finds(kind):
    card, network = classifier(kind)
    wanted = models.logits(network.eval(), models.inputs(card, IMAGES), card.flip_average)
    assert wanted.std(0).min() > 0.01
    for n in (1, 3, len(IMAGES)):
        found = export.run(exported(kind), IMAGES[:n], threads=1)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, wanted[:n], rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_a_valid_model_from_any_number_of_pictures_to_logits(kind):
    model = onnx.load_from_string(exported(kind))
    onnx.checker.check_model(model, full_check=True)
    (pictures,), (logits,) = model.graph.input, model.graph.output
    assert (pictures.name, logits.name) == ("pictures", "logits")
    shapes = [[d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] for value in (pictures, logits)]
    assert shapes == [["n", 3, 32, 32], ["n", 2]]
    types = [value.type.tensor_type.elem_type for value in (pictures, logits)]
    assert types == [onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT]


def test_the_class_names_stand_in_it():
    model = onnx.load_from_string(exported("mlp"))
    assert {p.key: p.value for p in model.metadata_props} == {"classes": "airplane,bird"}


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_this_machine_or_of_the_exporter_stands_in_it(kind):
    for text in (str(ROOT), sys.prefix, "site-packages", ".py", torch.__version__, onnx.__version__):
        assert text.encode() not in exported(kind)


def test_a_second_export_is_the_same_bytes_without_a_warning_or_a_word(capfd):
    kind = "small features, flipped"
    first = exported(kind)
    torch.rand(1)
    capfd.readouterr()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert export.to_onnx(*classifier(kind)) == first
    assert not warned
    assert capfd.readouterr() == ("", "")


def test_many_pictures_are_seen_a_batch_at_a_time(monkeypatch):
    seen = []

    class Session:
        def __init__(self, *_, **__):
            pass

        def run(self, _, inputs):
            seen.append(len(inputs["pictures"]))
            return [np.zeros((seen[-1], 2), np.float32)]

    monkeypatch.setattr(export.onnxruntime, "InferenceSession", Session)
    assert export.run(b"", IMAGES, threads=1).shape == (60, 2)
    assert seen == [50, 10]
