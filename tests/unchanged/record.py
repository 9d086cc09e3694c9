"""Record what small runs of every family give at fixed seeds, and compare it with an earlier record.

    python tests/unchanged/record.py new.json                                            # about 3 minutes of one core
    python tests/unchanged/record.py new.json --against tests/unchanged/recorded.json    # exit 1 if anything differs
    python tests/unchanged/record.py new.json --only diffusion gan                       # with the parts that they need

Of each run of 20 steps, the record holds its losses, SHA-256 of its final weights and their averages, SHA-256 of what
is sampled from it, and its metrics with their protocol ids. Everything goes through the commands of ``genlab.cli`` and
the files of the run folders, so that the same script records the code before and after its modules move.

Hashes are of one machine: another processor or another version of torch rounds differently. Where these are not what
the earlier record was made with, or with ``--loosely``, only the losses (to 1e-4, relative), what is counted and the
protocol ids are compared. Ids that hash what a machine computed, such as the weights of a classifier that judges, are
left out then.

What may change without anything being wrong: names of tensors (hashes are of their values), and weights that came from
another run and are no longer saved with the runs that use them. A metric that has another name now goes into
``RENAMED``.
"""

import argparse
import csv
import hashlib
import io
import json
import os
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

for _name, _value in {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}.items():
    os.environ[_name] = _value  # before torch reads them

from genlab import cli  # noqa: E402  isort: skip

RENAMED: dict[str, str] = {}  # metrics, by the beginning of their names: what the record says -> what they are now
CLOSE = 1e-4
KEPT = Path(__file__).absolute().parent / "runs"  # run folders that earlier code wrote and left half way
PARTS = ("autoencoder", "tokenizer")  # of a model, trained by another run

COMMON = ("trainer=cpu", "logger=[none]", "budget=examples", "budget.value=160", "data.batch_size=8", "seed=3",
          "trainer.log_every_n_steps=1", "callbacks.evaluation.times=0")  # fmt: skip
DIGITS = (
    "data=digits",
    "evaluation.num_samples=24",
    "callbacks.samples.times=1",
    "callbacks.samples.rows=1",
    "callbacks.samples.columns=4",
)
SHAPES = ("data=shapes", "data.image_size=16", "data.num_train=64", "data.num_val=32", *DIGITS[1:])
TEXT = ("data=text_file", "data.path=text.txt", "data.context=16", "evaluation.num_samples=8",
        "callbacks.samples.times=1", "callbacks.samples.count=2",
        "metrics=[perplexity,distinct,repetition]")  # fmt: skip
UNET = ("model/network=unet", "model.network.channels=8", "model.network.channel_mult=[1,2]",
        "model.network.num_blocks=1", "model.network.num_heads=1", "model.sampler.num_steps=3")  # fmt: skip
DIT = ("model/network=dit_small", "model.network.width=16", "model.network.depth=1", "model.network.num_heads=2",
       "model.sampler.num_steps=3")  # fmt: skip
TOKENS = ("model.network.width=16", "model.network.depth=1", "model.network.num_heads=2")
CONV = ("model.encoder.channels=8", "model.encoder.num_blocks=1", "model.decoder.channels=8",
        "model.decoder.num_blocks=1")  # fmt: skip
FEW = "metrics=[fid,label_accuracy]"
GUIDED = {"guided": ("model.guidance=2",)}
LABEL = {"label": ("label=[3,seven]",)}


@dataclass(frozen=True)
class Run:
    overrides: tuple[str, ...]
    samples: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # beside those that are drawn by default
    evaluations: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    needs: tuple[str, ...] = ()  # the runs that its parts come from
    file: str | None = "samples.npz"  # that samples are written to; None: it draws none
    of_this_python: bool = False  # its data come with Python, and change with it
    own_ids: bool = True  # False: its ids hash what this machine has computed
    continues: str | None = None  # a run folder of KEPT, which goes on to its end instead of a new run


