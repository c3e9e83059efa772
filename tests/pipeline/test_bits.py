"""Bit-identical results on any processor and number of cores, for every family, on the real images."""

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
from cifar2.dataset import splits
from cifar2.networks import inference, transfer
from cifar2.training.run import Run
from tests.conftest import ROOT
from tools import compare

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / "data/features/train.safetensors").exists(), reason="`make repro` makes the data"),
]

# Perceptrons first: a run with convolutions fixes the number of threads.  Convolutions use some of the images.
PERCEPTRONS = {"fine": 9024, "augmented": 9024, "linear": 9024}
N_IMAGES = PERCEPTRONS | {"convolutional": 640, "fine_tuned": 64}
# On Intel the results of a perceptron depend on the number of threads (docs/reproducibility.md).
OF_ANY_THREADS = N_IMAGES.keys() - (set() if compare.is_amd() else PERCEPTRONS.keys()) | {"features"}
WORKER = "PYTEST_XDIST_WORKER"
# Possible sources of differences: cores, OpenMP's threads, and the instruction set that ATen chooses by the processor.
ONE_CORE = ["taskset", "--cpu-list", str(min(os.sched_getaffinity(0)))]
CASES = {
    "1 core, AVX2": (ONE_CORE, {"ATEN_CPU_CAPABILITY": "avx2"}),
    "2 threads, AVX-512": ([], {"OMP_NUM_THREADS": "2", "ATEN_CPU_CAPABILITY": "avx512"}),
    "4 threads, AVX2": ([], {"OMP_NUM_THREADS": "4", "ATEN_CPU_CAPABILITY": "avx2"}),
}

WITH_AVX512 = pytest.mark.skipif(not torch.cpu.get_capabilities()["avx512_f"], reason="this processor has no AVX-512")


def digest(*tensors):
    sha256 = hashlib.sha256()
    for tensor in tensors:
        sha256.update(tensor.contiguous().numpy().tobytes())
    return sha256.hexdigest()[:16]


def digests():
    """Digests of the weights and logits of each kind of network after an epoch, and of a backbone's features."""
    all_params, results = params.load(), {}
    for name, n in N_IMAGES.items():
        configuration = (all_params.configs | all_params.extended_configs)[name].model_copy(update={"epochs": 1})
        sets = [splits.load(Path("data", configuration.input, f"{split}.safetensors")) for split in ("train", "val")]
        sets = [replace(s, x=s.x[:n], labels=s.labels[:n], index=s.index[:n]) for s in sets]
        run = Run(name, configuration, all_params, *sets)
        curve = [list(epoch) for epoch in run.epochs([0])]
        (network,) = run.networks
        logits = inference.logits(network.eval(), run.val.x, configuration.flip_average)
        results[name] = [digest(*network.state_dict().values()), digest(logits), curve]
    results["features"] = digest(transfer.extract_features(sets[0].x, **all_params.features.model_dump()))
    return results


def digests_with(command, environment):
    """The digests of another process, started by ``command``."""
    # As in a run by hand: a pytest worker would use one thread.
    ours = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", WORKER)}
    process = subprocess.run(
        [*command, sys.executable, "-m", "tests.pipeline.test_bits"],
        cwd=ROOT,
        env=ours | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(process.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def expected():
    return digests_with([], {})


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=WITH_AVX512) if "AVX-512" in case else case for case in CASES]
)
def test_cores_threads_and_instruction_sets_change_no_bit(expected, case):
    found = digests_with(*CASES[case])
    for name in OF_ANY_THREADS:
        assert found[name] == expected[name], name


if __name__ == "__main__":
    print(json.dumps(digests()))
