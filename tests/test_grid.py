"""Every legal combination of a family, its parts and data trains, samples, evaluates, saves and reloads; every illegal
one is refused with a sentence that says what would work. All are derived from the config tree and the slots' types."""

import json
import re
from functools import cache
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from genlab.callbacks.checkpoint import NoCheckpoints
from genlab.checkpoint import read
from genlab.cli import run as command_line
from genlab.command.train import fit
from genlab.config.build import fits, parameters, resolve
from genlab.config.tree import PACKAGED, ConfigTree, missing
from genlab.errors import ConfigError
from genlab.model.base import GenerativeModel, HasCaptionLikelihood
from genlab.run import assemble, run_folder
from genlab.run.elsewhere import PutParts, keep_parts
from genlab.run.load import load_run
from genlab.sampling.draw import sample_images
from test_flops import run_of
from text import text_file
from tiny_run import answers, compose_small, families, plain, small, train

TREE = ConfigTree()
GROUPS = TREE.groups()
FAMILIES = families()
# They need a folder of another library, tests/test_hub_networks.py, or a run with features,
# tests/test_features_in_generation.py.
ABROAD = {"unet2d_condition", "repa", "projected"}
# Needs weights to begin with: tests/test_finetune.py, tests/test_image_adapters.py; of objectives tests/test_judged.py.
STARTED = {"lora", "dpo", "ipo", "kto", "orpo", "robust", "simpo", "slic", "bradley_terry", "rao_kupper",
           "grpo", "dr_grpo", "rloo", "reinforce", "ppo"}  # fmt: skip
ONCE = {"unet_large", "shift"}  # seen once: slow, and of another family
AUTOENCODER = ("model=vae", "model.latent_shape=[2,4,4]")  # of a map of latents, which every network can denoise
# Of the answers of families that draw nothing; else of their features.
WIDTHS = {"classifier": 10, "contrastive_text": 8, "masked_language": 16}
UNSAID = {"autoguidance", "classifier", "score", "projected"}  # what they lack is said before what they do not fit
NEED_A_RUN = {"autoguidance", "classifier", "score"}  # or a class: tests/test_guided_runs.py
Choice = tuple[str, ...]  # model=..., then model/<part>=... in order


@cache
def parts_of(family: str) -> dict[str, str]:
    """The groups that a family chooses from, with its defaults; one that is null, an adapter, needs more."""
    entries = yaml.safe_load((PACKAGED / "model" / f"{family}.yaml").read_text())["defaults"]
    parts = (pair for entry in entries if isinstance(entry, dict) for pair in entry.items())
    return {part: option for part, option in parts if option is not None and not part.startswith("override ")}


@cache
def class_of(family: str) -> Any:
    ((_, family_class),) = [pair for pair in TREE.targets("model") if pair[0] == family]
    return resolve(family_class, "model")


# Groups of tests/test_policy_runs.py, tests/test_on_a_base.py and tests/test_guided_runs.py.
ELSEWHERE = ("model/rewards", "model/hint", "model/noise")
ALIKE = ("latent_diffusion", "stylegan2", "factor_vae")  # their parts are those of diffusion, of gan and of vae


@cache
def options(family: str, part: str) -> tuple[list[str], list[str]]:
    """The options of a part that fit the family's slot, and those that do not."""
    slot = parameters(class_of(family))[part]
    legal, illegal = [], []
    for name, target in TREE.targets(f"model.{part}"):
        found = resolve(target, name)
        (legal if fits(found, slot, partial=False) or fits(found, slot, partial=True) else illegal).append(name)
    return legal, illegal


def with_its_kind(parts: dict[str, str], changed: set[str]) -> dict[str, str] | None:
    """``consistency``, of objectives and samplers, is the one pair of parts that need each other."""
    pair = {part: parts[part] for part in ("objective", "sampler") if part in parts}
    if "consistency" not in pair.values():
        return parts
    if any(pair[part] != "consistency" for part in changed & pair.keys()):
        return None
    return parts | dict.fromkeys(pair, "consistency")


def choice_of(family: str, changed: dict[str, str]) -> Choice | None:
    """A family with some of its parts changed, or None if they exclude each other."""
    parts = with_its_kind(parts_of(family) | changed, set(changed))
    if parts and parts.get("augment") == "ada" and parts["objective"].startswith("wgan"):  # its scores have no sign
        return None
    if parts and parts.get("generator_penalty") == "path_length" and parts["generator"] != "stylegan2":  # has no styles
        return None
    if parts and parts.get("views") == "crop" and family == "self_distillation":  # is one view
        return None
    if parts and parts.get("guidance") == "perturbed_attention" and parts["network"] == "mlp":  # has no attention
        return None
    return None if parts is None else (f"model={family}", *(f"model/{part}={o}" for part, o in parts.items()))


