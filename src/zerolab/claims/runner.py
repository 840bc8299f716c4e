"""Runs the cells of an experiment that have not run yet, as many at a time as there are cores."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import connection
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from zerolab.claims.ledger import find
from zerolab.claims.protocol import Cell, Plan, Protocol, Row
from zerolab.claims.results import cell_folder, load_cell, save_cell
from zerolab.errors import Interrupted, UserError
from zerolab.processes import cores

INTERRUPTED = (130, -signal.SIGTERM, -signal.SIGINT)  # exit codes of workers that a signal asked to end
PLAIN_SECONDS = 30.0  # between lines where there is no terminal
ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def missing(protocol: Protocol, plan: Plan, work: Path, committed: Sequence[Row] = ()) -> list[Cell]:
    return [cell for cell in protocol.cells(plan) if load_cell(work, cell, protocol, committed) is None]


def table(protocol: Protocol, plan: Plan, work: Path, committed: Sequence[Row] = ()) -> list[Row]:
    """The rows of the plan's cells that have run, in the protocol's order."""
    rows = [load_cell(work, cell, protocol, committed) for cell in protocol.cells(plan)]
    return [row for row in rows if row is not None]


def run_cells(protocol: Protocol, plan: Plan, work: Path, console: Any, committed: Sequence[Row] = ()) -> None:
    """Runs what neither the work folder nor `committed` has; every finished cell is kept. Raises UserError with the
    cell's name if one fails."""
    todo = missing(protocol, plan, work, committed)
    if not todo:
        return
    for name in ONE_THREAD:  # before the workers import numpy
        os.environ[name] = "1"
    pretrain_bases(protocol, todo, console)
    said = time.monotonic()
    # The longest first, so that no core waits for a late one.
    todo.sort(key=lambda cell: -cell.seconds)
    with _progress(console) as progress, _pool(min(cores(), len(todo))) as pool:
        bar = progress.add_task(protocol.id, total=sum(cell.seconds for cell in todo))
        futures = {pool.submit(in_worker, run_cell, protocol.id, cell, work): cell for cell in todo}
        with _finished(pool, futures) as finished:
            for done, future in enumerate(finished, 1):
                cell = futures[future]
                _result(future, protocol, cell)
                progress.update(bar, advance=cell.seconds, description=f"{protocol.id} {cell.key}")
                if not console.is_terminal and time.monotonic() - said > PLAIN_SECONDS:
                    console.print(f"{protocol.id}: {done} of {len(todo)} runs", highlight=False)
                    said = time.monotonic()


@contextmanager
def _finished(pool: ProcessPoolExecutor, futures: Collection[Future[Any]]) -> Iterator[Iterator[Future[Any]]]:
    """Futures as they finish. An error, Ctrl-C or SIGTERM, here or in a worker, cancels the others and ends workers.

    A training run ends after its step and keeps a checkpoint. Raises Interrupted if a signal ended a worker, UserError
    if a worker was killed.
    """

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    workers = list((pool._processes or {}).values())
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, interrupt) if in_main else None
    try:
        yield as_completed(futures)
    except BrokenProcessPool:  # the pool itself has ended the other workers
        for worker in workers:
            worker.join()
        if all(worker.exitcode in INTERRUPTED for worker in workers):
            raise Interrupted("a worker was interrupted") from None
        raise UserError("a process was killed (out of memory?): the same command goes on where it stopped") from None
    except BaseException:
        for future in futures:
            future.cancel()
        for worker in workers:
            with suppress(Exception):
                worker.terminate()
        raise
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, before)


def _result(future: Any, protocol: Protocol, cell: Cell) -> None:
    try:
        future.result()
    except UserError as error:
        raise UserError(f"{protocol.id} {cell.key}: {error}") from None


def in_worker(work: Callable[..., Any], *arguments: Any) -> None:
    """Does a piece of work. A signal that ends it ends the worker too, so that it starts no other cell of the queue."""
    try:
        work(*arguments)
    except KeyboardInterrupt:
        os._exit(130)


def run_cell(protocol_id: str, cell: Cell, work: Path) -> None:
    """Runs one cell and writes its numbers. Nothing is written if a signal ended it before its last step."""
    [protocol] = [p for p in find(protocol_id) if p.id == protocol_id]
    folder = cell_folder(work, cell)
    folder.mkdir(parents=True, exist_ok=True)
    save_cell(work, cell, protocol, protocol.run(cell.factors, folder))


def pretrain_bases(protocol: Protocol, cells: Sequence[Cell], console: Any) -> None:
    """The base models that these cells start from, unless the cache has them."""
    bases = protocol.bases(cells)
    if not bases:
        return
    from zerolab.worlds.base_model import cache_folder, is_complete

    todo = [base for base in bases if not is_complete(cache_folder(base))]
    if not todo:
        return
    started = time.monotonic()
    console.print(f"{protocol.id}: pretraining {len(todo)} base model{'s' * (len(todo) > 1)} ...", highlight=False)
    with _pool(min(cores(), len(todo))) as pool:
        futures = [pool.submit(in_worker, _pretrain, base) for base in todo]
        with _finished(pool, futures) as finished:
            for future in finished:
                future.result()
    console.print(f"{protocol.id}: base models ready in {time.monotonic() - started:.0f} s", highlight=False)


def _pretrain(base: Any) -> None:
    from zerolab.worlds.base_model import pretrain

    pretrain(base)


def _pool(workers: int) -> ProcessPoolExecutor:
    # Spawned, so that no state of torch or of this process reaches a cell; a fresh process for each is not needed.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=end_with_parent)


def end_with_parent() -> None:
    """In a worker: end at once when the parent is gone, however it died, so that no cell runs on without it."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _progress(console: Any) -> Any:

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)


def cost(cells: Sequence[Cell]) -> float:
    """Core-seconds."""
    return sum(cell.seconds for cell in cells)