LIKELIHOOD = {"likelihood": ("n=8", "likelihood=2", FEW)}
RUNS = {
    # Parts of others first.
    "vae_latents": Run(("model=vae", *CONV, "model.latent_shape=[4,4,4]", "model.beta=0.1", *DIGITS, FEW)),
    "vq_vae": Run(("model=vq_vae", *CONV, *DIGITS, FEW), samples={"label": ("label=3",)}),
    "classifier": Run(
        ("model=classifier", "model.network.channels=8", "model.network.channel_mult=[1,2]",
         "model.network.num_blocks=1", "data=digits"),
        file=None,
    ),
    "gan": Run(
        ("model=gan", "model.generator.channels=8", "model.discriminator.channels=8", "model.latent_dim=8", *DIGITS,
         "metrics=[fid,label_accuracy,path_length_pixels]", "metrics.path_length_pixels.num_samples=16"),
        samples={"label": ("label=[3,7]",)},
    ),
    "gan_biggan": Run(
        ("model=gan", "model/generator=biggan", "model/discriminator=biggan", "model/objective=hinge",
         "model/augment=diffaugment", "model.generator.channels=8", "model.generator.channel_mult=[1,1,1,1]",
         "model.generator.shared_width=4", "model.discriminator.channels=8",
         "model.discriminator.channel_mult=[1,1,1,1]", "model.latent_dim=8", "model.truncation=0.7", *DIGITS, FEW),
    ),
    "gan_wgan_gp": Run(
        ("model=gan", "model/objective=wgan_gp", "model.generator.channels=8", "model.discriminator.channels=8",
         "model.latent_dim=8", "model.discriminator_steps=2", *DIGITS, FEW),
    ),
    "vae": Run(("model=vae", *CONV, *DIGITS, FEW), evaluations=LIKELIHOOD),
    "hierarchical_vae": Run(
        ("model=hierarchical_vae", "model.ladder.channels=8", "model.ladder.num_blocks=1", *DIGITS, FEW),
        samples={"label": ("label=[3,7]",)}, evaluations=LIKELIHOOD,
    ),
    "diffusion": Run(
        ("model=diffusion", *UNET, *DIGITS, "callbacks.evaluation.times=2", "callbacks.evaluation.num_samples=16"),
        samples={**GUIDED, "label": ("label=[3,7]",), "heun": ("model/sampler=heun", "model.sampler.num_steps=3"),
                 "interval": ("model.guidance=3", "model.guidance_interval=[0.2,5.0]")},
        evaluations={**LIKELIHOOD, "seeds": ("n=12", "seeds=2", "bootstrap=5", "baselines=true",
                                             "evaluation.balanced_classes=true", "model.guidance=2"),
                     "others": ("n=24", "metrics=[density_coverage,cas,intra_fid]")},
    ),
    "diffusion_ddpm": Run(
        ("model=diffusion", *DIT, "model/objective=ddpm", "model/sampler=ancestral", "model.sampler.num_steps=3",
         *DIGITS, FEW),
        samples=GUIDED,
    ),
    "diffusion_flow_matching": Run(
        ("model=diffusion", *DIT, "model/objective=flow_matching",
         "model/objective/coupling=optimal_transport", "model/sampler=euler", "model.sampler.num_steps=3", *DIGITS,
         FEW),
        samples=GUIDED,
    ),
    "consistency": Run(
        ("model=diffusion", *UNET[:-1], "model/objective=consistency", "model/sampler=consistency", *DIGITS, FEW),
    ),
    "diffusion_judged": Run(
        ("model=diffusion", *UNET, *DIGITS, "metrics=[fid,inception_score,label_accuracy,class_balance]",
         "metrics.extractor=runs/classifier"),
        needs=("classifier",), own_ids=False,
    ),
    "diffusion_shapes": Run(
        ("model=diffusion", *UNET, *SHAPES, "metrics=[fid]"),
        samples=GUIDED,
    ),
    "latent_diffusion": Run(
        ("model=latent_diffusion", "model.autoencoder=runs/vae_latents", *DIT[1:], *DIGITS, FEW),
        samples=GUIDED, needs=("vae_latents",),
    ),
    "flow": Run(
        ("model=flow", "model.network.width=8", "model.network.depth=1", *DIGITS, FEW),
        samples=GUIDED, evaluations=LIKELIHOOD,
    ),
    "flow_tarflow": Run(
        ("model=flow", "model/network=tarflow", "model.network.width=16", "model.network.num_blocks=2",
         "model.network.depth=1", "model.network.num_heads=2", *DIGITS, FEW),
        samples=GUIDED,
    ),
    "transformer_pixels": Run(
        ("model=transformer", *TOKENS, *DIGITS, FEW, "evaluation.num_samples=12"), samples=GUIDED,
        evaluations=LIKELIHOOD,
    ),
    "transformer_codes": Run(
        ("model=transformer", *TOKENS, "model.tokenizer=runs/vq_vae", *DIGITS, FEW),
        samples={**GUIDED, "label": ("label=[3,7]",)}, needs=("vq_vae",),
    ),
    "masked_pixels": Run(
        ("model=masked", "model/optimizer=muon", *TOKENS, "model.sampler.num_steps=3",
         "model.num_likelihood_samples=2", *DIGITS, FEW),
        samples=GUIDED, evaluations=LIKELIHOOD,
    ),
    "masked_codes": Run(
        ("model=masked", *TOKENS, "model.sampler.num_steps=3", "model.tokenizer=runs/vq_vae", *DIGITS, FEW),
        samples=GUIDED, needs=("vq_vae",),
    ),
    "transformer_text": Run(
        ("model=transformer", *TOKENS, "model.sample_length=20", *TEXT, "evaluation.prompt_length=8"),
        samples={"prompt": ("prompt=Who said ",)}, file="samples.txt",
    ),
    "transformer_text_bpe": Run(
        ("model=transformer", "model/network=gpt2", *TOKENS, "model.sample_length=20", *TEXT,
         "data/tokenizer=bpe", "data.tokenizer.vocab_size=300"),
        samples={"prompt": ("prompt=la",)}, file="samples.txt",
    ),
    "transformer_python_docs": Run(
        ("model=transformer", "model/network=llama", *TOKENS, "model.network.num_kv_heads=1", "data=python_docs",
         "model.sample_length=20", "data.context=16", "evaluation.num_samples=8", "callbacks.samples.times=1",
         "callbacks.samples.count=2"),
        file="samples.txt", of_this_python=True,
    ),
    "masked_text": Run(
        ("model=masked", *TOKENS, "model.sampler.num_steps=3", "model.num_likelihood_samples=2", *TEXT,
         "data/tokenizer=characters"),
        samples={"prompt": ("prompt=Who said ",)}, file="samples.txt",
    ),
    "kept_diffusion": Run((), continues="diffusion-digits", samples=GUIDED),
    "kept_text": Run((), continues="transformer-text", samples={"prompt": ("prompt=la",)}, file="samples.txt"),
}  # fmt: skip


