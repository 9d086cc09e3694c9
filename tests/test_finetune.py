"""Training that starts from a language model of transformers, in full and with an adapter: its steps are those of peft
and transformers, and what it writes is what these load."""

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from pytorch_lightning import Callback, LightningModule, Trainer
from safetensors.torch import save_file
from torch import Tensor

from chats import lines, said
from genlab.checkpoint import read
from genlab.cli import run as command_line
from genlab.command.train import Interrupted
from genlab.data.tokenizer.bytes import Bytes
from genlab.errors import ConfigError
from genlab.interop import peft as peft_folders
from genlab.interop.tokenizer_json import as_json
from genlab.model.base import Model
from genlab.run import run_folder
from genlab.run.load import load_run
from test_ddp import finish
from tiny_run import BARE_TEXT, SignalAt, only_run, resume, same, small, start, train

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
    "full": [],
    "lora": [],
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
