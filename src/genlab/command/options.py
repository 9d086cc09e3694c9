"""The commands' own options beside the config, each with the type of its default."""

import math
from typing import Any, Literal

from genlab.config.overrides import parse
from genlab.config.quantities import as_count, as_number
from genlab.errors import ConfigError
from genlab.files.paths import expanded

# The options of each command, with default and meaning; all others belong to the config.
OPTIONS: dict[str, dict[str, tuple[Any, str]]] = {
    "train": {
        "run": (None, "continue this run, with the other typed options changed"),
        "folder": (None, "the new run's folder. Default: outputs/<model>-<data>/<time>-<id>"),
        "allow_changes": (False, "continue even if the data, or a setting that affects training, are changed"),
    },
    "sample": {
        "run": (..., "the run to sample from"),
        "n": (None, "how many samples. Default: 64 images, 1 text, or a caption of each picture"),
        "seed": (0, "sample i of a seed is always the same, with any batch size"),
        "label": (None, "a class by number or name, or several in turn: [1,2]. Default: one class after the other"),
        "prompt": (
            None,
            "the beginning of a text, which samples continue; or a caption, for a model conditioned on captions",
        ),
        "negative": (None, "a caption that guidance leads away from, in place of none"),
        "negative_label": (None, "a class that guidance leads away from, by number or name"),
        "attributes": (None, "numbers from 0 to 1, for a model conditioned on some: size=1,x=0.2,y=0.7"),
        "image": (None, "for a model that describes pictures: a picture, several ([a.png,b.png]) or a folder"),
        "hint": (None, "for model=control: a picture that the hint is drawn from, or several: [a.png,b.png]"),
        "adapters": (None, "runs of model/adapter=lora or model=concept whose base is this run: [outputs/a,outputs/b]"),
        "adapter_weights": (None, "with adapters: a factor of the update of each, [1.0,0.5]. Default: 1 each"),
        "batch_size": (64, "how many at a time"),
        "out": (None, "x.png: a grid; x.npz: an array; a folder: one PNG each; x.txt. Default: in the run's samples/"),
        "frames": (
            None,
            "a walk through n=8 samples: pictures from each to the next; out=x.gif or x.mp4 (with 30)",
        ),
        "fps": (None, "of a walk: pictures a second. Default: 30"),
        "project": (None, "a picture, that a StyleGAN2 is to find: gives a .png of both, and a .safetensors"),
        "steps": (None, "with project: how many steps of the search. Default: 1000, the paper's"),
        "features": (
            None,
            "with project: what compares pictures: discriminator, the run's own, or vgg (LPIPS, 528 MB)",
        ),
        "direction": (None, "a direction that the command directions found, by number or label, or several: [0,2]"),
        "strength": (None, "with direction: how far samples are moved, in standard deviations, or of each: [1,-2]"),
        "best_of": (None, "of so many candidates for each sample the best by the judge"),
        "judge": (
            None,
            "with best_of: a run of classifier (with label=) or of contrastive_text (with prompt=), or scenes",
        ),
    },
    "directions": {
        "run": (..., "the run in whose latent space directions are found"),
        "method": ("pca", "sefa: of weights; pca: of samples; label: to what has a label"),
        "count": (5, "how many directions; of labels: one each"),
        "judge": (
            None,
            "with method=label: a run of model=classifier, which labels samples. Default: data's own labels",
        ),
        "label": (None, "with method=label: this class alone, by number or name, or several: [1,2]"),
        "samples": (1000, "how many samples, or examples of the data, directions are found by"),
        "n": (2, "how many samples the picture shows along each direction"),
        "strength": (3.0, "how far they are moved to both sides, in standard deviations"),
        "columns": (7, "pictures in a row, an odd number: the one in the middle is the sample itself"),
        "seed": (0, "of the samples"),
        "batch_size": (64, "how many at a time"),
        "out": (None, "x.png, x.npz or a folder, for the pictures. Default: in the run's samples/"),
    },
    "edit": {
        "run": (..., "the run that edits: of diffusion, masked, transformer, flow, VAE or GAN"),
        "image": (..., "the picture, or two to go between: [a.png,b.png]; with super_resolution the small one"),
        "method": (
            None,
            "inpaint, sdedit, invert, interpolate, ddrm or dps. Default: what the other options are of",
        ),
        "mask": (
            None,
            "a picture, white where image is to be replaced: inpaint (RePaint for diffusion), or invert (DiffEdit)",
        ),
        "box": (None, "or a rectangle of the picture to be replaced: [x0,y0,x1,y1] in pixels"),
        "extend": (None, "or what to add around it, in pixels of the model: [left,top,right,bottom]"),
        "strength": (None, "sdedit, invert, inpaint by diffusion: the share of the steps, 0 (nothing changes) to 1"),
        "super_resolution": (None, "method=ddrm or dps: how many times more pixels a side"),
        "colorize": (False, "method=ddrm or dps: colors for a gray picture"),
        "deblur": (None, "method=ddrm or dps: without a Gaussian blur of this many pixels"),
        "noise": (None, "of what ddrm or dps begins with: the standard deviation, in gray levels. Default: 0"),
        "label": (None, "a class that the result is of, by number or name, or several in turn. Default: none"),
        "prompt": (None, "or a caption, for a model conditioned on captions"),
        "source_label": (None, "method=invert: the class of the picture, which is given label= in its place"),
        "source_prompt": (None, "or its caption"),
        "n": (None, "how many results. Default: 4, or one for each label; 8 pictures of interpolate; 1 of invert"),
        "seed": (0, "result i of a seed is always the same, with any batch size"),
        "steps": (None, "of the ODE (invert, interpolate: 40) or of the search by VAEs and GANs (300), flows (100)"),
        "resamplings": (None, "of each stretch of inpainting by diffusion. Default: 10"),
        "jump_length": (None, "the levels of a stretch. Default: 1"),
        "batch_size": (16, "how many at a time"),
        "out": (None, "x.png: a strip; x.npz; a folder; x.gif or x.mp4 of interpolate. Default: in the run's samples/"),
        "fps": (None, "pictures a second of a .gif or .mp4. Default: 10"),
    },
    "chat": {
        "run": (..., "the run to talk with, trained on conversations"),
        "system": (None, "a message of the role system, before the first line"),
        "seed": (0, "the same lines get the same answers"),
    },
    "feedback": {
        "run": (None, "the run whose samples people judge; written twice, the two that are compared"),
        "samples": (None, "or a folder of pictures, videos or texts; written twice: files of one name are compared"),
        "import": (None, "or a .jsonl file of judgments: prompt, chosen, rejected; or prompt, completion, rating"),
        "prompts": (None, "a .txt file with a prompt a line, or a .jsonl file with a column prompt"),
        "n": (None, "how many pairs, or ratings of each run. Default: one for each prompt; without prompts, 50"),
        "seed": (0, "of the samples, and of which side each is shown on"),
        "rate": (False, "rate single samples from 1 to 5, in place of comparing two"),
        "batch_size": (64, "how many pictures are drawn at a time"),
        "port": (0, "of the page, at 127.0.0.1. 0: any free one"),
        "out": (None, "the folder of samples and judgments: a new one, or alone, one to go on with"),
        "report": (None, "or a folder of which to print agreement, bias and win rate"),
        "export": (None, "with report: a .jsonl file for the judgments as preference data"),
    },
    "evaluate": {
        "run": (None, "the run to evaluate"),
        "images": (None, "or images to measure without a model: a folder, a .npz or a .npy file"),
        "reference": (None, "with images: the images to compare with, likewise; or data=..., for its held-out split"),
        "image_key": (None, "with images: the name of the images in a .npz; data.image_key: in the reference"),
        "on_bad": ("stop", "with images: a damaged file: stop, or skip up to 0.1 % of them"),
        "n": (None, "how many samples; by default as many as at the end of training"),
        "seed": (None, "the seed of the samples; by default the config's evaluation.seed"),
        "seeds": (None, "sets of samples, each with its own seed: 3 give means and their spread"),
        "bootstrap": (None, "bootstrap resamplings of the samples: 200 give standard errors"),
        "likelihood": (0, "also bits per dimension of this many held-out images (slow)"),
        "best_of": (None, "measure the best of so many candidates for each sample, by the judge"),
        "judge": (None, "with best_of: a run of classifier or of contrastive_text, or scenes"),
        "baselines": (False, "also score baselines without a model: noise, simple statistics, and real data"),
        "out": (None, "with images: a .json file for the numbers and their protocol"),
    },
    "export": {
        "run": (..., "the run whose weights are written, averaged where it has averages"),
        "format": (
            ...,
            "transformers: a folder that from_pretrained loads; safetensors: of any run; peft: an adapter",
        ),
        "out": (..., "the folder, a new one"),
    },
    "verify": {
        "run": (None, "a run of a recipe: judged from its files if it is finished, else continued"),
    },
    "plan": {
        "hours": (None, "hours of training: which model size makes the best use of them"),
        "flops": (None, "or a number of floating-point operations: how long they take"),
        "examples": (None, "or a number of examples. Default: the config's budget"),
        "steps": (
            5000,
            "optimizer steps that a training should at least make, which rules out models that are too large",
        ),
    },
    "compare": {
        "runs": (..., "the runs to compare: [a,b], or a folder that holds some at any depth"),
        "out": (None, "the folder for tables, pictures and plots. Default: comparison-<time> beside the runs"),
        "sort": (None, "the column to sort by, best first. Default: the first metric"),
        "protocol": (None, "the id of the evaluation protocol to compare by. Default: that of most runs"),
        "allow_unequal": (False, "show and mark numbers measured by another protocol, instead of refusing them"),
        "plots": (True, "also draw curves, sampling costs and, for a sweep, the effect of its settings"),
        "transfer": (False, "also say what it gained to begin with other weights, at equal examples and FLOPs"),
        "wandb": (False, "also send the table and the plots to Weights & Biases"),
    },
}

