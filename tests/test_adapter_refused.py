"""Adapters that cannot be used, and what each is told: in one line, before anything is written."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from genlab.cli import run as command_line
from genlab.errors import ConfigError
from test_finetune import LORA, WIDTH, adapter_in, sft
from test_finetune import folders as folders
from test_finetune import tuned as tuned
from tiny_run import train


def refused(*typed: str) -> str:
    """What a command that is refused says."""
    with pytest.raises(ConfigError) as found:
        command_line([*typed])
    assert "\n" not in str(found.value)
    return str(found.value)


def test_what_does_not_fit_is_refused_with_what_does(tuned: Path, folders: dict[str, Path], tmp_path: Path) -> None:
    """Of an adapter and its base, in one line each."""
    base, adapter = folders["base"], tmp_path / "adapter"
    command_line(["export", f"run={tuned}", "format=peft", f"out={adapter}"])
    bare = ["train", *sft(folders), f"outputs={tmp_path / 'runs'}"]
    assert "those here are random. Name some: start=" in refused(*bare, "data/tokenizer=bytes", *LORA)
    said = refused(*bare, f"start=hf:{base}", f"start.adapter={tmp_path}")
    assert "there is no adapter_config.json. Name the folder of an adapter" in said
    whole = train(*sft(folders), f"start=hf:{base}", outputs=tmp_path / "whole")
    said = refused("export", f"run={whole}", "format=peft", f"out={tmp_path / 'none'}")
    assert "has no adapter (model/adapter=lora). Use format=transformers, or format=safetensors" in said
    other = Path(shutil.copytree(base, tmp_path / "other"))
    weights = load_file(other / "model.safetensors")
    save_file({name: 2 * value for name, value in weights.items()}, other / "model.safetensors")
    said = refused(*bare, f"start=hf:{other}", f"start.adapter={adapter}")
    assert "it was trained on other weights than start=" in said
    assert "Name its own base in start=" in said
    said = refused("train", "model=vae", f"start={whole}", f"start.adapter={adapter}", "data=digits")
    assert "this model takes no adapter. Use model=transformer" in said
    content = load_file(adapter / "adapter_model.safetensors")
    save_file(content, adapter / "adapter_model.safetensors")  # as peft writes it: without the hash of its base
    settings = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": "me/other"}))
    said = refused(*bare, f"start=hf:{base}", f"start.adapter={adapter}")
    assert "its base is me/other, and not start=" in said
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    save_file(
        {name: value[:, :-1].contiguous() for name, value in content.items()}, adapter / "adapter_model.safetensors"
    )
    said = refused(*bare, f"start=hf:{base}", f"start.adapter={adapter}")
    assert "it is not of this model" in said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_dora": True}, "use_dora=true is not supported"),
        ({"modules_to_save": ["lm_head"]}, 'modules_to_save=["lm_head"] is not supported'),
        ({"rank_pattern": {"q_proj": 9}}, 'rank_pattern and alpha_pattern [{"q_proj": 9}, {}] are not supported'),
        ({"peft_type": "IA3"}, "it is no LoRA"),
        ({"r": "many"}, "r=many and lora_alpha=5.0 are not a rank and a number"),
    ],
)
def test_what_is_not_built_here_is_named(
    changes: dict[str, Any], message: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    adapter = adapter_in(tmp_path / "adapter", **changes)
    said = refused("train", *sft(folders), f"start=hf:{folders['base']}", f"start.adapter={adapter}")
    assert f"its adapter_config.json cannot be used ({message})" in said


def test_a_folder_of_other_files_is_refused(tuned: Path, folders: dict[str, Path], tmp_path: Path) -> None:
    """A pickle in the place of tensors; a tensor of a map that is not adapted; another rank than is asked for."""
    command_line(["export", f"run={tuned}", "format=peft", f"out={tmp_path / 'adapter'}"])
    pickled = Path(shutil.copytree(tmp_path / "adapter", tmp_path / "pickled"))
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    strange = Path(shutil.copytree(tmp_path / "adapter", tmp_path / "strange"))
    save_file({"base_model.model.lm_head.lora_A.weight": torch.zeros(2, WIDTH)}, strange / "adapter_model.safetensors")
    for adapter, more, message in (
        (pickled, (), r"there is no adapter_model\.safetensors, and no other file is read"),
        (strange, (), r"base_model\.model\.lm_head\.lora_A\.weight has no place in a language model"),
        (tmp_path / "adapter", ("model/adapter=lora", "model.adapter.rank=3"), r"model\.adapter\.rank=3: the adapter"),
    ):
        start = (f"start=hf:{folders['base']}", f"start.adapter={adapter}", *more)
        assert re.search(message, refused("train", *sft(folders), *start, f"outputs={tmp_path / 'runs'}"))
    assert not (tmp_path / "runs").exists()
