import csv
import json
from pathlib import Path

from tests.conftest import SIZES


def test_it_writes_the_winner_its_models_and_a_table_of_all(trained, run_stage):
    run_stage("select_model.py")
    select = json.loads(Path("metrics/select.json").read_text())
    with Path("metrics/ranking.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert {row["name"] for row in rows} == set(trained.params["configs"])
    assert select["selected"] == rows[0]["name"]
    assert select["best_per_family"] == {"mlp": rows[0]["name"]}
    assert "tied within one standard error" in select["rule"]
    assert select["configuration"] == trained.params["configs"][rows[0]["name"]] | {"nesterov": False}
    winner = Path(f"data/models/train/{rows[0]['name']}.safetensors")
    assert Path("data/models/selected/mlp.safetensors").read_bytes() == winner.read_bytes()
    for row in rows:
        metrics = json.loads(Path(f"metrics/train/{row['name']}.json").read_text())
        assert float(row["val_accuracy"]) == metrics["val_accuracy"]
    assert Path("metrics/figures/ranking.png").exists()


def test_the_curves_of_all_stand_in_one_file(trained, run_stage):
    run_stage("select_model.py")
    with Path("metrics/curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["configuration"] for row in rows[::4]] == list(trained.params["configs"])
    assert len(rows) == 5 * 2 * 2


def test_it_opens_no_split(trained, run_stage):
    for name in SIZES:
        Path(f"data/prepared/{name}.safetensors").unlink()
    run_stage("select_model.py")


def test_a_configuration_that_was_removed_does_not_win(trained, run_stage):
    run_stage("select_model.py")
    winner = json.loads(Path("metrics/select.json").read_text())["selected"]
    del trained.params["configs"][winner]
    trained.write_params()
    run_stage("select_model.py")
    assert json.loads(Path("metrics/select.json").read_text())["selected"] != winner


def test_a_configuration_without_metrics_is_one_line_and_nothing_is_written(trained, fails_with):
    Path("metrics/train/smooth.json").unlink()
    before = trained.snapshot()
    assert "metrics/train/smooth.json is missing; `dvc repro` makes it" in fails_with("select_model.py")
    assert trained.snapshot() == before
