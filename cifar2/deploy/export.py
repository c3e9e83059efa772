"""A classifier as an ONNX file, for programs without PyTorch."""

import json
import logging
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from cifar2.networks import classifier
from cifar2.networks.image_classifier import ImageClassifier

# The exporter would report that Triton is missing, which only a GPU uses.
logging.getLogger("torch.utils.flop_counter").setLevel(logging.ERROR)

# Images that onnxruntime takes at a time.
BATCH = 8


def to_onnx(card: classifier.Card, network: nn.Module) -> bytes:
    """The classifier as an ONNX model: ``images``, uint8, N x 3 x H x W, to ``logits``, float32, N x classes.

    The metadata has the class names as ``classes``, a list in JSON.  The bytes depend on the classifier alone: the
    exporter's version and the paths of this machine are left out.
    """
    example = torch.zeros(2, 3, card.image_size, card.image_size, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about MyNet, which keeps z and a of its last batch
        program = torch.onnx.export(
            ImageClassifier(card, network).eval(),
            (example,),
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes={"images": {0: torch.export.Dim("n")}},
            dynamo=True,
            verbose=False,
        )
    model = cast(torch.onnx.ONNXProgram, program).model_proto  # None only if a file is written
    model.producer_version = ""
    for part in (model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        del part.metadata_props[:]
    onnx.helper.set_model_props(model, {"classes": json.dumps(card.classes, ensure_ascii=False)})
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def run(model: bytes, images: Tensor, threads: int) -> Tensor:
    """The logits by onnxruntime, float32, N x classes; each batch is the work of one of ``threads``."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    with ThreadPoolExecutor(threads) as pool:
        batches = pool.map(lambda batch: session.run(None, {"images": batch.numpy()})[0], torch.split(images, BATCH))
        return torch.from_numpy(np.concatenate([*batches]))
