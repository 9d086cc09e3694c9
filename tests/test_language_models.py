"""``start=hf:`` of language models that transformers saved, and ``genlab export``, whose folders it loads."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from genlab.checkpoint.tensors import tensors_in
from genlab.cli import run as command_line
from genlab.command import export
from genlab.config.build import build
from genlab.config.tree import ConfigTree
from genlab.data.tokenizer.bytes import Bytes
from genlab.data.tokenizer.characters import Characters
from genlab.errors import CheckpointError, ConfigError, ResourceError
from genlab.interop import language_model
from genlab.interop.language_model_export import exported
from genlab.interop.origin import HubOrigin
from genlab.interop.tokenizer_json import as_json
from genlab.model.network.token_transformer import TokenTransformer
from genlab.run import run_folder
from genlab.run.load import load_run
from genlab.run.origin import FileOrigin
from hugging_face import scrambled
from tiny_run import BARE_TEXT, only_run, resume, small, train

transformers = pytest.importorskip("transformers")
VOCABULARY, LENGTH = 260, 40  # of 257 bytes, filled up, as published models are
LLAMA = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 44,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": LENGTH,
    "bos_token_id": None,
    "eos_token_id": 256,
}
GPT2 = {
    "vocab_size": VOCABULARY,
    "n_positions": LENGTH,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "bos_token_id": 256,
    "eos_token_id": 256,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
    "rope_theta": 500.0,
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {**LLAMA, "rope_parameters": LLAMA3, "rms_norm_eps": 1e-3}),
    "llama, biases and wide heads": (
        "Llama",
        {
            **LLAMA,
            "attention_bias": True,
            "mlp_bias": True,
            "head_dim": 12,
            "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10_000.0},
        },
    ),
    "mistral, a window": ("Mistral", {**LLAMA, "sliding_window": 5}),
    "qwen2": ("Qwen2", {**LLAMA, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
    "qwen2, windows": (
        "Qwen2",
        {**LLAMA, "use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3", {**LLAMA, "head_dim": 12, "tie_word_embeddings": True, "rms_norm_eps": 1e-3}),
    "qwen3, biases and windows": (
        "Qwen3",
        {
            **LLAMA,
            "head_dim": 8,
            "attention_bias": True,
            "use_sliding_window": True,
            "sliding_window": 6,
            "max_window_layers": 1,
        },
    ),
    "gpt2": ("GPT2", {**GPT2, "n_inner": 50, "activation_function": "gelu", "layer_norm_epsilon": 1e-3}),
    "gpt2, untied": ("GPT2", {**GPT2, "tie_word_embeddings": False}),
}


def model_of(name: str) -> Any:
    """Of random weights, far from their start."""
    kind, settings = MODELS[name]
    torch.manual_seed(3)
    head = "LMHeadModel" if kind == "GPT2" else "ForCausalLM"
    model = getattr(transformers, f"{kind}{head}")(getattr(transformers, f"{kind}Config")(**settings)).eval()
    scrambled(model)
    model.tie_weights()
    return model


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A model as save_pretrained writes it, with a tokenizer."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("model")
            model_of(name).save_pretrained(made[name])
            (made[name] / "tokenizer.json").write_text(json.dumps(as_json(Bytes())[0]))
        return made[name]

    return make


def network_of(origin: Any, causal: bool = True, num: int = VOCABULARY) -> TokenTransformer:
    made: Any = build(origin.model(), Callable[..., TokenTransformer], "model.network")
    network = made(num_tokens=num, num_outputs=num, max_length=LENGTH, causal=causal)
    network.load_state_dict(origin.weights())
    return network.eval()


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_transformers(name: str, folder_of: Callable[[str], Path]) -> None:
    """At once, and token by token after a prompt."""
    theirs = model_of(name)
    network = network_of(HubOrigin(f"hf:{folder_of(name)}", "start"))
    tokens = torch.randint(VOCABULARY, (2, LENGTH))
    expected = theirs(tokens).logits
    assert expected.std() > 0.3
    torch.testing.assert_close(network(tokens), expected, rtol=0, atol=1e-4)
    cache = network.cache(2, LENGTH)
    pieces = [network(tokens[:, :9], None, cache), network(tokens[:, 9:20], None, cache)]
    pieces += [network(tokens[:, i : i + 1], None, cache) for i in range(20, LENGTH)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), expected, rtol=0, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
def test_what_is_exported_is_what_was_read(name: str, folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    origin = HubOrigin(f"hf:{folder_of(name)}", "start")
    config, tensors = exported(origin.model(), origin.weights(), LENGTH)
    (tmp_path / "config.json").write_text(json.dumps(config))
    from safetensors.torch import save_file

    save_file({n: t.contiguous() for n, t in tensors.items()}, tmp_path / "model.safetensors", {"format": "pt"})
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True).eval()
    tokens = torch.randint(VOCABULARY, (2, LENGTH))
    assert config["model_type"] == MODELS[name][0].lower()
    torch.testing.assert_close(loaded(tokens).logits, model_of(name)(tokens).logits, rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_default_network_is_exported(tmp_path: Path) -> None:
    """As Qwen3, which normalizes queries and keys too."""
    from safetensors.torch import save_file

    node: Any = OmegaConf.to_container(ConfigTree().compose(["model=transformer"]).model.network)
    node |= {"width": 16, "depth": 2, "num_heads": 4, "num_kv_heads": 2, "zero_init": False}
    made: Any = build(node, Callable[..., TokenTransformer], "model.network")
    network = made(num_tokens=VOCABULARY, num_outputs=VOCABULARY, max_length=LENGTH, causal=True).eval()
    scrambled(network)
    config, tensors = exported(node, network.state_dict(), LENGTH)
    save_file({name: t.contiguous() for name, t in tensors.items()}, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True).eval()
    tokens = torch.randint(VOCABULARY, (2, LENGTH))
    torch.testing.assert_close(loaded(tokens).logits, network(tokens), rtol=0, atol=1e-4)
    again = network_of(HubOrigin(f"hf:{tmp_path}", "start"))  # the circle is closed
    torch.testing.assert_close(again(tokens), network(tokens), rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_window_hides_what_is_before_it_also_after_padding(folder_of: Callable[[str], Path]) -> None:
    network = network_of(HubOrigin(f"hf:{folder_of('mistral, a window')}", "start"))
    tokens, padding = torch.randint(VOCABULARY, (2, 20)), torch.tensor([0, 7])
    alone, cache = network(tokens[1:, 7:]), network.cache(2, 20)
    pieces = [network(tokens[:, :12], padding, cache)]
    pieces += [network(tokens[:, i : i + 1], padding, cache) for i in range(12, 20)]
    torch.testing.assert_close(torch.cat(pieces, dim=1)[1:, 7:], alone, rtol=0, atol=1e-4)
    with pytest.raises(
        ConfigError, match="window=5 must be 1 or more, and is for networks that predict the next token"
    ):
        network_of(HubOrigin(f"hf:{folder_of('mistral, a window')}", "start"), causal=False)


START = (
    *BARE_TEXT,
    "data=text_file",
    "model=transformer",
    "data.context=24",
    "budget.value=8",
    "data.limit=8",
    "callbacks.samples=null",
    "callbacks.ema=null",
    "model.optimizer.lr=0",
)


@pytest.fixture(scope="module")
def run(folder_of: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a step that changes nothing, whose folder is gone afterwards."""
    gone = tmp_path_factory.mktemp("gone")
    shutil.copytree(folder_of("qwen2, windows"), gone, dirs_exist_ok=True)
    outputs = tmp_path_factory.mktemp("runs")
    (outputs / "text.txt").write_text("".join(f"{i} and {i * i}.\n" for i in range(200)))
    made = train(
        *START,
        f"data.path={outputs / 'text.txt'}",
        f"start=hf:{gone}",
        outputs=outputs,
    )
    shutil.rmtree(gone)
    return made


