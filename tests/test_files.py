import errno
import json
import os
from unittest.mock import Mock

import pytest
import torch

from cifar2 import files
from cifar2.errors import UserError


@pytest.mark.parametrize(
    ("error", "raised"), [(OSError(errno.ENOSPC, "No space left on device"), UserError), (KeyboardInterrupt(), None)]
)
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, error, raised):
    path = tmp_path / "a.json"
    files.write(path, b"before")
    monkeypatch.setattr(os, "fsync", Mock(side_effect=error))
    with pytest.raises(raised or type(error)) as stop:
        files.write(path, b"after")
    assert raised is None or str(stop.value) == f"{path} cannot be written: No space left on device"
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a.json": b"before"}


@pytest.mark.parametrize("name", ["folder/a.json", "folder/below/a.json"])
def test_a_file_in_a_folders_place_is_named(tmp_path, name):
    (tmp_path / "folder").write_text("")
    with pytest.raises(UserError, match=r"a\.json cannot be written: \S+/folder is not a folder"):
        files.write(tmp_path / name, b"")
    assert (tmp_path / "folder").read_text() == ""


def test_an_unreadable_file_is_one_line(tmp_path):
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        files.read(tmp_path)


def test_a_write_replaces_a_hard_link_only(tmp_path):
    (tmp_path / "cached").write_bytes(b"cached")
    (tmp_path / "out").hardlink_to(tmp_path / "cached")
    files.write(tmp_path / "out", b"new")
    assert (tmp_path / "cached").read_bytes() == b"cached"


def test_json_round_trips(tmp_path):
    files.write_json(tmp_path / "new" / "a.json", {"b": 1, "a": [0.1, None]})
    assert files.read_json(tmp_path / "new" / "a.json") == {"b": 1, "a": [0.1, None]}


def test_nan_is_not_written_as_json(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff"])
def test_corrupted_json_is_named(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json is corrupted"):
        files.read_json(tmp_path / "a.json")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"a\.json is missing; `dvc repro` makes it"):
        files.read_json(tmp_path / "a.json")


def test_csv_has_a_header_and_empty_fields_for_none(tmp_path):
    files.write_csv(tmp_path / "a.csv", ("x", "y"), [(1, None), (0.5, "b")])
    assert (tmp_path / "a.csv").read_text() == "x,y\n1,\n0.5,b\n"


def test_csv_round_trips_with_numbers_except_in_text_columns(tmp_path):
    files.write_csv(tmp_path / "a.csv", ("name", "x", "y", "z"), [("inf", None, True, 0.1), ("a,b", -1, False, 2)])
    assert files.read_csv(tmp_path / "a.csv", ("name",)) == [
        {"name": "inf", "x": None, "y": True, "z": 0.1},
        {"name": "a,b", "x": -1, "y": False, "z": 2},
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x,y\n1,a\n2",
        b"x,y\n1,a\n2,",
        b"x,y\n1\n",
        b"x,y\n1,a,3\n",
        b"x,y\n0.4&,a\n",
        b"x,y\n1,\xb5\n",
        b'x,y\n1,"a\n',
    ],
)
def test_corrupted_csv_is_named(tmp_path, content):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"^\S+/a\.csv is corrupted \(.+\); delete it") as fault:
        files.read_csv(tmp_path / "a.csv", "y")
    assert "\n" not in str(fault.value)


def test_a_missing_key_is_named_when_looked_up(tmp_path):
    files.write_csv(tmp_path / "a.csv", ("x",), [(1,)])
    files.write_json(tmp_path / "a.json", {"a": [{"b": 1}]})
    with pytest.raises(UserError, match=r"a\.csv is corrupted \(it has no y\)"):
        files.read_csv(tmp_path / "a.csv", ())[0]["y"]
    with pytest.raises(UserError, match=r"a\.json is corrupted \(it has no c\)"):
        files.read_json(tmp_path / "a.json")["a"][0]["c"]


def test_joined_csv_has_one_header(tmp_path):
    for name in "ab":
        files.write_csv(tmp_path / name, ("x",), [(name,)])
    assert files.join_csv([tmp_path / "a", tmp_path / "b"], "x") == b"x\na\nb\n"


@pytest.mark.parametrize("content", [b"x\n1", b"x\nb\n", b"y\n1\n", b"x\n\xb5\n"])
def test_corrupted_csv_is_not_joined(tmp_path, content):
    files.write_csv(tmp_path / "a", ("x",), [(1,)])
    (tmp_path / "b").write_bytes(content)
    with pytest.raises(UserError, match=r"b is corrupted"):
        files.join_csv([tmp_path / "a", tmp_path / "b"], ())


def test_tensors_round_trip_with_their_metadata(tmp_path):
    vector = torch.arange(6.0)
    # Three that share memory, one of them in another order than it.
    tensors = {"a": vector[:2], "b": vector[2:].view(2, 2).T, "c": vector[1:], "n": torch.tensor([1, 2])}
    files.write_tensors(tmp_path / "t", tensors, {"classes": ["a", "b"], "n": 1})
    back, about = files.read_tensors(tmp_path / "t")
    assert about == {"classes": ["a", "b"], "n": 1}
    assert all(torch.equal(tensors[name], back[name]) for name in tensors)


def test_equal_tensors_give_equal_bytes(tmp_path):
    tensors = {name: torch.zeros(2) for name in "abcdefgh"}
    for name in ("one", "two"):
        files.write_tensors(tmp_path / name, tensors, dict.fromkeys("abcdefgh", 1))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("cut", [0, 4, 20, -1])
def test_truncated_tensors_are_named(tmp_path, cut):
    files.write_tensors(tmp_path / "t", {"w": torch.zeros(5)}, {})
    (tmp_path / "t").write_bytes((tmp_path / "t").read_bytes()[:cut])
    with pytest.raises(UserError, match="t is corrupted"):
        files.read_tensors(tmp_path / "t")


def test_any_flipped_bit_in_a_tensor_file_is_detected(tmp_path):
    path = tmp_path / "t"
    files.write_tensors(path, {"w": torch.arange(5.0), "n": torch.tensor([True])}, {"classes": ["a", "b"]})
    content = path.read_bytes()
    for place in range(8 * len(content)):
        corrupted = bytearray(content)
        corrupted[place // 8] ^= 1 << place % 8
        path.write_bytes(corrupted)
        with pytest.raises(UserError, match="t is corrupted"):
            files.read_tensors(path)


def test_a_tensor_file_of_another_program_is_named(tmp_path):
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "t").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(UserError, match="t is corrupted"):
        files.read_tensors(tmp_path / "t")
