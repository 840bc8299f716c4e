"""Templates are part of the method: public ones byte for byte, and no question can break one."""

import copy
from typing import Any

import jinja2
import pytest

from tiny_models import tiny_tokenizer
from zerolab.config import TemplateConfig
from zerolab.data.templates import SHOTS, STRICT_FORMAT, TEMPLATES, Template, make_encode, make_template
from zerolab.errors import UserError
from zerolab.grading.extract import MODE_NAMES, extract

# Written out here once more, from arXiv 2503.20783, appendix A.
R1 = (
    "A conversation between User and Assistant. The User asks a question, and the Assistant solves it. The Assistant "
    "first thinks about the reasoning process in the mind and then provides the User with the answer. The reasoning "
    "process is enclosed within <think> </think> and answer is enclosed within <answer> </answer> tags, respectively, "
    "i.e., <think> reasoning process here </think> <answer> answer here </answer>.\nUser: 1+1=?\nAssistant: <think>"
)
QWEN_MATH = (
    "<|im_start|>system\nPlease reason step by step, and put your final answer within \\boxed{}.<|im_end|>\n"
    "<|im_start|>user\n1+1=?<|im_end|>\n<|im_start|>assistant\n"
)
# The function that builds it in PRIME's and in the paper's evaluation code, with the question filled in.
PRIME_ZERO = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The assistant "
    "first thinks about the reasoning process in the mind and then provides the user with the answer. The reasoning "
    "process and answer are enclosed within <think> </think> and <answer> </answer> tags, respectively, i.e., <think> "
    "reasoning process here </think> <answer> answer here </answer>. User: 1+1=?\n\nPresent the answer in LaTex "
    "format: \\boxed{Your answer}. Assistant:"
)
# The two Jinja templates of Open-Reasoner-Zero's playground/zero_setting_base.py, one inside the other.
ORZ_OUTER = """\
{{bos_token}}A conversation between User and Assistant. The User asks a question, and the Assistant solves it. The Assistant first thinks about the reasoning process in the mind and then provides the User with the answer. \
The reasoning process is enclosed within <think> </think> and answer is enclosed within <answer> </answer> tags, respectively, i.e., <think> reasoning process here </think> <answer> answer here </answer>. User: {{prompt}}
Assistant: <think>\
"""  # noqa: E501
ORZ_INNER = """\
You must put your answer inside <answer> </answer> tags, i.e., <answer> answer here </answer>. And your final answer will be extracted automatically by the \\boxed{} tag.
This is the problem:
{{prompt}}
"""  # noqa: E501
ORZ = jinja2.Template(ORZ_OUTER).render(bos_token="", prompt=jinja2.Template(ORZ_INNER).render(prompt="1+1=?"))


def template(**keys: object) -> Template:
    return make_template(TemplateConfig.model_validate(keys))


@pytest.mark.parametrize(
    ("name", "prompt", "stop", "extractor"),
    [
        ("r1", R1, ("</answer>",), "answer-tag"),
        ("qwen-math", QWEN_MATH, (), "boxed"),
        ("none", "1+1=?", (), "boxed"),
        ("prime-zero", PRIME_ZERO, (), "boxed"),
        ("open-reasoner-zero", ORZ, ("User:", "Human:", "Assistant:", "</answer>"), "answer-tag-lenient"),
    ],
)
def test_public_templates(name: str, prompt: str, stop: tuple[str, ...], extractor: str) -> None:
    made = template(name=name)
    assert made.render("1+1=?").encode() == prompt.encode()
    assert (made.stop, made.extractor) == (stop, extractor)


@pytest.mark.parametrize("name", sorted(TEMPLATES.keys() - {"chat"}))
@pytest.mark.parametrize("question", ["{question}", "{}", "{0} {a", "}{", "\\frac{1}{2} %s $q", "a\nb", ""])
def test_a_question_goes_in_as_it_is(name: str, question: str) -> None:
    before, after = TEMPLATES[name].text.split("{question}")
    assert TEMPLATES[name].render(question) == before + question + after


