"""Runs the Python blocks of walkthrough.md in order and puts what each printed into the text block below it.

python docs/walkthrough.py        (make docs)
"""

import contextlib
import io
import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_suffix(".md")
PAIR = re.compile(r"```python\n(?P<code>.*?)```\n\n```text\n(?P<output>.*?)```\n", re.DOTALL)


def render(page: str) -> str:
    """The page with the outputs of this run. The blocks share one namespace."""
    namespace: dict[str, Any] = {}

    def run(block: re.Match[str]) -> str:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block["code"], PAGE.name, "exec"), namespace)
        output = "\n".join(line.rstrip() for line in printed.getvalue().splitlines())
        return f"```python\n{block['code']}```\n\n```text\n{output}\n```\n"

    return PAIR.sub(run, page)


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
