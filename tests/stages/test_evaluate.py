import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sklearn.metrics import auc, roc_auc_score

from cifar2 import files
from cifar2.dataset import splits
from cifar2.evaluation import metrics as evaluation
from cifar2.evaluation.metrics import accuracy_interval
from cifar2.evaluation.uncertainty import standard_error
from cifar2.networks import classifier, transfer
from cifar2.training import hardware
from tests.conftest import EVALUATED, NEAR_DUPLICATES, SIZES
from tests.stages.test_select_model import wins

OF_EACH = pytest.mark.parametrize("name", EVALUATED)
KNOWN = [3, 8, 17]
TABLES = ["_calibration.csv", "_predictions.csv", "_roc.csv"]


def metrics(name, root=""):
    return json.loads(Path(root, f"metrics/evaluate/{name}.json").read_text())


def logits(network, card, split):
    """What a network makes of the pictures, worked out anew."""
    if card.features:
        x = transfer.extract_features(split.images, "efficientnet_lite0", 32, flip_average=False)
    else:
        x = splits.normalise(split.images, [0.5] * 3, [0.5] * 3)
    with torch.no_grad():
        return (network(x) + network(x.flip(-1))) / 2 if card.flip_average else network(x)


def predictions(network, card, split):
    return logits(network, card, split).argmax(1)


@OF_EACH
def test_its_numbers_are_those_of_the_models_on_the_test_split(evaluated, name):
    found = metrics(name)
    test = splits.load(Path("data/prepared/test.safetensors"))
    card, networks, _ = classifier.load(Path(f"data/models/{name}.safetensors"))
    predicted = torch.stack([predictions(network, card, test) for network in networks.values()])
    correct = predicted == test.labels
    by_seed = correct.double().mean(1)

    assert found["config"] == card.configuration
    everything = found["subsets"][0]
    assert (everything["images"], everything["n"]) == ("all", SIZES["test"])
    assert found["test_accuracy"] == by_seed[0].item()
    assert found["test_accuracy_ci95"] == accuracy_interval(int(correct[0].sum()), SIZES["test"])
    assert found["n_seeds"] == len(networks) == (1 if name == "final" else 2)
    assert everything["seeds_mean"] == pytest.approx(by_seed.mean().item())
    spread = None if name == "final" else pytest.approx(by_seed.std().item())
    assert everything["seeds_std"] == spread
    low, high = everything["seeds_ci95"]
    assert by_seed.mean().item() - low == pytest.approx(1.96 * standard_error(correct))
    assert high == pytest.approx(min(1.0, by_seed.mean().item() + 1.96 * standard_error(correct)))
    counts = [[int((predicted[0][test.labels == t] == p).sum()) for p in (0, 1)] for t in (0, 1)]
    assert found["confusion_matrix"] == counts
    assert found["n_parameters"] == classifier.n_parameters(next(iter(networks.values())))


@OF_EACH
def test_what_test_pictures_that_are_no_near_duplicates_give_is_told_apart(evaluated, name):
    found = metrics(name)["subsets"][1]
    test = splits.load(Path("data/prepared/test.safetensors"))
    card, networks, _ = classifier.load(Path(f"data/models/{name}.safetensors"))
    unseen = [i for i in range(SIZES["test"]) if test.index[i] not in KNOWN]
    correct = torch.stack([predictions(n, card, test) == test.labels for n in networks.values()])[:, unseen]
    assert (found["images"], found["n"]) == ("without near-duplicates", SIZES["test"] - 3)
    assert found["accuracy"] == pytest.approx(correct[0].double().mean().item())
    interval = accuracy_interval(int(correct[0].sum()), SIZES["test"] - 3)
    assert found["accuracy_ci95"] == interval
    assert found["seeds_mean"] == pytest.approx(correct.double().mean().item())


def test_near_duplicates_are_named_by_their_official_place_not_by_that_in_the_split(selected, run_stage):
    path = Path("data/prepared/test.safetensors")
    test = splits.load(path)
    splits.save(path, replace(test, index=test.index + 100))
    run_stage("evaluate.py", "mlp")
    assert metrics("mlp")["subsets"][1]["n"] == SIZES["test"]
    lines = NEAR_DUPLICATES.splitlines()
    Path("data/prepared/near_duplicates.csv").write_text(
        "\n".join([lines[0], "103,10,False,0.9", "129,3,True,0.8", ""])
    )
    run_stage("evaluate.py", "mlp")
    assert metrics("mlp")["subsets"][1]["n"] == SIZES["test"] - 2


