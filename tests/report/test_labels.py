"""Labels of configurations: what differs, short, and never the same label twice."""

import json
import random
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hostile_names import NAMES
from omegaconf import DictConfig, OmegaConf
from run_folders import config, make_run

from genlab.config.tree import ConfigTree
from genlab.report.comparison import compare
from genlab.report.configurations import configurations
from genlab.report.labels import LONGEST, labels
from genlab.report.names import LONGEST_VALUE, Place, texts
from genlab.report.runs import Run, read_runs

UNET = {"_target_": "genlab.model.network.unet.UNet", "channels": 32}
DIT = {"_target_": "genlab.model.network.dit.DiT", "depth": 6}
# As scripts/families.sh trains them, whose numbers stand in docs/measured/digits.json.
FAMILIES = {
    "gan": "budget.value=500000 model=gan data.batch_size=64",
    "hierarchical_vae": "budget.value=175000 model=hierarchical_vae data.batch_size=64",
    "flow": "budget.value=546000 model=flow data.batch_size=64",
    "vae": "budget.value=253000 model=vae data.batch_size=64",
    "diffusion": "budget.value=37000 model=diffusion data.batch_size=32",
    "pixels": "budget.value=8750 model=transformer model/optimizer=muon data.batch_size=16",
    "latents": "budget.value=87800 model=latent_diffusion data.batch_size=64 "
    "model.autoencoder=runs/digits-parts/latents",
    "codes": "budget.value=86500 model=transformer data.batch_size=64 model.tokenizer=runs/digits-parts/codes "
    "model.network.dropout=0.2",
    "masked": "budget.value=94200 model=masked data.batch_size=64 model.tokenizer=runs/digits-parts/codes",
}
SLOW = {
    "consistency": "budget.value=33600 model=diffusion data.batch_size=64 model/objective=consistency "
    "model/sampler=consistency",
    "masked_pixels": "budget.value=9600 model=masked model/optimizer=muon data.batch_size=16",
}


def run(folder: str = "x", typed: str | None = None, **changes: Any) -> Run:
    """``typed``: paths of settings; None: nobody knows."""
    paths = None if typed is None else frozenset(typed.split())
    return Run(Path(folder), config(**changes), {}, {}, (), None, paths)


def named(*runs: Run) -> list[str]:
    return labels(runs, configurations(runs)).runs


