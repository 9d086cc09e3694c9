"""``model.compile=true`` compiles every family's networks in place, so that the names of weights stay."""

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from genlab.config.tree import resolved
from genlab.run.assemble import build_data, trial_model
from tiny_run import compose_small

NETWORKS = {
    "vae": ["encoder", "decoder"],
    "vq_vae": ["encoder", "decoder"],
    "hierarchical_vae": ["ladder"],
    "classifier": ["network"],
}


@pytest.mark.parametrize("family", NETWORKS)
def test_networks_are_compiled_in_place(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Any] = []
    monkeypatch.setattr(nn.Module, "compile", lambda module: compiled.append(module))
    config = compose_small(f"model={family}", outputs=tmp_path)
    build_data(config)
    config.run_dir, config.run_id = "", ""
    names = {name for name, _ in trial_model(resolved(config)).named_parameters()}
    assert compiled == []
    config.model.compile = True
    model = trial_model(resolved(config))
    assert compiled == [getattr(model, name) for name in NETWORKS[family]]
    assert {name for name, _ in model.named_parameters()} == names
