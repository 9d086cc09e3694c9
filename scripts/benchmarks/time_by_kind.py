"""Where the time of a step goes: shares by kind of work, from torch's profiler.

In a pass of a few steps of its own, after those that are timed, since a profiler slows what it looks at, small
operators and what is between them most. The time that an operator takes itself, without the operators that it calls,
counts for its kind; what no operator takes is Python, and torch on its way from one operator to the next.
"""

import re
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from torch.autograd.profiler import profile

PRODUCTS = "products and convolutions"
ATTENTION = "attention"
NORMALIZATION = "normalization"
ELEMENTWISE = "elementwise and copies"
OPTIMIZER = "optimizer"
RANDOM = "random numbers"
BETWEEN = "Python and dispatch"
OTHER = "other"
KINDS = (PRODUCTS, ATTENTION, NORMALIZATION, ELEMENTWISE, OPTIMIZER, RANDOM, BETWEEN, OTHER)

# What has a kind with all that it calls: torch's own operators, and functions of genlab with a gradient of their own.
WHOLES = {
    ATTENTION: r"_Fused(Backward)?|.*scaled_dot_product.*attention.*",
    NORMALIZATION: r"_ChannelsLast(Backward)?|(native_)?(batch|layer|group|rms)_norm\w*|_?fused_rms_norm\w*",
    OPTIMIZER: r"_fused_\w+|_foreach_\w+",
}
# Other names of operators, without their namespace: regular expressions of the whole name; the first kind that fits.
OPERATORS = {
    PRODUCTS: r"""mm|addmm|bmm|baddbmm_?|addbmm|matmul|linear|mv|addmv_?|v?dot|ger|outer|einsum
        |(linalg|_linalg|cholesky)_\w+|(_|mkldnn_|thnn_|slow_)*conv\w*|mkldnn_\w+|_nnpack_available|svd|eig\w*""",
    RANDOM: r"""(rand|randn|randint|randperm)(_like)?|random_?|(normal|uniform|bernoulli|exponential)_?|multinomial
        |native_dropout\w*|dropout_?|feature_dropout""",
    BETWEEN: r"""autograd::.*|torch::autograd::.*|\w*Backward\d*|_Gathered|_Chunked|Optimizer\..*|ProfilerStep.*
        |enumerate\(DataLoader.*|\[.*\]|_?(unsafe_)?(view|reshape|expand|broadcast)\w*|_reshape_\w+|as_strided_?|t|numpy_T|m[TH]|matrix_H|transpose_?|permute|flatten
        |unflatten|(un)?squeeze_?|select|slice|narrow|(unsafe_|tensor_)?split\w*|(unsafe_)?chunk|unbind|unfold|movedim|diagonal
        |detach_?|alias|lift_fresh\w*|resolve_\w+|result_type|promote_types|item|is_\w+|_local_scalar_dense|set_|resize_(as_)?
        |(new_)?empty\w*|to|type_as|contiguous|_to_copy|_has_\w+|requires_grad_|real|equal|_version\w*|_cast_\w+|conj\w*
        |_conj\w*|size|stride|adjoint|refine_names|swapaxes|record_\w+""",
    NORMALIZATION: r"(linalg_)?(vector_)?norm|(std|var)(_mean)?|_?weight_norm\w*|rsqrt_?|_batch_norm_\w+",
    ELEMENTWISE: r"""copy_|clone|(_|h|v)?cat|(v|h)?stack|concat|(fill|zero)_|(zeros|ones|full)(_like)?
        |new_(zeros|ones|full)|scalar_tensor|arange|linspace|eye|(tril|triu)\w*|repeat\w*|_?index\w*|_unsafe_\w+|gather\w*|scatter\w*|take\w*
        |embedding\w*|masked_\w+|where|flip|roll|pad|\w+_pad\w*|pixel_(un)?shuffle|tile|one_hot|nonzero\w*|\w*pool\w*
        |_?upsample\w*|interpolate|grid_sampler\w*|(add|sub|rsub|mul|div|remainder|fmod|floor_divide|divide|true_divide)_?
        |(pow|exp|exp2|expm1|log|log2|log10|log1p|sqrt|square|reciprocal|neg|abs|sign|sgn)_?|logaddexp\w*|\w*logsumexp\w*
        |(a?sin|a?cos|a?tan|sinh|cosh|tanh|atan2|erf|erfc|erfinv|sigmoid|logit|lerp|addcmul|addcdiv|clip|frac)_?
        |(round|floor|ceil|trunc|clamp\w*|maximum|minimum|relu6?|leaky_relu|gelu|silu|mish|elu|celu|selu|glu)_?
        |(softplus|threshold|hardtanh|log_sigmoid\w*|special_\w+|lgamma|digamma|hypot|xlogy|polar|angle)_?
        |(eq|ne|lt|le|gt|ge|logical_\w+|bitwise_\w+|__\w+__|isnan|isinf|isfinite|nan_to_num|isin)_?
        |\w*softmax\w*|\w+_loss\w*|\w*cross_entropy\w*|kl_div|cosine_similarity|cdist|_cdist\w*|\w+_backward
        |(nan)?sum|mean|prod|_?(cumsum|cumprod|logcumsumexp)_?|max|min|amax|amin|aminmax|argmax|argmin|any|all|topk|sort
        |argsort|_?unique\w*|median|bincount|count_nonzero|trace|diff|searchsorted|bucketize|diag\w*|kthvalue|cummax""",
}


