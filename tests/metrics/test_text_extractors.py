"""Features of texts: what they depend on, and nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from genlab.data import hub
from genlab.errors import ConfigError, ResourceError
from genlab.metrics.extractor.language_model import LanguageModel
from genlab.metrics.extractor.ngrams import HashedNgrams

FEATURES = frozenset({"features"})
TEXTS = ["the cat sat", "a dog", "", "naïve 𝄞", "the cat sat on the mat and the dog sat on the cat and so on"]

# --- counts -----------------------------------------------------------------------------------------------------------


def features(texts: list[str], **options: Any) -> torch.Tensor:
    return HashedNgrams(**options).extract(texts, FEATURES)["features"]


def test_counts_of_characters_of_length_one() -> None:
    rows = features(TEXTS)
    assert (rows.shape, rows.dtype) == ((5, 1024), torch.float32)
    assert torch.allclose(rows.norm(dim=1), torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0]))
    alone = torch.cat([features([text]) for text in TEXTS])
    assert torch.equal(rows, alone)
    a, b, ab = features(["aaaa", "bbb", "aaaabbb"], longest=1, size=4096)
    assert torch.allclose(ab, (4 * a + 3 * b) / 5, atol=1e-6), "as often as they are there"


def test_inner_products_are_those_of_the_counts() -> None:
    """Buckets are shared by chance, with signs, so on average nothing is added."""
    kept = {size: features(["abcdefgh" * 3, "abcdefgh" * 2 + "12345678"], size=size) for size in (256, 1 << 16)}
    exact = float(kept[1 << 16][0] @ kept[1 << 16][1])
    assert float(kept[256][0] @ kept[256][1]) == pytest.approx(exact, abs=0.15)


def test_fingerprints_tell_settings_apart() -> None:
    kinds = [HashedNgrams(), HashedNgrams(3), HashedNgrams(size=512)]
    assert len({kind.fingerprint() for kind in kinds}) == 3
    assert [kind.name for kind in kinds] == ["ngrams1024", "ngrams1024", "ngrams512"]
    assert HashedNgrams().fingerprint() == kinds[0].fingerprint()
    with pytest.raises(ConfigError, match="longest=0 and size=5"):
        HashedNgrams(0, 5)


# --- language models --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random GPT-2 that knows bytes."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("gpt2") / "tiny gpt-2"
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({character: i for i, character in enumerate(alphabet)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["<end>"])
    transformers.PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>").save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=257, n_positions=24, n_embd=16, n_layer=2, n_head=2, bos_token_id=256,
                                     eos_token_id=256)  # fmt: skip
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def test_the_state_at_the_last_token(gpt2: Path) -> None:
    """As transformers gives it for each text alone; in batches nothing of the others shows, nor of padding."""
    import transformers

    extractor = LanguageModel(str(gpt2), batch_size=3)
    assert extractor.name == "tiny-gpt-2"
    rows = extractor.extract(TEXTS, FEATURES)["features"].cpu()
    assert (rows.shape, rows.dtype) == ((5, 16), torch.float32)
    network = transformers.GPT2Model.from_pretrained(gpt2).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(gpt2)
    for text, row in zip(TEXTS, rows, strict=True):
        ids = (tokenizer(text)["input_ids"] or [256])[:24]
        with torch.no_grad():
            expected = network(torch.tensor([ids])).last_hidden_state[0, -1]
        assert torch.allclose(row, expected, atol=1e-5)
    assert len(tokenizer(TEXTS[-1])["input_ids"]) > 24, "one is cut"


def test_a_limit_and_a_fingerprint(gpt2: Path, tmp_path: Path) -> None:
    import transformers

    whole, short = LanguageModel(str(gpt2)), LanguageModel(str(gpt2), max_length=5)
    ours = short.extract(["the cat sat"], FEATURES)["features"]
    assert torch.allclose(ours, whole.extract(["the c"], FEATURES)["features"], atol=1e-5)
    assert whole.fingerprint() != short.fingerprint()
    moved = tmp_path / "moved"
    network = transformers.GPT2LMHeadModel.from_pretrained(gpt2)
    network.save_pretrained(moved)
    whole.tokenizer.save_pretrained(moved)
    assert LanguageModel(str(moved)).fingerprint() == whole.fingerprint()
    with torch.no_grad():
        network.transformer.wte.weight[5, 5] += 1
    network.save_pretrained(moved)
    assert LanguageModel(str(moved)).fingerprint() != whole.fingerprint()


def test_what_is_not_a_language_model_is_refused(gpt2: Path, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((gpt2 / name).read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")  # a pickle is not looked at
    with pytest.raises(ResourceError, match=r"has no \*\.safetensors. Save the model with save_pretrained"):
        LanguageModel(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ResourceError, match="cannot load a language model from"):
        LanguageModel(str(tmp_path))
    config = json.loads((gpt2 / "config.json").read_text()) | {
        "model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModel": "own.Own"}}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(ResourceError, match="cannot load a language model from"):
        LanguageModel(str(tmp_path))
    assert not (tmp_path / "ran").exists()
    with pytest.raises(ConfigError, match="max_length=0"):
        LanguageModel(str(gpt2), max_length=0)


def test_without_the_hub_it_is_said_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from huggingface_hub import constants

    def unreachable(*_: Any) -> str:
        raise hub._Unreachable("no network")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "_ask_the_hub", unreachable)
    with pytest.raises(ResourceError) as refused:
        LanguageModel("owner/no-such-model")
    (line,) = str(refused.value).splitlines()
    assert line == (
        "the model owner/no-such-model is not here and the Hugging Face Hub cannot be reached (no network). "
        "Give a folder that holds it, as save_pretrained of transformers makes one."
    )
    with pytest.raises(ResourceError, match="is neither a folder nor the name of a model"):
        LanguageModel(str(tmp_path / "no" / "folder"))
