"""Hook of mkdocs: pages may show figures and tables of `results/` and link to notebooks of `examples/`, beside the
folder of documents."""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
SHOWN = {".png", ".csv", ".json", ".ipynb"}


def on_files(files: Files, config: Any) -> Files:
    """Adds every figure, table and notebook of these folders to the site, under the same path."""
    for path in sorted([*(ROOT / "results").rglob("*"), *(ROOT / "examples").iterdir()]):
        if path.suffix in SHOWN:
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links as a reader of the repository follows them, made into links of the site."""
    markdown = re.sub(r"\]\(\.\./((?:results|examples)/[^)]*)\)", r"](\1)", markdown)
    markdown = re.sub(r"<!-- needs: ([^>]*) -->", r" (needs: \1)", markdown)
    return re.sub(r"\]\(\.\./(README|CHANGELOG|CONTRIBUTING)\.md\)", r"](index.md)", markdown)
