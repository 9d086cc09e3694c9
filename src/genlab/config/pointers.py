"""Option names of other tools that users type by habit, and genlab's names for them."""

_BUDGET = "Give the run a budget: budget=examples budget.value=1000000."
_RUN = "A run is continued with run=<its folder>."
_MEANT = {  # the name as it is typed, without dashes -> what to type instead
    "lr": "The learning rate is model.optimizer.lr=...",
    "learning_rate": "The learning rate is model.optimizer.lr=...",
    "batch_size": "It belongs to the data: data.batch_size=...",
    "resume": _RUN,
    "resume_from": _RUN,
    "resume_from_checkpoint": _RUN,
    "ckpt": _RUN,
    "ckpt_path": _RUN,
    "checkpoint": _RUN,
    "max_epochs": f"{_BUDGET} Or limit the epochs too: trainer.max_epochs=...",
    "epochs": f"{_BUDGET} Or limit the epochs too: trainer.max_epochs=...",
    "num_epochs": f"{_BUDGET} Or limit the epochs too: trainer.max_epochs=...",
    "max_steps": _BUDGET,
    "steps": _BUDGET,
    "dataset": "Data are chosen with data=...",
    "devices": "It belongs to the trainer: trainer.devices=...",
    "gpus": "Use trainer=gpu trainer.devices=...",
    "precision": "It belongs to the trainer: trainer.precision=bf16-mixed.",
    "output_dir": "Run folders are made in outputs=<folder>.",
    "optimizer": "It belongs to the model: model/optimizer=...",
    "scheduler": "It belongs to the model: model/schedule=...",
    "hydra/launcher": "Many runs are started with -m, and launcher=local, ray or slurm.",
    "hydra/sweeper": "Many runs are started with -m, and sweep=grid, optuna or wandb.",
    "multirun": "Many runs are started with -m.",
}
_OPTIONS = {  # options of a group that are always on, or belong to another group
    ("logger", "csv"): "Every run writes metrics.csv: use logger=[none] for nothing else.",
}


def pointer_for(name: str) -> str | None:
    """The message for an option or flag of another tool; None if it is not known."""
    meant = _MEANT.get(name.lstrip("-+").replace("-", "_"))
    return None if meant is None else f"unknown option '{name}'. {meant}"


def pointer_for_choice(group: str, option: str) -> str | None:
    """The same for an option of a group."""
    return _OPTIONS.get((group, option))
