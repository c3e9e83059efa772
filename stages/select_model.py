"""Select the best configuration of each family and of all, by validation results; the test set is not used.

``python stages/select_model.py`` selects from ``configs``, with ``--extended`` from ``extended``.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the code of this checkout, whatever is installed
from cifar2 import errors, files, params
from cifar2.evaluation import selection
from cifar2.evaluation.summary import NUMBERS
from cifar2.figures import canvas
from cifar2.figures import select_model as figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--extended", action="store_true", help="from the configurations under `extended`")
    extended = parser.parse_args().extended
    parameters = params.load()
    root, configs = (Path("extended"), parameters.extended_configs) if extended else (Path(), parameters.configs)
    families = {name: configuration.family for name, configuration in configs.items()}
    metrics = {name: files.read_json(root / f"metrics/train/{name}.json") for name in configs}
    ranked = selection.rank(metrics)
    selected = ranked[0].name
    best = {
        family: selection.rank({name: m for name, m in metrics.items() if families[name] == family})[0].name
        for family in dict.fromkeys(families.values())
    }
    curves = files.join_csv([root / f"metrics/curves/{name}.csv" for name in configs], ("configuration",))
    chosen = {family: root / f"data/models/train/{name}.safetensors" for family, name in best.items()}
    for path in chosen.values():
        files.read_tensors(path)  # raises an error for a corrupted file, which must not be copied
    # Copies of the best models of each family, so that evaluate depends on them alone.
    for family, path in chosen.items():
        files.write(root / f"data/models/{family}.safetensors", files.read(path))
    files.write(root / "metrics/curves.csv", curves)
    files.write_csv(
        root / "metrics/ranking.csv",
        ("rank", "name", "family", "tied", "tied_on_loss", *NUMBERS, "bad_epoch_loss"),
        [
            (rank, name, families[name], tied, tied_on_loss, *(metrics[name][key] for key in NUMBERS), bad_epoch_loss)
            for rank, name, tied, tied_on_loss, bad_epoch_loss, _ in ranked
        ],
    )
    canvas.write(root / "metrics/figures/ranking.png", figures.ranking(ranked, families, len(parameters.train.seeds)))
    files.write_json(
        root / "metrics/select.json", {"selected": selected, "best_per_family": best, "rule": selection.RULE}
    )
    # The only input of refit from here, so that it reruns if the selection changes, and not if another result does.
    files.write_json(
        root / "data/models/selected.json", {"name": selected, "configuration": configs[selected].model_dump()}
    )


if __name__ == "__main__":
    errors.run(main)
