"""Built-in corpora by name, read through the datasets library from files with the columns of the hub's."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from zerolab.config import TextRunConfig
from zerolab.data import readers
from zerolab.data.texts import TextReader, open_corpus
from zerolab.errors import UserError
from zerolab.toml import parse

PAGE = {"url": "u", "fetch_time": 1, "content_mime_type": "text/html", "token_count": 3, "metadata": "{}", "score": 4.2}
COT = {"source": "olympiads", "messages": [{"content": "x", "role": "user"}]}
NUMINA = {"problem_type": "Algebra", "question_type": "math-word-problem", "source": "amc", "synthetic": False}


def columns(name: str, i: int) -> dict[str, Any]:
    """A row as the hub page shows it."""
    if name == "finemath":
        return {"text": f"page {i}", **PAGE}
    if name == "numina-cot":
        return {"problem": f"q {i}", "solution": f"a {i}", **COT}
    solution = None if i == 7 else f"a {i}"  # a row without one
    return {"problem": f"q {i}", "solution": solution, "answer": str(i), **NUMINA}


IDS = {
    "finemath": ("HuggingFaceTB/finemath", "finemath-4plus"),
    "numina-cot": ("AI-MO/NuminaMath-CoT", None),
    "numina-1.5": ("AI-MO/NuminaMath-1.5", None),
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    """In the place of the hub: files on disk, opened by the same call of the datasets library."""
    asked: list[tuple[str, str | None]] = []
    load = datasets.load_dataset

    def from_disk(hub_id: str, subset: str | None, *, split: str, streaming: bool) -> Any:
        asked.append((hub_id, subset))
        name = next(name for name, (known, _) in IDS.items() if known == hub_id)
        files = []
        for part in range(2):
            file = tmp_path / f"{name}-{part}.jsonl"
            file.write_text("".join(json.dumps(columns(name, i)) + "\n" for i in range(part * 15, part * 15 + 15)))
            files.append(str(file))
        return load("json", data_files=files, split=split, streaming=streaming, cache_dir=str(tmp_path / "cache"))

    monkeypatch.setattr(datasets, "load_dataset", from_disk)
    return asked


def reader(name: str, stream: bool, buffer: int = 6) -> TextReader:
    raw = {"steps": 1, "tokens_per_step": 1, "model": {"path": "m"}, "corpora": {"path": name, "stream": stream}}
    (source,) = parse(TextRunConfig, raw, "test").corpora.sources
    return TextReader(open_corpus(source, None), seed=0, buffer=buffer, holdout=0.0)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", IDS)
def test_a_built_in_corpus_is_read_and_gone_on_with(name: str, stream: bool, hub: list) -> None:
    made = reader(name, stream)
    size = 29 if name == "numina-1.5" else 30
    whole = [made.next() for _ in range(size + 20)]
    assert set(hub) == {IDS[name]}
    texts = [text.prompt + text.rest for text in whole[:size]]
    expected = {f"page {i}" if name == "finemath" else f"q {i}\na {i}" for i in range(30)}
    assert set(texts) == (expected - {"q 7\na 7"} if name == "numina-1.5" else expected)
    for place in (6, 20, size + 3):
        first, second = reader(name, stream), reader(name, stream)
        for _ in range(place):
            first.next()
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert [second.next() for _ in range(size + 20 - place)] == whole[place:]
    assert made.skipped == (1 if name == "numina-1.5" else 0) * (1 + made.epoch)


def test_a_hub_that_is_not_reached_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> Any:
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(UserError, match=r"cannot reach the hub for HuggingFaceTB/finemath.*corpora\.data_dir"):
        reader("finemath", True)


def test_a_stream_that_breaks_off_says_where_and_to_resume() -> None:
    def rows_then_trouble() -> Any:
        yield {"text": "a"}
        raise OSError("connection reset")

    class Broken:
        def __iter__(self) -> Any:
            return rows_then_trouble()

        def state_dict(self) -> dict:
            return {}

        def load_state_dict(self, state: dict) -> None:
            pass

    with pytest.raises(UserError, match=r"after row 1 .*connection reset.*--resume"):
        list(readers.HubReader("finemath, train", Broken(), None))
    assert readers.load_hub is readers.load_hub