@torch.no_grad()
def test_a_run_is_exported_for_transformers(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command_line(["export", f"run={run}", "format=transformers", f"out={tmp_path / 'out'}"])
    assert f"exported:   raw weights of {run} to {tmp_path / 'out'}" in capsys.readouterr().out
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", local_files_only=True).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out", local_files_only=True)
    tokens = tokenizer("a few words, ü", return_tensors="pt", add_special_tokens=False)["input_ids"]
    assert tokens[0].tolist() == list("a few words, ü".encode())
    assert tokenizer.eos_token_id == 256
    torch.testing.assert_close(loaded(tokens).logits, model_of("qwen2, windows")(tokens).logits, rtol=0, atol=1e-4)
    model: Any = load_run(OmegaConf.create(run_folder.read_config(run)), run)[0]
    torch.testing.assert_close(model.network(tokens), loaded(tokens).logits, rtol=0, atol=1e-4)
    for wrong, said in (
        (f"out={tmp_path / 'out'}", "this folder is not empty. Name a new one: out="),
        ("format=onnx", "format must be transformers, safetensors or peft, got 'onnx'"),
    ):
        with pytest.raises(ConfigError, match=said):
            command_line(["export", f"run={run}", "format=transformers", f"out={tmp_path / 'new'}", wrong])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_a_run_goes_on_without_the_folder(run: Path, tmp_path: Path) -> None:
    """Its config and its tokenizer are its own; and a file of an export starts another."""
    moved = shutil.copytree(run, tmp_path / "run")
    resume(moved, "budget.value=16")
    assert json.loads((moved / run_folder.SUMMARY).read_text())["examples"] == 16
    own = run_folder.read_config(moved)
    assert own["data"]["tokenizer"]["vocab_size"] == VOCABULARY
    assert own["model"]["network"]["windowed_blocks"] == [1, 2]