def test_an_average_over_mirror_images_is_taken_where_the_configuration_says_so(selected, run_stage):
    """On pictures that tell nothing of their class, where the least change of an answer moves the ROC AUC."""
    path = Path("data/prepared/test.safetensors")
    test = splits.load(path)
    noise = torch.randint(256, test.images.shape, generator=torch.Generator().manual_seed(0))
    test = replace(test, images=noise.to(torch.uint8))
    splits.save(path, test)
    run_stage("evaluate.py", "mlp_augmented")
    card, networks, _ = classifier.load(Path("data/models/mlp_augmented.safetensors"))
    averaged, plain = (
        roc_auc_score(
            test.labels, logits(networks["seed0"], card.model_copy(update={"flip_average": flip}), test).diff()
        )
        for flip in (True, False)
    )
    assert card.flip_average
    assert metrics("mlp_augmented")["subsets"][0]["roc_auc"] == pytest.approx(averaged)
    assert averaged != pytest.approx(plain)


def test_without_near_duplicates_nothing_is_left_out(selected, run_stage):
    Path("data/prepared/near_duplicates.csv").write_text(NEAR_DUPLICATES.splitlines()[0] + "\n")
    run_stage("evaluate.py", "cnn")
    everything, unseen = metrics("cnn")["subsets"]
    assert unseen == everything | {"images": "without near-duplicates"}


def test_the_accuracies_of_before_the_test_stand_beside_it(evaluated):
    keys = ("val_accuracy", "train_accuracy")
    of_family = json.loads(Path(f"metrics/train/{metrics('mlp')['config']}.json").read_text())
    of_final = json.loads(Path("metrics/refit.json").read_text())
    assert {key: metrics("mlp")[key] for key in keys} == {key: of_family[key] for key in keys}
    assert {key: metrics("final")[key] for key in keys} == {key: of_final[key] for key in keys}


@OF_EACH
def test_the_predictions_for_dvcs_confusion_plot_agree_with_the_matrix(evaluated, name):
    with Path(f"metrics/evaluate/{name}_predictions.csv").open() as file:
        pairs = [(row["actual"], row["predicted"]) for row in csv.DictReader(file)]
    classes = ("airplane", "bird")
    assert metrics(name)["confusion_matrix"] == [[pairs.count((t, p)) for p in classes] for t in classes]


@OF_EACH
def test_what_it_found_on_each_picture_is_kept_and_gives_its_numbers(evaluated, name):
    found = metrics(name)
    test = splits.load(Path("data/prepared/test.safetensors"))
    card, networks, _ = classifier.load(Path(f"data/models/{name}.safetensors"))
    kept, about = files.read_tensors(Path(f"data/evaluated/{name}.safetensors"))
    assert about == {"config": card.configuration, "classes": list(test.classes)}
    assert kept["logits"].shape == (len(networks), SIZES["test"], 2)
    for of_seed, network in zip(kept["logits"], networks.values(), strict=True):
        assert torch.allclose(of_seed, logits(network, card, test), rtol=1e-4, atol=1e-5)
    assert torch.equal(kept["labels"], test.labels)
    correct = kept["logits"].argmax(2) == kept["labels"]
    assert found["test_accuracy"] == correct[0].double().mean().item()
    assert found["subsets"][0]["seeds_mean"] == pytest.approx(correct.double().mean().item())
    probabilities = torch.softmax(kept["logits"][0].double(), 1)
    assert found["subsets"][0]["roc_auc"] == roc_auc_score(kept["labels"], probabilities[:, 1])
    assert torch.equal(kept["mistakes"], evaluation.mistakes(probabilities, kept["labels"]))
    assert torch.equal(kept["mistaken_images"], test.images[kept["mistakes"]])


@pytest.fixture
def mistaken(selected, run_stage):
    """The project after ``evaluate`` of a final model that is right about the first pictures only."""
    path = Path("data/prepared/test.safetensors")
    test = splits.load(path)
    splits.save(path, replace(test, labels=torch.cat([test.labels[:4], 1 - test.labels[4:]])))
    run_stage("evaluate.py", "final")
    return selected


def test_all_mistakes_are_kept_and_not_only_those_that_are_drawn(mistaken):
    kept, _ = files.read_tensors(Path("data/evaluated/final.safetensors"))
    n_wrong = SIZES["test"] - round(metrics("final")["test_accuracy"] * SIZES["test"])
    assert 24 < n_wrong < SIZES["test"]
    assert len(kept["mistakes"]) == len(kept["mistaken_images"]) == n_wrong


def table(path):
    with Path(path).open() as file:
        return list(csv.DictReader(file))