def combinations_of(family: str, pairs: bool) -> set[Choice]:
    """Every option of every part beside the defaults of the others; with ``pairs`` also every pair of options of two
    parts, but for families whose parts are another's. Schedules meet no other part, and all families
    by one line of their base class: the first family stands for the others."""
    parts = [part for part in parts_of(family) if part != "schedule" or family == FAMILIES[0]]
    sets = [(part,) for part in parts]
    if pairs and family not in ALIKE:
        sets += combinations([part for part in parts if part != "schedule"], 2)  # type: ignore[arg-type]
    found = set()
    for chosen in sets:
        for names in product(*(options(family, part)[0] for part in chosen)):
            if (ABROAD | NEED_A_RUN) & {*names}:
                continue
            if len(names) == 1 or not ONCE & set(names):
                found.add(choice_of(family, dict(zip(chosen, names, strict=True))))
    return {choice for choice in found if choice is not None}


def nested() -> list[Choice]:
    """Parts of parts: every option of ``model/objective/penalty`` under every objective that has one, and so on. Of
    options with one target, which differ in values, the first stands for the others."""
    found = []
    for group in (g for g in GROUPS if g.startswith("model/") and g.count("/") == 2):
        _, part, inner = group.split("/")
        owners = {target: owner for owner, target in reversed(TREE.targets(f"model.{part}"))}
        for family, owner in product(FAMILIES, owners.values()):
            has = f"- {inner}:" in (PACKAGED / "model" / part / f"{owner}.yaml").read_text()
            if has and family not in ALIKE and part in parts_of(family) and owner in options(family, part)[0]:
                choice = choice_of(family, {part: owner})
                assert choice is not None
                found += [(*choice, f"{group}={option}") for option in GROUPS[group]]
    return found


SINGLE = sorted(choice for family in FAMILIES for choice in combinations_of(family, pairs=False)) + nested()
PAIRS = sorted({choice for family in FAMILIES for choice in combinations_of(family, pairs=True)} - set(SINGLE))


def with_each_once(choices: list[Choice]) -> list[Choice]:
    """Those of the choices that have a part which none before them has."""
    seen: set[str] = set()
    found = []
    for choice in choices:
        if not seen.issuperset(choice):
            found.append(choice)
            seen.update(choice)
    return found


QUICK = {*with_each_once(SINGLE)}  # for `make test`: each option of each part in one family
GRID = [pytest.param(c, marks=[] if c in QUICK else [pytest.mark.matrix]) for c in (*SINGLE, *PAIRS)]
ILLEGAL = [(f, p, o) for f in FAMILIES for p in parts_of(f) for o in options(f, p)[1] if o not in UNSAID]
QUICKLY_REFUSED = {(f, part, options(f, part)[1][0]) for f, part, _ in ILLEGAL}  # one for each slot


