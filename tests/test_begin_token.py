"""A run from a folder whose tokenizer is SentencePiece's and puts a token before each text, from training to export."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf

from genlab.cli import run as command_line
from genlab.data.text_folder import TextFolder
from genlab.data.tokenizer.pretrained import Pretrained
from genlab.metrics.perplexity import Perplexity
from genlab.run import run_folder
from genlab.run.load import load_run
from hugging_face import scrambled
from sentence_pieces import WORDS, sentence_piece
from test_language_models import LLAMA
from tiny_run import BARE_TEXT, train

transformers = pytest.importorskip("transformers")
CONTEXT = 24
TEXTS = {f"{i}.txt": f"{WORDS}\n\tnumber {i} \U0001f600" for i in range(6)} | {"7.txt": "hello", "8.txt": WORDS * 2}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder and texts."""
    place = tmp_path_factory.mktemp("place")
    content = sentence_piece()
    size = len(content["model"]["vocab"]) + 3  # as published models are
    config = transformers.LlamaConfig(**{**LLAMA, "vocab_size": size, "bos_token_id": 1, "eos_token_id": 2})
    torch.manual_seed(5)
    model = transformers.LlamaForCausalLM(config)
    scrambled(model)
    model.save_pretrained(place / "model")
    (place / "model/tokenizer.json").write_text(json.dumps(content))
    (place / "texts").mkdir()
    for name, text in TEXTS.items():
        (place / "texts" / name).write_text(text, encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def run(place: Path) -> Path:
    """Of a step that changes nothing."""
    return train(
        *BARE_TEXT,
        "data=text_folder",
        f"data.root={place / 'texts'}",
        f"data.val_root={place / 'texts'}",
        f"data.context={CONTEXT}",
        "data.batch_size=2",
        "data.limit=2",
        "budget.value=2",
        "model=transformer",
        "model.optimizer.lr=0",
        "model.sample_length=12",
        "callbacks.samples=null",
        "callbacks.ema=null",
        f"start=hf:{place / 'model'}",
        outputs=place / "runs",
    )


def their_model(place: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(place / "model", local_files_only=True).eval()


@torch.no_grad()
def test_bits_per_byte_are_of_the_bytes_of_the_text(run: Path, place: Path) -> None:
    """Every token but the begin tokens is predicted in the windows, and no space that was added is a byte."""
    node = run_folder.read_config(run)["data"]["tokenizer"]
    assert (node["begin_token"], node["end_token"]) == ("<s>", "</s>")
    tokenizer = Pretrained(node["name"], node["end_token"], node["vocab_size"], node["begin_token"])
    data = TextFolder(tokenizer, str(place / "texts"), val_root=str(place / "texts"), context=CONTEXT)
    tokens = torch.from_numpy(data.tokens("val").astype(np.int64))
    assert int((tokens == 1).sum()) == int((tokens == 2).sum()) == len(TEXTS)
    assert tokens[0] == 1
    model: Any = load_run(OmegaConf.create(run_folder.read_config(run)), run)[0]
    metric, strided = Perplexity(), Perplexity(stride=5)
    metric.measure(model, data, "val", 4)
    strided.measure(model, data, "val", 4)
    theirs, nats = their_model(place), 0.0
    for start in range(0, len(tokens) - 1, CONTEXT):
        window = tokens[start : start + CONTEXT + 1]
        costs = F.cross_entropy(theirs(window[None, :-1]).logits[0], window[1:], reduction="none")
        nats += float(costs[window[1:] != 1].sum())
    number = len(tokens) - len(TEXTS)
    size = sum(len(text.encode()) for text in TEXTS.values())
    found = metric.compute()
    assert (metric.tokens, metric.bytes) == (strided.tokens, strided.bytes) == (number, size)
    assert found["perplexity"].item() == pytest.approx(math.exp(nats / number), rel=1e-5)
    assert found["bits_per_byte"].item() == pytest.approx(nats / math.log(2) / size, rel=1e-5)


@torch.no_grad()
def test_a_prompt_is_continued_as_transformers_does(run: Path, place: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    core = Tokenizer.from_file(str(place / "model/tokenizer.json"))
    asked = core.encode("the cat said").ids
    assert asked[0] == 1
    made: Any = their_model(place).generate(
        torch.tensor([asked]), do_sample=False, max_new_tokens=12, eos_token_id=None, pad_token_id=0
    )
    typed = ["sample", f"run={run}", "model.sampler.temperature=0", f"out={tmp_path / 'a.txt'}", "prompt=the cat said"]
    command_line(typed)
    answer = Pretrained(str(place / "model"), "</s>").decode(made[0, len(asked) :].tolist(), asked[-1])
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == f"the cat said{answer}\n"


@torch.no_grad()
def test_an_export_begins_texts_alike(run: Path, place: Path, tmp_path: Path) -> None:
    command_line(["export", f"run={run}", "format=transformers", f"out={tmp_path / 'out'}"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out", local_files_only=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", local_files_only=True).eval()
    own = Pretrained(str(place / "model"), "</s>", begin_token="<s>")
    for text in (*TEXTS.values(), " the\n"):
        assert tokenizer(text)["input_ids"] == own.prompt(text).tolist()
        assert tokenizer.decode(own.encode(text)) == text == own.decode(own.encode(text))
    assert (model.config.bos_token_id, model.config.eos_token_id) == (1, 2)
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<s>", "</s>")
    tokens = torch.tensor([tokenizer("the cat said hello")["input_ids"]])
    torch.testing.assert_close(model(tokens).logits, their_model(place)(tokens).logits, rtol=0, atol=1e-5)