FEATURES = ("discriminator", "vgg")  # of sample project=...
FORMATS = ("transformers", "safetensors", "peft")  # of export
_PATHS = (
    *("run", "folder", "out", "images", "reference", "prompts", "report", "export", "samples", "import"),
    *("project", "mask", "judge"),
)
METHODS = {  # by command
    "edit": ("inpaint", "sdedit", "invert", "interpolate", "ddrm", "dps"),
    "directions": ("sefa", "pca", "label"),
}
# What each method takes beside the options of all.
_OF_METHODS = {
    "inpaint": ("mask", "box", "extend", "steps", "strength", "resamplings", "jump_length", "n", "batch_size"),
    "sdedit": ("strength", "n", "batch_size"),
    "invert": ("mask", "box", "source_label", "source_prompt", "steps", "strength", "n", "batch_size"),
    "interpolate": ("n", "steps", "fps"),
    "ddrm": ("mask", "box", "extend", "super_resolution", "colorize", "deblur", "noise", "n", "batch_size"),
}
_OF_METHODS["dps"] = (*_OF_METHODS["ddrm"], "strength")
_OF_ALL = ("run", "image", "method", "label", "prompt", "seed", "out", "batch_size")
_MEASURED = ("super_resolution", "colorize", "deblur")
OF_IMAGES = ("images", "reference", "out", "image_key", "on_bad")  # options of evaluate without a run


