"""Tokenizers of SentencePiece's kind, such as Llama 2's: tokens and texts are those of the package ``tokenizers``, and
the bytes of tokens those of the text."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tokenizers")

from tokenizers import Tokenizer as Core

from chats import Given, said
from genlab.data.chat_template import ChatTemplate, template_of
from genlab.data.chat_tokens import ChatTokens
from genlab.data.conversation import Conversation
from genlab.data.text import start_token
from genlab.data.tokenizer.base import StreamDecoder
from genlab.data.tokenizer.pretrained import Pretrained, token_before
from genlab.errors import DataError
from genlab.interop.tokenizer_json import as_json
from sentence_pieces import BEGINS, RULES, WORDS, sentence_piece

TEXTS = [
    WORDS,
    "the cat\n\tsaid hello  \U0001f600\r\n",
    "  the    cat ",
    " the",
    "\n",
    " ",
    "\u00e9t\u00e9 \U0001f469\u200d\U0001f680 <s>the</s> <0x41>",
    "",
]
LLAMA_2 = (
    "{% for message in messages %}{% if message.role == 'user' %}{{ bos_token }}[INST] {{ message.content }} [/INST]"
    "{% else %} {{ message.content }} {{ eos_token }}{% endif %}{% endfor %}"
)
ZEPHYR = (
    "{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
MARKED = (
    "{% for message in messages %}{% if message.role == 'user' %}{{ message.content }}{{ bos_token }}"
    "{% else %}{{ message.content }}{{ eos_token }}{% endif %}{% endfor %}"
)


def read(content: dict[str, Any], folder: Path, **options: Any) -> Pretrained:
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    return Pretrained(str(folder), **{"end_token": "</s>", "begin_token": "<s>", **options})


def theirs(content: dict[str, Any], special_is_text: bool = True) -> Core:
    core = Core.from_str(json.dumps(content))
    core.encode_special_tokens = special_is_text
    return core


@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize("text", TEXTS)
def test_tokens_and_texts_are_those_of_the_package(kind: str, text: str, tmp_path: Path) -> None:
    content = sentence_piece(kind)
    core, ours = theirs(content), read(content, tmp_path)
    tokens = ours.encode(text)
    assert tokens.tolist() == core.encode(text, add_special_tokens=False).ids
    assert ours.prompt(text).tolist() == core.encode(text).ids == [1, *tokens]
    is_lost = text.startswith(" ") and kind in ("mistral", "always")  # by the package, too
    assert ours.decode(tokens) == text[is_lost:]
    if kind != "no prefix":  # which has a decoder that takes a space away
        assert ours.decode(tokens) == core.decode(tokens.tolist())
    stream = StreamDecoder(ours)
    assert "".join(stream.push(int(token)) for token in tokens) == text[is_lost:]


@pytest.mark.parametrize("kind", RULES)
def test_the_bytes_of_documents_are_those_of_their_texts(kind: str, tmp_path: Path) -> None:
    """Begin and end tokens have none, and neither has the space before each document."""
    texts = [text for text in TEXTS if not text.startswith(" ") or kind in ("llama 2", "no prefix")]
    ours = read(sentence_piece(kind), tmp_path)
    joined = np.concatenate([[1, *ours.encode(text), 2] for text in texts])
    number = ours.byte_lengths()[joined[1:]].sum() - ours.added_spaces(joined[1:], joined[:-1])
    assert number == sum(len(text.encode()) for text in texts)
    assert ours.decode(joined.tolist()) == "".join(texts)
    assert ours.byte_lengths()[:3].tolist() == [0, 0, 0]


def test_a_text_goes_on_without_another_space(tmp_path: Path) -> None:
    """Also where a long one is cut, and where tokens follow others."""
    ours = read(sentence_piece(), tmp_path)
    whole = ours.encode("the cat said hello")
    apart = [*ours.encode("the cat"), *ours.encode_within(" said hello", after_special=False)]
    assert whole.tolist() == apart
    place = len(ours.encode("the cat"))
    assert ours.decode(whole[place:], before=int(whole[place - 1])) == " said hello"
    assert ours.decode(ours.encode_within("the", after_special=True), before=1) == "the"
    long = (WORDS + " \U0001f600  ") * 700
    assert ours.encode(long).tolist() == theirs(sentence_piece()).encode(long, add_special_tokens=False).ids


@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize("source", [LLAMA_2, ZEPHYR, MARKED])
def test_answers_are_where_their_characters_are(kind: str, source: str, tmp_path: Path) -> None:
    """By the offsets that the package gives for the whole text."""
    content = sentence_piece(kind)
    chat = ChatTokens(ChatTemplate("a", source, {"bos_token": "<s>", "eos_token": "</s>"}), read(content, tmp_path))
    messages = said("the cat?", "the dog \U0001f600", "all\n", "them all")
    text, spans, _ = chat._laid_out(messages, "here")
    encoded = theirs(content, special_is_text=False).encode(text, add_special_tokens=False)
    expected = [any(a <= start and stop <= b for a, b in spans) for start, stop in encoded.offsets]
    tokens, is_answer = chat.conversation(messages, "here")
    assert tokens.tolist() == encoded.ids
    assert is_answer.tolist() == expected
    assert 0 < sum(expected) < len(expected)
    prompt = chat.prompt(messages[:3], "here")
    assert tokens[: len(prompt)].tolist() == prompt.tolist()
    answer = [int(token) for token in tokens[len(prompt) :][is_answer[len(prompt) :]]][:-1]
    assert chat.answer(answer) == (" them all " if source == LLAMA_2 else "them all")


def test_templates_that_are_built_in_begin_as_texts_do(tmp_path: Path) -> None:
    ours = read(sentence_piece(), tmp_path)
    chat = ChatTokens(template_of("plain", ours), ours)
    (text,) = chat.template.rendered(said("hello"), [(1, True)])
    assert chat.prompt(said("hello"), "here").tolist() == ours.prompt(text).tolist()
    (tmp_path / "own.jinja").write_text("{{ bos_token }}" + ZEPHYR)
    assert ChatTokens(template_of(str(tmp_path / "own.jinja"), ours), ours).prompt(said("a"), "here")[0] == 1
    bare = read(sentence_piece(), tmp_path, begin_token=None)
    assert ChatTokens(template_of("plain", bare), bare).prompt(said("hello"), "here")[0] != 1


def test_documents_have_a_begin_token_that_is_asked_for(tmp_path: Path) -> None:
    """And a run without one has the tokens, the start and the fingerprint that it had."""
    data = {
        name: Given(
            [Conversation(tuple(said("a", "b")), "")],
            tmp_path,
            read(sentence_piece(), tmp_path, **options),
            template="plain",
        )
        for name, options in (("with", {}), ("without", {"begin_token": None}))
    }
    hello = data["with"].tokenizer.encode("hello").tolist()
    assert data["with"].encode("hello").tolist() == [1, *hello, 2]
    assert data["without"].encode("hello").tolist() == [*hello, 2]
    assert data["with"].encode("").tolist() == []
    assert start_token(data["with"].tokenizer) == 1
    assert start_token(data["without"].tokenizer) == 2
    assert data["with"].tokenizer.fingerprint() != data["without"].tokenizer.fingerprint()


def test_an_export_puts_before_a_text_what_the_run_does(tmp_path: Path) -> None:
    content = sentence_piece()
    for kept, token in ((BEGINS, "<s>"), (None, "<s>"), (BEGINS, None), (None, None)):
        made, end = as_json(trained := read({**content, "post_processor": kept}, tmp_path, begin_token=token))
        assert (token_before(made), end) == (token, "</s>")
        assert theirs(made).encode("the \U0001f600 cat").ids == trained.prompt("the \U0001f600 cat").tolist()
    assert made | {"post_processor": BEGINS} == json.loads(json.dumps(content))


def test_what_precedes_a_text_is_read_or_refused() -> None:
    both = {"type": "Sequence", "processors": [{"type": "ByteLevel"}, BEGINS]}
    assert [token_before({"post_processor": one}) for one in (None, {"type": "ByteLevel"}, both)] == [None, None, "<s>"]
    twice = {**BEGINS, "single": [BEGINS["single"][0], *BEGINS["single"]]}
    with pytest.raises(ValueError, match="puts several tokens before a text"):
        token_before({"post_processor": twice})
    with pytest.raises(ValueError, match="the post_processor RobertaProcessing of its tokenizer is not supported"):
        token_before({"post_processor": {"type": "RobertaProcessing"}})


def without(content: dict[str, Any], token: str) -> dict[str, Any]:
    model = content["model"]
    return {**content, "model": {**model, "vocab": {t: i for t, i in model["vocab"].items() if t != token}}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda c: {**c, "model": {**c["model"], "byte_fallback": False}},
            "its model is BPE, without bytes for charac",
        ),
        (lambda c: {**c, "model": {**c["model"], "type": "Unigram"}}, "its model is Unigram, without bytes for"),
        (lambda c: {**c, "model": {**c["model"], "end_of_word_suffix": "</w>"}}, "its tokens mark where words begin"),
        (lambda c: without(c, "<0x41>"), "it has no tokens for some bytes"),
        (lambda c: {**c, "decoder": {"type": "Metaspace"}}, "its decoder knows no bytes"),
        (lambda c: {**c, "normalizer": {"type": "NFKC"}}, "its normalizer NFKC is not supported"),
        (lambda c: {**c, "normalizer": {"type": "Prepend", "prepend": "a" * 9}}, "its normalizer Prepend is not suppo"),
        (lambda c: {**c, "pre_tokenizer": {"type": "Digits"}}, "its pre_tokenizer Digits is not supported"),
    ],
)
def test_other_rules_are_refused_by_name(change: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said) as refused:
        read(change(sentence_piece()), tmp_path).train([])
    assert "\n" not in str(refused.value)


def test_a_begin_token_is_a_special_token(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Set data\.tokenizer\.begin_token to one of them, or to null"):
        read(sentence_piece(), tmp_path, begin_token="the").train([])
    assert read(sentence_piece(), tmp_path, begin_token=None).begin is None
