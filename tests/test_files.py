import errno
import json
import os

import pytest
import torch

from cifar2 import files
from cifar2.errors import UserError


def no_space(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_write_that_fails_leaves_what_was_there_and_no_half_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    files.write(path, b"before")
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(UserError, match=r"a\.json cannot be written: No space left on device"):
        files.write(path, b"after")
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["folder/a.json", "folder/below/a.json"])
def test_a_folder_that_is_a_file_is_named(tmp_path, name):
    (tmp_path / "folder").write_text("")
    with pytest.raises(UserError, match=r"a\.json cannot be written: \S+/folder is not a folder"):
        files.write(tmp_path / name, b"")
    assert (tmp_path / "folder").read_text() == ""


def test_a_file_that_cannot_be_read_is_one_line(tmp_path):
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        files.read(tmp_path)


def test_a_write_replaces_a_link_and_not_what_it_points_to(tmp_path):
    (tmp_path / "cached").write_bytes(b"cached")
    (tmp_path / "out").hardlink_to(tmp_path / "cached")
    files.write(tmp_path / "out", b"new")
    assert (tmp_path / "cached").read_bytes() == b"cached"


def test_json_comes_back(tmp_path):
    files.write_json(tmp_path / "new" / "a.json", {"b": 1, "a": [0.1, None]})
    assert files.read_json(tmp_path / "new" / "a.json", "ab") == {"b": 1, "a": [0.1, None]}


def test_a_nan_is_no_metric(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b"{}"])
def test_damaged_json_is_named(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json is damaged"):
        files.read_json(tmp_path / "a.json", "a")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"a\.json is missing; `dvc repro` makes it"):
        files.read_json(tmp_path / "a.json", "a")


def test_csv_has_a_header_and_empty_fields_for_none(tmp_path):
    files.write_csv(tmp_path / "a.csv", ("x", "y"), [(1, None), (0.5, "b")])
    assert (tmp_path / "a.csv").read_text() == "x,y\n1,\n0.5,b\n"


def test_csv_comes_back_by_its_columns(tmp_path):
    files.write_csv(tmp_path / "a.csv", ("x", "y"), [(1, "a,b"), (2, None)])
    assert files.read_csv(tmp_path / "a.csv", "y") == [{"x": 1, "y": "a,b"}, {"x": 2, "y": ""}]


def test_all_columns_of_a_csv_are_numbers_but_those_that_are_named(tmp_path):
    files.write_csv(tmp_path / "a.csv", ("name", "x", "y", "z"), [("inf", None, True, 0.1)])
    assert files.read_csv(tmp_path / "a.csv", ("name",)) == [{"name": "inf", "x": None, "y": True, "z": 0.1}]


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
def test_damaged_csv_is_named(tmp_path, content):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"^\S+/a\.csv is damaged \(.+\); delete it") as fault:
        files.read_csv(tmp_path / "a.csv", "y")
    assert "\n" not in str(fault.value)


def test_a_name_that_is_not_there_is_named_with_its_file_when_it_is_looked_up(tmp_path):
    files.write_csv(tmp_path / "a.csv", ("x",), [(1,)])
    files.write_json(tmp_path / "a.json", {"a": [{"b": 1}]})
    with pytest.raises(UserError, match=r"a\.csv is damaged \(it has no y\)"):
        files.read_csv(tmp_path / "a.csv", ())[0]["y"]
    with pytest.raises(UserError, match=r"a\.json is damaged \(it has no c\)"):
        files.read_json(tmp_path / "a.json", ())["a"][0]["c"]


@pytest.mark.parametrize("name", ["a.json", "a.csv"])
def test_with_any_bit_flipped_text_is_read_or_named(tmp_path, name):
    """It has no digest: a flip may make another number of a number."""
    path = tmp_path / name
    files.write_json(tmp_path / "a.json", {"b": [0.125, None, True], "c": {"d": "e"}})
    files.write_csv(tmp_path / "a.csv", ("x", "y"), [(0.125, "e"), (-1, None)])
    content, named = path.read_bytes(), []
    for place in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            files.read_csv(path, "y") if name.endswith("csv") else files.read_json(path, ())
        except UserError as fault:
            named.append(str(fault))
    assert all(line.startswith(f"{path} is damaged") for line in named)
    assert len(named) > 4 * len(content)


def test_joined_csv_has_one_header(tmp_path):
    for name in "ab":
        files.write_csv(tmp_path / name, ("x",), [(name,)])
    assert files.join_csv([tmp_path / "a", tmp_path / "b"], "x") == b"x\na\nb\n"


@pytest.mark.parametrize("content", [b"x\n1", b"x\nb\n", b"y\n1\n", b"x\n\xb5\n"])
def test_damaged_csv_is_not_joined(tmp_path, content):
    files.write_csv(tmp_path / "a", ("x",), [(1,)])
    (tmp_path / "b").write_bytes(content)
    with pytest.raises(UserError, match=r"b is damaged"):
        files.join_csv([tmp_path / "a", tmp_path / "b"], ())


def test_tensors_come_back_with_what_is_said_about_them(tmp_path):
    tensors = {"w": torch.arange(6.0).view(2, 3).T, "n": torch.tensor([1, 2])}
    files.write_tensors(tmp_path / "t", tensors, {"classes": ["a", "b"], "n": 1})
    back, about = files.read_tensors(tmp_path / "t")
    assert about == {"classes": ["a", "b"], "n": 1}
    assert all(torch.equal(tensors[name], back[name]) for name in tensors)


def test_pieces_of_one_memory_are_written_each_by_itself(tmp_path):
    vector = torch.arange(6.0)
    files.write_tensors(tmp_path / "t", {"a": vector[:2], "b": vector[2:].view(2, 2).t()}, {})
    tensors, _ = files.read_tensors(tmp_path / "t")
    assert tensors["a"].tolist() == [0, 1]
    assert tensors["b"].tolist() == [[2, 4], [3, 5]]


def test_tensors_are_written_with_the_same_bytes_every_time(tmp_path):
    tensors = {name: torch.zeros(2) for name in "abcdefgh"}
    for name in ("one", "two"):
        files.write_tensors(tmp_path / name, tensors, dict.fromkeys("abcdefgh", 1))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("cut", [0, 4, 20, -1])
def test_truncated_tensors_are_named(tmp_path, cut):
    files.write_tensors(tmp_path / "t", {"w": torch.zeros(5)}, {})
    (tmp_path / "t").write_bytes((tmp_path / "t").read_bytes()[:cut])
    with pytest.raises(UserError, match="t is damaged"):
        files.read_tensors(tmp_path / "t")


def test_a_flipped_bit_is_found_wherever_it_is(tmp_path):
    path = tmp_path / "t"
    files.write_tensors(path, {"w": torch.arange(5.0), "n": torch.tensor([True])}, {"classes": ["a", "b"]})
    content = path.read_bytes()
    for place in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="t is damaged"):
            files.read_tensors(path)


def test_an_interrupted_write_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    files.write(tmp_path / "a", b"before")

    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.write(tmp_path / "a", b"after")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a": b"before"}


def test_tensors_from_elsewhere_are_named(tmp_path):
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "t").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(UserError, match="t is damaged"):
        files.read_tensors(tmp_path / "t")
