import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sklearn.metrics import auc, roc_auc_score

from cifar2 import files
from cifar2.dataset import splits
from cifar2.dataset.examples import normalise
from cifar2.evaluation.metrics import accuracy_interval, misclassified
from cifar2.evaluation.uncertainty import standard_error
from cifar2.networks import classifier, transfer
from cifar2.training import hardware
from tests.conftest import EVALUATED, NEAR_DUPLICATES, SIZES, table
from tests.stages.test_select_model import wins

EACH_NAME = pytest.mark.parametrize("name", EVALUATED)
TEST = Path("data/prepared/test.safetensors")
# Indices of the test images with a near-duplicate.
KNOWN = [3, 8, 17]
TABLES = ["_calibration.csv", "_predictions.csv", "_roc.csv"]


def metrics(name, root=""):
    return json.loads(Path(root, f"metrics/evaluate/{name}.json").read_text())


def models(name):
    return classifier.load(Path(f"data/models/{name}.safetensors"))


def logits(network, card, split, flip_average=None):
    """The logits of a network, computed independently."""
    if card.features:
        x = transfer.extract_features(split.x, "efficientnet_lite0", 32, flip_average=False)
    else:
        x = normalise(split.x, [0.5] * 3, [0.5] * 3)
    average = card.configuration.flip_average if flip_average is None else flip_average
    with torch.no_grad():
        return (network(x) + network(x.flip(-1))) / 2 if average else network(x)


@EACH_NAME
def test_metrics_are_those_of_the_models_on_the_test_set(evaluated, name):
    results, test, (card, networks, _) = metrics(name), splits.load(TEST), models(name)
    predicted = torch.stack([logits(network, card, test).argmax(1) for network in networks.values()])
    correct = predicted == test.labels
    counts = [[int((predicted[0][test.labels == t] == p).sum()) for p in (0, 1)] for t in (0, 1)]
    assert results["config"] == card.name
    assert results["test_accuracy"] == correct[0].double().mean().item()
    assert results["test_accuracy_ci95"] == accuracy_interval(int(correct[0].sum()), SIZES["test"])
    assert results["n_seeds"] == len(networks) == (1 if name == "final" else 2)
    assert results["confusion_matrix"] == counts
    assert results["n_parameters"] == classifier.n_parameters(next(iter(networks.values())))
    unseen = [i for i in range(SIZES["test"]) if test.index[i] not in KNOWN]
    subsets = {"all": correct, "without near-duplicates": correct[:, unseen]}
    assert [subset["images"] for subset in results["subsets"]] == list(subsets)
    for subset in results["subsets"]:
        of_subset = subsets[subset["images"]]
        by_seed, n = of_subset.double().mean(1), of_subset.shape[1]
        mean, margin = by_seed.mean().item(), 1.96 * standard_error(of_subset)
        assert subset["n"] == n
        assert subset["accuracy"] == pytest.approx(by_seed[0].item())
        assert subset["accuracy_ci95"] == accuracy_interval(int(of_subset[0].sum()), n)
        assert subset["seeds_mean"] == pytest.approx(mean)
        assert subset["seeds_std"] == (None if name == "final" else pytest.approx(by_seed.std().item()))
        assert subset["seeds_ci95"] == pytest.approx([max(0.0, mean - margin), min(1.0, mean + margin)])


def test_near_duplicates_are_identified_by_official_index(selected, run_stage):
    test = splits.load(TEST)
    splits.save(TEST, replace(test, index=test.index + 100))
    run_stage("evaluate.py", "mlp")
    assert metrics("mlp")["subsets"][1]["n"] == SIZES["test"]
    lines = [NEAR_DUPLICATES.splitlines()[0], "103,10,False,0.9", "129,3,True,0.8", ""]
    Path("data/prepared/near_duplicates.csv").write_text("\n".join(lines))
    run_stage("evaluate.py", "mlp")
    assert metrics("mlp")["subsets"][1]["n"] == SIZES["test"] - 2