def test_a_run_of_somebody_else_reads_no_folder(run: Path, tmp_path: Path) -> None:
    """Not even one whose config says that it has not begun."""
    moved = shutil.copytree(run, tmp_path / "run")
    text = (moved / "config.yaml").read_text()
    content = text.replace(run_folder.read_config(run)["start"]["sha256"], "null")
    assert content != text
    (moved / "config.yaml").write_text(content)
    (moved / ".seal").unlink()
    command_line(["export", f"run={moved}", "format=safetensors", f"out={tmp_path / 'out'}"])
    assert (tmp_path / "out/model.safetensors").exists()


def test_a_run_is_exported_as_a_file_to_start_from(run: Path, tmp_path: Path) -> None:
    command_line(["export", f"run={run}", "format=safetensors", f"out={tmp_path / 'out'}"])
    content = (tmp_path / "out/model.safetensors").read_bytes()
    theirs = tensors_in(content, tmp_path)
    assert FileOrigin(str(tmp_path / "out/model.safetensors"), "start").model()["network"]["window"] == 6
    own = load_run(OmegaConf.create(run_folder.read_config(run)), run)[0].state_dict()
    assert {*theirs} == {*own}
    assert all(torch.equal(theirs[name], own[name]) for name in own)
    assert json.loads((tmp_path / "out/config.json").read_text())["spec"]["vocab_size"] == VOCABULARY


def test_what_has_no_equivalent_is_named() -> None:
    own = {"embedding.weight": torch.zeros(4, 8), "norm.weight": torch.ones(8)}
    node: dict[str, Any] = {
        "_target_": language_model.NETWORK,
        "positions": {"_target_": "genlab.model.network.positions.Rotary"},
        "norm": {"_target_": "torch.nn.RMSNorm", "eps": 1e-6},
        "feed_forward": {"_target_": "a.SwiGLU"},
        "width": 8,
        "depth": 0,
        "num_heads": 2,
        "head_norm": None,
    }
    head_norm = {"_target_": "torch.nn.RMSNorm", "eps": 1e-6}
    assert exported({**node, "head_norm": head_norm}, own, 9)[0]["model_type"] == "qwen3"
    for other, said in (
        ({"logit_cap": 30.0}, r"model\.network\.logit_cap=30\.0"),
        ({"norm": {"_target_": "torch.nn.LayerNorm"}}, r"model/network/norm \(LayerNorm\) beside positions that are"),
        ({"feed_forward": {"_target_": "a.FeedForward"}}, r"model/network/feed_forward \(FeedForward\)"),
        ({"window": 4, "windowed_blocks": [1]}, r"model\.network\.windowed_blocks without a qkv_bias"),
        ({"qkv_bias": True, "head_norm": head_norm}, r"model\.network\.qkv_bias beside normalized queries and keys"),
        ({"positions": {"_target_": "a.Alibi"}}, r"model/network/positions \(Alibi\)"),
    ):
        with pytest.raises(ValueError, match=said):
            exported({**node, **other}, own, 9)