# --- recording --------------------------------------------------------------------------------------------------------


def record(names: Iterable[str], folder: Path) -> dict[str, Any]:
    """What the runs of ``names`` give; made in ``folder``, which becomes the current one."""
    os.environ["GENLAB_CACHE"] = str(folder / "cache")  # so that nothing that earlier code has kept is used
    os.environ["XDG_CONFIG_HOME"] = str(folder / "settings")
    os.environ |= {"GENLAB_MATMUL": "onednn", "GENLAB_ATTENTION": "fused"}  # none may choose for itself
    os.chdir(folder)
    Path("text.txt").write_text(text(), encoding="utf-8")
    Path("runs").mkdir()
    shutil.copy(KEPT / "text.txt", "runs/text.txt")
    recorded = {}
    for name in names:
        print(name, end=" ", flush=True, file=sys.stderr)
        recorded[name] = record_run(RUNS[name], Path("runs", name))
    print(file=sys.stderr)
    return {"machine": machine(), "runs": recorded}


def text() -> str:
    """3,000 characters, some of them of several bytes."""
    sentences = ("A naïve façade costs 5 €. ", 'Who said "x = [1, 2]"?\n', "𝄞 la la la, ", "and so on. ")
    return "".join(sentences[i * i % 7 % 4] for i in range(160))


