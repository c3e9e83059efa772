import functools
import sys
import warnings

import onnx
import pytest
import torch

from cifar2 import params
from cifar2.deploy import export
from cifar2.networks import classifier, inference, transfer
from tests.conftest import N_FEATURES, ROOT, random_split
from tests.networks.test_classifier import CARD, COMMON
from tests.networks.test_transfer import LITE0, small_network

IMAGES = random_split(60, 0).x
FLIPPED = {"flip_average": True}
CNN = params.Cnn(model="cnn", **COMMON, channels=[4, 8], dropout=0.5)
FEATURES = params.Features(backbone=LITE0, image_size=32, flip_average=False)
SMALL = params.Features(backbone="small", image_size=32, flip_average=True)
KINDS = {
    "mlp": {},
    "mlp, flipped": {"configuration": CARD.configuration.model_copy(update=FLIPPED)},
    "cnn": {"configuration": CNN, "n_l": ()},
    "cnn, flipped": {"configuration": CNN.model_copy(update=FLIPPED), "n_l": ()},
    "features": {"features": FEATURES, "n_l": (N_FEATURES, 2)},
    "small features, flipped": {"features": SMALL, "n_l": (6, 2)},
}
EACH_KIND = pytest.mark.parametrize(
    "kind", [kind if kind == "mlp" else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
NETWORK = transfer._network


@pytest.fixture(autouse=True)
def small_backbone(monkeypatch):
    def choose(name, *arguments):
        return small_network() if name == "small" else NETWORK(name, *arguments)

    monkeypatch.setattr(transfer, "_network", choose)


def classifier_of(kind):
    """A card and a network in which every part of the classifier changes the logits."""
    changes = {"n_l": (3072, 8, 2), "activation": "tanh", "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.25, 0.3)}
    card = CARD.model_copy(update=changes | KINDS[kind])
    network = classifier.build(card, seed=0)
    with torch.no_grad():
        network(inference.inputs(card, IMAGES))  # in training mode, which moves the statistics of batch normalisation
        for parameter in network.parameters():
            parameter.mul_(3)
    return card, network


@functools.cache
def exported(kind):
    return export.to_onnx(*classifier_of(kind))


@EACH_KIND
def test_onnxruntime_gives_the_logits_of_pytorch(kind):
    card, network = classifier_of(kind)
    x = inference.inputs(card, IMAGES)
    expected = inference.logits(network.eval(), x, card.configuration.flip_average)
    assert expected.std(0).min() > 0.01
    for n in (1, 3, len(IMAGES)):
        logits = export.run(exported(kind), IMAGES[:n], threads=1)
        assert logits.dtype == torch.float32
        torch.testing.assert_close(logits, expected[:n], rtol=0, atol=1e-4)


@EACH_KIND
def test_model_maps_any_number_of_images_to_logits(kind):
    model = onnx.load_from_string(exported(kind))
    onnx.checker.check_model(model, full_check=True)
    assert {p.key: p.value for p in model.metadata_props} == {"classes": '["airplane", "bird"]'}
    (images,), (logits,) = model.graph.input, model.graph.output
    assert (images.name, logits.name) == ("images", "logits")
    shapes = [[d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] for value in (images, logits)]
    assert shapes == [["n", 3, 32, 32], ["n", 2]]
    types = [value.type.tensor_type.elem_type for value in (images, logits)]
    assert types == [onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT]


@EACH_KIND
def test_model_has_no_path_and_no_version(kind):
    for text in (str(ROOT), sys.prefix, "site-packages", ".py", torch.__version__, onnx.__version__):
        assert text.encode() not in exported(kind)


@pytest.mark.slow
def test_second_export_has_the_same_bytes_and_is_silent(capfd):
    kind = "small features, flipped"
    first = exported(kind)
    torch.rand(1)
    capfd.readouterr()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert export.to_onnx(*classifier_of(kind)) == first
    assert not warned
    assert capfd.readouterr() == ("", "")


def test_images_are_processed_in_batches(monkeypatch):
    sizes = []

    class Recorded(export.onnxruntime.InferenceSession):
        def run(self, names, inputs):
            sizes.append(len(inputs["images"]))
            return super().run(names, inputs)

    monkeypatch.setattr(export.onnxruntime, "InferenceSession", Recorded)
    assert export.run(exported("mlp"), IMAGES, threads=1).shape == (60, 2)
    assert sizes == [8] * 7 + [4]