def test_what_is_no_language_model_is_exported_as_a_file() -> None:
    """In one line; the advice is what :func:`test_a_run_is_exported_as_a_file_to_start_from` types."""
    text = {"modality": "text", "shape": [9]}
    network = {"_target_": language_model.NETWORK, "logit_cap": 30.0}
    told = {"_target_": "genlab.model.transformer.Transformer", "start_token": 0, "network": network}
    for plain, said in (
        ({"spec": {"modality": "image"}, "model": {"network": network}}, "holds no language model that transformers"),
        (
            {"spec": text, "model": {**told, "_target_": "genlab.model.masked.Masked"}},
            "does not predict the next token",
        ),
        ({"spec": text, "model": told}, r"model\.network\.logit_cap=30\.0 of r has no equivalent there"),
    ):
        with pytest.raises(ConfigError, match=rf"format=transformers: .*{said}.* Use format=safetensors"):
            export._for_transformers(plain, {}, None, Path("r"))


@pytest.mark.matrix
@torch.no_grad()
@pytest.mark.parametrize("network", ["transformer", "llama", "gpt2"])
@pytest.mark.parametrize("tokenizer", ["bytes", "characters", "bpe"])
def test_runs_from_nothing_are_exported(network: str, tokenizer: str, tmp_path: Path) -> None:
    choices = small("data=python_docs", "model=transformer", f"model/network={network}", f"data/tokenizer={tokenizer}")
    choices += ("data.tokenizer.unknown=true",) if tokenizer == "characters" else ()
    train(*choices, "callbacks.samples=null", outputs=tmp_path / "runs")
    run = only_run(tmp_path / "runs")
    command_line(["export", f"run={run}", "format=transformers", f"out={tmp_path / 'out'}"])
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", local_files_only=True).eval()
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out", local_files_only=True)
    tokens = theirs("def f(x):\n    return x", return_tensors="pt", add_special_tokens=False)["input_ids"][:, :16]
    assert theirs.decode(theirs("def f(x):\n    return x", add_special_tokens=False)["input_ids"]) == (
        "def f(x):\n    return x"
    )
    model: Any = load_run(OmegaConf.create(run_folder.read_config(run)), run)[0]
    torch.testing.assert_close(model.network(tokens), loaded(tokens).logits, rtol=0, atol=1e-4)


def test_tokenizers_give_the_same_tokens_there() -> None:
    from tokenizers import Tokenizer

    characters = Characters()
    characters.train(["one\n\n two  ", "ü\r\nthree 😀"])
    unknown = Characters(unknown=True)
    unknown.train(["abc \n"])
    marked = Bytes()
    for tokenizer in (marked, unknown):
        tokenizer.reserve(["<|im_start|>", "<|im_end|>"])
    for ours, texts in (
        (Bytes(), ["a\n ü  😀", " "]),
        (characters, ["two\n\n  ü 😀\r\n"]),
        (unknown, ["a\nb  zc"]),
        (marked, ["a"]),
    ):
        core = Tokenizer.from_str(json.dumps(as_json(ours)[0]))
        for text in texts:
            ids = core.encode(text, add_special_tokens=False).ids
            assert np.array_equal(ids, ours.encode(text))
            assert core.decode(ids) == ours.decode(ids)
        assert core.get_vocab_size() == ours.vocab_size
        assert {text: core.token_to_id(text) for text in ours.special()} == {
            t: s.token for t, s in ours.special().items()
        }
        assert core.encode("".join(ours.special()), add_special_tokens=False).ids == [
            s.token for s in ours.special().values()
        ]


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(folder_of: Callable[[str], Path], tmp_path: Path) -> Path:
    return shutil.copytree(folder_of("llama"), tmp_path / "m")


def config_with(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"num_experts": 4}, "num_experts=4 is not supported"),
        ({"quantization_config": {"bits": 4}}, "quantization_config=.* is not supported"),
        ({"rope_parameters": None, "rope_scaling": {"type": "dynamic", "factor": 2}}, "rope_type=dynamic is not suppo"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2}}, "rope_type=yarn is not supported; default, linear"),
        ({"model_type": "qwen3_moe"}, "of the kind qwen3_moe cannot be used"),
        ({"model_type": "qwen3", "mlp_bias": True}, "mlp_bias is not supported in model_type=qwen3"),
        ({"model_type": "qwen3", "rope_parameters": {"rope_type": "yarn", "factor": 4}}, "rope_type=yarn is not supp"),
        ({"hidden_act": "gelu"}, "hidden_act=gelu is not supported"),
        ({"embedding_multiplier": 12.0}, r"embedding_multiplier=12.0 is not supported"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "is not a model that predicts the next token"),
        ({"model_type": "mamba"}, "of the kind mamba cannot be used. .* model_type llama, mistral, qwen2, qwen3, gpt2"),
        ({"hidden_size": "wide"}, "hidden_size=wide is not a whole number"),
    ],
)
def test_what_is_not_built_is_refused_by_name(folder: Path, values: dict[str, Any], said: str) -> None:
    config_with(folder, **values)
    with pytest.raises(ConfigError, match=said):
        HubOrigin(f"hf:{folder}", "start").model()


