import os
import subprocess
import sys

import pytest
import torch

from cifar2.dataset.examples import examples
from cifar2.errors import UserError
from cifar2.training import hardware, loop
from tests.clone import ROOT
from tests.training.conftest import EACH_MODEL, NORMALISE, SETTINGS, SPLIT, build

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def warn_again():
    hardware.product_dtype.cache_clear()
    yield
    hardware.product_dtype.cache_clear()


def set_devices(monkeypatch, cuda, mps):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_missing_device_is_named(monkeypatch, name):
    set_devices(monkeypatch, False, False)
    with pytest.raises(UserError, match=f"train.device is {name}, which PyTorch does not find"):
        hardware.device(name)


@pytest.mark.parametrize(
    ("cuda", "mps", "chosen"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_is_a_gpu_if_there_is_one(monkeypatch, cuda, mps, chosen):
    set_devices(monkeypatch, cuda, mps)
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda on: None)
    assert hardware.device("auto").type == chosen
    assert hardware.device("cpu") == CPU


def test_gpu_is_deterministic_and_without_tf32(monkeypatch):
    set_devices(monkeypatch, True, False)
    calls = []
    monkeypatch.setattr(torch, "use_deterministic_algorithms", calls.append)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    torch.backends.cuda.matmul.allow_tf32 = True
    hardware.device("cuda")
    assert calls == [True]
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


def test_number_of_threads_is_fixed():
    threads = torch.get_num_threads()
    hardware.fix_threads(threads + 1)
    assert torch.get_num_threads() == threads + 1
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("instructions", "environment"),
    [
        ("avx2", {"MKL_CBWR": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"}),
        ("native", {"MKL_CBWR": None, "ONEDNN_MAX_CPU_ISA": None}),
    ],
)
def test_instruction_set_is_the_one_of_params(monkeypatch, instructions, environment):
    monkeypatch.setenv("MKL_CBWR", "AVX2")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "")
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    hardware.fix_instructions(instructions)
    assert {name: os.environ.get(name) for name in environment} == environment


def test_instruction_set_chosen_by_the_user_stays(monkeypatch):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    hardware.fix_instructions("avx2")
    assert os.environ["ONEDNN_MAX_CPU_ISA"] == "SSE41"


PRODUCT = """
import torch
from cifar2.training import hardware

hardware.fix_instructions({!r})
torch.mm(torch.ones(64, 64), torch.ones(64, 64))
"""


@pytest.mark.slow
def test_products_use_the_instruction_set_of_params():
    """MKL reads its variable at the first product, and then reports whether the results are reproducible (CNR)."""
    for instructions, fastest in (("avx2", False), ("native", True)):
        variables = os.environ | {"MKL_VERBOSE": "1", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", PRODUCT.format(instructions)]
        done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=True)
        assert "SGEMM" in done.stdout
        assert ("CNR:OFF" in done.stdout) is fastest


@pytest.mark.parametrize(
    ("precision", "capabilities"),
    [("bfloat16", {"avx512_bf16": True}), ("bfloat16", {"amx_bf16": True}), ("float32", {})],
)
def test_precision_is_used_on_a_processor_with_its_products(monkeypatch, capsys, precision, capabilities):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert hardware.product_dtype(precision, CPU) == getattr(torch, precision)
    assert capsys.readouterr().err == ""


def test_bfloat16_elsewhere_warns_once_and_is_float32(monkeypatch, capsys):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False, "avx2": True})
    assert hardware.product_dtype("bfloat16", CPU) == torch.float32
    assert hardware.product_dtype("bfloat16", CPU) == torch.float32
    assert capsys.readouterr().err == "warning: this cpu has no bfloat16 products; training in float32\n"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@EACH_MODEL
def test_training_on_a_gpu_matches_the_cpu_to_rounding(model):
    networks = []
    for device in (CPU, hardware.device("cuda")):
        network = build(model).to(device)
        data = examples(SPLIT, NORMALISE.mean, NORMALISE.std, device)
        list(loop.train(network, data, data, model, SETTINGS, seed=0))
        networks.append(network.cpu())
    for p, q in zip(*(network.parameters() for network in networks), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)
