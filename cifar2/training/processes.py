"""The runs of a configuration side by side: a process per seed, with the same results as one seed after another."""

import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from multiprocessing import connection, get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread
from typing import Any

import torch

from cifar2.errors import UserError
from cifar2.training.loop import Diverged
from cifar2.training.record import Epoch
from cifar2.training.run import Run


def epochs(load: Callable[[], Run], run: Run, seeds: Sequence[int], checkpoints: Path) -> Iterator[Epoch]:
    """Train a network per seed and yield each epoch, as ``run.epochs`` does, with several seeds at once.

    A second seed uses a second core better than a second thread does, and results depend on neither.

    Args:
        load: makes the same run in another process.
        run: gets the networks and the curves, in the order of ``seeds``.
        seeds: the seeds.
        checkpoints: the folder for checkpoints.

    Raises:
        UserError: as in ``run.epochs``, or a process was killed.
        Diverged: as in ``run.epochs``.
    """
    at_once = min(len(seeds), run.at_once)
    if at_once < 2:
        yield from run.epochs(seeds, checkpoints)
        return
    curves, ended = {seed: list[Epoch]() for seed in seeds}, dict[int, Any]()
    with closing(_messages(load, seeds, checkpoints, at_once)) as messages:
        for seed, message in messages:
            if isinstance(message, Epoch):
                curves[seed].append(message)
                yield message
            else:
                ended[seed] = message
    for seed in seeds:
        network = run.start(seed)
        run.curves[-1] += curves[seed]
        if isinstance(ended[seed], Diverged):
            raise ended[seed]
        network.load_state_dict({name: torch.from_numpy(array) for name, array in ended[seed].items()})
        run.networks.append(network)


def _messages(
    load: Callable[[], Run], seeds: Sequence[int], checkpoints: Path, at_once: int
) -> Generator[tuple[int, Any]]:
    """Start a process per seed, ``at_once`` of them, and yield what each sends (see :func:`_train`) with its seed."""
    context = get_context("forkserver")  # a fork of this process would wait for threads that it does not have
    context.set_forkserver_preload(["torch"])  # imported once, and not by each process
    cores = torch.get_num_threads()
    waiting, running = list(seeds), dict[Any, tuple[int, BaseProcess]]()
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                threads = cores // min(at_once, len(waiting))  # the last seeds have the cores to themselves
                ours, theirs = context.Pipe(duplex=False)
                started = context.Process(target=_train, args=(load, waiting[0], checkpoints, threads, theirs))
                started.start()
                theirs.close()
                running[ours] = waiting.pop(0), started
            pipe: Any
            for pipe in connection.wait(list(running)):
                seed = running[pipe][0]
                message = _receive(pipe, seed)
                if not isinstance(message, Epoch):
                    running.pop(pipe)
                if isinstance(message, Diverged):
                    waiting.clear()  # as if one had come after the other
                yield seed, message
    finally:
        for _, process in running.values():
            process.terminate()
            process.join()


def _receive(pipe: connection.Connection, seed: int) -> object:
    """What the process of ``seed`` sends; the UserError that it sends is raised."""
    try:
        message = pipe.recv()
    except EOFError:
        raise UserError(
            f"the process of seed {seed} ended by itself; see above, or if memory ran out, train one seed at a time "
            "with OMP_NUM_THREADS=1"
        ) from None
    if isinstance(message, UserError):
        raise message
    return message


def _train(load: Callable[[], Run], seed: int, checkpoints: Path, threads: int, pipe: connection.Connection) -> None:
    """Train the network of ``seed``; send its epochs, then its weights, or the error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one ends the others,
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # which leave no file half-written
    Thread(target=_end_with_parent, daemon=True).start()
    try:
        run = load()
        if not run.card.convolves:
            torch.set_num_threads(threads)
        for epoch in run.epochs([seed], checkpoints):
            pipe.send(epoch)
        pipe.send({name: tensor.numpy() for name, tensor in run.networks[0].state_dict().items()})
    except (UserError, Diverged) as error:
        pipe.send(error)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent:
        parent.join()
    os._exit(1)
