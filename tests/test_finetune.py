"""Training that starts from a language model of transformers, in full and with an adapter: its steps are those of peft
and transformers, and what it writes is what these load."""

import importlib.util
import json
import math
import re
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from pytorch_lightning import Callback, LightningModule, Trainer
from safetensors.torch import save_file
from torch import Tensor, nn

from chats import Given, lines, said
from genlab.checkpoint import read
from genlab.cli import run as command_line
from genlab.command.train import Interrupted
from genlab.data.conversation import Conversation
from genlab.data.tokenizer.bytes import Bytes
from genlab.interop.origin import HubOrigin
from genlab.interop.tokenizer_json import as_json
from genlab.model.base import Model
from genlab.model.network.feed_forward import SwiGLU
from genlab.model.network.positions import Rotary
from genlab.model.network.token_transformer import TokenTransformer
from genlab.model.sampler.next_token import NextToken
from genlab.model.schedule import Constant
from genlab.model.transformer import Transformer
from genlab.run import run_folder
from genlab.run.load import load_run
from genlab.run.origin import FileOrigin
from test_ddp import finish
from tiny_run import BARE_TEXT, SignalAt, only_run, resume, same, start, train

WIDTH, HEADS, KV_HEADS, HIDDEN, DEPTH, VOCABULARY, CONTEXT = 32, 4, 2, 44, 2, 260, 64
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": HIDDEN,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "max_position_embeddings": CONTEXT,
    "rms_norm_eps": 1e-6,
    "bos_token_id": None,
    "eos_token_id": 256,
}
GPT2 = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "vocab_size": VOCABULARY,
    "n_positions": CONTEXT,
    "n_embd": WIDTH,
    "n_layer": DEPTH,
    "n_head": HEADS,
    "bos_token_id": 256,
    "eos_token_id": 256,
}
KEYS = WIDTH // HEADS * KV_HEADS
MAPS = {  # of Llama: outputs and inputs
    "self_attn.q_proj": (WIDTH, WIDTH),
    "self_attn.k_proj": (KEYS, WIDTH),
    "self_attn.v_proj": (KEYS, WIDTH),
    "self_attn.o_proj": (WIDTH, WIDTH),
    "mlp.gate_proj": (HIDDEN, WIDTH),
    "mlp.up_proj": (HIDDEN, WIDTH),
    "mlp.down_proj": (WIDTH, HIDDEN),
}
RANK, ALPHA = 3, 5.0
ADAPTED = ("self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj", "mlp.down_proj")


def waves(shapes: Mapping[str, tuple[int, ...]], size: float) -> dict[str, Tensor]:
    """Weights that are the same on every machine and with every library."""
    found = {}
    for number, (name, shape) in enumerate(shapes.items()):
        places = torch.arange(math.prod(shape), dtype=torch.float64)
        wave = size * torch.sin(places * (0.61 + 0.07 * number) + number)
        found[name] = ((1.0 if len(shape) == 1 else 0.0) + wave).float().view(shape)
    return found


def llama_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, WIDTH)}
    for i in range(DEPTH):
        shapes |= {f"model.layers.{i}.{name}.weight": shape for name, shape in MAPS.items()}
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"model.layers.{i}.{norm}.weight"] = (WIDTH,)
    return shapes | {"model.norm.weight": (WIDTH,), "lm_head.weight": (VOCABULARY, WIDTH)}


def gpt2_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "transformer.wte.weight": (VOCABULARY, WIDTH),
        "transformer.wpe.weight": (CONTEXT, WIDTH),
    }
    maps = {
        "attn.c_attn": (WIDTH, 3 * WIDTH),
        "attn.c_proj": (WIDTH, WIDTH),
        "mlp.c_fc": (WIDTH, 4 * WIDTH),
        "mlp.c_proj": (4 * WIDTH, WIDTH),
    }
    for i in range(DEPTH):
        for name, shape in maps.items():
            shapes |= {f"transformer.h.{i}.{name}.weight": shape, f"transformer.h.{i}.{name}.bias": shape[1:]}
        for norm in ("ln_1", "ln_2"):
            shapes |= {f"transformer.h.{i}.{norm}.{kind}": (WIDTH,) for kind in ("weight", "bias")}
    return shapes | {f"transformer.ln_f.{kind}": (WIDTH,) for kind in ("weight", "bias")}