class Operator(NamedTuple):
    """One that ran: nanoseconds since some time."""

    name: str
    start: int
    end: int
    thread: int


def _fits(table: Mapping[str, str], name: str) -> str | None:
    return next((kind for kind, names in table.items() if re.fullmatch(names, name, re.VERBOSE)), None)


@cache
def whole(name: str) -> str | None:
    """The kind of an operator and of all that it calls; None: what it calls has kinds of its own."""
    return _fits(WHOLES, name.removeprefix("aten::").removeprefix("autograd::engine::evaluate_function: "))


@cache
def kind_of(name: str) -> str:
    """Of an operator by its name in a profile, e.g. ``aten::addmm``."""
    return whole(name) or _fits(OPERATORS, name.removeprefix("aten::")) or OTHER


@dataclass(frozen=True)
class TimeByKind:
    """Seconds of a step by kind, under the profiler. ``unknown``: names of operators that have no kind."""

    seconds: Mapping[str, float]
    unknown: frozenset[str] = frozenset()

    def __sub__(self, other: "TimeByKind") -> "TimeByKind":
        """What this one takes longer."""
        return TimeByKind({kind: self.seconds[kind] - other.seconds[kind] for kind in KINDS}, self.unknown)

    def shares(self) -> dict[str, float]:
        """Of the whole; without kinds of less than a thousandth."""
        total = sum(self.seconds.values())
        found = {kind: round(self.seconds[kind] / total, 3) for kind in KINDS}
        return {kind: share for kind, share in found.items() if share}


class Recorder:
    """Of what happens between :meth:`start` and :meth:`stop`."""

    def start(self) -> None:
        self._profile = profile(use_kineto=True).__enter__()
        self._began = time.perf_counter()

    def stop(self, steps: int) -> TimeByKind:
        """Of one of so many steps."""
        whole = time.perf_counter() - self._began
        self._profile.__exit__(None, None, None)
        results: Any = self._profile.kineto_results
        ran = [Operator(e.name(), e.start_ns(), e.end_ns(), e.start_thread_id()) for e in results.events()]
        return by_kind(ran, whole, steps)


def by_kind(ran: Iterable[Operator], seconds: float, steps: int = 1) -> TimeByKind:
    """``seconds``: that all steps took, operators and what is between them."""
    ordered = sorted(ran, key=lambda one: (one.start, -one.end))
    backward = [one.start for one in ordered if one.name.startswith("autograd::engine::evaluate_function")]
    spent: Counter[str] = Counter(dict.fromkeys(KINDS, 0))
    unknown = set()
    calling: dict[int, list[tuple[int, str, str | None]]] = {}  # by thread, of each one that runs: end, kind, of all
    for one in ordered:
        callers = calling.setdefault(one.thread, [])
        while callers and callers[-1][0] <= one.start:
            callers.pop()
        kind, of_all = kind_of(one.name), whole(one.name)
        if one.name.startswith("Optimizer.step") and not _within(backward, one):  # else it calls for a whole step
            kind = of_all = OPTIMIZER
        if callers and callers[-1][2] is not None:
            kind = of_all = callers[-1][2]
        spent[kind] += (took := one.end - one.start)
        if callers:
            spent[callers[-1][1]] -= took
        callers.append((one.end, kind, of_all))
        if kind == OTHER:
            unknown.add(one.name)
    told = {kind: nanoseconds / 1e9 / steps for kind, nanoseconds in spent.items()}
    told[BETWEEN] += max(0.0, seconds / steps - sum(told.values()))
    return TimeByKind(told, frozenset(unknown))


def _within(starts: list[int], one: Operator) -> bool:
    place = bisect_left(starts, one.start)
    return place < len(starts) and starts[place] < one.end


LEAST, MOST, SECONDS = 3, 20, 0.3  # steps of a profile, and how long they take where that is more than the least


def time_by_kind(run: Callable[[], object]) -> TimeByKind:
    """Of a call, the mean of a few."""
    began = time.perf_counter()
    run()
    steps = steps_for(time.perf_counter() - began)
    recorder = Recorder()
    recorder.start()
    for _ in range(steps):
        run()
    return recorder.stop(steps)


def steps_for(seconds: float) -> int:
    return min(MOST, max(LEAST, round(SECONDS / max(seconds, 1e-9))))
