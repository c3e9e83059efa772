"""Pick one configuration by its validation results; the test split plays no part."""

from pathlib import Path

from cifar2 import errors, figures, files, params, selection

TRAINED = Path("metrics/train")
CURVES = Path("metrics/curves")
COLUMNS = ("val_accuracy", "val_accuracy_se", "val_loss", "val_loss_se", "val_loss_std", "train_accuracy", "gap")
MODELS = Path("data/models/train")


def main() -> None:
    settings = params.load()
    metrics = {name: files.read_json(TRAINED / f"{name}.json", ("status", *COLUMNS)) for name in settings.configs}
    ranked = selection.rank(metrics)
    selected = ranked[0].name
    # The seeds' models of the winner, for evaluate: it can then depend on them and on no loser's.
    files.write(Path("data/models/selected/mlp.safetensors"), files.read(MODELS / f"{selected}.safetensors"))
    files.write(Path("metrics/curves.csv"), files.join_csv([CURVES / f"{name}.csv" for name in settings.configs]))
    files.write_csv(
        Path("metrics/ranking.csv"),
        ("rank", "name", "tied", "tied_on_loss", *COLUMNS),
        [(row.rank, row.name, row.tied, row.tied_on_loss, *(row.metrics[c] for c in COLUMNS)) for row in ranked],
    )
    figures.write(Path("metrics/figures/ranking.png"), figures.ranking(ranked, len(settings.train.seeds)))
    files.write_json(
        Path("metrics/select.json"),
        {
            "selected": selected,
            "best_per_family": {"mlp": selected},
            "rule": selection.RULE,
            # refit reads its hyperparameters here, so that a change to another configuration leaves it alone.
            "configuration": settings.configs[selected].model_dump(),
        },
    )


if __name__ == "__main__":
    errors.run(main)
