"""A classifier as an ONNX file, for programs without PyTorch."""

import warnings
from typing import cast

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from cifar2.dataset.examples import normalise
from cifar2.networks import classifier, transfer

# Pictures that onnxruntime sees at once.
BATCH = 50


class Whole(nn.Module):
    """All that lies between pictures and logits: normalisation, what makes the features, the network.

    Args:
        card: of the classifier.
        network: likewise.
    """

    def __init__(self, card: classifier.Card, network: nn.Module) -> None:
        super().__init__()
        self.card = card
        self.backbone = transfer.frozen(card.features.backbone, card.features.image_size) if card.features else None
        self.network = network

    def forward(self, pictures: Tensor) -> Tensor:
        """The logits, N x classes, for pictures, uint8, N x 3 x 32 x 32."""
        if self.backbone and self.card.features:
            x = normalise(pictures, transfer.MEAN, transfer.STD)
            x = transfer.look(self.backbone, x, self.card.features.flip_average)
        else:
            x = normalise(pictures, self.card.mean, self.card.std)
        logits: Tensor = self.network(x)
        return (logits + self.network(x.flip(-1))) / 2 if self.card.configuration.flip_average else logits


def to_onnx(card: classifier.Card, network: nn.Module) -> bytes:
    """The classifier as an ONNX model: ``pictures``, uint8, N x 3 x 32 x 32, to ``logits``, float32, N x classes.

    The class names stand in the model's metadata as ``classes``, separated by commas.  The bytes depend on the
    classifier alone: what the exporter says of itself and of this machine's paths is left out.
    """
    example = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MyNet, which keeps z and a of its last batch
        program = torch.onnx.export(
            Whole(card, network).eval(),
            (example,),
            input_names=["pictures"],
            output_names=["logits"],
            dynamic_shapes={"pictures": {0: torch.export.Dim("n")}},
            dynamo=True,
            verbose=False,
        )
    model = cast(torch.onnx.ONNXProgram, program).model_proto  # None only where a file was to be written
    model.producer_version = ""
    for part in (model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        del part.metadata_props[:]
    onnx.helper.set_model_props(model, {"classes": ",".join(card.classes)})
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def run(model: bytes, pictures: Tensor, threads: int) -> Tensor:
    """The logits that onnxruntime finds, float32, N x classes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return torch.from_numpy(
        np.concatenate([session.run(None, {"pictures": batch.numpy()})[0] for batch in torch.split(pictures, BATCH)])
    )