def test_few_shot_shows_four_answers_that_its_own_extractor_reads() -> None:
    made = template(name="few-shot")
    prompt = made.render("What is 2+2?")
    assert prompt.count("Question: ") == prompt.count("Answer:") == 5
    assert prompt.endswith("\n\nQuestion: What is 2+2?\nAnswer:")
    assert [extract(answer, made.extractor) for _, answer in SHOTS] == ["39", "12", "\\frac{3}{10}", "15"]
    assert made.stop[0] in prompt
    assert all(made.stop[0] not in answer for _, answer in SHOTS)


def test_own_shots_replace_the_built_in_ones() -> None:
    made = template(name="few-shot", shots=[["1+1?", "\\boxed{2}"]])
    assert made.render("q") == "Question: 1+1?\nAnswer: \\boxed{2}\n\nQuestion: q\nAnswer:"


def test_own_template_and_overrides() -> None:
    own = template(name="mine", text="Q: {question}\nA:", stop=["\n"], extractor="last-number")
    assert own == Template("mine", "Q: {question}\nA:", ("\n",), "last-number")
    lenient = template(name="r1", extractor="answer-tag-lenient", stop=[])
    assert lenient.text == TEMPLATES["r1"].text
    assert (lenient.extractor, lenient.stop) == ("answer-tag-lenient", ())


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"name": "qwen-mat"}, "did you mean qwen-math"),
        ({"name": "x"}, "r1, qwen-math, none, few-shot"),
        ({"name": "r1", "text": "{question}"}, "built in"),
        ({"name": "mine", "text": "no slot"}, "once, it does 0 times"),
        ({"name": "mine", "text": "{question}{question}"}, "once, it does 2 times"),
        ({"name": "mine", "text": "{question}", "stop": [""]}, "empty string"),
        ({"name": "r1", "shots": [["a", "b"]]}, "few-shot"),
        ({"name": "few-shot", "shots": [["{question}", "b"]]}, "must not hold"),
        ({"name": "r1", "system": "Be brief."}, 'belong to template.name = "chat"'),
        ({"name": "r1", "chat_options": {"enable_thinking": False}}, 'belong to template.name = "chat"'),
    ],
)
def test_what_cannot_be_meant_is_refused_when_the_config_loads(keys: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TemplateConfig.model_validate(keys)
    with pytest.raises(UserError, match=message):
        make_template(TemplateConfig.model_construct(**{**TemplateConfig().model_dump(), **keys}))


def test_every_extraction_mode_says_what_formatted_means() -> None:
    assert STRICT_FORMAT.keys() == set(MODE_NAMES) - {"any"}  # which is for evaluation, and no template's


CHATML = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</{{ m['role'] }}>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% if enable_thinking is defined and not enable_thinking %}{{ '<no>' }}"
    "{% endif %}{% endif %}"
)


def chatty(chat_template: str | None) -> Any:
    """A tokenizer with this chat template."""
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.name_or_path, tokenizer.chat_template = "folder/model", chat_template
    return tokenizer


@pytest.mark.parametrize(
    ("keys", "prompt"),
    [
        ({}, "<user>{{ 7 }} {question} {% x</user><assistant>"),
        ({"text": "{question}\nBox it."}, "<user>{{ 7 }} {question} {% x\nBox it.</user><assistant>"),
        ({"system": "Be brief."}, "<system>Be brief.</system><user>{{ 7 }} {question} {% x</user><assistant>"),
        ({"chat_options": {"enable_thinking": False}}, "<user>{{ 7 }} {question} {% x</user><assistant><no>"),
    ],
)
def test_chat_is_the_models_own_template_and_a_question_is_no_jinja(keys: dict, prompt: str) -> None:
    made = template(name="chat", **keys).bound(chatty(CHATML))
    assert made.render("{{ 7 }} {question} {% x") == prompt
    assert (made.stop, made.extractor) == ((), "boxed")