def base_in(folder: Path, kind: str = "llama") -> Path:
    """A model as save_pretrained writes it, with a tokenizer of bytes."""
    folder.mkdir()
    config, shapes = (LLAMA, llama_shapes()) if kind == "llama" else (GPT2, gpt2_shapes())
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(as_json(Bytes())[0]))
    save_file(waves(shapes, 0.15), folder / "model.safetensors", {"format": "pt"})
    return folder


def adapter_in(folder: Path, base: str = "", **changes: Any) -> Path:
    """An adapter as peft's save_pretrained writes it."""
    folder.mkdir()
    shapes = {}
    for i in range(DEPTH):
        for name in ADAPTED:
            out, read_from = MAPS[name]
            beginning = f"base_model.model.model.layers.{i}.{name}.lora_"
            shapes |= {f"{beginning}A.weight": (RANK, read_from), f"{beginning}B.weight": (out, RANK)}
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "target_modules": [name.rpartition(".")[2] for name in ADAPTED],
        "bias": "none",
        **changes,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(waves(shapes, 0.2), folder / "adapter_model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("folders")
    rows = [{"messages": said(f"{i}?", f"= {i * i}", *(("and?", "no") if i % 3 == 0 else ()))} for i in range(60)]
    base = base_in(place / "base")
    return {
        "base": base,
        "gpt2": base_in(place / "gpt2", "gpt2"),
        "adapter": adapter_in(place / "adapter", str(base)),
        "chats": lines(rows, place / "chats.jsonl"),
    }


class Steps(Callback):
    """Keeps the batches of a run in this process, and the loss of each."""

    seen: "list[tuple[dict[str, Tensor], float]]"

    def __init__(self) -> None:
        type(self).seen = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Model)
        kept = {name: value.clone() for name, value in batch.items()}
        self.seen.append((kept, float(pl_module.latest()["train/loss"])))

    @classmethod
    def losses(cls, every: int) -> list[float]:
        """Of each step: the mean over all that counts in its batches."""
        found = []
        for begin in range(0, len(cls.seen), every):
            some = [(int(batch["counted"].sum()), loss) for batch, loss in cls.seen[begin : begin + every]]
            found.append(sum(count * loss for count, loss in some) / sum(count for count, _ in some))
        return found


def sft(folders: Mapping[str, Path], every: int = 1) -> tuple[str, ...]:
    """Five steps on eight conversations each, ``every`` batches of which make one."""
    return (
        *BARE_TEXT,
        "data=conversations",
        f"data.path={folders['chats']}",
        f"data.cache_dir={folders['chats'].parent / 'cache'}",
        "data.template=plain",
        "data.packing=false",
        f"data.context={CONTEXT - 1}",
        "data.limit=null",
        f"data.batch_size={8 // every}",
        f"trainer.accumulate_grad_batches={every}",
        "model=transformer",
        "model/schedule=constant",
        "model.optimizer.lr=1e-2",
        "model.optimizer.fused=false",
        "budget.value=40",
        "callbacks.samples=null",
        "callbacks.ema=null",
    )


def beginning(kind: str, folders: Mapping[str, Path]) -> tuple[str, ...]:
    more = (f"start.adapter={folders['adapter']}",) if kind == "lora" else ()
    return (f"start=hf:{folders['base']}", *more)


RECORDED: dict[str, list[float]] = {  # of peft 0.21 and transformers 5.24, by test_they_are_those_of_peft_itself
    "full": [5.529283, 5.2834759, 4.8686156, 4.4068699, 4.0190115],
    "lora": [5.5308976, 5.4869962, 5.4912362, 5.4401727, 5.3938737],
}