def test_both_words_for_rotary_positions_are_read() -> None:
    old = {"rope_theta": 5e5, "rope_scaling": {k: v for k, v in LLAMA3.items() if k != "rope_theta"}}
    new = {"rope_parameters": {**LLAMA3, "rope_theta": 5e5}}
    base = {"model_type": "llama", **LLAMA}
    assert language_model.node(base | old, Path()) == language_model.node(base | new, Path())


def test_damaged_folders_are_refused_in_a_line(folder: Path) -> None:
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not a safetensors file"):
        HubOrigin(f"hf:{folder}", "start").weights()
    weights.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ResourceError, match=r"no other file is read \(pytorch_model\.bin is a pickle, which may hold"):
        HubOrigin(f"hf:{folder}", "start").weights()
    weights.write_bytes(content)
    config_with(folder, intermediate_size=48)
    with pytest.raises(CheckpointError, match=r"gate_proj\.weight is \(44, 32\), and should be \(48, 32\)\. Put the f"):
        HubOrigin(f"hf:{folder}", "start").weights()
    config_with(folder, vocab_size=250)
    with pytest.raises(ConfigError, match=r"vocab_size=250 is smaller than its tokenizer's, which has 257 tokens"):
        HubOrigin(f"hf:{folder}", "start").tokenizer()
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"there is no tokenizer\.json"):
        HubOrigin(f"hf:{folder}", "start").tokenizer()
    (folder / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"there is no readable config\.json"):
        HubOrigin(f"hf:{folder}", "start").model()


def test_a_name_at_the_hub_that_is_not_here_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        ResourceError, match=r"^the model nobody/a-model is not here and the Hugging Face Hub cannot"
    ) as e:
        command_line(
            ["train", "model=transformer", "data=python_docs", "start=hf:nobody/a-model", f"outputs={tmp_path}"]
        )
    assert "\n" not in str(e.value)
    assert not list(tmp_path.iterdir())


def test_weights_in_several_files_are_read(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    whole = HubOrigin(f"hf:{folder}", "start").weights()
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    index = {}
    for number in range(2):
        part = dict(list(tensors.items())[number::2])
        save_file(part, folder / f"{number}.safetensors")
        index |= dict.fromkeys(part, f"{number}.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    found = HubOrigin(f"hf:{folder}", "start").weights()
    assert {*found} == {*whole}
    assert all(torch.equal(found[name], whole[name]) for name in whole)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../x.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"only \.safetensors files beside it are read"):
        HubOrigin(f"hf:{folder}", "start").weights()


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("data/tokenizer=characters", r"data\.tokenizer has another vocabulary .* Leave data/tokenizer= out"),
        ("model.network.width=64", r"model\.network\.width=64: the network is that of start=hf:\S+\. Leave model\.net"),
        ("model/network=gpt2", r"model/network=gpt2: the network is that of start="),
        ("data=digits", r"a language model needs text\. Use data=python_docs"),
        ("data.context=41", r"reads at most 40 tokens at once, and 41 are asked for\. Use data\.context=40"),
    ],
)
def test_what_is_typed_against_the_folder_is_refused(
    typed: str, said: str, folder_of: Callable[[str], Path], tmp_path: Path
) -> None:
    data = () if typed.startswith("data=") else ("data=python_docs",)
    with pytest.raises(ConfigError, match=said):
        command_line(
            [
                "train",
                "model=transformer",
                *data,
                f"start=hf:{folder_of('llama')}",
                "trainer=cpu",
                "logger=[none]",
                f"outputs={tmp_path}",
                typed,
            ]
        )
    assert not list(tmp_path.iterdir())


def test_a_gguf_file_needs_to_be_there_and_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    typed = ["train", "model=transformer", "data=python_docs", f"start={tmp_path}/x.gguf", "logger=[none]"]
    with pytest.raises(ConfigError, match=r"there is no such file. Name a \.gguf file that is there"):
        command_line(typed)
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ConfigError, match="needs packages: pip install transformers gguf accelerate"):
        command_line(typed)