@pytest.mark.parametrize(
    ("chat_template", "keys", "message"),
    [
        (None, {}, "the tokenizer of folder/model has no chat template: choose another"),
        ("{% for %}", {}, "the model's chat template fails"),
        ("{{ raise_exception('System role not supported') }}", {"system": "x"}, "System role not supported"),
        ("{{ messages.__class__.__mro__ }}", {}, "unsafe"),
    ],
)
def test_a_chat_template_that_cannot_be_used_is_one_line(chat_template: str | None, keys: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        template(name="chat", **keys).bound(chatty(chat_template))
    assert "\n" not in str(refused.value)


def test_a_chat_prompt_is_not_known_without_its_tokenizer() -> None:
    with pytest.raises(UserError, match="only with the model's tokenizer"):
        template(name="chat").render("q")


TURNS = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
SHAPES = {
    "bare": TURNS,
    "bos first": "{{ bos_token }}" + TURNS + "<assistant>",
    "white space before bos": "\n  {{ bos_token }}" + TURNS,
    "two bos": "{{ bos_token }}{{ bos_token }}" + TURNS,
    "eos last": TURNS + "{{ eos_token }}",
    "eos after every turn": "{% for m in messages %}{{ m['content'] }}{{ eos_token }}{% endfor %}",
    "bos and eos": "{{ bos_token }}" + TURNS + "{{ eos_token }}",
    "eos and white space": "{{ bos_token }}" + TURNS + "{{ eos_token }}\n\n",
    "eos twice": TURNS + "{{ eos_token }}{{ eos_token }}",
    "white space at both ends": " " + TURNS + " ",
}
ADDS = {"nothing": "$A", "bos": "<bos> $A", "bos and eos": "<bos> $A <eos>", "eos": "$A <eos>"}
END = 0  # id of <eos>


def adding(around: str, chat_template: str | None = None) -> Any:
    """A tokenizer that puts special tokens around a text: `$A` is the text."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = chatty(chat_template)
    tokenizer.add_special_tokens({"bos_token": "<bos>"})
    bos = tokenizer.bos_token_id
    special = [("<bos>", bos), ("<eos>", END)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=around, special_tokens=special)
    return tokenizer


@pytest.mark.parametrize("around", ADDS.values(), ids=ADDS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("question", ["1 + 1 = ?", "<bos> what is <eos>"])
def test_a_chat_prompt_has_the_tokens_of_apply_chat_template(shape: str, around: str, question: str) -> None:
    tokenizer = adding(around, SHAPES[shape])
    prompt = template(name="chat").bound(tokenizer).render(question)
    turns = [{"role": "user", "content": question}]
    expected = tokenizer.apply_chat_template(turns, tokenize=True, add_generation_prompt=True)["input_ids"]
    assert make_encode(tokenizer)(prompt) == expected


@pytest.mark.parametrize("around", ADDS)
@pytest.mark.parametrize(
    "text", ["{question}", "<bos>{question}", " \n<bos>{question}", "{question}<eos>", "<eos>{question}"]
)
def test_a_plain_prompt_begins_with_one_bos_and_keeps_an_eos_that_it_ends_in(text: str, around: str) -> None:
    tokenizer = adding(ADDS[around])
    ids = make_encode(tokenizer)(template(name="mine", text=text).render("abcd 12"))
    assert ids.count(tokenizer.bos_token_id) == ("<bos>" in text or "bos" in around)
    assert ids.count(END) == text.count("<eos>")
    assert (ids[-1] == END) == text.endswith("<eos>")


class Counting:
    """A tokenizer that says how many characters it was given."""

    def __init__(self) -> None:
        self.tokenizer, self.characters = tiny_tokenizer(), 0

    def __call__(self, text: str, **options: Any) -> Any:
        self.characters += len(text)
        return self.tokenizer(text, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)


@pytest.mark.parametrize("text", ["What is 1 + 1? ", "a", " ", "\n", "abcd"])
def test_a_question_of_megabytes_is_cut_by_characters_before_it_is_tokenized(text: str) -> None:
    tokenizer = Counting()
    ids = make_encode(tokenizer, 100)(text * (2_000_000 // len(text)))
    assert len(ids) > 100
    assert tokenizer.characters < 50_000


def test_a_limit_changes_no_prompt_that_fits_and_lets_none_pass_that_does_not() -> None:
    tokenizer = tiny_tokenizer()
    whole = make_encode(tokenizer)
    for limit in (1, 7, 40):
        bounded = make_encode(tokenizer, limit)
        for word in ("abcd", "x", "1 + 2 ", "\n\n", "é¤"):
            for times in (1, limit // 2 or 1, limit, limit + 1, 3 * limit, 50 * limit):
                ids, all_ids = bounded(word * times), whole(word * times)
                assert (len(ids) > limit) == (len(all_ids) > limit)
                assert ids == all_ids or len(all_ids) > limit