def test_the_roc_curve_has_the_area_of_the_metrics(mistaken):
    rows = table("metrics/evaluate/final_roc.csv")
    assert {row["class"] for row in rows} == {"bird"}
    area = auc(*([float(row[f"{kind}_positive_rate"]) for row in rows] for kind in ("false", "true")))
    assert area == pytest.approx(metrics("final")["subsets"][0]["roc_auc"])
    assert 0 < area < 1


def test_the_calibration_is_of_all_answers_and_its_error_that_of_the_metrics(mistaken):
    rows = [
        {key: float(value) for key, value in row.items()} for row in table("metrics/evaluate/final_calibration.csv")
    ]
    assert list(rows[0]) == ["n", "confidence", "accuracy", "accuracy_low", "accuracy_high"]
    assert sum(row["n"] for row in rows) == SIZES["test"]
    right = sum(row["n"] * row["accuracy"] for row in rows)
    assert right == pytest.approx(metrics("final")["test_accuracy"] * SIZES["test"])
    error = sum(row["n"] * abs(row["confidence"] - row["accuracy"]) for row in rows) / SIZES["test"]
    assert metrics("final")["subsets"][0]["calibration_error"] == pytest.approx(error)
    assert error > 0


@OF_EACH
def test_a_second_run_writes_the_same_bytes(evaluated, run_stage, name):
    first = evaluated.snapshot()
    outputs = {
        f"data/evaluated/{name}.safetensors",
        f"metrics/evaluate/{name}.json",
        *(f"metrics/evaluate/{name}{end}" for end in TABLES),
        f"metrics/figures/confusion_{name}.png",
        f"metrics/figures/mistakes_{name}.png",
    }
    for path in outputs:
        Path(path).unlink()
    run_stage("evaluate.py", name)
    assert evaluated.snapshot() == first


def test_the_final_model_may_have_features_for_its_input(trained, run_stage):
    wins("linear")
    run_stage("select_model.py")
    run_stage("refit.py")
    run_stage("evaluate.py", "final")
    assert metrics("final")["config"] == "linear"


@pytest.mark.parametrize("name", ["mlp", "transfer"])
def test_it_reads_the_test_split_and_neither_of_the_others(selected, run_stage, name):
    for path in ("prepared/train", "prepared/val", "features/train", "features/val"):
        Path(f"data/{path}.safetensors").unlink()
    run_stage("evaluate.py", name)


def test_convolutions_have_the_number_of_threads_of_the_experiment(selected, run_stage, monkeypatch):
    selected.params["train"]["threads"] = 3
    selected.write_params()
    fixed = []
    monkeypatch.setattr(hardware, "fix_convolutions", fixed.append)
    for name in ("cnn", "transfer"):
        run_stage("evaluate.py", name)
    assert fixed == [3, 3]


def test_what_was_selected_with_beyond_is_measured_and_written_there(trained, run_stage):
    run_stage("train.py", "without_flip")
    wins("without_flip", "beyond")
    for arguments in ((), ("--beyond",)):
        run_stage("select_model.py", *arguments)
        run_stage("evaluate.py", "mlp_augmented", *arguments)
        if not arguments:
            before = trained.snapshot()
    after = trained.snapshot()
    assert before.items() <= after.items(), "what the plain evaluation wrote stays"
    assert {path for path in after if path.startswith(("beyond/metrics/evaluate/", "beyond/data/evaluated/"))} == {
        "beyond/data/evaluated/mlp_augmented.safetensors",
        *(f"beyond/metrics/evaluate/mlp_augmented{end}" for end in (".json", *TABLES)),
    }
    assert "beyond/metrics/figures/confusion_mlp_augmented.png" in after
    assert metrics("mlp_augmented")["config"] == "augmented"
    assert metrics("mlp_augmented", "beyond")["config"] == "without_flip"


def test_one_seed_has_no_spread(selected, run_stage):
    path = Path("data/models/mlp.safetensors")
    card, seeds, accuracies = classifier.load(path)
    classifier.save(path, card, {"seed0": seeds["seed0"]}, accuracies)
    run_stage("evaluate.py", "mlp")
    assert metrics("mlp")["subsets"][0]["seeds_std"] is None


def test_a_damaged_model_is_one_line_and_nothing_is_written(selected, fails_with):
    path = Path("data/models/final.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    before = selected.snapshot()
    assert "data/models/final.safetensors is damaged" in fails_with("evaluate.py", "final")
    assert selected.snapshot() == before


@pytest.mark.parametrize("missing", ["data/prepared/near_duplicates.csv", "data/models/mlp.safetensors"])
def test_a_missing_file_is_one_line_and_nothing_is_written(selected, fails_with, missing):
    Path(missing).unlink()
    before = selected.snapshot()
    assert f"{missing} is missing; `dvc repro` makes it" in fails_with("evaluate.py", "mlp")
    assert selected.snapshot() == before
