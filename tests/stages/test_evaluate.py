import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sklearn.metrics import auc, roc_auc_score

from cifar2 import files
from cifar2.dataset import splits
from cifar2.dataset.examples import normalise
from cifar2.evaluation.metrics import measure, misclassified
from cifar2.evaluation.uncertainty import estimate, prediction_interval, wilson_interval
from cifar2.networks import classifier
from cifar2.training import hardware
from tests.conftest import EVALUATED, MODELS, NEAR_DUPLICATES, SIZES, table
from tests.stages.test_select_model import wins

EACH_NAME = pytest.mark.parametrize("name", EVALUATED)
TEST = Path("data/prepared/test.safetensors")
# Indices of the test images with a near-duplicate.
KNOWN = [3, 8, 17]
TABLES = ["_calibration.csv", "_predictions.csv", "_roc.csv"]


def metrics(name, root=""):
    return json.loads(Path(root, f"metrics/evaluate/{name}.json").read_text())


def models(name):
    return classifier.load(Path(MODELS[name]))


def logits(network, card, split, flip_average=None):
    """The logits of a network, computed independently."""
    if card.features:
        x = splits.load(Path("data/features/test.safetensors")).x
    else:
        x = normalise(split.x, [0.5] * 3, [0.5] * 3)
    average = card.configuration.flip_average if flip_average is None else flip_average
    with torch.no_grad():
        return (network(x) + network(x.flip(-1))) / 2 if average else network(x)


@EACH_NAME
def test_metrics_are_those_of_the_models_on_the_test_set(evaluated, name):
    results, test, (card, networks, _) = metrics(name), splits.load(TEST), models(name)
    outputs = torch.stack([logits(network, card, test) for network in networks.values()])
    correct = (outputs.argmax(2) == test.labels).double()
    one = name.startswith("final")
    accuracies = correct.mean(1).tolist()
    mean, interval = correct.mean().item(), results["test_accuracy_ci95"]
    assert results["config"] == card.name
    assert results["test_accuracy"] == pytest.approx(mean)
    assert results["n_seeds"] == len(networks) == (1 if one else 2)
    assert results["n_parameters"] == classifier.n_parameters(next(iter(networks.values())))
    if one:
        assert interval == wilson_interval(int(correct.sum()), SIZES["test"])
        assert results["one_new_run_pi95"] is None
    else:
        low, high = estimate(correct).interval()
        assert interval == pytest.approx([max(0.0, low), min(1.0, high)])
        assert results["subsets"][0]["accuracy"]["std"] == pytest.approx(correct.mean(1).std().item())
        assert results["one_new_run_pi95"] == pytest.approx(prediction_interval(accuracies))
    assert results["subsets"][0]["accuracy"]["kind"].startswith("Wilson" if one else "t,")
    unseen = torch.tensor([i not in KNOWN for i in test.index.tolist()])
    for subset, kept in zip(results["subsets"], (torch.ones_like(unseen), unseen), strict=True):
        measured = measure(outputs[:, kept], test.labels[kept], test.classes)
        assert subset["n"] == kept.sum()
        assert subset["confusion_matrix"] == measured["confusion_matrix"]
        for key in ("accuracy", "roc_auc", "calibration_error"):
            assert subset[key]["of_seeds"] == pytest.approx(measured[key]["of_seeds"], rel=1e-4)
    assert [subset["images"] for subset in results["subsets"]] == ["all", "without near-duplicates"]
    assert results["confusion_matrix"] == results["subsets"][0]["confusion_matrix"]


def test_near_duplicates_are_identified_by_official_index(selected, run_stage):
    test = splits.load(TEST)
    splits.save(TEST, replace(test, index=test.index + 100))
    run_stage("evaluate.py", MODELS["mlp"])
    assert len(metrics("mlp")["subsets"]) == 1
    lines = [NEAR_DUPLICATES.splitlines()[0], "103,train,10,False,0.9", "129,val,3,True,0.8", ""]
    Path("data/prepared/near_duplicates.csv").write_text("\n".join(lines))
    run_stage("evaluate.py", MODELS["mlp"])
    assert metrics("mlp")["subsets"][1]["n"] == SIZES["test"] - 2


