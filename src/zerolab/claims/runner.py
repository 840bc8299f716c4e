"""Runs the cells of an experiment that have not run yet, as many at a time as there are cores."""

import multiprocessing
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import connection
from pathlib import Path
from typing import Any

from zerolab.claims.ledger import find
from zerolab.claims.protocol import Cell, Plan, Protocol, Row
from zerolab.claims.results import cell_folder, load_cell, save_cell
from zerolab.errors import UserError
from zerolab.processes import cores

PLAIN_SECONDS = 30.0  # between lines where there is no terminal
ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def missing(protocol: Protocol, plan: Plan, work: Path) -> list[Cell]:
    return [cell for cell in protocol.cells(plan) if load_cell(work, cell, protocol) is None]


def table(protocol: Protocol, plan: Plan, work: Path) -> list[Row]:
    """The rows of the plan's cells that have run, in the protocol's order."""
    rows = [load_cell(work, cell, protocol) for cell in protocol.cells(plan)]
    return [row for row in rows if row is not None]


def run_cells(protocol: Protocol, plan: Plan, work: Path, console: Any) -> None:
    """Runs what is missing; every finished cell is kept. Raises UserError with the cell's name where one fails."""
    todo = missing(protocol, plan, work)
    if not todo:
        return
    for name in ONE_THREAD:  # before the workers import numpy
        os.environ[name] = "1"
    pretrain_bases(protocol, plan, console)
    said = time.monotonic()
    # The longest first, so that no core waits for a late one.
    todo.sort(key=lambda cell: -cell.seconds)
    with _progress(console) as progress, _pool(min(cores(), len(todo))) as pool:
        bar = progress.add_task(protocol.id, total=sum(cell.seconds for cell in todo))
        futures = {pool.submit(run_cell, protocol.id, cell, work): cell for cell in todo}
        try:
            for done, future in enumerate(as_completed(futures), 1):
                cell = futures[future]
                _result(future, protocol, cell)
                progress.update(bar, advance=cell.seconds, description=f"{protocol.id} {cell.key}")
                if not console.is_terminal and time.monotonic() - said > PLAIN_SECONDS:
                    console.print(f"{protocol.id}: {done} of {len(todo)} runs", highlight=False)
                    said = time.monotonic()
        except BaseException:
            for future in futures:
                future.cancel()
            for process in list((pool._processes or {}).values()):
                with suppress(Exception):
                    process.terminate()
            raise


def _result(future: Any, protocol: Protocol, cell: Cell) -> None:
    try:
        future.result()
    except BrokenProcessPool:
        raise UserError(
            f"a process of {protocol.id} was killed (out of memory?): the same command goes on where it stopped"
        ) from None
    except UserError as error:
        raise UserError(f"{protocol.id} {cell.key}: {error}") from None


def run_cell(protocol_id: str, cell: Cell, work: Path) -> None:
    """In a worker: one cell, and its numbers to disk."""
    [protocol] = [p for p in find(protocol_id) if p.id == protocol_id]
    folder = cell_folder(work, cell)
    folder.mkdir(parents=True, exist_ok=True)
    save_cell(work, cell, protocol, protocol.run(cell.factors, folder))


def pretrain_bases(protocol: Protocol, plan: Plan, console: Any) -> None:
    """The base models that the cells start from, unless the cache has them."""
    bases = list(protocol.bases(plan))
    if not bases:
        return
    from zerolab.worlds.base_model import cache_folder, is_complete

    unique = {cache_folder(base): base for base in bases}
    todo = [base for folder, base in unique.items() if not is_complete(folder)]
    if not todo:
        return
    started = time.monotonic()
    console.print(f"{protocol.id}: pretraining {len(todo)} base model{'s' * (len(todo) > 1)} ...", highlight=False)
    with _pool(min(cores(), len(todo))) as pool:
        for future in as_completed([pool.submit(_pretrain, base) for base in todo]):
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
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)


def cost(cells: Sequence[Cell]) -> float:
    """Core-seconds."""
    return sum(cell.seconds for cell in cells)