def name(choice: Choice) -> str:
    return "-".join(part.split("=")[-1] for part in choice)


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A trained run for latent diffusion to build on."""
    return f"model.autoencoder={train(*small(*AUTOENCODER), outputs=tmp_path_factory.mktemp('autoencoder'))}"


def family_of(choice: Choice) -> str:
    return choice[0].removeprefix("model=")


def needed(choice: Choice, autoencoder: str) -> Choice:
    family = family_of(choice)
    is_given = "autoencoder: ???" not in (PACKAGED / "model" / f"{family}.yaml").read_text()
    return choice if is_given else (*choice, autoencoder)


def takes_text(family: str) -> bool:
    return "tokens" in class_of(family).kinds


def draws_tokens(family: str) -> bool:
    """Such a family draws images token by token too: of few pixels it is quick."""
    return {"tokens", "continuous"} <= class_of(family).kinds


def samples(family: str) -> bool:
    """Whether it draws pictures."""
    return issubclass(class_of(family), GenerativeModel) and not issubclass(class_of(family), HasCaptionLikelihood)


@pytest.fixture(scope="module")
def tiny_images(tmp_path_factory: pytest.TempPathFactory) -> Choice:
    path = tmp_path_factory.mktemp("tiny") / "x.npz"
    images = np.random.default_rng(0).integers(0, 256, (60, 4, 4), dtype=np.uint8)
    np.savez(path, images=images, labels=np.arange(60) % 4)
    return ("data=array", f"data.path={path}", f"data.cache_dir={path.parent}", "metrics/extractor=random")


@pytest.mark.parametrize("choice", GRID, ids=[name(choice) for choice in (*SINGLE, *PAIRS)])
def test_two_steps_then_the_same_answers_after_a_reload(
    choice: Choice, autoencoder: str, tiny_images: Choice, tmp_path: Path
) -> None:
    given = (*needed(choice, autoencoder), *(tiny_images if draws_tokens(family_of(choice)) else ()))
    config = compose_small(*given, "budget.value=16", outputs=tmp_path)
    data = assemble.build_data(config)
    config.run_dir, config.run_id = str(tmp_path), "grid"
    settings = plain(config)
    model, evaluation = assemble.build_model(settings), assemble.build_evaluation(settings)
    budget = assemble.build_callbacks(settings | {"callbacks": {}}, evaluation)
    keep_parts(config, tmp_path)
    settings = plain(config)
    callbacks = [PutParts(settings["pretrained"], tmp_path), *budget, NoCheckpoints()]
    trainer = assemble.build_trainer(settings | {"callbacks": {}}, model, callbacks, [], tmp_path)
    fit(trainer, model, data, None)
    assert model.progress.examples == 16
    assert model.progress.flops > 0
    assert all(torch.isfinite(loss) for name, loss in trainer.callback_metrics.items() if name.startswith("train/"))
    before = answers(model.eval(), data)
    evaluation.check(model, data)
    path = tmp_path / read.FOLDER / read.file_name(16)
    trainer.save_checkpoint(path)
    run_folder.write_start(tmp_path, settings, [])
    again, weights = load_run(DictConfig(run_folder.read_config(tmp_path)), tmp_path)
    assert weights == "raw"
    if isinstance(model, HasCaptionLikelihood):
        answer: tuple[int, ...] = (data.spec.condition["caption"].length,)
    elif isinstance(model, GenerativeModel):
        answer = data.spec.shape
    else:
        answer = (WIDTHS.get(family_of(choice)) or model.encoder.num_features,)
    assert before.shape == (4, *answer)
    assert torch.equal(answers(again, data), before)


@pytest.mark.matrix
@pytest.mark.parametrize("choice", SINGLE, ids=name)
def test_operations_are_counted_from_the_first_step_to_the_last(
    choice: Choice, autoencoder: str, tiny_images: Choice, tmp_path: Path
) -> None:
    """The budget counts the first step of each kind; torch's counter all of them. A part whose cost changes with
    progress and does not say so in ``step_kind`` is found here."""
    given = (*needed(choice, autoencoder), *(tiny_images if draws_tokens(family_of(choice)) else ()))
    model, steps = run_of((*given, "budget.value=64"), tmp_path)
    assert model.progress.flops == steps.counter.get_total_flops() > 0


@pytest.mark.parametrize(
    ("family", "part", "option"),
    [pytest.param(*of, marks=[] if of in QUICKLY_REFUSED else [pytest.mark.matrix], id="-".join(of)) for of in ILLEGAL],
)
def test_what_does_not_fit_is_refused_with_what_does(family: str, part: str, option: str, autoencoder: str) -> None:
    choice = needed((f"model={family}", f"model/{part}={option}"), autoencoder)
    with pytest.raises(ConfigError) as refused:
        command_line(["train", *choice, "logger=[none]"])
    message = str(refused.value)
    assert "\n" not in message
    fitting = options(family, part)[0]
    assert f"model/{part}={' or '.join(fitting)}" in message, message


def test_the_grid_is_not_empty() -> None:
    """Derived lists can be derived wrongly: some that must be in them, and that all options of all parts are."""
    assert ("gan", "objective", "edm") in ILLEGAL
    assert ("diffusion", "objective", "hinge") in ILLEGAL
    assert any({"model/objective=hinge", "model/objective/penalty=r1"} <= set(choice) for choice in SINGLE)
    named = {part for choice in SINGLE for part in choice}
    groups = [g for g in GROUPS if g.startswith("model/") and g not in ELSEWHERE]
    assert {
        f"{group}={option}" for group in groups for option in {*GROUPS[group]} - ABROAD - STARTED - NEED_A_RUN
    } <= named


# --- data -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a data set that needs no download is given."""
    folder = tmp_path_factory.mktemp("sources")
    rng = np.random.default_rng(0)
    for number in range(40):
        path = folder / "images" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
    np.savez(folder / "x.npz", images=rng.integers(0, 256, (40, 16, 16), dtype=np.uint8), labels=np.arange(40) % 4)
    small_images = rng.integers(0, 256, (40, 6, 4, 3), dtype=np.uint8)
    np.savez(folder / "small.npz", images=small_images, labels=np.arange(40) % 4)
    np.savez(folder / "unlabelled.npz", images=small_images)
    cache = f"data.cache_dir={folder / 'cache'}"
    return {
        "digits": (),
        "shapes": ("data.image_size=16", "data.num_train=40", "data.num_val=10"),
        "array": (f"data.path={folder / 'x.npz'}", cache),
        "image_folder": (f"data.root={folder / 'images'}", cache),
        "image_folder without labels": (f"data.root={folder / 'images' / 'a'}", "data.batch_size=8", cache),
        "array of few pixels": (f"data.path={folder / 'small.npz'}", cache),
        "array without labels": (f"data.path={folder / 'unlabelled.npz'}", cache),
        "text_file": text_file(folder),
    }


