import json
import shutil
from pathlib import Path

import pytest
import torch

from cifar2 import params
from cifar2.evaluation import summary
from tests.conftest import SIZES, table


def ranking(root=""):
    return table(Path(root, "metrics/ranking.csv"))


def select(root=""):
    return json.loads(Path(root, "metrics/select.json").read_text())


def selected(final="final"):
    return json.loads(Path(f"data/models/selected/{final}.json").read_text())


def metrics(name, root=""):
    return json.loads(Path(root, f"metrics/train/{name}.json").read_text())


def change(name, n_correct, root="", **changes):
    """Change the results of a configuration: the first ``n_correct`` validation images are classified correctly."""
    path = Path(root, f"data/validated/{name}.safetensors")
    results = summary.load(path)
    correct = (torch.arange(SIZES["val"]) < n_correct).expand_as(results.correct).clone()
    summary.save(path, results._replace(correct=correct, **changes))


def wins(name):
    """Make a configuration clearly the best."""
    for other in params.load().configs:
        change(other, SIZES["val"] if other == name else 12)


@pytest.mark.figures
def test_outputs_are_the_selected_configuration_and_a_ranking(trained, run_stage):
    run_stage("select_model.py")
    rows = ranking()
    configs = trained.params["configs"]
    assert [row["rank"] for row in rows] == [str(i) for i in range(1, len(configs) + 1)]
    assert {row["name"]: row["family"] for row in rows} == {name: c["family"] for name, c in configs.items()}
    assert select()["selected"] == rows[0]["name"]
    assert "tied within one standard error" in select()["rule"]
    for key in ("fraction", "fraction_of_family"):
        assert select()[key] == {row["name"]: float(row[key]) for row in rows}
    assert sum(select()["fraction"].values()) == pytest.approx(1)
    configuration = params.load().configs[rows[0]["name"]].model_dump()
    assert configuration.items() >= configs[rows[0]["name"]].items()
    assert selected() == {"name": rows[0]["name"], "configuration": configuration}
    assert selected("final_mlp")["name"] == select()["best_per_family"]["mlp"]
    for row in rows:
        assert float(row["val_accuracy"]) == metrics(row["name"])["val_accuracy"]
    assert Path("metrics/figures/ranking.png").exists()


def test_models_of_each_family_are_those_of_its_best(trained, run_stage):
    for name, n in (("fine", 21), ("fast", 15), ("augmented", 8), ("convolutional", 10), ("linear", 24)):
        change(name, n)
    for name in ("precise", "balanced", "smooth"):
        change(name, 2)
    run_stage("select_model.py")
    best = {"mlp": "fine", "mlp_augmented": "augmented", "cnn": "convolutional", "transfer": "linear"}
    assert select()["best_per_family"] == best
    assert select()["selected"] == "linear"
    for family, name in best.items():
        chosen = Path(f"data/models/train/{name}.safetensors")
        assert Path(f"data/models/{family}.safetensors").read_bytes() == chosen.read_bytes()


def test_family_in_which_all_diverged_is_one_line(trained, fails_with):
    nothing = dict.fromkeys(metrics("convolutional")) | {"diverged": "seed 0, epoch 1, step 2: x"}
    Path("metrics/train/convolutional.json").write_text(json.dumps(nothing))
    before = trained.snapshot()
    assert "nothing to select from: convolutional diverged at seed 0" in fails_with("select_model.py")
    assert trained.snapshot() == before


def test_extended_configurations_compete_among_themselves(trained, run_stage):
    trained.params["extended"]["configs"]["other"] = trained.params["configs"]["augmented"] | {"lr": 0.001}
    trained.write_params()
    for name in ("other", "without_flip"):
        run_stage("train.py", name)
    before = trained.snapshot()
    run_stage("select_model.py", "--extended")
    after = trained.snapshot()
    assert before.items() <= after.items(), "what the plain selection wrote stays"
    assert all(path.startswith("extended/") for path in after.keys() - before.keys())
    assert [row["name"] for row in ranking("extended")] == ["other"], "variants of the ablation are no candidates"
    assert select("extended")["selected"] == "other"
    assert select("extended")["best_per_family"] == {"mlp_augmented": "other"}
    chosen = Path("extended/data/models/train/other.safetensors")
    assert Path("extended/data/models/mlp_augmented.safetensors").read_bytes() == chosen.read_bytes()
    assert {row["configuration"] for row in table("extended/metrics/curves.csv")} == {"other"}
    assert Path("extended/metrics/figures/ranking.png").exists()


def test_curves_of_all_configurations_are_in_one_file(trained, run_stage):
    run_stage("select_model.py")
    rows = table("metrics/curves.csv")
    assert [row["configuration"] for row in rows[::4]] == list(trained.params["configs"])
    assert len(rows) == len(trained.params["configs"]) * 2 * 2


def test_selected_file_does_not_depend_on_the_others(trained, run_stage):
    wins("linear")
    run_stage("select_model.py")
    before, families = selected(), select()["best_per_family"]
    change("smooth" if families["mlp"] != "smooth" else "fine", 18)
    run_stage("select_model.py")
    assert selected() == before
    assert select()["best_per_family"] != families


def test_selection_reads_no_data(trained, run_stage):
    for name in SIZES:
        Path(f"data/prepared/{name}.safetensors").unlink()
    shutil.rmtree("data/features")
    run_stage("select_model.py")


def test_removed_configuration_is_not_selected(trained, run_stage):
    wins("fast")
    run_stage("select_model.py")
    assert select()["selected"] == "fast"
    del trained.params["configs"]["fast"]
    trained.write_params()
    run_stage("select_model.py")
    assert select()["selected"] != "fast"
