"""Corpora become documents: nothing lost, nothing twice, shares as asked, and a cursor that goes on to the token."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tiny_models import tiny_tokenizer
from zerolab.config import TextRunConfig
from zerolab.data.texts import Text, TextReader, open_corpus
from zerolab.document_streams import Mix, cut, find_corpora, held_out_documents, make_mix, make_tokens
from zerolab.errors import UserError
from zerolab.toml import parse


def config(**corpora: Any) -> TextRunConfig:
    raw = {"steps": 1, "tokens_per_step": 100, "model": {"path": "unused"}, "corpora": corpora}
    return parse(TextRunConfig, raw, "test")


def begin(text: str) -> list[int]:
    return tiny_tokenizer()(text)["input_ids"]


def mix_of(made: TextRunConfig, context: int = 64) -> Mix:
    return make_mix(made, find_corpora(made), tiny_tokenizer(), begin, context)


def write_texts(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def reader(path: Path, buffer: int = 7, seed: int = 0, holdout: float = 0.0, **source: Any) -> TextReader:
    (found,) = config(path=str(path), **source).corpora.sources
    return TextReader(open_corpus(found, None), seed=seed, buffer=buffer, holdout=holdout)


TEXTS = [f"text number {i}" for i in range(40)]


def test_every_token_but_the_first_is_learned_once_whatever_the_context() -> None:
    ids = np.arange(100)
    for prompt in (1, 2, 30, 99):
        for context in (2, 3, 7, 99, 100, 500):
            pieces = cut(ids, prompt, context)
            learned = np.concatenate([piece[first:] for piece, first in pieces])
            assert learned.tolist() == list(range(prompt, 100))
            assert all(2 <= len(piece) <= context for piece, _ in pieces)
            assert all((piece == np.arange(piece[0], piece[0] + len(piece))).all() for piece, _ in pieces)


def test_loss_on_the_answer_changes_what_is_learned_and_no_token() -> None:
    text = Text("Question: 3 + 4 = ?\n", "It is 7", "q")
    every, answer = (make_tokens(tiny_tokenizer(), begin, 128, only).pieces(text) for only in (False, True))
    (all_ids, first), (answer_ids, prompt) = every[0], answer[0]
    assert all_ids.tolist() == answer_ids.tolist()
    assert first == 1
    read = tiny_tokenizer().decode
    assert read(answer_ids[prompt:]) == "It is 7<eos>"
    assert read(answer_ids[:prompt]) == "Question: 3 + 4 = ?\n"


@pytest.mark.parametrize("buffer", [1, 7, 40, 100])
def test_a_pass_has_every_text_once_and_the_next_another_order(tmp_path: Path, buffer: int) -> None:
    made = reader(write_texts(tmp_path / "t.jsonl", TEXTS), buffer)
    passes = [[made.next().rest for _ in TEXTS] for _ in range(2)]
    assert sorted(passes[0]) == sorted(passes[1]) == sorted(TEXTS)
    assert (passes[0] == passes[1] == TEXTS) == (buffer == 1)


def test_holdout_takes_the_same_texts_from_training_that_are_kept(tmp_path: Path) -> None:
    path = write_texts(tmp_path / "t.jsonl", TEXTS)
    made = reader(path, holdout=0.3)
    seen = {made.next().rest for _ in range(80)}
    run = config(path=str(path), holdout=0.3)
    ((name, documents),) = held_out_documents(run, find_corpora(run), tiny_tokenizer(), begin, 64).items()
    kept = {tiny_tokenizer().decode(ids[:-1]) for ids, _ in documents}
    assert name == "t"
    assert 4 < len(kept) < 20
    assert seen | kept == set(TEXTS)
    assert not seen & kept


FORMATS = ("jsonl", "json", "csv", "parquet", "txt", "folder")


def write_as(kind: str, folder: Path) -> Path:
    if kind == "txt":
        (folder / "t.txt").write_text("\n\n".join(TEXTS))
        return folder / "t.txt"
    if kind == "folder":
        for number in range(4):
            write_texts(folder / f"part-{number}.jsonl", TEXTS[number * 10 : number * 10 + 10])
        return folder
    if kind == "jsonl":
        return write_texts(folder / "t.jsonl", TEXTS)
    if kind == "json":
        (folder / "t.json").write_text(json.dumps([{"text": text} for text in TEXTS]))
    elif kind == "csv":
        (folder / "t.csv").write_text("text\n" + "\n".join(TEXTS) + "\n")
    else:
        import pyarrow
        import pyarrow.parquet

        table = pyarrow.table({"text": TEXTS, "url": [""] * len(TEXTS)})
        pyarrow.parquet.write_table(table, folder / "t.parquet", row_group_size=9)
    return folder / f"t.{kind}"


@pytest.mark.parametrize("kind", FORMATS)
def test_a_reader_goes_on_from_any_place_as_if_it_had_never_stopped(tmp_path: Path, kind: str) -> None:
    path = write_as(kind, tmp_path)
    whole = [text.rest for made in [reader(path)] for text in (made.next() for _ in range(100))]
    assert Counter(whole[:40]) == Counter(TEXTS)
    for place in (0, 1, 7, 8, 39, 40, 41, 77):
        first = reader(path)
        for _ in range(place):
            first.next()
        state = json.loads(json.dumps(first.state_dict()))
        second = reader(path)
        second.load_state_dict(state)
        assert [second.next().rest for _ in range(100 - place)] == whole[place:]


def test_a_cursor_in_a_file_of_lines_does_not_read_what_lies_before_it(tmp_path: Path) -> None:
    path = write_texts(tmp_path / "t.jsonl", TEXTS)
    made = reader(path, buffer=10)
    for _ in range(25):
        made.next()
    state = made.state_dict()
    rest = [made.next().rest for _ in range(15)]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(b"x" * (len(line) - 1) + b"\n" for line in lines[:20]) + b"".join(lines[20:]))
    fresh = TextReader.__new__(TextReader)
    fresh.__dict__ |= made.__dict__
    fresh.load_state_dict(state)
    assert [fresh.next().rest for _ in range(15)] == rest


def test_a_place_in_other_files_is_refused(tmp_path: Path) -> None:
    state = reader(write_texts(tmp_path / "t.jsonl", TEXTS)).state_dict()
    changed = reader(write_texts(tmp_path / "t.jsonl", TEXTS[1:]))
    with pytest.raises(UserError, match="not those that the run began with"):
        changed.load_state_dict(state)


def test_a_mix_keeps_its_shares_of_tokens_at_every_step(tmp_path: Path) -> None:
    """Documents of very different length: shares are of tokens, and never off by more than a document."""
    short, long = write_texts(tmp_path / "s.jsonl", ["ab"] * 9), write_texts(tmp_path / "l.jsonl", ["long " * 11] * 5)
    sources = [{"path": str(short), "weight": 3}, {"path": str(long), "weight": 1}, {"path": "synthetic:arithmetic"}]
    mix = mix_of(config(sources=sources))
    longest = 0
    for _ in range(30):
        documents = mix.step(200)
        taken = sum(len(ids) for ids, _ in documents)
        longest = max(longest, *(len(ids) for ids, _ in documents))
        assert 200 <= taken < 200 + longest
        found = mix.metrics()
        assert found["tokens/seen"] == sum(stream.taken for stream in mix.streams)
        for name, share in (("s", 0.6), ("l", 0.2), ("arithmetic", 0.2)):
            assert abs(found[f"mix/{name}"] - share) * found["tokens/seen"] <= longest
    assert found["epoch/s"] > 1


def test_a_mix_is_resumed_to_the_token_in_the_middle_of_a_long_document(tmp_path: Path) -> None:
    path = write_texts(tmp_path / "t.jsonl", [f"{i} " + "long text " * 30 for i in range(12)])
    made = config(sources=[{"path": str(path)}, {"path": "synthetic:countdown", "weight": 0.5}])
    whole = [mix_of(made, 40)]
    steps = [[ids.tolist() for ids, _ in whole[0].step(90)] for _ in range(12)]
    for stop in range(0, 12, 3):
        first, second = mix_of(made, 40), mix_of(made, 40)
        for _ in range(stop):
            first.step(90)
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert [[ids.tolist() for ids, _ in second.step(90)] for _ in range(stop, 12)] == steps[stop:]


def test_a_synthetic_corpus_keeps_its_tokens_and_prompts_under_its_own_tokenizer() -> None:
    made = config(path="synthetic:marked-arithmetic")
    (found,) = find_corpora(made)
    assert found.synthetic is not None
    tokenizer = found.synthetic.tokenizer
    mix = make_mix(made, [found], tokenizer, lambda text: tokenizer(text)["input_ids"], 256)
    documents = mix.step(2000)
    expected = found.synthetic.batch(2**20, 256)[: len(documents)]
    assert [(ids.tolist(), n) for ids, n in documents] == [(ids.tolist(), n) for ids, n in expected]


def test_question_and_worked_answer_of_the_real_gsm8k(shared: Path) -> None:
    made = config(path=str(shared / "text" / "gsm8k_train_solutions.jsonl"), loss="answer")
    mix = mix_of(made, 2048)
    documents = mix.step(20_000)
    for ids, prompt in documents:
        text = tiny_tokenizer().decode(ids[prompt:])
        assert "####" in text
        assert text.endswith("<eos>")
        assert "####" not in tiny_tokenizer().decode(ids[:prompt])


BAD: dict[str, tuple[str, str | bytes, dict[str, str], list[str]]] = {
    "missing column": ("t.jsonl", '{"body": "x"}\n', {}, ["t.jsonl:1", "neither a text", "corpora.text_key"]),
    "other column": ("t.jsonl", '{"text": "x"}\n', {"text_key": "body"}, ["t.jsonl:1", "no text under 'body'"]),
    "no answer": (
        "t.jsonl",
        '{"q": "x"}\n',
        {"problem_key": "q", "answer_key": "a"},
        ["t.jsonl:1", "no column 'a'"],
    ),
    "empty": ("t.jsonl", "", {}, ["no text to learn from", "it is empty"]),
    "empty texts": ("t.jsonl", '{"text": " "}\n{"text": null}\n', {}, ["its texts are empty"]),
    "broken line": ("t.jsonl", '{"text": "x"}\n{"text": \n', {}, ["t.jsonl:2", "not valid JSON"]),
    "binary": ("t.jsonl", b"\x89PNG\xff\x00\n", {}, ["t.jsonl:1", "not UTF-8"]),
    "binary text": ("t.txt", b"fine\n\xff\xfe\x00\n", {}, ["t.txt:2", "not UTF-8"]),
    "binary table": ("t.parquet", b"PAR1\x00\x01", {}, ["t.parquet", "not a readable Parquet file"]),
    "text that is none": ("t.jsonl", '{"text": ["x"]}\n', {}, ["t.jsonl:1", "text is a list"]),
    "a list": ("t.jsonl", "[1]\n", {}, ["t.jsonl:1", "expected an object"]),
    "another kind of file": ("t.pdf", b"%PDF", {}, ["t.pdf", ".jsonl"]),
    "all held out": ("t.jsonl", '{"text": "x"}\n', {"holdout": "0.999999999"}, ["all of it is held out"]),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_one_clear_line(case: str, tmp_path: Path) -> None:
    name, content, settings, words = BAD[case]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as refused:
        mix_of(config(path=str(path), **settings))
    assert len(str(refused.value).splitlines()) == 1
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("none.jsonl", "none.jsonl: no such file"),
        ("none/*.jsonl", "no such file"),
        ("finemaths", "did you mean finemath"),
        ("gsm_8k", "a set of questions"),
        ("nobody/none", "cannot reach the hub for nobody/none|cannot load split"),
        ("synthetic:nothing", "choose one of marked-arithmetic"),
    ],
)
def test_a_corpus_that_is_not_there_is_one_clear_line(path: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        mix_of(config(path=path))
