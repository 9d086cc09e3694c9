"""Scorers of the package sacrebleu, which comes with the extra ``text``."""

from typing import Any

from genlab.errors import ConfigError


def scorer(metric: str, kind: str, **options: Any) -> Any:
    """Make one of its scorers. Raises ConfigError: the package is not installed, or refuses an option."""
    try:
        import sacrebleu.metrics
    except ImportError as error:
        raise ConfigError(f"metrics={metric} needs a package: pip install 'genlab[text]'") from error
    try:
        return getattr(sacrebleu.metrics, kind)(**options)
    except (AssertionError, KeyError, ImportError, RuntimeError) as error:
        told = ", ".join(f"metrics.{metric}.{name}={value}" for name, value in options.items())
        raise ConfigError(f"{told}: sacrebleu refuses it. {' '.join(str(error).split())}".rstrip()) from error


def signature(scorer: Any) -> str:
    """Sacrebleu's signature of version and options, for one reference each."""
    scorer.corpus_score(["a"], [["a"]])  # it counts the references when it sees some
    return str(scorer.get_signature().format())
