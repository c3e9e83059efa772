"""Many trials side by side on Ray Tune (https://docs.ray.io/en/latest/tune/), on this machine or on a cluster."""

import logging
import os
import secrets
import shlex
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import joblib
import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from tqdm import tqdm

import cifar2
from cifar2.errors import UserError
from cifar2.params import Asha
from cifar2.sweep.trial import Report

Trial = Callable[[str], Iterator[Report]]
# A trial that fails, or whose machine goes away, is tried so many times, each after all others.
TRIES = 3


class _Actor(tune.Trainable):
    """A process of Ray's that runs one trial after the other; a step is an epoch, or without ASHA the whole trial."""

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
        """A trial begins anew: what ran for seconds is not worth a file."""


class _Finished(tune.Callback):
    """Hands on what trials found, and tells on the terminal how many there are to come."""

    def __init__(self, finished: Callable[[str, dict[str, Any]], None], n: int, best: float) -> None:
        self._finished, self._n = finished, n
        self.done: set[str] = set()
        self.reason = ""
        self._best = best
        # disable=None: only where there is a terminal; smoothing=0: trials end several at a time
        layout = "{desc}: {n_fmt}/{total_fmt}, {remaining} left{postfix} |{bar}|"
        self.bar = tqdm(total=n, desc="sweep", bar_format=layout, smoothing=0, dynamic_ncols=True, disable=None)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ANN401
        outcome = trial.last_result["outcome"]
        self._finished(trial.config["key"], outcome)
        self.done.add(trial.config["key"])
        if outcome.get("stopped") is None:  # those that ASHA stopped come after all others in the table
            self._best = max(self._best, trial.last_result["score"])
        self.bar.set_postfix_str(f"best validation accuracy {self._best:.4f}", refresh=False)
        self.bar.update()
        hundredth = 100 * len(self.done) // self._n
        if self.bar.disable and hundredth > 100 * (len(self.done) - 1) // self._n:
            print(f"{len(self.done)} of {self._n} trials, best validation accuracy {self._best:.4f}", flush=True)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ANN401
        # Not trial.get_error(), which reads a copy that may come later.
        self.reason = Path(trial.error_file).read_text().strip().splitlines()[-1].split(". ")[0]


def run(
    keys: Sequence[str],
    trial: Trial,
    resources: Mapping[str, float],
    asha: Asha | None,
    finished: Callable[[str, dict[str, Any]], None],
    best: float = 0.0,
) -> None:
    """Run a trial of each key, on as many processors as there are.

    Ray is started here, on all cores, unless the variable RAY_ADDRESS names a cluster that this machine is part of; its
    machines need what requirements.txt names, and get this package and the data from here.

    Args:
        keys: of the trials, all different.
        trial: what to do for a key; it gets to the machines of a cluster with all that belongs to it.
        resources: what a trial has of a machine, as {"cpu": 1, "gpu": 1}.
        asha: when to stop trials that do worse than others, if at all.
        finished: called here with the key and the outcome of each trial as soon as it ends.
        best: the highest validation accuracy of the trials that finished before.

    Raises:
        UserError: Ray cannot be reached, or trials failed even when tried anew; the others have finished.
    """
    address = os.environ.get("RAY_ADDRESS", "local")
    if address.startswith("ray://"):
        raise UserError(f"RAY_ADDRESS is {address}; run this on a machine of the cluster, with RAY_ADDRESS=auto")
    os.environ |= {
        # Each trial's files, its progress table and its logs would cost more than a short trial.
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "RAY_AIR_NEW_OUTPUT": "0",
        # Signals end it at once, as they end any stage.
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
    }
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    followed = _Finished(finished, len(keys), best)
    with closing(followed.bar), _local() if address == "local" else _cluster(address):
        left = list(keys)
        # Not Tune's max_failures, which gives up a trial whose process was lost between the last one and it.
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
                    callbacks=[followed],
                )
            left = [key for key in left if key not in followed.done]
            if not left:
                return
    raise UserError(
        f"{len(left)} of {len(keys)} trials failed {TRIES} times ({followed.reason}); the next sweep runs them alone"
    )


@contextmanager
def _local() -> Iterator[None]:
    """Ray on this machine alone, with a folder and a token of its own.

    Its default folder may be another user's, and a socket's path in a long TMPDIR would exceed the system's limit.
    """
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex())  # otherwise Ray keeps one in the home directory
    where = os.environ.get("RAY_TMPDIR", "/tmp")  # noqa: S108 (a new folder in it)
    with tempfile.TemporaryDirectory(prefix="ray-", dir=where, ignore_cleanup_errors=True) as folder:
        # Ray starts its workers by a shell, where the path of Python may contain spaces.
        runtime = {"py_modules": [cifar2], "py_executable": shlex.quote(sys.executable)}
        try:
            cores = joblib.cpu_count()
            _init("local", num_cpus=cores, include_dashboard=False, _temp_dir=folder, runtime_env=runtime)
            yield
        finally:
            ray.shutdown()


@contextmanager
def _cluster(address: str) -> Iterator[None]:
    """The Ray cluster at ``address``, or the one that this machine is part of: "auto".

    Raises:
        UserError: there is none, or it refuses this user.
    """
    try:
        if ":" in address:  # where nothing listens, Ray would try for a quarter of an hour
            host, port = address.rsplit(":", 1)
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        _init(address, runtime_env={"py_modules": [cifar2]})
    except Exception as error:  # Ray's own are of many types, and of none
        reason = str(error).splitlines()[0]
        # Ray does not say why a cluster that can be reached refuses.
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
    signal.signal(signal.SIGTERM, on_terminate)  # which Ray takes for itself


def _scheduler(asha: Asha | None) -> TrialScheduler:
    if not asha:
        return FIFOScheduler()  # type: ignore[no-untyped-call]
    # Beyond the longest trial, which would otherwise be stopped before it has told its end.
    return ASHAScheduler(max_t=10**6, grace_period=asha.grace_epochs, reduction_factor=asha.reduction_factor)
