"""Every file under configs/ says what it is, composes with the defaults, and mirrors the code. None is listed here."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from genlab.config.build import Misfit, build, resolve
from genlab.config.tree import PACKAGED, ConfigTree, missing, resolved
from genlab.data.base import DataModule
from genlab.errors import ResourceError
from genlab.metrics.base import EXTRACTED
from genlab.metrics.extractor.random_conv import RandomConv
from genlab.run.assemble import build_evaluation, check_config, trial_model
from stand_ins import without_downloads
from test_grid import ABROAD

TREE = ConfigTree()
DOWNLOADED = ("inception", "vgg", "clip", "dinov2", "language_model")  # extractors
OPTIONS = [(group, option) for group, options in TREE.groups().items() for option in options]
NEED_A_JUDGE = [
    *(("model/rewards", name) for name in ("judged", "gold", "label", "second_label")),
    *(("model/guidance", name) for name in ("autoguidance", "classifier", "score")),
    ("model/alignment", "repa"),
    ("model/discriminator", "projected"),
]  # a run of another family, or a class
FILES = sorted(PACKAGED.rglob("*.yaml"))
NAMES = [str(path.relative_to(PACKAGED)) for path in FILES]
SPEC = {
    "modality": "image",
    "shape": [3, 32, 32],
    "vocab_size": None,
    "start_token": None,
    "condition": {
        "label": {"size": 10, "names": []},
        "caption": {"size": 9, "length": 4, "names": []},
        "layout": {"size": 3, "names": []},
    },
}


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a run whose model others build on; its config is all that is needed of it here."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "config.yaml").write_text(yaml.safe_dump(composed("model=vae", "model.latent_shape=[4,8,8]")))
    (folder / "base").mkdir()
    base = composed("model=diffusion", "model.conditions=[caption]")
    base["model"]["told"]["caption"]["names"] = ["<nothing>", *"abcdefgh"]
    (folder / "base" / "config.yaml").write_text(yaml.safe_dump(base))
    return str(folder)


TEXT = {"modality": "text", "shape": [32], "vocab_size": 300, "start_token": 256, "condition": {}}


def judged_for(family: str) -> list[str]:
    """The choice of data that a family needs, if it learns from judgments, or from text alone."""
    kind: Any = resolve(dict(TREE.targets("model"))[family], family)
    if kind.answers_prompts:
        return ["data=prompts"]
    wanted = kind.learns_from
    if not wanted and kind.kinds == {"tokens"}:
        return ["data=python_docs"]
    return [f"data={n}" for n, t in TREE.targets("data") if getattr(resolve(t, n), "judged", None) in wanted][:1]


def composed(*overrides: str, autoencoder: str = "") -> Any:
    """A checked config; what only a user can know (``???``) is any text, as it is for a path or a name."""
    config = TREE.compose(overrides)
    for key in missing(config):
        given = {"model.autoencoder": autoencoder, "model.base": f"{autoencoder}/base"}.get(key, "/given")
        OmegaConf.update(config, key, given)
    check_config(config)
    spec = TEXT if {"data=preferences", "data=prompts", "data=python_docs"} & {*overrides} else SPEC
    config.spec, config.run_dir, config.run_id = spec, "x", "x"
    return resolved(config)


def parents(group: str, option: str) -> list[list[str]]:
    """What has to be chosen above a nested part for it to have a place: one option at each level, in every way."""
    above, _, name = group.rpartition("/")
    if above not in TREE.groups() or f"- {group}:" in (PACKAGED / "train.yaml").read_text():
        return [[]]
    having = [
        o
        for o in TREE.groups()[above]
        if re.search(rf"^  - {name}(@\S+)?:", (PACKAGED / above / f"{o}.yaml").read_text(), re.M)
    ]
    assert having, f"no {above} has a {name}"
    return [[*more, f"{above}={o}"] for o in having for more in parents(above, o)]


def parts_of(family: str) -> set[str]:
    """The groups that a family chooses from."""
    entries = yaml.safe_load((PACKAGED / "model" / f"{family}.yaml").read_text())["defaults"]
    return {part for entry in entries if isinstance(entry, dict) for part in entry if "override " not in part}


# The grid of the tests composes the parts of models too, and trains them small; here they are of full size.
LARGE = [
    pytest.param(g, o, id=f"{g}={o}", marks=[pytest.mark.matrix] if g.startswith("model/") else [])
    for g, o in OPTIONS
    if o not in ABROAD and (g, o) not in NEED_A_JUDGE
]


@pytest.mark.parametrize(("group", "option"), LARGE)
def test_every_option_composes_and_fits_its_place(group: str, option: str, autoencoder: str) -> None:
    """A part of a model is built too, and the networks on a device without memory. Where families share a slot's name,
    an option may be meant for one of them, and the others refuse it by type."""
    for above in parents(group, option):
        choices = [*above, f"{group}=[{option}]" if group == "model/rewards" else f"{group}={option}"]
        if "consistency" in " ".join(choices):  # the one pair of parts that need each other
            having = parts_of(next((c.removeprefix("model=") for c in above if c.startswith("model=")), "diffusion"))
            pair = [f"model/{part}=consistency" for part in ("objective", "sampler") if part in having]
            choices = [*pair, *(c for c in choices if c not in pair)]
        if group.split("/")[0] == "model":
            choices += judged_for(
                next((c.removeprefix("model=") for c in choices if c.startswith("model=")), "diffusion")
            )
        if group == "model/guidance" and "model=captioner" in above and option != "none":
            choices.append("model.condition_dropout=0.1")  # what is guided has learned captions of no picture
        if option == "layout":
            choices.append("data=shapes")
        if (group, option) == ("model/generator_penalty", "path_length"):
            choices.append("model/generator=stylegan2")  # whose styles it measures
        try:
            config = composed(*choices, autoencoder=autoencoder)
        except Misfit:
            continue
        if group.split("/")[0] == "model":
            assert trial_model(config).kinds
        return  # the grid of the tests trains it wherever it fits
    raise AssertionError("it fits nowhere")


@pytest.mark.parametrize("option", [o for g, o in OPTIONS if g == "data"])
def test_every_datamodule_is_built_without_its_data(option: str) -> None:
    build(composed(f"data={option}")["data"], DataModule, "data")


@pytest.mark.parametrize("option", [o for g, o in OPTIONS if g == "metrics"])
def test_every_metric_is_built(option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RandomConv, "gives", EXTRACTED)  # as Inception does, which is not here
    config = composed(f"metrics=[{option}]", "metrics/extractor=random")
    evaluation = build_evaluation(config | {"metrics": without_downloads(config["metrics"], tmp_path)})
    assert evaluation.metrics or evaluation.of_models


@pytest.mark.parametrize("option", [o for g, o in OPTIONS if g == "metrics/extractor" and o not in DOWNLOADED])
def test_every_extractor_that_needs_no_download_is_built(option: str) -> None:
    assert build_evaluation(composed(f"metrics/extractor={option}")).extractor


@pytest.mark.parametrize("option", ["inception", "vgg", "clip"])
def test_an_extractor_from_a_file_that_is_not_there_is_refused(option: str) -> None:
    with pytest.raises(ResourceError, match="are not at /no/such"):
        build_evaluation(composed(f"metrics/extractor={option}", "metrics.extractor.weights=/no/such"))


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_file_opens_with_what_it_is(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("# @package")]
    assert re.match(r"# ([A-Z0-9]|nanoGPT).*\w", lines[0]), lines[0]


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_file_holds_values_and_plain_references(path: Path) -> None:
    text = "\n".join(line.split("#")[0] for line in path.read_text().splitlines())
    references = re.findall(r"\$\{[^}]*\}", text)
    assert text.count("${") == len(references)
    assert all(re.fullmatch(r"\$\{[a-z_]+(\.[a-z_]+)*\}", reference) for reference in references), references


NETWORK_SLOTS = (
    "encoder",
    "decoder",
    "predictor",
    "generator",
    "discriminator",
    "projector",
    "ladder",
    "image_encoder",
    "text_encoder",
    "projector",
    "predictor",
    "head",
)  # roles of networks in a model


def targets(node: Any, path: str) -> list[tuple[str, str]]:
    if not isinstance(node, dict):
        return []
    own = [(path, node["_target_"])] if "_target_" in node else []
    return own + [found for key, value in node.items() for found in targets(value, f"{path}.{key}" if path else key)]


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_targets_are_where_the_file_is(path: Path) -> None:
    """configs/X/Y/z.yaml names classes of genlab.X.Y, a module or a package; or of a third party, also in interop/.
    Rewards of a model are a room of their own.

    Networks are named by their role: configs/model/encoder/z.yaml names a class of genlab.model.network."""
    group = path.parent.relative_to(PACKAGED).as_posix()
    is_global = "# @package _global_" in path.read_text()
    for place, target in targets(yaml.safe_load(path.read_text()), ""):
        if target == "???":  # a class that a user names
            continue
        assert resolve(target, place)
        if not target.startswith("genlab."):
            continue
        package = place.split(".")[0] if is_global or group == "." else group.replace("/", ".")
        if group == "." and package == "evaluation":
            package = "evaluation.evaluation"
        if group == "model/rewards":
            package = "rewards"
        if group == "model/views":
            package = "model.augment"
        if group == "model/noise":
            package = "model.objective"
        if group.rpartition("/")[2] in NETWORK_SLOTS:
            package = "model.network"
        assert target.startswith((f"genlab.{package}.", "genlab.interop.")), f"{target} is named in configs/{group}"


def test_train_yaml_chooses_every_top_level_group() -> None:
    entries = yaml.safe_load((PACKAGED / "train.yaml").read_text())["defaults"]
    chosen = {key.removeprefix("optional ") for entry in entries if isinstance(entry, dict) for key in entry}
    assert {group for group in TREE.groups() if "/" not in group} <= chosen
