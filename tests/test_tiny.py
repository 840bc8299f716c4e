"""Laptop base models and their tokenizers are ordinary Hugging Face models that every loader reads alike."""

from pathlib import Path
from typing import Any

import pytest
import torch

from zerolab.config import ArchitectureConfig, CorpusConfig
from zerolab.errors import UserError
from zerolab.models.hf import export_model, load_model, load_tokenizer
from zerolab.models.tiny import tiny_qwen2, train_bpe, word_tokenizer
from zerolab.worlds.corpora import make_corpus

WORDS = ("10", "11", "12", " +", " ?", " \\boxed{", " sure", " unsure", " hmm")
TEXTS = (
    "12 + 10 ? \\boxed{9} unsure hmm hmm",
    "105 x10 okay 10\n\n  {y} it's <think> </answer>",
    "~!@#$%^&*()_+`-=[]{}|;':\",./<>? azAZ09",
    " sure",
    "",
)


def tiny(seed: int = 0, **changes: Any) -> Any:
    shape = {**ArchitectureConfig().model_dump(), "vocab_size": 124, "eos_token_id": 0, "pad_token_id": 1, **changes}
    return tiny_qwen2(**shape, seed=seed)


@pytest.mark.parametrize("text", TEXTS)
def test_printable_ascii_comes_back_unchanged(text: str) -> None:
    tokenizer = word_tokenizer(WORDS)
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_words_are_one_token_each_and_numbers_only_where_they_stand_alone() -> None:
    tokenizer = word_tokenizer(WORDS)

    def tokens(text: str) -> list[str]:
        return [tokenizer.decode([i]) for i in tokenizer(text)["input_ids"]]

    assert tokens("12 + 10 ? \\boxed{9} sure") == ["12", " +", " ", "10", " ?", " \\boxed{", "9", "}", " sure"]
    assert tokens("105") == ["1", "0", "5"]


@pytest.mark.parametrize("text", ["é", "数学", "\x00\x01", "🙂 1", "\u2028", "a\tb"])
def test_text_beyond_the_vocabulary_is_left_out_and_never_crashes(text: str) -> None:
    tokenizer = word_tokenizer(WORDS)
    ids = tokenizer(text)["input_ids"]
    assert all(0 <= i < len(tokenizer) for i in ids)
    assert set(tokenizer.decode(ids)) <= set(text)


def test_a_folder_is_read_alike_by_every_loader(tmp_path: Path) -> None:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    tokenizer = word_tokenizer(WORDS)
    model = tiny(vocab_size=len(tokenizer))
    export_model(model, tokenizer, tmp_path)
    loaders = (load_tokenizer, AutoTokenizer.from_pretrained, PreTrainedTokenizerFast.from_pretrained)
    loaded = [loader(tmp_path) for loader in loaders]
    for text in (*TEXTS, "10<eos>"):
        expected = tokenizer(text)["input_ids"]
        assert [other(text)["input_ids"] for other in loaded] == [expected] * 3
        assert [other.decode(expected) for other in loaded] == [tokenizer.decode(expected)] * 3
    assert all((other.eos_token_id, other.pad_token_id) == (0, 1) for other in loaded)
    weights = load_model(tmp_path).state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())


def test_every_text_fits_a_trained_bpe(tmp_path: Path) -> None:
    texts = ["Natalia sold 48/2 = 24 clips in May.", "Weng earns 12/60 = $0.2 per minute."] * 20
    tokenizer = train_bpe(texts, 320)
    assert len(tokenizer) <= 320
    for text in (*texts[:2], *TEXTS, "数学 🙂 é\x00"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer(texts[0])["input_ids"]) < len(texts[0]) / 2
    export_model(tiny(vocab_size=len(tokenizer)), tokenizer, tmp_path)
    assert load_tokenizer(tmp_path)(texts[0])["input_ids"] == tokenizer(texts[0])["input_ids"]
    with pytest.raises(UserError, match="at least 258"):
        train_bpe(texts, 100)


def test_bpe_shortens_real_worked_solutions(shared: Path) -> None:
    import json

    lines = (shared / "text/gsm8k_train_solutions.jsonl").read_text().splitlines()[:300]
    texts = [row["problem"] + " " + row["solution"] for row in map(json.loads, lines)]
    tokenizer = train_bpe(texts[:200], 1000)
    unseen = texts[200:]
    tokens = tokenizer(unseen)["input_ids"]
    assert [tokenizer.decode(ids) for ids in tokens] == unseen
    assert sum(map(len, tokens)) < 0.5 * sum(map(len, unseen))


def test_weights_follow_the_seed_and_leave_the_global_state_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, again, other = (torch.cat([p.flatten() for p in tiny(seed).parameters()]) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.dtype == torch.float32
    assert 0.13e6 < first.numel() < 0.15e6


def test_an_untrained_model_starts_near_the_uniform_loss() -> None:
    corpus = make_corpus(CorpusConfig(name="marked-arithmetic"), 0)
    model = tiny(vocab_size=len(corpus.tokenizer))
    ids = torch.tensor(corpus.batch(0, 1)[0][0])[None]
    loss = model(input_ids=ids, labels=ids).loss.item()
    assert abs(loss - torch.log(torch.tensor(float(len(corpus.tokenizer)))).item()) < 2


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(UserError, match="does not split into 5 heads"):
        tiny(heads=5)
