"""Export the final model to ONNX, verify it on the test images, and write its model card."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the code of this checkout, whatever is installed
from cifar2 import errors, files, params
from cifar2.dataset import splits
from cifar2.deploy import export, model_card
from cifar2.networks import classifier
from cifar2.training import hardware

MODELS = Path("data/models")
# Largest difference of two logits, relative to the largest logit.  PyTorch and onnxruntime add the same float32 numbers
# in different orders; in a deep backbone their sums differ by up to 5e-6, 40 roundings.
TOLERANCE = 1e-5


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    train = params.load().train
    hardware.fix_threads(train.threads)
    hardware.fix_instructions(train.instructions)
    card, networks, _ = classifier.load(MODELS / "final.safetensors")
    # Only the images are used; nothing is selected by the result.
    test = splits.load(Path("data/prepared/test.safetensors"))
    evaluated, _ = files.read_tensors(Path("data/evaluated/final.safetensors"))
    metrics = {
        name: files.read_json(Path("metrics") / path)
        for name, path in {
            "prepare": "prepare.json",
            "refit": "refit/final.json",
            "final": "evaluate/final.json",
        }.items()
    }
    onnx = export.to_onnx(card, networks["final"])
    expected, logits = evaluated["logits"][0], export.run(onnx, test.x, train.threads)
    same = int((logits.argmax(1) == expected.argmax(1)).sum())
    difference, tolerance = (logits - expected).abs().max().item(), TOLERANCE * expected.abs().max().item()
    print(f"onnxruntime and PyTorch: {same} of {len(expected)} predictions agree, logits differ by {difference:.1e}")
    # Logits this close agree on the prediction, or two of them are equal up to rounding.
    if not difference <= tolerance:
        raise errors.UserError(
            f"the ONNX model differs from data/models/final.safetensors: logits by {difference:.1e}, "
            f"tolerance {tolerance:.0e}, predictions on {len(expected) - same} test images; nothing was written"
        )
    files.write(MODELS / "final.onnx", onnx)
    files.write(MODELS / "final.md", model_card.text(card, **metrics).encode())


if __name__ == "__main__":
    errors.run(main)
