"""Decoding: tokens that genlab's transformer writes, beside those of transformers and of litgpt."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from benchmarks import peers
from benchmarks.beside import in_turns_beside
from benchmarks.floor import matmul_rate, operations
from benchmarks.gpt import VOCABULARY
from benchmarks.gpt_networks import agreement, gpt2_parts, transformers_gpt2, transformers_weights
from benchmarks.litgpt_process import Worker
from benchmarks.options import Options
from benchmarks.row import Row, Skipped, row
from benchmarks.timing import Side
from genlab.model.sampler.next_token import NextToken
from genlab.model.transformer import Transformer
from genlab.seeding import RandomStream


def rows(options: Options) -> Iterator[Row | Skipped]:
    """Drawn from the whole softmax, with keys and values kept, after a prompt of one token."""
    depth, heads, width = options.size(4, 1), options.size(4, 1), options.size(128, 16)
    context, length = options.size(256, 16), options.size(200, 8)
    for batch in (1, 16):
        yield from _of_batch(options, depth, heads, width, context, length, batch)


def _of_batch(
    options: Options, depth: int, heads: int, width: int, context: int, length: int, batch: int
) -> Iterator[Row | Skipped]:
    device = options.device
    work = f"decode {depth}x{heads}x{width}, batch {batch}"
    model = writer(depth, heads, width, context, length).to(device).eval()
    prompt = torch.zeros(batch, 1, dtype=torch.long, device=device)
    agreements: dict[str, str] = {}
    drawn = 0

    def ours() -> None:
        nonlocal drawn
        drawn += batch
        made = model.sample(batch, {"prompt": prompt}, RandomStream.for_samples(0, range(drawn, drawn + batch), device))
        assert made.shape == (batch, length)

    theirs: dict[str, Side] = {}
    try:
        gpt2 = transformers_gpt2(VOCABULARY, depth, heads, width, context).to(device).eval()
    except peers.Missing as missing:
        yield Skipped("decode", f"{work}, transformers", str(missing))
    else:
        transformers_weights(model.network, gpt2)
        agreements["transformers"] = agreement(model.network, gpt2, prompt.expand(batch, 4).contiguous())
        theirs["transformers"] = partial(_transformers, gpt2, prompt, length)
    worker = None
    try:
        if batch > 1:  # its own function writes one text at a time
            raise peers.Missing("litgpt writes one text at a time")
        worker = Worker(options, depth, heads, width, context, batch, length)
    except peers.Missing as missing:
        yield Skipped("decode", f"{work}, litgpt", str(missing))
    else:
        count = sum(p.numel() for p in model.network.parameters())
        agreements["litgpt"] = f"parameters {count / 1e3:.0f} and {worker.parameters / 1e3:.0f} k"
        theirs["litgpt"] = worker.generate
    flops = operations(ours)
    rate = matmul_rate(torch.float32, device)
    try:
        measured = in_turns_beside({"genlab": ours}, theirs, options.rounds, options.seconds, device)
    finally:
        if worker is not None:
            worker.close()
    for peer in theirs:
        aim = 2.0 if (batch, peer) in ((1, "litgpt"), (16, "transformers")) else None
        yield row(
            "decode",
            work,
            measured,
            peer,
            agreements[peer],
            aim=aim,
            floor=flops / rate,
            device=device,
            flops=flops,
            matmul_rate=rate,
            tokens=batch * length,
        )


def writer(depth: int, heads: int, width: int, context: int, length: int) -> Transformer:
    """A transformer of text with GPT-2's parts, as a config builds it."""

    def network(num_tokens: int, num_outputs: int, max_length: int, causal: bool) -> Any:
        made = gpt2_parts(num_tokens, depth, heads, width, max_length)
        assert causal
        assert num_outputs == num_tokens
        return made

    model = Transformer(
        network=network,
        sampler=NextToken(),
        optimizer=torch.optim.AdamW,
        schedule=None,  # type: ignore[arg-type]
        shape=(context,),
        vocab_size=VOCABULARY,
        start_token=0,
        told={},
        conditions=[],
        sample_length=length,
    )
    model.configure_model()
    return model


@torch.no_grad()
def _transformers(network: Any, prompt: torch.Tensor, length: int) -> None:
    made = network.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=length,
        min_new_tokens=length,
        do_sample=True,
        top_k=0,
        use_cache=True,
        pad_token_id=0,
    )
    assert made.shape == (len(prompt), 1 + length)
