import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cifar2.dataset import splits
from tests.conftest import random_split, table

PAIRS = "data/prepared/near_duplicates.csv"
OUTPUTS = {PAIRS, "metrics/near_duplicates.json", "metrics/figures/near_duplicates.png"}


@pytest.fixture
def sets(project):
    """Images that differ, of which each set has the official indices from another number on."""
    found = {}
    for seed, (name, n) in enumerate({"train": 30, "val": 20, "test": 20}.items()):
        split = random_split(n, seed)
        found[name] = replace(split, index=100 * seed + torch.arange(n))
    return found


def save(sets):
    for name, split in sets.items():
        splits.save(Path(f"data/prepared/{name}.safetensors"), split)


def counts():
    return json.loads(Path("metrics/near_duplicates.json").read_text())


def test_pairs_are_listed_by_official_index(sets, run_stage):
    sets["test"].x[3] = sets["train"].x[7]
    sets["test"].x[4] = sets["val"].x[5].flip(-1)
    save(sets)
    run_stage("near_duplicates.py")
    rows = table(PAIRS)
    assert {(row["test_index"], row["other_set"], row["other_index"], row["mirrored"]) for row in rows} == {
        ("203", "train", "7", "False"),
        ("204", "val", "105", "True"),
    }
    assert all(float(row["similarity"]) == pytest.approx(1, abs=0.01) for row in rows)


def test_pairs_are_counted_by_split(sets, run_stage):
    train, val, test = (sets[name].x for name in ("train", "val", "test"))
    val[:5] = train[:5]
    test[0] = train[0]  # its partners are in both sets
    test[1] = val[6]
    test[2:4] = train[7:9]
    test[5:10] = test[4]
    save(sets)
    run_stage("near_duplicates.py")
    assert counts() == {
        "n_test": 4,
        "n_test_of_train": 3,
        "n_test_of_val": 2,
        "n_val_of_train": 5,
        "n_test_of_test": 6,
    }


def test_table_without_pairs_is_empty(sets, run_stage):
    save(sets)
    run_stage("near_duplicates.py")
    assert Path(PAIRS).read_text() == "test_index,other_set,other_index,mirrored,similarity\n"
    assert set(counts().values()) == {0}


@pytest.mark.figures
def test_second_run_writes_the_same_bytes(sets, project, run_stage):
    sets["test"].x[3] = sets["train"].x[7]
    save(sets)
    run_stage("near_duplicates.py")
    first = project.snapshot()
    assert set(first) >= OUTPUTS
    run_stage("near_duplicates.py")
    assert project.snapshot() == first


def test_without_a_search_there_are_no_pairs_and_no_counts(sets, project, run_stage):
    sets["test"].x[3] = sets["train"].x[7]
    save(sets)
    project.params["data"]["near_duplicates"] = False
    project.write_params()
    run_stage("near_duplicates.py")
    assert table(PAIRS) == []
    assert counts() == {}
