"""Short names of runs: what differs, once, and never the same name twice."""

from pathlib import Path
from typing import Any

from run_folders import config

from genlab.report.names import names
from genlab.report.runs import Run

UNET = {"_target_": "genlab.model.network.unet.UNet", "channels": 32}
DIT = {"_target_": "genlab.model.network.dit.DiT", "depth": 6}


def run(folder: str = "x", **changes: Any) -> Run:
    return Run(Path(folder), config(**changes), {}, {}, (), None)


def named(*runs: Run) -> list[str]:
    return names(runs)[0]


def test_one_run_is_its_family() -> None:
    assert named(run()) == ["diffusion"]


def test_families() -> None:
    vae = {"_target_": "genlab.model.vae.VAE", "latent": 8, "seed": 0}
    assert named(run(), run(model=vae)) == ["diffusion", "vae"]


def test_settings_of_one_family_do_not_name_the_other() -> None:
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


def test_a_value_that_others_follow_is_said_once() -> None:
    assert named(run(), run(seed=1, data__seed=1, model__seed=1)) == ["diffusion seed=0", "diffusion seed=1"]


def test_a_name_that_two_settings_have_is_made_longer() -> None:
    networks = [UNET | {"width": width} for width in (1, 2)]
    runs = [
        run(model__network=networks[i], budget={"_target_": "genlab.budget.Examples", "width": 9 - i}) for i in (0, 1)
    ]
    assert named(*runs) == ["diffusion network.width=1 budget.width=9", "diffusion network.width=2 budget.width=8"]


def test_where_it_ran_and_how_it_was_watched_are_no_names() -> None:
    elsewhere = run("o/t-bb", outputs="o", run_dir="d", run_id="i", logger={"csv": {}}, metrics={"a": 1},
                    data__root="/mnt", data__num_workers=8, trainer={"accelerator": "gpu"})  # fmt: skip
    assert named(run("o/t-aa", trainer={}), elsewhere) == ["diffusion aa", "diffusion bb"]


def test_runs_of_one_config_are_told_apart_by_their_folders() -> None:
    assert named(run("o/20260101-000000-aaaaaa"), run("o/20260101-000001-bbbbbb"), run("o/x", seed=1)) == [
        "diffusion seed=0 aaaaaa", "diffusion seed=0 bbbbbb", "diffusion seed=1"
    ]  # fmt: skip
    assert named(run("a/x"), run("b/x")) == ["diffusion x 1", "diffusion x 2"]


def test_what_does_not_fit_into_a_name_is_told_beside_it() -> None:
    many = {f"setting_number_{i}": 1 for i in range(6)}
    runs = [run(model__network=UNET | many), run(model__network=UNET | dict.fromkeys(many, 2))]
    found, left_over = names(runs)
    assert found == [f"diffusion setting_number_0={i} setting_number_1={i}" for i in (1, 2)]
    assert [(d.path, d.values) for d in left_over] == [
        (f"model.network.setting_number_{i}", ["1", "2"]) for i in range(2, 6)
    ]


def test_a_long_name_is_kept_where_only_it_tells_runs_apart() -> None:
    long = "a" * 24
    runs = [run(model__network=UNET | {"first_of_two_settings": a, "second_of_two_settings": b})
            for a, b in ((long, 1), (long, 2), ("b", 1))]  # fmt: skip
    assert len(set(named(*runs))) == 3
    assert not any(name.endswith(" x") for name in named(*runs))


def test_names_cannot_steer_a_terminal() -> None:
    assert named(run(), run(model__network__channels="\x1b[2J")) == ["diffusion channels=32", "diffusion channels=?[2J"]
