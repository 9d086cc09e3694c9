"""Writes texts with litgpt, once for each line that comes in, and says how long it took. Imports nothing of genlab."""

import json
import sys
import time

import torch


def main() -> None:
    from litgpt import GPT, Config
    from litgpt.generate.base import generate

    asked = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    config = Config(
        n_layer=asked["depth"],
        n_head=asked["heads"],
        n_embd=asked["width"],
        block_size=asked["context"],
        padded_vocab_size=65,
        vocab_size=65,
        bias=False,
        lm_head_bias=False,
        rotary_percentage=1.0,
        parallel_residual=False,
    )
    model = GPT(config).to(asked["device"]).eval()
    batch, length = asked["batch"], asked["length"]
    with torch.device(asked["device"]):
        model.set_kv_cache(batch_size=1)
    prompt = torch.zeros(1, dtype=torch.long, device=asked["device"])

    def now() -> tuple[float, float]:
        if asked["device"] == "cuda":
            torch.cuda.synchronize()
        return time.process_time(), time.perf_counter()

    print(json.dumps({"parameters": sum(p.numel() for p in model.parameters())}), flush=True)
    for _ in sys.stdin:
        before = now()
        with torch.inference_mode():
            for _ in range(batch):  # its own function writes one text at a time
                model.clear_kv_cache()
                with torch.device(asked["device"]):
                    model.set_kv_cache(batch_size=1)
                made = generate(model, prompt, 1 + length, temperature=1.0, top_k=None, top_p=1.0)
                assert len(made) == 1 + length
        cpu, wall = (later - earlier for later, earlier in zip(now(), before, strict=True))
        print(json.dumps({"cpu": cpu, "wall": wall}), flush=True)


if __name__ == "__main__":
    main()