@pytest.mark.parametrize(
    ("kind", "every"),
    [("full", 1), ("lora", 1), ("lora", 4), pytest.param("full", 4, marks=pytest.mark.matrix)],
)
def test_five_steps_are_those_of_peft(kind: str, every: int, folders: dict[str, Path], tmp_path: Path) -> None:
    """The losses of answers alone, in one batch or in four whose gradients are accumulated."""
    steps = "+callbacks.steps={_target_: test_finetune.Steps}"
    train(*sft(folders, every), *beginning(kind, folders), steps, outputs=tmp_path)
    shares = [float(batch["counted"].float().mean()) for batch, _ in Steps.seen]
    assert len(shares) == 5 * every
    assert 0 < min(shares) < max(shares) < 0.5
    assert Steps.losses(every) == pytest.approx(RECORDED[kind], abs=1e-5)


def theirs(kind: str, folders: Mapping[str, Path]) -> Any:
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(folders["base"], local_files_only=True)
    return model if kind == "full" else peft.PeftModel.from_pretrained(model, folders["adapter"], is_trainable=True)


@pytest.mark.matrix
@pytest.mark.parametrize("kind", RECORDED)
def test_they_are_those_of_peft_itself(kind: str, folders: dict[str, Path], tmp_path: Path) -> None:
    """Where peft is installed: what is recorded, made anew by a plain loop over the batches of a run."""
    model = theirs(kind, folders).train()
    train(
        *sft(folders), *beginning(kind, folders), "+callbacks.steps={_target_: test_finetune.Steps}", outputs=tmp_path
    )
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in trained if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95))
    losses = []
    for batch, _ in Steps.seen:
        labels = batch["tokens"][:, 1:].masked_fill(~batch["counted"], -100)
        logits = model(input_ids=batch["tokens"][:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses == pytest.approx(Steps.losses(1), abs=1e-5)
    assert losses == pytest.approx(RECORDED[kind], abs=1e-5), [round(loss, 7) for loss in losses]


@pytest.mark.matrix
@pytest.mark.parametrize("kind", RECORDED)
def test_two_ranks_take_the_same_steps(kind: str, folders: dict[str, Path], tmp_path: Path) -> None:
    """However the predictions that count are spread over them."""
    choices = (*sft(folders), *beginning(kind, folders))
    alone = read.newest(train(*choices, outputs=tmp_path / "one"))
    finish(start(*choices, "trainer=ddp_cpu", outputs=tmp_path / "two"))
    together = read.newest(only_run(tmp_path / "two"))
    assert together.progress.examples == alone.progress.examples
    assert together.progress.flops == alone.progress.flops
    for name, weight in alone.state.items():
        torch.testing.assert_close(together.state[name], weight, rtol=0, atol=1e-5)


@pytest.mark.parametrize("counts", [True, False])
def test_the_end_of_an_answer_is_learnt(counts: bool, tmp_path: Path) -> None:
    """After it a model ends; one that was trained without the ends that count would go on."""
    given = Given([Conversation(tuple(said("a", "b")), "")], tmp_path, template="plain", packing=False, context=40)
    batch = dict(given.dataset("train")[[(0, 0)]])
    place = int((batch["tokens"][0, 1:] == Bytes.end).nonzero()[-1])
    assert batch["counted"][0, place]
    if not counts:
        batch["counted"] = batch["counted"].clone()
        batch["counted"][0, place] = False
    torch.manual_seed(0)
    network = partial(
        TokenTransformer, positions=Rotary, norm=nn.RMSNorm, feed_forward=SwiGLU, width=16, depth=1, num_heads=2
    )
    optimizer = partial(torch.optim.AdamW, lr=1e-2)
    model = Transformer(network, NextToken(), optimizer, Constant(), (40,), given.tokenizer.vocab_size, 0, {})
    model.configure_model()
    model.log = lambda *_, **__: None  # type: ignore[method-assign, assignment]
    steps = model.configure_optimizers()
    for _ in range(40):
        model.accumulation.begin_batch()
        steps.zero_grad()
        model.backward(model.training_step(batch, 0))
        model.on_after_backward()
        steps.step()
    chance = float(model.token_log_probs(batch["tokens"])[0, place].exp())
    assert (chance > 0.9) if counts else (chance < 0.1)


# --- a run with an adapter -------------------------------------------------------------------------------------------

LORA = ("model/adapter=lora", "model.adapter.rank=2", "model.adapter.dropout=0.2", "budget.value=24")


def averaging(folders: Mapping[str, Path]) -> tuple[str, ...]:
    return tuple(choice for choice in sft(folders) if choice != "callbacks.ema=null")


@pytest.fixture(scope="module")
def tuned(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("tuned")
    return train(*averaging(folders), *LORA, f"start=hf:{folders['base']}", outputs=outputs)


def network_of(run: Path) -> Any:
    model: Any = load_run(OmegaConf.create(run_folder.read_config(run)), run)[0]
    return model.network


TOKENS = torch.arange(40).view(2, 20) * 11 % 256


@torch.no_grad()
def far_from(folder: Path, network: Any) -> float:
    """The largest difference of logits between a folder, in plain transformers, and our network."""
    transformers = pytest.importorskip("transformers")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
    return float((loaded(TOKENS).logits - network(TOKENS)).abs().max())


def test_a_checkpoint_has_the_base_and_a_state_of_the_updates_alone(tuned: Path, folders: dict[str, Path]) -> None:
    last = read.newest(tuned)
    updates = {name for name in last.state if ".updates." in name}
    base = HubOrigin(f"hf:{folders['base']}", "start").weights()
    assert {name for name in last.state if name not in updates} == {f"network.{name}" for name in base}
    assert all(torch.equal(last.state[f"network.{name}"], value) for name, value in base.items())
    assert {*last.content["ema"]} == updates
    (optimizer,) = last.content["optimizer_states"]
    assert len(optimizer["state"]) == len(updates) == 2 * 7 * DEPTH
    assert all(bool(last.state[name].any()) for name in updates)


def test_a_run_that_goes_on_needs_no_base_and_ends_the_same(
    tuned: Path, folders: dict[str, Path], tmp_path: Path
) -> None:
    """Dropout of the updates included, and blocks that are computed twice from then on."""
    copy = shutil.copytree(folders["base"], tmp_path / "copy")
    with pytest.raises(Interrupted):
        train(
            *averaging(folders), *LORA, f"start=hf:{copy}", SignalAt.override(8), outputs=tmp_path / "stopped"
        )  # fmt: skip
    shutil.rmtree(copy)
    run = only_run(tmp_path / "stopped")
    resume(run, "trainer.activation_checkpointing=true")
    for part in ("state_dict", "ema", "optimizer_states"):
        assert same(read.newest(run).content[part], read.newest(tuned).content[part]), part


def test_its_weights_are_merged_where_they_are_exported(
    tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = network_of(tuned)
    command_line(["export", f"run={tuned}", "format=transformers", f"out={tmp_path / 'merged'}"])
    told = re.search(
        r"merged: +the adapter, in float32; of 4,160 outputs up to \S+, none differs by more than (\S+)$",
        capsys.readouterr().out,
        re.M,
    )
    assert told is not None
    assert float(told[1]) < 1e-5
    assert far_from(tmp_path / "merged", network) < 1e-5
    command_line(["export", f"run={tuned}", "format=safetensors", f"out={tmp_path / 'file'}"])
    described = FileOrigin(str(tmp_path / "file/model.safetensors"), "start")
    assert described.model()["adapter"] is None
    merged = {name.removeprefix("network."): value for name, value in described.weights().items()}
    again = HubOrigin(f"hf:{tmp_path / 'merged'}", "start").weights()
    assert {*merged} == {*again}
    assert all(torch.equal(merged[name], value) for name, value in again.items())


@torch.no_grad()
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_an_adapter_is_written_and_read(
    kind: str, folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also of GPT-2, where queries, keys and values have one; a run that starts from it begins where it ended."""
    base = folders["base" if kind == "llama" else kind]
    targets = "model.adapter.targets=[*.qkv.query,blocks.*.feed_forward.*,blocks.1.attention.out]"
    run = train(*sft(folders), *LORA, targets, f"start=hf:{base}", outputs=tmp_path / "one")
    command_line(["export", f"run={run}", "format=peft", f"out={tmp_path / 'adapter'}"])
    assert f"base:       {base}" in capsys.readouterr().out
    still = ("model.optimizer.lr=0", "budget.value=8", f"start.adapter={tmp_path / 'adapter'}")
    again = train(*sft(folders), f"start=hf:{base}", *still, outputs=tmp_path / "two")
    assert f"; adapter of {tmp_path / 'adapter'};" in capsys.readouterr().out
    network = network_of(run)
    torch.testing.assert_close(network_of(again)(TOKENS), network(TOKENS), rtol=0, atol=1e-5)
    node = run_folder.read_config(again)["model"]["adapter"]
    assert (node["rank"], node["alpha"], node["dropout"]) == (2, 16.0, 0.2)
    assert {"blocks.1.attention.out"} <= {*node["targets"]}
    if importlib.util.find_spec("peft") is not None:
        assert in_peft(base, tmp_path / "adapter", network) < 1e-5


def in_peft(base: Path, adapter: Path, network: Any) -> float:
    """The largest difference of logits between an adapter, on its base in peft, and our network."""
    import peft
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(base, local_files_only=True)
    before = model(TOKENS).logits
    loaded = peft.PeftModel.from_pretrained(model, adapter).eval()
    assert float((loaded(TOKENS).logits - before).abs().max()) > 1e-3
    return float((loaded(TOKENS).logits - network(TOKENS)).abs().max())


@pytest.mark.matrix
@torch.no_grad()
@pytest.mark.parametrize("network", ["llama", "gpt2", "transformer"])
def test_from_nothing_to_a_folder_of_transformers(network: str, folders: dict[str, Path], tmp_path: Path) -> None:
    """Trained on text, then on answers in full, then with an adapter, which is merged: also by a run that starts from
    that one; and where peft is installed, the adapter on the exported run before."""
    choices = ("model=transformer", f"model/network={network}", "model.network.width=32", "model.network.depth=2")
    source = train(*BARE_TEXT, "data=python_docs", *choices, f"data.context={CONTEXT - 1}", outputs=tmp_path / "text")
    tokens = ("data/tokenizer=bytes", f"model/network={network}", *choices[2:])
    answers = train(*sft(folders), *tokens, f"start={source}", outputs=tmp_path / "answers")
    run = train(*sft(folders), *tokens, *LORA, f"start={answers}", outputs=tmp_path / "adapted")
    own = network_of(run)
    assert float((own(TOKENS) - network_of(answers)(TOKENS)).abs().max()) > 1e-3
    command_line(["export", f"run={run}", "format=transformers", f"out={tmp_path / 'merged'}"])
    assert far_from(tmp_path / "merged", own) < 1e-5
    still = ("model.optimizer.lr=0", "budget.value=8", f"start={run}")
    merged = train(*sft(folders), *tokens, *still, outputs=tmp_path / "merged-run")
    torch.testing.assert_close(network_of(merged)(TOKENS), own(TOKENS), rtol=0, atol=1e-5)
    other = (*LORA, "model.adapter.rank=3")
    again = train(*sft(folders), *tokens, *other, *still, outputs=tmp_path / "another")
    torch.testing.assert_close(network_of(again)(TOKENS), own(TOKENS), rtol=0, atol=1e-5)
    command_line(["export", f"run={run}", "format=peft", f"out={tmp_path / 'adapter'}"])
    command_line(["export", f"run={answers}", "format=transformers", f"out={tmp_path / 'base'}"])
    if importlib.util.find_spec("peft") is not None:
        assert in_peft(tmp_path / "base", tmp_path / "adapter", own) < 1e-5