def rows(*runs: Run) -> list[str]:
    return labels(runs, configurations(runs)).rows


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Folders of three seeds of each, in which stand composed configs and what was typed; nothing was trained."""
    folder, tree = tmp_path_factory.mktemp("families"), ConfigTree()
    for name, line in (FAMILIES | SLOW).items():
        words = line.split()
        parts = dict(w.removeprefix("model.").split("=") for w in words if re.match(r"model\.(tokenizer|autoenc)", w))
        composed = tree.compose([*(w for w in words if w.partition("=")[0][6:] not in parts), "data=digits"])
        for seed in range(3 if name == "codes" else 1):
            own: dict[str, Any] = deepcopy(_resolved(composed)) | {"seed": seed}
            own["model"]["seed"] = own["data"]["seed"] = seed
            for part in parts:  # as assembling a run replaces it
                own["model"][part] = {"_target_": "genlab.model.vq_vae.VQVAE", "codes": 512}
            own["pretrained"] = {f"model.{p}": {"where": where, "sha256": "ab" * 32} for p, where in parts.items()}
            place = folder / name / str(seed)
            place.mkdir(parents=True)
            (place / "config.yaml").write_text(json.dumps(own))
            typed = [*words, f"seed={seed}", "trainer=cpu", "logger=[none]", "budget=examples"]
            (place / "overrides.yaml").write_text(yaml.safe_dump(typed))
    return read_runs([str(folder)])


def _resolved(composed: DictConfig) -> dict[str, Any]:
    """Values that follow from data are not known yet: they stay as they are written, the same for all."""
    plain: Any = OmegaConf.to_container(composed, resolve=False)
    return {name: plain[name] for name in ("model", "data", "budget", "trainer", "callbacks")}


def test_the_nine_configurations_of_the_families(families: list[Run]) -> None:
    nine = [r for r in families if r.folder.parent.name in FAMILIES]
    groups = configurations(nine)
    found = labels(nine, groups)
    assert {nine[group[0]].folder.parent.name: found.rows[k] for k, group in enumerate(groups)} == {
        "gan": "gan",
        "hierarchical_vae": "hierarchical_vae",
        "flow": "flow",
        "vae": "vae",
        "diffusion": "diffusion",
        "latents": "latent_diffusion",
        "pixels": "transformer optimizer=muon batch_size=16 +1 more",
        "codes": "transformer tokenizer=codes dropout=0.2 +2 more",
        "masked": "masked",
    }
    place = next(i for i, r in enumerate(nine) if r.folder == nine[0].folder.parents[1] / "codes" / "1")
    assert found.runs[place] == "transformer tokenizer=codes dropout=0.2 +2 more seed=1"
    assert found.hidden[place] == ["model.optimizer=adamw", "data.batch_size=64", "budget.value=86500"]
    assert set(found.settings[place]) == {
        "model=transformer", "model.optimizer=adamw", "model.tokenizer=runs/digits-parts/codes",
        "model.network.dropout=0.2", "data.batch_size=64", "budget.value=86500", "seed=1",
    }  # fmt: skip


def test_with_the_two_that_are_slow_to_learn(families: list[Run]) -> None:
    groups = configurations(families)
    found = {
        families[g[0]].folder.parent.name: row for g, row in zip(groups, labels(families, groups).rows, strict=True)
    }
    assert {name: found[name] for name in ("diffusion", "consistency", "masked", "masked_pixels")} == {
        "diffusion": "diffusion batch_size=32 budget.value=37000",
        "consistency": "diffusion objective=consistency +3 more",
        "masked": "masked tokenizer=codes batch_size=64 +1 more",
        "masked_pixels": "masked optimizer=muon batch_size=16 +1 more",
    }
    assert found["gan"] == "gan"  # another model's runs change nothing
    assert found["codes"] == "transformer tokenizer=codes dropout=0.2 +2 more"


def test_the_order_in_which_runs_are_read_does_not_matter(families: list[Run]) -> None:
    def by_folder(runs: list[Run]) -> dict[Path, str]:
        return dict(zip((r.folder for r in runs), labels(runs, configurations(runs)).runs, strict=True))

    shuffled = random.Random(0).sample(families, len(families))
    assert by_folder(shuffled) == by_folder(families)


def test_one_run_is_its_model() -> None:
    assert named(run()) == ["diffusion"]


def test_models() -> None:
    vae = {"_target_": "genlab.model.vae.VAE", "latent": 8, "seed": 0}
    assert named(run(), run(model=vae)) == ["diffusion", "vae"]


def test_classes_of_one_name_say_their_modules() -> None:
    mine, theirs = ({"_target_": f"{module}.vae.VAE"} for module in ("mine", "theirs"))
    assert named(run(model=mine), run(model=theirs)) == ["mine.vae.VAE", "theirs.vae.VAE"]
    networks = [{"_target_": f"{module}.UNet"} for module in ("mine", "theirs")]
    assert named(*(run(model__network=n) for n in networks)) == [
        "diffusion network=mine.unet", "diffusion network=theirs.unet"
    ]  # fmt: skip


def test_settings_of_one_model_do_not_name_the_other() -> None:
    vaes = [{"_target_": "genlab.model.vae.VAE", "latent": latent} for latent in (8, 16)]
    assert named(run(), run(model=vaes[0]), run(model=vaes[1])) == ["diffusion", "vae latent=8", "vae latent=16"]


def test_parts_come_before_values_and_the_model_before_the_rest() -> None:
    runs = run(data__batch_size=32), run(model__network=DIT, model__optimizer__lr=0.01)
    assert named(*runs) == [
        "diffusion network=unet lr=0.002 batch_size=32",
        "diffusion network=dit lr=0.01 batch_size=64",
    ]


def test_arguments_are_compared_within_a_class() -> None:
    wide = UNET | {"channels": 64}
    assert named(run(), run(model__network=wide), run(model__network=DIT)) == [
        "diffusion network=unet channels=32", "diffusion network=unet channels=64", "diffusion network=dit"
    ]  # fmt: skip


def test_what_nobody_typed_is_the_default_and_is_not_said() -> None:
    changed = run(typed="model.network model.optimizer.lr", model__network=DIT, model__optimizer__lr=0.01)
    assert named(run(typed=""), changed) == ["diffusion", "diffusion network=dit lr=0.01"]
    same = run(typed="model.optimizer.lr data.batch_size", data__batch_size=32)  # typed, and the default all the same
    assert named(run(typed=""), changed, same) == [
        "diffusion", "diffusion network=dit lr=0.01", "diffusion batch_size=32"
    ]  # fmt: skip


def test_a_default_that_has_changed_since_is_said() -> None:
    assert named(run(typed=""), run(typed="", model__optimizer__lr=0.01)) == [
        "diffusion lr=0.002", "diffusion lr=0.01"
    ]  # fmt: skip
    newer = run(typed="", model__network=UNET | {"new": 1})
    assert named(run(typed=""), newer) == ["diffusion", "diffusion new=1"]


def test_what_all_runs_typed_is_said_of_all() -> None:
    runs = [run(typed="model.optimizer.lr", model__optimizer__lr=lr) for lr in (0.001, 0.002)]
    assert named(*runs) == ["diffusion lr=0.001", "diffusion lr=0.002"]
    assert named(*runs, run(typed="data.batch_size", data__batch_size=8))[:2] == ["diffusion lr=0.001", "diffusion"]


def test_data_and_budget_are_named_for_every_model() -> None:
    vae = {"_target_": "genlab.model.vae.VAE", "seed": 0}
    cifar10 = {"_target_": "genlab.data.cifar10.CIFAR10", "batch_size": 64, "seed": 0}
    assert named(run(), run(model=vae, data=cifar10)) == ["diffusion data=digits", "vae data=cifar10"]
    seconds = {"_target_": "genlab.budget.Seconds", "value": 60}
    assert named(run(), run(model=vae, budget=seconds)) == ["diffusion budget=examples", "vae budget=seconds"]


def test_what_differs_between_models_alone_stands_beside_the_label() -> None:
    vae = {"_target_": "genlab.model.vae.VAE", "seed": 0}
    runs = [run(), run(model=vae, data__batch_size=8)]
    found = labels(runs, configurations(runs))
    assert found.runs == ["diffusion", "vae"]
    assert found.hidden == [["data.batch_size=64"], ["data.batch_size=8"]]
    assert found.between_models().endswith(": data.batch_size")


def test_seeds_are_no_setting() -> None:
    runs = [run(f"o/{seed}", seed=seed, data__seed=seed, model__seed=seed) for seed in (0, 1)]
    assert rows(*runs) == ["diffusion"]
    assert named(*runs) == ["diffusion seed=0", "diffusion seed=1"]
    assert named(*runs, run(model__network=DIT, seed=5, data__seed=5, model__seed=5)) == [
        "diffusion network=unet seed=0", "diffusion network=unet seed=1", "diffusion network=dit"
    ]  # fmt: skip


def test_a_seed_that_goes_its_own_way_is_a_setting() -> None:
    runs = [run(f"{s}{own}", seed=s, model__seed=s, data__seed=own) for own in (7, 8) for s in (0, 1)]
    assert rows(*runs) == ["diffusion data.seed=7", "diffusion data.seed=8"]


def test_a_run_that_has_not_finished_has_a_name_of_its_own() -> None:
    runs = [run("a", model__network=DIT), run("b", seed=1), run("c", seed=2), run("d", seed=2)]
    found = labels(runs, [(0,), (1,)])
    assert found.rows == ["diffusion network=dit", "diffusion network=unet"]
    assert found.runs[1:] == ["diffusion network=unet seed=1", "diffusion network=unet seed=2 c",
                              "diffusion network=unet seed=2 d"]  # fmt: skip


def test_a_setting_that_follows_another_is_said_once() -> None:
    both = [UNET | {"a": {"width": width}, "b": {"width": width}} for width in (1, 2)]
    assert named(*(run(model__network=network) for network in both)) == ["diffusion a.width=1", "diffusion a.width=2"]
    typed = [run(typed="model.network.a.width model.network.b.width", model__network=network) for network in both]
    assert named(*typed) == ["diffusion a.width=1 b.width=1", "diffusion a.width=2 b.width=2"]


def test_ends_of_paths_are_as_long_as_it_takes_in_the_whole_config() -> None:
    encoders = [UNET | {"encoder": {"width": 1, "depth": 1}, "decoder": {"width": width}} for width in (1, 2)]
    assert named(*(run(model__network=network) for network in encoders)) == [
        "diffusion decoder.width=1", "diffusion decoder.width=2"
    ]  # fmt: skip
    values = [{"_target_": "genlab.budget.Examples", "value": value} for value in (1, 2)]
    assert named(*(run(budget=v) for v in values)) == ["diffusion budget.value=1", "diffusion budget.value=2"]


def with_part(where: str, **changes: Any) -> Run:
    made = run(**changes)
    made.config["model"]["tokenizer"] = {"_target_": "genlab.model.vq_vae.VQVAE", "codes": len(where)}
    made.config["pretrained"] = {"tokenizer": where}
    return made


def test_a_part_from_elsewhere_is_told_by_the_end_of_its_place() -> None:
    assert named(with_part("runs/a/codes"), with_part("runs/b/more/")) == [
        "diffusion tokenizer=codes", "diffusion tokenizer=more"
    ]  # fmt: skip
    assert named(with_part("runs/a/codes"), with_part("runs/b/codes")) == [
        "diffusion tokenizer=a/codes", "diffusion tokenizer=b/codes"
    ]  # fmt: skip
    typed = run(typed="model.network", model__network=DIT)
    assert named(run(typed=""), typed, with_part("codes", typed="model.tokenizer")) == [
        "diffusion", "diffusion network=dit", "diffusion tokenizer=codes"
    ]  # fmt: skip
    assert named(run(), with_part("codes")) == ["diffusion", "diffusion tokenizer=codes"]


def test_where_a_run_started_from() -> None:
    started = run()
    started.config["start"] = {"where": "ab12cd-first", "freeze": ["network.*"]}
    again = run()
    again.config["start"] = "ef34ab-first"
    assert named(run(), started) == ["diffusion", 'diffusion start=first freeze=["network.*"]']
    assert named(run(), again) == ["diffusion", "diffusion start=first"]
    started.config["start"] = "ab12cd-first"
    assert named(started, again) == ["diffusion start=ab12cd/first", "diffusion start=ef34ab/first"]


def test_where_it_ran_and_how_it_was_watched_are_no_settings() -> None:
    elsewhere = run("o/t-bb", outputs="o", run_dir="d", run_id="i", logger={"csv": {}}, metrics={"a": 1},
                    data__root="/mnt", data__num_workers=8, trainer={"accelerator": "gpu"})  # fmt: skip
    assert named(run("o/t-aa", trainer={}), elsewhere) == ["diffusion seed=0 aa", "diffusion seed=0 bb"]


def test_runs_of_before_a_callback_that_only_watches_are_of_the_same_configuration(tmp_path: Path) -> None:
    both: dict[str, Any] = {"a": {}, "b": {"speed": {"_target_": "genlab.callbacks.speed.Speed"}}}
    runs = [make_run(tmp_path / name, seed=i, callbacks=there) for i, (name, there) in enumerate(both.items())]
    assert configurations(read_runs([str(run) for run in runs])) == [(0, 1)]


def test_runs_of_one_config_are_told_apart_by_their_folders() -> None:
    assert named(run("o/20260101-000000-aaaaaa"), run("o/20260101-000001-bbbbbb"), run("o/x", seed=1)) == [
        "diffusion seed=0 aaaaaa", "diffusion seed=0 bbbbbb", "diffusion seed=1"
    ]  # fmt: skip
    assert named(run("b/x"), run("a/x")) == ["diffusion seed=0 x 2", "diffusion seed=0 x 1"]


def test_what_does_not_fit_is_counted_and_told_beside() -> None:
    many = {f"setting_number_{i}": 1 for i in range(6)}
    runs = [run(model__network=UNET | many), run(model__network=UNET | dict.fromkeys(many, 2))]
    found = labels(runs, configurations(runs))
    assert found.runs == [f"diffusion setting_number_0={i} +5 more" for i in (1, 2)]
    assert found.hidden[1] == [f"model.network.setting_number_{i}=2" for i in range(1, 6)]


def test_what_tells_runs_apart_comes_first_where_not_all_fits() -> None:
    many = {f"setting_number_{i}": 1 for i in range(6)}
    other = dict.fromkeys(many, 2)
    runs = [run(model__network=UNET | m) for m in (many, other, other | {"setting_number_5": 3})]
    assert named(*runs) == ["diffusion setting_number_0=1 +5 more", "diffusion setting_number_5=2 +5 more",
                            "diffusion setting_number_5=3 +5 more"]  # fmt: skip


def test_values_that_only_look_alike_do_not_once_written() -> None:
    long = "a" * 30
    nodes = [1e-3, 1.00001e-3, "0.001", None, "null", "", f"{long}b", f"{long}c", [1], "[1]", "two words", "x=y",
             Place("a/b/c"), Place("b/c"), Place("c"), {"_target_": "a.Net"}, {"_target_": "b.Net"}, "net"]  # fmt: skip
    found = texts(nodes)
    assert len(set(found)) == len(nodes)
    assert max(map(len, found)) <= LONGEST_VALUE
    assert found[-8:-5] == ['"two words"', '"x=y"', "a/b/c"]
    assert texts([0.1, 0.1, "0.2"]) == ["0.1", "0.1", "0.2"]


def test_any_two_configurations_have_labels_of_their_own() -> None:
    chance = random.Random(1)
    names = [*NAMES[:12], "W" * 200, "." * 20_000, "a.b", "lr", "seed", "value"]
    values = [*NAMES, 1, 1.0, True, 0.1234567, 0.12345678, None, "", "1", [1, 2], {"a": 1}, "x y=2", "\n", "y"]
    for _ in range(40):
        runs = []
        for i in range(chance.randint(2, 12)):
            network = {"_target_": chance.choice([*NAMES[:3], "a.Net", "b.Net"])}
            network |= {chance.choice(names): chance.choice(values) for _ in range(chance.randint(0, 6))}
            typed = chance.choice([None, "", "model.network", "model.network.lr"])
            runs.append(run(f"o/{i}", typed, model__network=network, seed=chance.randint(0, 1)))
        groups = configurations(runs)
        found = labels(runs, groups)
        assert len(set(found.rows)) == len(groups)
        assert len(set(found.runs)) == len(runs)
        assert max(map(len, found.rows)) <= LONGEST + 30  # a repeated seed, and the end of a folder's name
        assert all(text.isprintable() for text in [*found.rows, *found.runs])
        assert max(len(found.with_hidden(i)) for i in range(len(runs))) < 3_000
        order = chance.sample(range(len(runs)), len(runs))
        shuffled = labels([runs[i] for i in order], configurations([runs[i] for i in order]))
        assert [found.runs[i] for i in order] == shuffled.runs


def test_all_that_is_written_uses_the_same_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    monkeypatch.setattr("genlab.report.plots.draw", lambda named, *_: drawn.extend(name for name, _ in named) or [])
    for seed, fid in enumerate((1.0, 1.1)):
        for name, network in (("unet", UNET), ("dit", DIT | {"prompt": "<b>\n" * 99})):
            place, values = tmp_path / "r" / f"{name}{seed}", {"fid_digits64_1k": fid + (name == "dit")}
            make_run(place, values, seed=seed, model__seed=seed, data__seed=seed, model__network=network)
            typed = ["model/network=dit"] if name == "dit" else []
            (place / "overrides.yaml").write_text(yaml.safe_dump([*typed, f"seed={seed}"]))
    compare([str(tmp_path / "r")], out=str(tmp_path / "out"))
    expected = ["diffusion", "diffusion network=dit"]
    assert sorted(drawn) == expected
    for name in ("comparison.md", "comparison.csv", "comparison.tex", "differences.csv", "report.html"):
        written = (tmp_path / "out" / name).read_text()
        assert all(label in written for label in expected), name
        assert "<b>\n" not in written
    table = (tmp_path / "out" / "report.html").read_text()
    assert '<span title="model.network=unet"><bdi>diffusion</bdi>' in table
    assert '<span title="model.network=dit"><bdi>diffusion network=dit</bdi>' in table


@pytest.mark.parametrize("content", [None, "{}", "[1, 2]", "[", "- " + "x" * 30_000, "[[a=1]]"])
def test_folders_whose_overrides_nobody_can_read_have_labels(tmp_path: Path, content: str | None) -> None:
    for i, network in enumerate((UNET, DIT)):
        place = make_run(tmp_path / str(i), model__network=network)
        if content is not None:
            (place / "overrides.yaml").write_text(content)
    assert named(*read_runs([str(tmp_path)])) == ["diffusion network=unet", "diffusion network=dit"]
