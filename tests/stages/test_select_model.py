import json
import shutil
from pathlib import Path

import pytest

from cifar2 import params
from cifar2.evaluation import selection
from tests.conftest import SIZES, table


def ranking(root=""):
    return table(Path(root, "metrics/ranking.csv"))


def select(root=""):
    return json.loads(Path(root, "metrics/select.json").read_text())


def selected():
    return json.loads(Path("data/models/selected.json").read_text())


def metrics(name, root=""):
    return json.loads(Path(root, f"metrics/train/{name}.json").read_text())


def change(name, root="", **changes):
    """Change the metrics of a configuration."""
    Path(root, f"metrics/train/{name}.json").write_text(json.dumps(metrics(name, root) | changes))


def wins(name, root=""):
    """Make a configuration clearly the best."""
    change(name, root, val_accuracy=1.01, val_accuracy_se=0.0)


def test_outputs_are_the_selected_configuration_and_a_ranking(trained, run_stage):
    run_stage("select_model.py")
    rows = ranking()
    configs = trained.params["configs"]
    assert [row["rank"] for row in rows] == [str(i) for i in range(1, len(configs) + 1)]
    assert {row["name"]: row["family"] for row in rows} == {name: c["family"] for name, c in configs.items()}
    assert select()["selected"] == rows[0]["name"]
    assert "tied within one standard error" in select()["rule"]
    configuration = params.load().configs[rows[0]["name"]].model_dump()
    assert configuration.items() >= configs[rows[0]["name"]].items()
    assert selected() == {"name": rows[0]["name"], "configuration": configuration}
    for row in rows:
        assert float(row["val_accuracy"]) == metrics(row["name"])["val_accuracy"]
    assert Path("metrics/figures/ranking.png").exists()


def test_models_of_each_family_are_those_of_its_best(trained, run_stage):
    for name, accuracy in (("fine", 0.9), ("fast", 0.85), ("augmented", 0.5), ("convolutional", 0.6), ("linear", 1.0)):
        change(name, val_accuracy=accuracy, val_accuracy_se=0.0)
    for name in ("precise", "balanced", "smooth"):
        change(name, val_accuracy=0.1, val_accuracy_se=0.0)
    run_stage("select_model.py")
    best = {"mlp": "fine", "mlp_augmented": "augmented", "cnn": "convolutional", "transfer": "linear"}
    assert select()["best_per_family"] == best
    assert select()["selected"] == "linear"
    for family, name in best.items():
        chosen = Path(f"data/models/train/{name}.safetensors")
        assert Path(f"data/models/{family}.safetensors").read_bytes() == chosen.read_bytes()


def test_rule_is_applied_within_each_family_alone(trained, run_stage):
    """A configuration tied with the best of its family need not be tied with the best of all."""
    names = [name for name, c in trained.params["configs"].items() if c["family"] == "mlp"]
    for name in names:
        change(name, val_accuracy=0.5, val_accuracy_se=0.1, val_loss=0.9, val_loss_se=0.0, val_loss_std=[0.0])
    change("smooth", val_accuracy=0.45, val_loss=0.1)
    wins("convolutional")
    run_stage("select_model.py")
    assert select()["best_per_family"]["mlp"] == "smooth"
    assert selection.rank({name: metrics(name) for name in names})[0].name == "smooth"


def test_family_in_which_all_diverged_is_one_line(trained, fails_with):
    nothing = dict.fromkeys(metrics("convolutional")) | {"diverged": "seed 0, epoch 1, step 2: x"}
    Path("metrics/train/convolutional.json").write_text(json.dumps(nothing))
    before = trained.snapshot()
    assert "nothing to select from: convolutional diverged at seed 0" in fails_with("select_model.py")
    assert trained.snapshot() == before


@pytest.fixture
def extended(trained, run_stage):
    run_stage("train.py", "without_flip")
    return trained


def test_extended_configurations_compete_among_themselves(extended, run_stage):
    wins("without_flip", "extended")
    before = extended.snapshot()
    run_stage("select_model.py", "--extended")
    after = extended.snapshot()
    assert before.items() <= after.items(), "what the plain selection wrote stays"
    assert all(path.startswith("extended/") for path in after.keys() - before.keys())
    rows = ranking("extended")
    assert [row["name"] for row in rows] == ["without_flip"]
    assert select("extended")["selected"] == "without_flip"
    assert select("extended")["best_per_family"] == {"mlp_augmented": "without_flip"}
    chosen = Path("extended/data/models/train/without_flip.safetensors")
    assert Path("extended/data/models/mlp_augmented.safetensors").read_bytes() == chosen.read_bytes()
    assert {row["configuration"] for row in table("extended/metrics/curves.csv")} == {"without_flip"}
    assert Path("extended/metrics/figures/ranking.png").exists()


def test_extended_configurations_do_not_compete_with_the_others(extended, run_stage):
    wins("without_flip", "extended")
    run_stage("select_model.py")
    assert "without_flip" not in [row["name"] for row in ranking()]
    assert select()["best_per_family"]["mlp_augmented"] == "augmented"


def test_curves_of_all_configurations_are_in_one_file(trained, run_stage):
    run_stage("select_model.py")
    rows = table("metrics/curves.csv")
    assert [row["configuration"] for row in rows[::4]] == list(trained.params["configs"])
    assert len(rows) == len(trained.params["configs"]) * 2 * 2


def test_selected_file_does_not_depend_on_the_others(trained, run_stage):
    wins("linear")
    run_stage("select_model.py")
    before, families = selected(), select()["best_per_family"]
    change("smooth" if families["mlp"] != "smooth" else "fine", val_accuracy=1.0, val_loss=0.0, val_loss_std=[0.0])
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
