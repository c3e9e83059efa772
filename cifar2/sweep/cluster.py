"""Run trials in parallel with Ray Tune (https://docs.ray.io/en/latest/tune/), on this machine or on a cluster."""

import logging
import os
import secrets
import shlex
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import joblib
import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

import cifar2
from cifar2.errors import UserError
from cifar2.params import Asha
from cifar2.progress_bar import progress_bar
from cifar2.sweep.trial import Report

Trial = Callable[[str], Iterator[Report]]
# Attempts at a trial that fails or whose machine fails; each attempt waits for all other trials.
TRIES = 3


class _Actor(tune.Trainable):
    """A Ray process that runs one trial after another; a step is an epoch, or without ASHA a whole trial."""

    def setup(self, config: dict[str, Any], run: Trial, by_epoch: bool) -> None:  # type: ignore[override]
        self._run, self._by_epoch = run, by_epoch
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._reports = self._run(new_config["key"])
        return True

    def step(self) -> dict[str, Any]:
        report = next(report for report in self._reports if self._by_epoch or report.done)
        return report._asdict()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Save nothing: trials take seconds, so they are run again from the start."""


class _Finished(tune.Callback):
    """Passes on the outcome of each finished trial, and shows the progress."""

    def __init__(self, finished: Callable[[str, dict[str, Any]], None], show: Callable[..., None], best: float) -> None:
        self._finished, self._show, self._best = finished, show, best
        self.done: set[str] = set()
        self.reason = ""

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ANN401
        outcome = trial.last_result["outcome"]
        self._finished(trial.config["key"], outcome)
        self.done.add(trial.config["key"])
        if outcome.get("stopped") is None:  # the table ranks trials stopped by ASHA after all others
            self._best = max(self._best, trial.last_result["score"])
        self._show(len(self.done), f"best validation accuracy {self._best:.4f}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ANN401
        # Not trial.get_error(): it reads a copy that may arrive later.
        self.reason = Path(trial.error_file).read_text().strip().splitlines()[-1].split(". ")[0]


def run(
    keys: Sequence[str],
    trial: Trial,
    resources: Mapping[str, float],
    asha: Asha | None,
    finished: Callable[[str, dict[str, Any]], None],
    best: float = 0.0,
) -> None:
    """Run the trial of each key, on all available processors.

    This starts Ray on this machine, unless the environment variable RAY_ADDRESS names a cluster that the machine is
    part of. Its machines need the packages of requirements.txt; Ray sends them this package and the data.

    Args:
        keys: the trials; all different.
        trial: runs the trial of a key; pickled and sent to the machines of the cluster.
        resources: the resources of each trial, such as {"cpu": 1, "gpu": 1}.
        asha: when to stop trials early, if at all.
        finished: called in this process with the key and outcome of each trial as soon as it ends.
        best: the highest validation accuracy of the trials that finished before.

    Raises:
        UserError: Ray cannot be reached, or trials failed in every attempt; all others have finished.
    """
    address = os.environ.get("RAY_ADDRESS", "local")
    if address.startswith("ray://"):
        raise UserError(f"RAY_ADDRESS is {address}; run this on a machine of the cluster, with RAY_ADDRESS=auto")
    os.environ |= {
        # Per-trial files, a progress table and logs would cost more time than a short trial.
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "RAY_AIR_NEW_OUTPUT": "0",
        # Signals end the sweep at once, as they end any stage.
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
    }
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    with progress_bar("sweep", len(keys)) as show, _local() if address == "local" else _cluster(address):
        callback = _Finished(finished, show, best)
        left = list(keys)
        # Not Tune's max_failures, which gives up a trial whose process died between the previous trial and it.
        for _ in range(TRIES):
            with tempfile.TemporaryDirectory() as folder:
                tune.run(
                    tune.with_parameters(_Actor, run=trial, by_epoch=asha is not None),
                    config={"key": tune.grid_search(left)},
                    resources_per_trial=dict(resources),
                    metric="score",
                    mode="max",
                    scheduler=_scheduler(asha),
                    reuse_actors=True,
                    storage_path=folder,
                    verbose=0,
                    raise_on_failed_trial=False,
                    callbacks=[callback],
                )
            left = [key for key in left if key not in callback.done]
            if not left:
                return
    raise UserError(
        f"{len(left)} of {len(keys)} trials failed {TRIES} times ({callback.reason}); the next sweep runs only those"
    )


@contextmanager
def _local() -> Iterator[None]:
    """Ray on this machine only, with its own folder and token.

    Its default folder may belong to another user, and in a long TMPDIR the paths of its sockets would exceed the limit.
    """
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex())  # otherwise Ray stores one in the home directory
    where = os.environ.get("RAY_TMPDIR", "/tmp")  # noqa: S108 (a new folder in it)
    with tempfile.TemporaryDirectory(prefix="ray-", dir=where, ignore_cleanup_errors=True) as folder:
        # Ray starts workers in a shell, and the path of Python may contain spaces.
        runtime = {"py_modules": [cifar2], "py_executable": shlex.quote(sys.executable)}
        try:
            cores = joblib.cpu_count()
            _init("local", num_cpus=cores, include_dashboard=False, _temp_dir=folder, runtime_env=runtime)
            yield
        finally:
            ray.shutdown()


@contextmanager
def _cluster(address: str) -> Iterator[None]:
    """The Ray cluster at ``address``, or with "auto" the one that this machine is part of.

    Raises:
        UserError: there is none, or it refuses the connection.
    """
    try:
        if ":" in address:  # without a listener, Ray would retry for a quarter of an hour
            host, port = address.rsplit(":", 1)
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        _init(address, runtime_env={"py_modules": [cifar2]})
    except Exception as error:  # Ray raises many types, and plain Exception
        reason = str(error).splitlines()[0]
        # Ray does not report why a reachable cluster refuses.
        refused = reason.startswith("Failed to connect") or isinstance(error, ray.exceptions.AuthenticationError)
        token = "; a cluster with a token needs RAY_AUTH_MODE=token, and its token in ~/.ray/auth_token" * refused
        raise UserError(f"no Ray at RAY_ADDRESS={address}: {reason}{token}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _init(address: str, **options: Any) -> None:  # noqa: ANN401
    on_terminate = signal.getsignal(signal.SIGTERM)
    ray.init(address, logging_level=logging.ERROR, log_to_driver=False, **options)
    signal.signal(signal.SIGTERM, on_terminate)  # Ray replaces it


def _scheduler(asha: Asha | None) -> TrialScheduler:
    if not asha:
        return FIFOScheduler()  # type: ignore[no-untyped-call]
    # max_t exceeds every trial; otherwise ASHA would stop the longest before its last report.
    return ASHAScheduler(max_t=10**6, grace_period=asha.grace_epochs, reduction_factor=asha.reduction_factor)