def test_flip_average_is_that_of_the_configuration(selected, run_stage):
    """On noise, where the smallest change of a logit moves the ROC AUC."""
    test = splits.load(TEST)
    noise = torch.randint(256, test.x.shape, generator=torch.Generator().manual_seed(0))
    test = replace(test, x=noise.to(torch.uint8))
    splits.save(TEST, test)
    run_stage("evaluate.py", "mlp_augmented")
    card, networks, _ = models("mlp_augmented")
    averaged, plain = (
        roc_auc_score(test.labels, logits(networks["seed0"], card, test, flip).diff()) for flip in (True, False)
    )
    assert card.configuration.flip_average
    assert metrics("mlp_augmented")["subsets"][0]["roc_auc"] == pytest.approx(averaged)
    assert averaged != pytest.approx(plain)


def test_subsets_are_equal_without_near_duplicates(selected, run_stage):
    Path("data/prepared/near_duplicates.csv").write_text(NEAR_DUPLICATES.splitlines()[0] + "\n")
    run_stage("evaluate.py", "cnn")
    all_images, unseen = metrics("cnn")["subsets"]
    assert unseen == all_images | {"images": "without near-duplicates"}


def test_validation_and_training_accuracies_are_copied(evaluated):
    keys = ("val_accuracy", "train_accuracy")
    of_family = json.loads(Path(f"metrics/train/{metrics('mlp')['config']}.json").read_text())
    of_final = json.loads(Path("metrics/refit.json").read_text())
    assert {key: metrics("mlp")[key] for key in keys} == {key: of_family[key] for key in keys}
    assert {key: metrics("final")[key] for key in keys} == {key: of_final[key] for key in keys}


@EACH_NAME
def test_predictions_table_matches_the_confusion_matrix(evaluated, name):
    pairs = [(row["actual"], row["predicted"]) for row in table(f"metrics/evaluate/{name}_predictions.csv")]
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
    assert metrics(name)["subsets"][0]["roc_auc"] == roc_auc_score(test.labels, probabilities[:, 1])
    assert torch.equal(tensors["mistakes"], misclassified(probabilities, test.labels))
    assert torch.equal(tensors["mistaken_images"], test.x[tensors["mistakes"]])


@pytest.fixture
def inaccurate(selected, run_stage):
    """The project after ``evaluate`` of a final model that classifies only the first images correctly."""
    test = splits.load(TEST)
    splits.save(TEST, replace(test, labels=torch.cat([test.labels[:4], 1 - test.labels[4:]])))
    run_stage("evaluate.py", "final")
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
    assert area == pytest.approx(metrics("final")["subsets"][0]["roc_auc"])
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
    assert metrics("final")["subsets"][0]["calibration_error"] == pytest.approx(error)
    assert error > 0


def test_the_final_model_may_have_features_for_its_input(trained, run_stage):
    wins("linear")
    run_stage("select_model.py")
    run_stage("refit.py")
    run_stage("evaluate.py", "final")
    assert metrics("final")["config"] == "linear"


@pytest.mark.parametrize("name", ["mlp", "transfer"])
def test_evaluation_reads_only_the_test_set(selected, run_stage, name):
    for path in ("prepared/train", "prepared/val", "features/train", "features/val"):
        Path(f"data/{path}.safetensors").unlink()
    run_stage("evaluate.py", name)


def test_number_of_threads_is_that_of_params(selected, run_stage, monkeypatch):
    selected.params["train"]["threads"] = 3
    selected.write_params()
    fixed = []
    monkeypatch.setattr(hardware, "fix_convolutions", fixed.append)
    for name in ("cnn", "transfer"):
        run_stage("evaluate.py", name)
    assert fixed == [3, 3]


def test_extended_evaluation_has_its_own_folder(trained, run_stage):
    run_stage("train.py", "without_flip")
    wins("without_flip", "extended")
    for arguments in ((), ("--extended",)):
        run_stage("select_model.py", *arguments)
        run_stage("evaluate.py", "mlp_augmented", *arguments)
        if not arguments:
            before = trained.snapshot()
    after = trained.snapshot()
    assert before.items() <= after.items(), "what the plain evaluation wrote stays"
    assert {path for path in after if path.startswith(("extended/metrics/evaluate/", "extended/data/evaluated/"))} == {
        "extended/data/evaluated/mlp_augmented.safetensors",
        *(f"extended/metrics/evaluate/mlp_augmented{end}" for end in (".json", *TABLES)),
    }
    assert "extended/metrics/figures/confusion_mlp_augmented.png" in after
    assert metrics("mlp_augmented")["config"] == "augmented"
    assert metrics("mlp_augmented", "extended")["config"] == "without_flip"