def test_flip_average_is_that_of_the_configuration(selected, run_stage):
    """On noise, where the smallest change of a logit moves the ROC AUC."""
    test = splits.load(TEST)
    noise = torch.randint(256, test.x.shape, generator=torch.Generator().manual_seed(0))
    test = replace(test, x=noise.to(torch.uint8))
    splits.save(TEST, test)
    run_stage("evaluate.py", MODELS["mlp_augmented"])
    card, networks, _ = models("mlp_augmented")
    averaged, plain = (
        roc_auc_score(test.labels, logits(networks["seed0"], card, test, flip).diff()) for flip in (True, False)
    )
    assert card.configuration.flip_average
    assert metrics("mlp_augmented")["subsets"][0]["roc_auc"]["of_seeds"][0] == pytest.approx(averaged)
    assert averaged != pytest.approx(plain)


@pytest.mark.parametrize("label", [None, 0], ids=["no near-duplicates", "all of a class"])
def test_a_subset_without_a_class_is_not_measured(selected, run_stage, label):
    test = splits.load(TEST)
    seen = test.index[test.labels == label].tolist() if label is not None else []
    lines = [NEAR_DUPLICATES.splitlines()[0], *(f"{i},train,3,False,0.9" for i in seen), ""]
    Path("data/prepared/near_duplicates.csv").write_text("\n".join(lines))
    run_stage("evaluate.py", MODELS["cnn"])
    assert [subset["images"] for subset in metrics("cnn")["subsets"]] == ["all"]


def test_validation_and_training_accuracies_are_copied(evaluated):
    keys = ("val_accuracy", "train_accuracy")
    of_family = json.loads(Path(f"metrics/train/{metrics('mlp')['config']}.json").read_text())
    of_final = json.loads(Path("metrics/refit/final.json").read_text())
    assert {key: metrics("mlp")[key] for key in keys} == {key: of_family[key] for key in keys}
    assert {key: metrics("final")[key] for key in keys} == {key: of_final[key] for key in keys}


@EACH_NAME
def test_predictions_table_matches_the_confusion_matrix(evaluated, name):
    rows = table(f"metrics/evaluate/{name}_predictions.csv")
    pairs = [(row["actual"], row["predicted"]) for row in rows]
    assert list(dict.fromkeys(row["seed"] for row in rows)) == (
        ["final"] if name.startswith("final") else ["seed0", "seed1"]
    )
    classes = ("airplane", "bird")
    assert metrics(name)["confusion_matrix"] == [[pairs.count((t, p)) for p in classes] for t in classes]


