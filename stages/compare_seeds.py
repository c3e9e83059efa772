"""Show how much a result varies from seed to seed, and how often each configuration would have been selected."""

import argparse
import sys
from pathlib import Path
from statistics import fmean, stdev

sys.path.insert(0, str(Path(__file__).parents[1]))  # the code of this checkout, whatever is installed
from cifar2 import errors, files, params
from cifar2.evaluation import selection, summary
from cifar2.evaluation.uncertainty import prediction_interval


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    parameters = params.load()
    candidates = {
        name: selection.Candidate(
            summary.load(Path(f"extended/data/replicated/{name}.safetensors")), c.label_smoothing, c.class_weights
        )
        for name, c in ((name, parameters.configs[name]) for name in parameters.extended.replication.configs)
    }
    # As many seeds as the default pipeline has, drawn from all.
    often = selection.frequencies(candidates, n_seeds=len(parameters.train.seeds))
    rows = []
    for name, candidate in candidates.items():
        accuracies = candidate.results.correct.double().mean(1).tolist()
        interval = prediction_interval(accuracies)
        rows.append((name, len(accuracies), fmean(accuracies), stdev(accuracies), *interval, often[name]))
    columns = ("name", "n_seeds", "val_accuracy", "val_accuracy_std", "one_new_run_low", "one_new_run_high", "fraction")
    files.write_csv(Path("extended/metrics/replication.csv"), columns, rows)


if __name__ == "__main__":
    errors.run(main)
