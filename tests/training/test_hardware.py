import os

import pytest
import torch

from cifar2.dataset.examples import examples
from cifar2.errors import UserError
from cifar2.training import hardware, loop
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


def test_convolutions_get_their_threads_and_instruction_set(monkeypatch):
    threads = torch.get_num_threads()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "")
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    hardware.fix_convolutions(threads + 1)
    assert torch.get_num_threads() == threads + 1
    assert os.environ["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    torch.set_num_threads(threads)


def test_instruction_set_chosen_by_the_user_stays(monkeypatch):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    hardware.fix_convolutions(torch.get_num_threads())
    assert os.environ["ONEDNN_MAX_CPU_ISA"] == "SSE41"


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