@EACH_NAME
def test_evaluated_file_has_the_logits_and_misclassified_images(evaluated, name):
    test, (card, networks, _) = splits.load(TEST), models(name)
    tensors, about = files.read_tensors(Path(f"data/evaluated/{name}.safetensors"))
    assert about == {"config": card.name, "classes": list(test.classes)}
    expected = torch.stack([logits(network, card, test) for network in networks.values()])
    torch.testing.assert_close(tensors["logits"], expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(tensors["labels"], test.labels)
    probabilities = torch.softmax(tensors["logits"][0].double(), 1)
    first = metrics(name)["subsets"][0]["roc_auc"]["of_seeds"][0]
    assert first == pytest.approx(roc_auc_score(test.labels, probabilities[:, 1]))
    assert torch.equal(tensors["mistakes"], misclassified(probabilities, test.labels))
    assert torch.equal(tensors["mistaken_images"], test.x[tensors["mistakes"]])


@pytest.fixture
def inaccurate(selected, run_stage):
    """The project after ``evaluate`` of a final model that classifies only the first images correctly."""
    test = splits.load(TEST)
    splits.save(TEST, replace(test, labels=torch.cat([test.labels[:4], 1 - test.labels[4:]])))
    run_stage("evaluate.py", MODELS["final"])
    return selected


def test_evaluated_file_has_more_misclassified_than_the_figure(inaccurate):
    tensors, _ = files.read_tensors(Path("data/evaluated/final.safetensors"))
    n = SIZES["test"] - round(metrics("final")["test_accuracy"] * SIZES["test"])
    assert 24 < n < SIZES["test"]
    assert len(tensors["mistakes"]) == len(tensors["mistaken_images"]) == n


def test_roc_curve_has_the_area_of_the_metrics(inaccurate):
    rows = table("metrics/evaluate/final_roc.csv")
    assert {row["class"] for row in rows} == {"bird"}
    area = auc(*([float(row[f"{kind}_positive_rate"]) for row in rows] for kind in ("false", "true")))
    assert area == pytest.approx(metrics("final")["subsets"][0]["roc_auc"]["mean"])
    assert 0 < area < 1


def test_calibration_table_has_the_error_of_the_metrics(inaccurate):
    rows = [
        {key: float(value) for key, value in row.items()} for row in table("metrics/evaluate/final_calibration.csv")
    ]
    assert list(rows[0]) == ["n", "confidence", "accuracy", "accuracy_low", "accuracy_high"]
    assert sum(row["n"] for row in rows) == SIZES["test"]
    n_correct = sum(row["n"] * row["accuracy"] for row in rows)
    assert n_correct == pytest.approx(metrics("final")["test_accuracy"] * SIZES["test"])
    error = sum(row["n"] * abs(row["confidence"] - row["accuracy"]) for row in rows) / SIZES["test"]
    assert metrics("final")["subsets"][0]["calibration_error"]["mean"] == pytest.approx(error)
    assert error > 0


def test_the_final_model_may_have_features_for_its_input(trained, run_stage):
    wins("linear")
    run_stage("select_model.py")
    run_stage("refit.py", "final")
    run_stage("evaluate.py", MODELS["final"])
    assert metrics("final")["config"] == "linear"


@pytest.mark.parametrize("name", ["mlp", "transfer"])
def test_evaluation_reads_only_the_test_set(selected, run_stage, name):
    for path in ("prepared/train", "prepared/val", "features/train", "features/val"):
        Path(f"data/{path}.safetensors").unlink()
    run_stage("evaluate.py", MODELS[name])


def test_number_of_threads_is_that_of_params(selected, run_stage, monkeypatch):
    selected.params["train"]["threads"] = 3
    selected.write_params()
    fixed = []
    monkeypatch.setattr(hardware, "fix_threads", fixed.append)
    run_stage("evaluate.py", MODELS["cnn"])
    assert fixed == [3]


def test_other_features_than_the_models_are_refused(selected, fails_with):
    path = Path("data/features/test.safetensors")
    split = splits.load(path)
    splits.save(path, replace(split, features=split.features.model_copy(update={"image_size": 64})))
    message = fails_with("evaluate.py", MODELS["transfer"])
    assert message.startswith("error: data/features/test.safetensors has other features than data/models/transfer")


def test_configuration_that_diverged_is_one_line(project, run_stage, fails_with):
    project.params["configs"]["fine"]["lr"] = 1e30
    project.write_params()
    run_stage("train.py", "fine")
    before = project.snapshot()
    message = fails_with("evaluate.py", MODELS["fine"])
    assert message.startswith("error: data/models/train/fine.safetensors holds no model: training fine diverged; ")
    assert project.snapshot() == before


@pytest.mark.figures
def test_extended_evaluation_has_its_own_folder(evaluated, run_stage):
    before = evaluated.snapshot()
    Path("extended/data/models").mkdir(parents=True)
    shutil.copy(MODELS["cnn"], "extended/data/models/cnn.safetensors")
    run_stage("evaluate.py", "extended/data/models/cnn.safetensors")
    after = evaluated.snapshot()
    assert before.items() <= after.items(), "what the plain evaluation wrote stays"
    assert {path for path in after if path.startswith(("extended/metrics/evaluate/", "extended/data/evaluated/"))} == {
        "extended/data/evaluated/cnn.safetensors",
        *(f"extended/metrics/evaluate/cnn{end}" for end in (".json", *TABLES)),
    }
    assert "extended/metrics/figures/confusion_cnn.png" in after
    assert metrics("cnn", "extended") == metrics("cnn")