def record_run(run: Run, folder: Path) -> dict[str, Any]:
    if run.continues is None:
        genlab("train", *COMMON, *run.overrides, f"folder={folder}")
    else:
        shutil.copytree(KEPT / run.continues, folder)
        genlab("train", f"run={folder}")
    rows, checkpoint = metrics_rows(folder), newest_checkpoint(folder)
    summary = json.loads((folder / "summary.json").read_text())
    found: dict[str, Any] = {
        "losses": columns(rows, lambda name: name.startswith("train/") or name == "val/loss"),
        "gradients": columns(rows, lambda name: name == "monitor/gradient_norm"),
        "watched": columns(rows, lambda name: name.startswith("val/") and name != "val/loss"),
        "weights": hashes_of(checkpoint["state_dict"]),
        "averages": hashes_of(checkpoint["ema"]),
        "grids": {path.name: hash_of_file(path) for path in sorted((folder / "samples").glob("*"))},
        **measured(summary),
        "counts": {name: summary[name] for name in ("examples", "flops", "parameters", "evaluations_per_sample")
                   if name in summary},
        "samples": {},
        "evaluations": {},
    }  # fmt: skip
    if run.file is not None:
        for name, typed in {"default": (), **run.samples}.items():
            out = folder.with_name(f"{folder.name}-{name}-{run.file}")
            genlab("sample", f"run={folder}", "n=3", "seed=5", f"out={out}", *typed)
            found["samples"][name] = hash_of_file(out)
    for name, typed in run.evaluations.items():
        before = set(folder.glob("evaluation*.json"))
        genlab("evaluate", f"run={folder}", *typed)
        (written,) = set(folder.glob("evaluation*.json")) - before
        found["evaluations"][name] = measured(json.loads(written.read_text()))
    return found


def genlab(*words: str) -> None:
    """A command, in this process. Raises RuntimeError if it fails."""
    said = io.StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said):
            cli.main(list(words))
    except SystemExit as end:
        if end.code:
            raise RuntimeError(f"genlab {' '.join(words)}\nleft with {end.code}:\n{said.getvalue()}") from None


def metrics_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def columns(rows: list[dict[str, str]], chosen: Callable[[str], bool]) -> dict[str, list[float]]:
    """The values of some columns, without the rows in which they are empty."""
    names = [name for name in rows[0] if chosen(name)]
    return {name: [float(row[name]) for row in rows if row[name]] for name in sorted(names)}


def newest_checkpoint(folder: Path) -> dict[str, Any]:
    import torch

    checkpoints = folder / "checkpoints"
    path = checkpoints / (checkpoints / "newest").read_text().strip()
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return content


