"""Style of the plots, written as SVG and PNG with deterministic bytes."""

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a4fb5", "#8c6d31")  # Okabe, Ito
GRAY = "#b8b8b8"
STYLE: dict[str, Any] = {
    "font.size": 9, "font.family": "DejaVu Sans", "text.parse_math": False, "axes.spines.top": False,
    "axes.spines.right": False, "axes.edgecolor": "#666666", "axes.linewidth": 0.8, "axes.grid": True,
    "axes.axisbelow": True, "grid.color": "#e6e6e6", "grid.linewidth": 0.7, "axes.titlesize": 10,
    "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.labelcolor": "#333333", "xtick.color": "#444444",
    "ytick.color": "#444444", "legend.frameon": False, "lines.linewidth": 1.8, "figure.facecolor": "white",
    "savefig.facecolor": "white", "svg.hashsalt": "genlab", "svg.fonttype": "path", "figure.dpi": 100,
    "axes.formatter.useoffset": False,
}  # fmt: skip
PNG_DPI = 160


@contextmanager
def styled() -> Iterator[Any]:
    """matplotlib.pyplot, without a window, in our style."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    style: Any = dict(matplotlib.rcParamsDefault) | STYLE | {"backend": "agg"}
    with warnings.catch_warnings(), matplotlib.rc_context(style):
        warnings.filterwarnings("ignore", "Glyph .* missing")  # of a name in another script: a box is drawn
        yield pyplot


def save(figure: Any, folder: Path, name: str) -> list[str]:
    """-> the files' names. Raises OSError."""
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    safe = re.sub(r"[^A-Za-z0-9._=-]+", "_", name)[:80]
    figure.savefig(folder / f"{safe}.svg", metadata={"Date": None, "Creator": None})
    figure.savefig(folder / f"{safe}.png", dpi=PNG_DPI, metadata={"Software": None})
    pyplot.close(figure)
    return [f"{safe}.svg", f"{safe}.png"]


def spans(numbers: Sequence[float], times: float = 30) -> bool:
    """Whether a logarithmic axis shows these better: all above 0, the largest many times the smallest."""
    return bool(numbers) and min(numbers) > 0 and max(numbers) > times * min(numbers)


def prefixed(axis: Any, unit: str = "") -> None:
    """1,500,000 as 1.5 M; half a second only as 500 ms."""
    from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    engineering = EngFormatter(unit, sep=" ")
    plain = FuncFormatter(lambda x, _: f"{x:g}" if abs(x) < 1 else engineering(x))
    axis.set_major_formatter(engineering if unit else plain)
    if axis.get_scale() == "log":
        low, high = sorted(axis.get_view_interval())
        few = high < 100 * low  # fewer than two decades: their ends alone say little
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,), numticks=6))
        axis.set_minor_formatter(NullFormatter())
    else:
        axis.set_major_locator(MaxNLocator(6))


def clipped(text: str, longest: int = 80) -> str:  # no label is longer: see labels.LONGEST
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def arrange(
    figure: Any,
    left: float = 0.6,
    right: float = 0.15,
    top: float = 0.35,
    bottom: float = 0.55,
    entries: Sequence[tuple[Any, str]] = (),
) -> None:
    """Margins in inches, and below them one legend for all panels; names that begin with _ are shown too."""
    width, height = figure.get_size_inches()
    widest = 0.6 + 0.068 * max((len(clipped(name)) for _, name in entries), default=0)
    across = max(1, min(len(entries), int(width / widest)))
    rows = -(-len(entries) // across)
    below = 0.05 + 0.2 * rows
    if rows:
        figure.set_size_inches(width, height + below)
        height += below
        figure.legend(
            [handle for handle, _ in entries],
            [clipped(name) for _, name in entries],
            loc="lower center",
            bbox_to_anchor=(0.5, 0.02 / height),
            ncols=across,
            handlelength=1.6,
            borderaxespad=0.1,
        )
    figure.subplots_adjust(
        left=left / width,
        right=1 - right / width,
        top=1 - top / height,
        wspace=0.06,
        bottom=(bottom + below * bool(rows)) / height,
    )
