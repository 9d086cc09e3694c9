"""Small tokenizers of SentencePiece's kind, as the package ``tokenizers`` writes them."""

import json
from typing import Any

WORDS = "the cat sat on the mat and the dog said hello to them all, the very same day they met at the theatre."
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
PREPEND = {"type": "Prepend", "prepend": "\u2581"}
REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
DECODER = {
    "type": "Sequence",
    "decoders": [
        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ],
}
BEGINS = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
}


def metaspace(scheme: str) -> dict[str, Any]:
    return {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": False}


RULES: dict[str, dict[str, Any]] = {
    "llama 2": {"normalizer": {"type": "Sequence", "normalizers": [PREPEND, REPLACE]}, "pre_tokenizer": None},
    "mistral": {"normalizer": None, "pre_tokenizer": metaspace("first")},
    "always": {"normalizer": None, "pre_tokenizer": metaspace("always")},
    "no prefix": {"normalizer": REPLACE, "pre_tokenizer": None},
}


def sentence_piece(kind: str = "llama 2", **changes: Any) -> dict[str, Any]:
    """The content of a tokenizer.json whose merges are learned from :data:`WORDS`; it puts <s> before a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.train_from_iterator([WORDS] * 3, trainers.BpeTrainer(vocab_size=80, show_progress=False))
    content = json.loads(core.to_str())
    special = ["<unk>", "<s>", "</s>"]
    learned = sorted(content["model"]["vocab"], key=content["model"]["vocab"].get)
    spaces = ["\u2581" * 2, "\u2581" * 4]
    tokens = [*special, *BYTES, *learned, *spaces]
    kept = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    content["model"] |= {
        "vocab": {token: number for number, token in enumerate(tokens)},
        "merges": [*content["model"]["merges"], ["\u2581", "\u2581"], ["\u2581" * 2, "\u2581" * 2]],
        "unk_token": "<unk>",
        "byte_fallback": True,
        "fuse_unk": True,
    }
    content["added_tokens"] = [{"id": number, "content": token, **kept} for number, token in enumerate(special)]
    return {**content, "decoder": DECODER, "post_processor": BEGINS, **RULES[kind], **changes}
