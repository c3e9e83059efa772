"""The same bits on any processor and number of cores, for every family, on the real pictures: minutes, hence slow."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cifar2 import params
from cifar2.dataset import splits as dataset
from cifar2.networks import classifier, transfer
from cifar2.training import hardware, loop
from tests.conftest import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / "data/features/train.safetensors").exists(), reason="`make repro` makes the data"),
]

# Perceptrons first: what convolutions fix for themselves stays fixed.  Convolutions see part of the pictures.
PICTURES = {"fine": 9024, "augmented": 9024, "linear": 9024, "convolutional": 640, "fine_tuned": 64}
# What could make a difference: OpenMP's threads, and the instruction set that ATen chooses by the processor.
CASES = {
    "1 thread, AVX2": {"OMP_NUM_THREADS": "1", "ATEN_CPU_CAPABILITY": "avx2"},
    "2 threads, AVX-512": {"OMP_NUM_THREADS": "2", "ATEN_CPU_CAPABILITY": "avx512"},
    "4 threads, AVX2": {"OMP_NUM_THREADS": "4", "ATEN_CPU_CAPABILITY": "avx2"},
}

WITH_AVX512 = pytest.mark.skipif(not torch.cpu.get_capabilities()["avx512_f"], reason="this processor has no AVX-512")


def digest(*tensors):
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def bits():
    """The weights, curve and answers of each kind of network after an epoch, as digests, and a backbone's features."""
    everything = params.load()
    found = {}
    for name, n in PICTURES.items():
        configuration = (everything.configs | everything.beyond)[name]
        splits = [dataset.load(Path("data", configuration.input, f"{part}.safetensors")) for part in ("train", "val")]
        splits = [replace(s, images=s.images[:n], labels=s.labels[:n], index=s.index[:n]) for s in splits]
        card = classifier.describe(name, configuration, everything, splits[0])
        if card.convolves:
            hardware.fix_convolutions(everything.train.threads)
        train, val = (loop.examples(split, card.mean, card.std) for split in splits)
        network = classifier.build(card.shape, 0)
        settings = everything.train.model_copy(update={"epochs": 1})
        one_epoch = configuration.model_copy(update={"epochs": 1})
        curve = [list(epoch) for epoch in loop.train(network, train, val, one_epoch, settings, 0)]
        network.eval()
        answers = classifier.logits(network, val.x, configuration.flip_average)
        found[name] = [digest(*network.state_dict().values()), digest(answers), curve]
    found["features"] = digest(transfer.extract_features(splits[0].images, **everything.features.model_dump()))
    return found


def bits_with(environment, *command):
    """What another process finds, started by ``command``."""
    done = subprocess.run(
        [*command, sys.executable, "-m", "tests.pipeline.test_bits"],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def expected():
    return bits_with({})


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=WITH_AVX512) if "AVX-512" in case else case for case in CASES]
)
def test_threads_and_instruction_sets_change_no_bit(expected, case):
    assert bits_with(CASES[case]) == expected


def test_one_core_alone_changes_no_bit(expected):
    assert bits_with({}, "taskset", "--cpu-list", str(min(os.sched_getaffinity(0)))) == expected


if __name__ == "__main__":
    print(json.dumps(bits()))
