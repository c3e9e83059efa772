"""The pipeline on a folder of images, as docs/own-images.md has it: minutes, hence marked slow."""

import json
import re
import shutil
import sys

import pytest

from tests.clone import edit, new_clone, run

pytestmark = pytest.mark.slow

CLASSES = ["0", "1", "2"]
N = 40


def own_images(document):
    document["data"] |= {
        "sources": ["images"],
        "folder": "data/images",
        "classes": CLASSES,
        "image_size": 16,
        "near_duplicates": False,
    }
    # One of each family; stage evaluate@fine needs `fine`.
    for name in ("precise", "fast", "balanced", "smooth"):
        del document["configs"][name]
    document["extended"]["replication"]["configs"] = ["fine"]
    document["extended"]["ablation"]["upwards"]["base"] = "fine"


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = new_clone(tmp_path_factory.mktemp("digits"))
    run(folder, sys.executable, "examples/digits.py", "data/images")
    for of_class in (folder / "data/images").iterdir():
        for path in sorted(of_class.iterdir())[N:]:
            path.unlink()
    shutil.rmtree(folder / "data/images/9")
    edit(folder, own_images)
    run(folder, "dvc", "add", "data/images")
    run(folder, "git", "add", ".")
    run(folder, "git", "commit", "--quiet", "-m", "digits")
    run(folder, sys.executable, "-m", "tools.repro")
    return folder


def test_every_set_has_its_part_of_each_class(digits):
    counts = json.loads((digits / "metrics/prepare.json").read_text())["class_counts"]
    assert counts == {name: dict.fromkeys(CLASSES, n) for name, n in (("train", 28), ("val", 4), ("test", 8))}


def test_the_results_are_about_these_classes_alone(digits):
    report = re.sub("<(script|style).*?</(script|style)>", "", (digits / "metrics/report.html").read_text(), flags=re.S)
    for text in (report, (digits / "data/models/final.md").read_text()):
        assert "CIFAR" not in text
        assert not re.search("airplane|bird|original|student", text)
        assert all(name in text for name in CLASSES)


def test_the_final_model_predicts_a_class_of_any_image(digits):
    done = run(digits, "cifar2", "predict", "--json", "data/images/0/0000.png")
    (prediction,) = json.loads(done.stdout)
    assert list(prediction["probabilities"]) == CLASSES


def test_nothing_is_stale_after_the_run(digits):
    assert "up to date" in run(digits, "dvc", "status").stdout


@pytest.mark.parametrize("change", ["changed", "added", "removed"])
def test_a_changed_folder_prepares_the_sets_again(digits, change):
    path = digits / "data/images/1/0001.png"
    if change == "removed":
        path.unlink()
    else:
        shutil.copy(digits / "data/images/1/0011.png", path if change == "changed" else path.with_name("new.png"))
    status = json.loads(run(digits, "dvc", "status", "--json").stdout)
    run(digits, "dvc", "checkout", "--force")
    assert set(status) == {"data/images.dvc", "prepare"}
