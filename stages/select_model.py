"""Select the best configuration of each family and of all, by validation results; the test set is not used.

``python stages/select_model.py`` selects from ``configs``, with ``--extended`` from ``extended.configs``.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the code of this checkout, whatever is installed
from cifar2 import errors, files, params
from cifar2.evaluation import selection, summary
from cifar2.figures import canvas
from cifar2.figures import select_model as figures

# The columns of the ranking that metrics/train/NAME.json has too.
NUMBERS = ("val_accuracy", "val_accuracy_se", "val_loss", "val_loss_se", "train_accuracy", "gap")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--extended", action="store_true", help="from the configurations under `extended`")
    extended = parser.parse_args().extended
    parameters = params.load()
    root, configs = (Path("extended"), parameters.extended.configs) if extended else (Path(), parameters.configs)
    families = {name: configuration.family for name, configuration in configs.items()}
    metrics = {name: files.read_json(root / f"metrics/train/{name}.json") for name in configs}
    candidates = {
        name: selection.Candidate(
            summary.load(root / f"data/validated/{name}.safetensors"), c.label_smoothing, c.class_weights
        )
        for name, c in configs.items()
        if metrics[name]["diverged"] is None
    }
    for group in dict.fromkeys(families.values()):
        diverged = {name: m["diverged"] for name, m in metrics.items() if families[name] == group}
        if not candidates.keys() & diverged:
            reasons = "; ".join(f"{name} diverged at {reason}" for name, reason in diverged.items())
            raise errors.UserError(f"nothing to select from: {reasons}")
    selected = selection.select(candidates, families)
    winner, best = selected.ranked[0].name, selected.best
    curves = files.join_csv([root / f"metrics/curves/{name}.csv" for name in configs], ("configuration",))
    chosen = {family: root / f"data/models/train/{name}.safetensors" for family, name in best.items()}
    for path in chosen.values():
        files.read_tensors(path)  # raises an error for a corrupted file, which must not be copied
    # Copies of the best models of each family, so that evaluate depends on them alone.
    for family, path in chosen.items():
        files.write(root / f"data/models/{family}.safetensors", files.read(path))
    files.write(root / "metrics/curves.csv", curves)
    rows = [
        {"rank": row.rank, "name": row.name, "family": families[row.name]}
        | row._asdict()
        | {key: metrics[row.name][key] for key in NUMBERS}
        | {"gap_se": summary.gap_error(candidates[row.name].results)}
        | {"fraction": selected.fraction[row.name], "fraction_of_family": selected.fraction_of_family[row.name]}
        for row in selected.ranked
    ]
    files.write_csv(root / "metrics/ranking.csv", tuple(rows[0]), [tuple(row.values()) for row in rows])
    canvas.write(
        root / "metrics/figures/ranking.png", figures.ranking(rows, best.values(), len(parameters.train.seeds))
    )
    files.write_json(
        root / "metrics/select.json",
        {
            "selected": winner,
            "best_per_family": best,
            "rule": selection.RULE,
            "resamples": selection.RESAMPLES,
            "fraction": selected.fraction,
            "fraction_of_family": selected.fraction_of_family,
        },
    )
    # The only inputs of refit from here, so that it reruns if the selection changes, and not if another result does.
    for final, chosen_name in {"final": winner, "final_mlp": best.get("mlp")}.items():
        if chosen_name:
            document = {"name": chosen_name, "configuration": configs[chosen_name].model_dump()}
            files.write_json(root / f"data/models/selected/{final}.json", document)


if __name__ == "__main__":
    errors.run(main)
