"""Frozen text encoders of transformers: T5 and BERT beside CLIP, and their outputs on disk."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genlab.checkpoint.tensors import tensors_in
from genlab.config.build import build
from genlab.files.regular_file import read_bytes
from genlab.interop import bert_text, t5_text
from genlab.interop.text_encoder import TextEncoder
from genlab.interop.text_features import TextFeatures, fingerprint

TEXTS = ["a red ring", "a", "a green ring left of a red circle"]
WORDS = ["[PAD]", "[UNK]", "a", "red", "green", "ring", "left", "of", "circle"]


def tokenizer_file(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.save(str(folder / "tokenizer.json"))


def saved(kind: str, folder: Path) -> Any:
    """A random encoder in a folder, as transformers saves it. -> theirs."""
    import transformers

    torch.manual_seed(0)
    if kind == "t5":
        whole: Any = transformers.T5ForConditionalGeneration(transformers.T5Config(
            vocab_size=9, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu",
            decoder_start_token_id=0))  # fmt: skip
    else:
        whole = transformers.BertForMaskedLM(transformers.BertConfig(
            vocab_size=9, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            max_position_embeddings=12))  # fmt: skip
    for parameter in whole.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    folder.mkdir(exist_ok=True)
    whole.save_pretrained(folder)
    tokenizer_file(folder)
    return (whole.encoder if kind == "t5" else whole.bert).eval()


def loaded(kind: str, folder: Path) -> TextEncoder:
    module: Any = {"t5": t5_text, "bert": bert_text}[kind]
    config = json.loads((folder / "config.json").read_text())
    assert module.knows(config)
    encoder: Any = build(module.node(config, folder), TextEncoder, "encoder")
    encoder.configure_model()
    path = folder / "model.safetensors"
    encoder.load_state_dict(module.weights(tensors_in(read_bytes(path), path), folder))
    return encoder  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENLAB_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("kind", ["t5", "bert"])
def test_outputs_are_those_of_transformers(kind: str, tmp_path: Path) -> None:
    theirs, ours = saved(kind, tmp_path / "model"), loaded(kind, tmp_path / "model")
    vectors, words = ours.encode_words(TEXTS)
    assert words.seen.sum(dim=1).tolist() == [3, 1, 8]
    torch.testing.assert_close(ours.encode_texts(TEXTS), vectors)
    for i, text in enumerate(TEXTS):
        ids = torch.tensor([[WORDS.index(word) for word in text.split()]])
        with torch.no_grad():
            expected = theirs(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]
        torch.testing.assert_close(words.tokens[i, : ids.shape[1]], expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(vectors[i], expected.mean(dim=0), rtol=1e-4, atol=1e-4)


def test_a_text_is_encoded_once_and_never_with_other_weights(tmp_path: Path) -> None:
    saved("bert", tmp_path / "model")
    first = loaded("bert", tmp_path / "model").encode_texts(TEXTS)
    again, other = loaded("bert", tmp_path / "model"), loaded("bert", tmp_path / "model")
    again.run = None  # type: ignore[assignment, method-assign]
    assert torch.equal(again.encode_texts(TEXTS[::-1]), first.flip(0))
    with torch.no_grad():
        other.network.encoder.layer[0].output.dense.weight.mul_(1.01)
    assert not torch.allclose(other.encode_texts(TEXTS), first)


def test_what_is_cut_is_said_once(tmp_path: Path) -> None:
    saved("bert", tmp_path / "model")
    encoder = loaded("bert", tmp_path / "model")
    with pytest.warns(UserWarning, match="longer than the 12 tokens that the encoder reads are cut.* which has 20"):
        encoder.encode_texts(["red " * 20])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.encode_texts(["green " * 20])


def test_features_survive_what_is_wrong_with_their_file(tmp_path: Path) -> None:
    rows = torch.arange(6.0).reshape(2, 3)
    kept = TextFeatures(tmp_path, "ab", 3)
    kept.put("a", rows)
    assert torch.equal(TextFeatures(tmp_path, "ab", 3).get("a"), rows)  # type: ignore[arg-type]
    assert TextFeatures(tmp_path, "ab", 4).get("a") is None, "of another width"
    assert TextFeatures(tmp_path, "cd", 3).get("a") is None
    kept.path.write_bytes(b"no database" * 1000)
    damaged = TextFeatures(tmp_path, "ab", 3)
    assert damaged.get("a") is None
    damaged.put("a", rows)
    assert torch.equal(damaged.get("a"), rows)  # type: ignore[arg-type]
    (tmp_path / "file").touch()
    nowhere = TextFeatures(tmp_path / "file" / "below", "ab", 3)
    nowhere.put("b", rows)
    assert torch.equal(nowhere.get("b"), rows)  # type: ignore[arg-type]


def test_a_fingerprint_is_of_names_types_and_values() -> None:
    state = {"a": torch.ones(2), "b": torch.tensor(3)}
    found = fingerprint(state)
    assert found == fingerprint(dict(reversed(state.items())))
    changed = [{**state, "a": torch.tensor([1.0, 1.0 + 1e-6])}, {**state, "a": torch.ones(2, 1)},
               {**state, "a": torch.ones(2).half()}, {"a": state["a"], "c": state["b"]}]  # fmt: skip
    assert len({found, *map(fingerprint, changed)}) == 5
    assert np.all([len(each) == 64 for each in map(fingerprint, changed)])