DATA = ("digits", "shapes", "array", "image_folder", "image_folder without labels")
OF_FEW_PIXELS = ("digits", "array of few pixels", "array without labels")
OF_FAMILIES = {f: OF_FEW_PIXELS if draws_tokens(f) else DATA for f in FAMILIES if samples(f)}
# Families take turns at the data in `make test`; `make matrix` has the others.
ON_DATA = [
    pytest.param(family, data, marks=[] if i % len(given) == j else [pytest.mark.matrix],
                 id=f"{family}-{data.replace(' ', '_')}")
    for i, (family, given) in enumerate(OF_FAMILIES.items())
    for j, data in enumerate(given)
]  # fmt: skip


@pytest.mark.parametrize(("family", "data"), ON_DATA)
def test_every_family_on_every_data_set(family: str, data: str, sources: dict[str, Any], tmp_path: Path) -> None:
    """A whole run, with an evaluation, and samples from what it saved."""
    given = (f"data={data.split()[0]}", *sources[data], "metrics=[fid]", "metrics/extractor=random", "data.limit=16",
             "budget.value=16", "callbacks.evaluation.num_samples=4")  # fmt: skip
    autoencoder = ""
    if family == "latent_diffusion":
        autoencoder = f"model.autoencoder={train(*small(*AUTOENCODER), *given, outputs=tmp_path / 'vae')}"
    run = train(*small(*needed((f"model={family}",), autoencoder)), *given, outputs=tmp_path / "run")
    config = run_folder.read_config(run)
    assert (run / "summary.json").exists()
    model, weights = load_run(OmegaConf.create(config), run)
    assert weights == "ema"
    assert list(sample_images(model, range(2), 0).shape) == [2, *config["spec"]["shape"]]
    assert (model.num_classes is None) == ("without" in data or config["model"]["conditions"] == [])


@pytest.mark.parametrize("data", DATA, ids=lambda value: value.replace(" ", "_"))
def test_a_classifier_on_every_data_set_with_labels(data: str, sources: dict[str, Any], outputs: Path) -> None:
    given = small("model=classifier", f"data={data.split()[0]}", *sources[data], "metrics=[accuracy]", "data.limit=16",
                  "budget.value=16")  # fmt: skip
    if "without" in data:
        with pytest.raises(ConfigError, match=r"^model: a classifier needs labels, and the data have none\."):
            train(*given, outputs=outputs)
        assert not outputs.exists()
        return
    run = train(*given, outputs=outputs)
    assert 0 <= json.loads((run / "summary.json").read_text())["metrics"]["accuracy_val"] <= 1


@pytest.mark.parametrize("tokenizer", ["bytes", "characters", "bpe"])
@pytest.mark.parametrize("family", [family for family in FAMILIES if takes_text(family)])
def test_text_under_every_tokenizer(family: str, tokenizer: str, sources: dict[str, Any], tmp_path: Path) -> None:
    """A whole run, with an evaluation, and the same text from what it saved."""
    given = (f"model={family}", *sources["text_file"], f"data/tokenizer={tokenizer}", "budget.value=16",
             *(("metrics=[perplexity]", "callbacks.samples.times=1") if samples(family) else
               ("metrics=[pseudo_perplexity]",)))  # fmt: skip
    run = train(*small(*given), outputs=tmp_path)
    assert (run / "summary.json").exists()
    texts = [""] * 2
    for number, name in enumerate(("a.txt", "b.txt") if samples(family) else ()):
        command_line(["sample", f"run={run}", "n=3", f"out={run / name}"])
        texts[number] = (run / name).read_text()
    assert texts[0] == texts[1]
    command_line(["evaluate", f"run={run}"])
    (report,) = run.glob("evaluation-*.json")
    measured = json.loads(report.read_text())["metrics"]
    assert measured == pytest.approx(json.loads((run / "summary.json").read_text())["metrics"], rel=1e-6)


@pytest.mark.parametrize("family", [family for family in FAMILIES if not takes_text(family)])
def test_families_of_images_refuse_text(family: str, sources: dict[str, Any], autoencoder: str, outputs: Path) -> None:
    choice = (*needed((f"model={family}",), autoencoder), *sources["text_file"])
    with pytest.raises(ConfigError) as refused:
        command_line(["train", *choice, "logger=[none]", f"outputs={outputs}"])
    assert re.search(r"cannot be trained on text data\.|model\.autoencoder was trained on images", str(refused.value))
    assert not outputs.exists()


def test_missing_values_are_asked_for_one_by_one(tmp_path: Path) -> None:
    assert list(missing(TREE.compose(["model=latent_diffusion", "data=image_folder"]))) == [
        "data.root",
        "model.autoencoder",
    ]