def hashes_of(tensors: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of the values of each part of a model, whatever the tensors within it are called."""
    parts = defaultdict(list)
    for name, tensor in tensors.items():
        content = f"{tensor.dtype} {tuple(tensor.shape)} ".encode() + tensor.contiguous().numpy().tobytes()
        parts[name.partition(".")[0]].append(hashlib.sha256(content).hexdigest())
    return {part: hashlib.sha256("".join(sorted(each)).encode()).hexdigest() for part, each in sorted(parts.items())}


def hash_of_file(path: Path) -> str:
    """SHA-256 of the pixels of a picture, of the arrays of an archive, or of a text."""
    digest = hashlib.sha256()
    if path.suffix == ".npz":
        import numpy as np

        with np.load(path) as arrays:
            for name in sorted(arrays.files):
                digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode() + arrays[name].tobytes())
    elif path.suffix == ".png":
        from PIL import Image

        with Image.open(path) as image:
            digest.update(f"{image.mode} {image.size}".encode() + image.tobytes())
    else:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def measured(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics, with what they were measured with."""
    names = ("metrics", "deviations", "errors", "baselines", "ids", "protocol", "protocol_id")
    return {name: summary[name] for name in names if name in summary}


def machine() -> dict[str, str]:
    """What the last bits of a number depend on."""
    import numpy
    import sklearn
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    return {
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "scikit-learn": sklearn.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "processor": processor,
    }


# --- comparing --------------------------------------------------------------------------------------------------------


def differences(old: dict[str, Any], new: dict[str, Any], *, loosely: bool) -> Iterator[str]:
    """Every way in which the runs of ``new`` are not as in ``old``, one line each."""
    same_python = old["machine"]["python"] == new["machine"]["python"]
    for name, found in new["runs"].items():
        if name not in old["runs"]:
            yield f"{name}: is not in the earlier record"
            continue
        expected = old["runs"][name]
        if loosely:
            if RUNS[name].of_this_python and not same_python:
                continue
            expected, found = portable(expected, RUNS[name]), portable(found, RUNS[name])
        for path, before, after in unequal(renamed(expected), found, close=CLOSE if loosely else 0.0):
            saved_elsewhere = path[0] in ("weights", "averages") and path[-1] in PARTS and after is None
            if not saved_elsewhere:
                yield f"{name}: {' '.join(path)}: {short(before)} is now {short(after)}"


def portable(found: dict[str, Any], run: Run) -> dict[str, Any]:
    """What any machine has in common."""
    kept = ("losses", "counts") + (("ids", "protocol_id", "protocol") if run.own_ids else ())
    return {key: portable(value, run) if key == "evaluations" else value for key, value in found.items()
            if key in kept} | {
        "evaluations": {name: portable_evaluation(each, run) for name, each in found.get("evaluations", {}).items()}
    }  # fmt: skip


def portable_evaluation(found: dict[str, Any], run: Run) -> dict[str, Any]:
    return {key: found[key] for key in ("ids", "protocol_id", "protocol") if run.own_ids and key in found}


def renamed(node: Any) -> Any:
    """A record in which metrics have the names of today."""
    if not isinstance(node, dict):
        return node
    return {new_name(key): renamed(value) for key, value in node.items()}


def new_name(key: str) -> str:
    for old, new in RENAMED.items():
        for before in ("", "val/"):
            if key == before + old or key.startswith(f"{before}{old}_"):
                return before + new + key.removeprefix(before + old)
    return key


def unequal(old: Any, new: Any, close: float, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """Path, value before and value now of each leaf that is not the same; numbers may differ by ``close``, relative."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from unequal(old.get(key), new.get(key), close, (*path, key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from unequal(before, after, close, (*path, str(index)))
    elif isinstance(old, float) and isinstance(new, float):
        both_nan = old != old and new != new
        if not both_nan and not (old == new or abs(old - new) <= close * max(abs(old), abs(new))):
            yield path, old, new
    elif old != new:
        yield path, old, new


def short(value: Any) -> str:
    told = "nothing" if value is None else value[:12] if isinstance(value, str) else repr(value)
    return told if len(told) < 60 else f"{told[:60]} ..."


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="the JSON to write")
    parser.add_argument("--against", type=Path, help="an earlier record")
    parser.add_argument("--loosely", action="store_true", help="compare what any machine has in common")
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS), metavar="RUN", help="some of the runs")
    parser.add_argument("--runs", type=Path, help="an empty folder that keeps the runs")
    given = parser.parse_args()
    out, earlier = given.out.absolute(), given.against and json.loads(given.against.read_text())
    wanted = {*given.only, *(part for name in given.only for part in RUNS[name].needs)}
    names = [name for name in RUNS if name in wanted]
    with tempfile.TemporaryDirectory() as temporary:
        if given.runs is not None:
            given.runs.mkdir(parents=True, exist_ok=True)
        here = Path.cwd()
        new = record(names, (given.runs or Path(temporary)).absolute())
        os.chdir(here)
    out.write_text(json.dumps(new, indent=1) + "\n")
    if earlier is None:
        return 0
    other = sorted(key for key in new["machine"] if earlier["machine"].get(key) != new["machine"][key])
    if other:
        print(f"the earlier record has another {', '.join(other)}: compared loosely")
    found = list(differences(earlier, new, loosely=given.loosely or bool(other)))
    print("\n".join(found) if found else f"{len(names)} runs: nothing has changed")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