def take_options(command: str, overrides: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The command's own options, converted to the type of their defaults, and the config's. Raises ConfigError."""
    known = OPTIONS[command]
    values = {name: default for name, (default, _) in known.items()}
    rest = []
    for name in (
        "prompt",
        "negative",
        "system",
        "source_prompt",
        "attributes",
    ):  # free text, which Hydra does not parse
        if name in known:
            typed = [text for text in overrides if text.startswith(f"{name}=")]
            overrides = [text for text in overrides if text not in typed]
            values[name] = next((text.removeprefix(f"{name}=") for text in reversed(typed)), None)
    for override in parse(overrides):
        name = str(override.key_or_group)
        if name not in known:
            rest.append(override.input_line or "")
        elif override.is_delete():
            raise ConfigError(f"{override.input_line}: nothing to delete, {name} is not a part of the config.")
        elif command == "feedback" and name in ("run", "samples"):  # one, or two
            value = override.value()
            typed_runs = value if isinstance(value, list) else [value]
            values[name] = [*(values[name] or []), *(_typed(command, name, one, ...) for one in typed_runs)]
        else:
            values[name] = _typed(command, name, override.value(), known[name][0])
    missing = [name for name, value in values.items() if value is ...]
    if missing:
        example = "outputs/<model>-<data>" + ("" if missing[0] == "runs" else "/<run>")
        example = {"format": "transformers", "out": "exported", "image": "picture.png"}.get(missing[0], example)
        raise ConfigError(f"{missing[0]} has no value. Set it: {missing[0]}={example}")
    return values, rest


def _typed(command: str, name: str, value: Any, default: Any) -> Any:
    """The value of a command's own option. Raises ConfigError if it is of another type."""
    if value is None and default in (None, ...):
        return default
    if name in _PATHS and type(default) is not int:
        return expanded(str(value))
    if name == "features":
        if value not in FEATURES:
            raise ConfigError(f"features must be {' or '.join(FEATURES)}, got {value!r}.")
        return value
    if name == "direction":
        return _several(name, value, (int, str), "a number or a label")
    if (command, name) == ("sample", "strength"):
        return [float(each) for each in _several(name, value, (int, float), "a number")]
    if name == "on_bad":
        if value not in ("stop", "skip"):
            raise ConfigError(f"on_bad must be stop or skip, got {value!r}.")
        return value
    if name == "format":
        if value not in FORMATS:
            raise ConfigError(f"format must be {', '.join(FORMATS[:-1])} or {FORMATS[-1]}, got {value!r}.")
        return value
    if name in ("sort", "protocol", "image_key"):
        return str(value)
    if name == "runs":
        return [expanded(str(run)) for run in (value if isinstance(value, list) else [value])]
    if name == "adapters":
        return [expanded(str(run)) for run in (value if isinstance(value, list) else [value])]
    if name == "adapter_weights":
        return _weights(value)
    if name == "negative_label":
        if type(value) not in (int, str):
            raise ConfigError(f"negative_label must be one class, by its number or name, got {value!r}.")
        return value
    if name in ("label", "source_label"):
        return _labels(value, name)
    if name in ("box", "extend"):
        if not isinstance(value, list) or len(value) != 4 or not all(type(one) is int for one in value):
            shape = "x0,y0,x1,y1" if name == "box" else "left,top,right,bottom"
            raise ConfigError(f"{name} must be four whole numbers, [{shape}], got {value!r}.")
        return value
    if name == "method":
        *others, last = METHODS[command]
        if value not in (*others, last):
            raise ConfigError(f"method must be {', '.join(others)} or {last}, got {value!r}.")
        return value
    if name in ("deblur", "noise") or (command, name) == ("edit", "strength"):
        value = as_number(value)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise ConfigError(f"{name} must be a number >= 0, got {value!r}.")
        return float(value)
    if name in ("image", "hint"):
        return [str(one) for one in (value if isinstance(value, list) else [value])]
    if (name, default) == ("port", 0) and type(value) is int and value > 65535:
        raise ConfigError(f"port must be a whole number from 0 to 65535, got {value}.")
    if name in ("hours", "flops", "strength"):
        value = as_number(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"{name} must be a number, got {value!r}.")
        return float(value)
    value = as_count(value)
    kind, words = (bool, "true or false") if isinstance(default, bool) else (int, "a whole number")
    least = {"n": 1, "batch_size": 1, "likelihood": 0, "seeds": 1, "bootstrap": 0, "examples": 1, "steps": 1, "port": 0}
    least |= {"frames": 1, "fps": 1, "resamplings": 1, "jump_length": 1, "super_resolution": 2}
    least |= {"best_of": 2, "count": 1, "samples": 2, "columns": 3}
    lowest = least.get(name)
    if lowest is not None:
        words = f"a whole number >= {lowest}"
    if name == "columns" and type(value) is int and value % 2 == 0:
        raise ConfigError(f"columns={value} has no middle, where a sample is not moved. Use columns={value + 1}.")
    if type(value) is not kind or (lowest is not None and value < lowest):
        raise ConfigError(f"{name} must be {words}, got {value!r}.")
    return value


def _several(name: str, value: Any, kinds: tuple[type, ...], words: str) -> list[Any]:
    """One value, or several. Raises ConfigError: one is of another type."""
    values = value if isinstance(value, list) else [value]
    if not values or not all(type(each) in kinds for each in values):
        raise ConfigError(f"{name} must be {words}, or several: {name}=[1,2], got {value!r}.")
    return values


def _labels(value: Any, name: str = "label") -> list[int | str]:
    """The classes to sample, in turn: numbers, and names. Raises ConfigError."""
    labels = value if isinstance(value, list) else [value]
    if not labels or not all(type(label) in (int, str) for label in labels):
        raise ConfigError(f"{name} must be a class, by its number or name, or several: {name}=[1,2], got {value!r}.")
    return labels


def edited(options: dict[str, Any]) -> str:
    """The method of ``edit``. Raises ConfigError for options that do not go together."""
    given = [name for name, (default, _) in OPTIONS["edit"].items() if options[name] not in (default, None)]
    method = options["method"] or _method_of(given, options)
    if stray := [name for name in given if name not in (*_OF_ALL, *_OF_METHODS[method])]:
        takes = " or ".join(f"method={name}" for name in METHODS["edit"] if stray[0] in _OF_METHODS[name])
        raise ConfigError(
            f"{stray[0]}={options[stray[0]]} is of {takes}. Leave {stray[0]}= out of method={method}, or change that."
        )
    if len(options["image"]) != (2 if method == "interpolate" else 1):
        raise ConfigError(
            f"image={options['image']}: method={method} takes "
            + ("two pictures. Write image=[a.png,b.png]" if method == "interpolate" else "one picture. Name one.")
        )
    places = [name for name in ("mask", "box", "extend", *_MEASURED) if name in given]
    if method == "invert" and len(places) > 1:
        raise ConfigError("method=invert takes mask= or box=, and both are given. Leave box= out.")
    if method in ("inpaint", "ddrm", "dps") and len(places) != 1:
        found = " and ".join(places) or "nothing of that"
        more = ", or super_resolution=4, colorize=true or deblur=1.5" if method != "inpaint" else ""
        raise ConfigError(
            f"method={method} needs to know what is missing, and {found} is given. Name one: mask=mask.png, "
            f"box=[0,0,4,4] or extend=[4,0,4,0]{more}."
        )
    if method == "sdedit" and "strength" not in given:
        raise ConfigError("method=sdedit needs to know how much may change. Say it: strength=0.5")
    if method != "dps" and "strength" in given and options["strength"] > 1:
        raise ConfigError(f"strength={options['strength']} is a share of the steps. Use strength=1 or less.")
    if method == "inpaint" and "extend" in given and "strength" in given:
        raise ConfigError(
            "strength=... begins with the picture, and extend= adds what is not there. Leave strength= out."
        )
    if method == "interpolate" and options["n"] == 1:
        raise ConfigError("n=1: a way between two pictures has both of them. Use n=2 or more.")
    is_video = str(options["out"] or "").lower().endswith((".gif", ".mp4"))
    if is_video and method != "interpolate":
        raise ConfigError(f"out={options['out']}: a moving picture is of method=interpolate. Use out=edited.png")
    if "fps" in given and not is_video:
        raise ConfigError(f"fps={options['fps']} is of a moving picture. Name one: out=way.gif")
    return method


def _method_of(given: list[str], options: dict[str, Any]) -> str:
    """What the other options are of. Raises ConfigError: of no method."""
    if len(options["image"]) > 1:
        return "interpolate"
    for names, method in (
        (("source_label", "source_prompt"), "invert"),
        (("mask", "box", "extend"), "inpaint"),
        (_MEASURED, "ddrm"),
        (("strength",), "sdedit"),
    ):
        if any(name in given for name in names):
            return method
    raise ConfigError(
        "edit needs to know what should change. Name it, such as mask=mask.png, box=[0,0,4,4], extend=[4,0,4,0], "
        "strength=0.5, super_resolution=4, or method=invert."
    )


def _weights(value: Any) -> list[float]:
    """Numbers, one or several. Raises ConfigError."""
    weights = [as_number(each) for each in (value if isinstance(value, list) else [value])]
    if not weights or not all(type(each) in (int, float) and math.isfinite(each) for each in weights):
        raise ConfigError(f"adapter_weights must be a number for each of the adapters: [1.0,0.5], got {value!r}.")
    return [float(each) for each in weights]


def sampled(options: dict[str, Any]) -> Literal["samples", "walk", "projection"]:
    """What ``sample`` makes. Raises ConfigError for options that do not go together."""
    given = [name for name in OPTIONS["sample"] if options.get(name) is not None]
    for name, needed, example in (
        ("strength", "direction", "direction=0"),
        ("direction", "strength", "strength=2"),
        ("judge", "best_of", "best_of=8"),
        ("best_of", "judge", "judge=outputs/<a run of model=classifier>"),
    ):
        if name in given and needed not in given:
            raise ConfigError(f"{name}=... goes with {needed}=... Add {example}")
    is_video = str(options["out"] or "").lower().endswith((".gif", ".mp4"))
    if options["project"] is not None:
        for name in ("direction", "best_of"):
            if name in given:
                raise ConfigError(f"{name}=...: project=... finds one picture. Leave {name}= out.")
        for name in ("n", "frames", "fps"):
            if name in given:
                raise ConfigError(f"{name}={options[name]}: project=... finds one picture. Leave {name}= out.")
        return "projection"
    for name in ("steps", "features"):
        if name in given:
            raise ConfigError(f"{name}={options[name]} is of a projection. Name a picture: project=picture.png")
    if "frames" not in given and not is_video:
        if "fps" in given:
            raise ConfigError(f"fps={options['fps']} is of a walk. Say how long it is: frames=30")
        return "samples"
    for name in ("direction", "best_of"):
        if name in given:
            raise ConfigError(f"{name}=...: a walk goes through plain samples. Leave {name}= out.")
    if options["n"] == 1:
        raise ConfigError("n=1: a walk goes through two samples or more. Use n=2 or more.")
    return "walk"


def with_reference(options: dict[str, Any], overrides: list[str]) -> list[str]:
    """The overrides of ``evaluate``, including those for compared files. Raises ConfigError."""
    if (options["run"] is None) == (options["images"] is None):
        raise ConfigError("evaluate takes run=outputs/<model>-<data>/<run>, or images=<folder> and reference=<folder>.")
    of_runs = [name for name in ("n", "seed", "seeds", "likelihood", "baselines", "best_of") if options[name]]
    if (options["best_of"] is None) != (options["judge"] is None):
        raise ConfigError("best_of=8 and judge=outputs/<a run of model=classifier> go together: give both, or neither.")
    of_images = [name for name in ("reference", "out", "image_key") if options[name] is not None]
    of_images += ["on_bad"] * (options["on_bad"] != "stop")
    if options["run"] is not None:
        if of_images:
            raise ConfigError(f"{of_images[0]}={options[of_images[0]]} goes with images=..., not with run=...")
        return overrides
    if of_runs:
        raise ConfigError(f"{of_runs[0]}={options[of_runs[0]]} goes with run=..., not with images=...")
    chooses_data = any(override.lstrip("+").partition("=")[0] == "data" for override in overrides)
    if chooses_data == (options["reference"] is not None):
        raise ConfigError(
            f"images={options['images']} are compared with reference=<folder> or with data=<name>: name one of them."
        )
    if chooses_data:
        return overrides
    own, rest = take_options("evaluate", [_of_files(override) for override in overrides])
    if own["on_bad"] != OPTIONS["evaluate"]["on_bad"][0]:
        options["on_bad"] = own["on_bad"]
    of_images, of_reference = options["image_key"], own["image_key"]
    options |= {"image_key": of_images or of_reference, "reference_key": of_reference or of_images}
    return ["data=image_folder", *rest]


def _of_files(override: str) -> str:
    """Where two sets of files are compared, ``data.on_bad=`` holds for both; ``data.image_key=`` is for the reference
    and ``image_key=`` for the images, and one given alone holds for both."""
    name = override.lstrip("+").partition("=")[0]
    return override.lstrip("+").removeprefix("data.") if name in ("data.image_key", "data.on_bad") else override
