"""Run a notebook from its first cell to its last, and write it with what it printed.

python -m tools.notebook examples/first_run.ipynb
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

PARAMETERS = "parameters"  # tag of the cell whose values can be replaced
LARGE = "report"  # tag of a cell whose output is too large to be stored: a page of its own


def execute(path: Path, folder: Path, values: Mapping[str, Any] | None = None) -> Any:
    """The notebook after a run in `folder`.

    Args:
        values: what names of the cell tagged `parameters` are set to instead.

    Raises nbclient.exceptions.CellExecutionError if a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    if values:
        (cell,) = tagged(notebook, PARAMETERS)
        cell.source += "".join(f"\n{name} = {value!r}" for name, value in values.items())
    client = NotebookClient(notebook, timeout=None, resources={"metadata": {"path": str(folder)}})
    client.execute(env={**os.environ, "PYTHONWARNINGS": "ignore"})
    return notebook


def tagged(notebook: Any, tag: str) -> list[Any]:
    """The cells with a tag."""
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", ())]


def stored(notebook: Any) -> Any:
    """The notebook without times of a run and without the outputs of cells tagged `report`."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    for cell in tagged(notebook, LARGE):
        cell.outputs = []
    notebook.metadata.language_info = {"name": "python"}
    return notebook


def main(path: Path) -> None:
    nbformat.write(stored(execute(path, Path.cwd())), path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
