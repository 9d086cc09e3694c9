"""Beam search for the most likely sequence of tokens."""

from collections.abc import Callable

import torch
from torch import Tensor


class BeamSearch:
    """Keeps the ``num_beams`` most likely beginnings of each sequence and prolongs them token by token; the result is
    the finished one of the highest log-probability / tokens ^ ``length_penalty``, its end counted as a token (Wu et al.
    2016, section 7, with the penalty of Hugging Face transformers).

    The search ends when no beginning can beat what is finished, which is exact. Nothing is drawn, and rows do not
    depend on each other. Greedy decoding, which ends where the end is the most likely token, is ``NextToken`` at
    temperature 0.
    """

    def __init__(self, num_beams: int = 4, length_penalty: float = 1.0):
        """``length_penalty``: 0 is the log-probability itself, which favors short sequences. Raises ValueError: an
        argument is outside its range."""
        if num_beams < 1 or length_penalty < 0:
            raise ValueError(f"num_beams={num_beams} must be 1 or more, length_penalty={length_penalty} 0 or more.")
        self.num_beams, self.length_penalty = num_beams, length_penalty

    def search(
        self,
        first: Tensor,
        step: Callable[[Tensor, Tensor], Tensor],
        length: int,
        end: int,
        may_stop: bool,
    ) -> Tensor:
        """The best sequences, (N, length) int64, filled up with ``end``.

        Args:
            first: (N, V), logits of the first token
            step: tokens (M,) and rows (M,) -> logits (M, V) of the tokens after them: row i of M goes on with token i
                where row ``rows[i]`` of the call before was
            length: tokens at most; a sequence of so many needs no end
            end: the token that ends a sequence
            may_stop: before ``length`` steps, if nothing can change
        """
        count, vocabulary = first.shape
        logits, beams = first, 1
        scores = first.new_zeros(count, 1, dtype=torch.float32)  # of beginnings: sums of log-probabilities
        words = torch.empty(count, 1, 0, dtype=torch.long, device=first.device)
        best = torch.full_like(scores[:, 0], -torch.inf)
        result = torch.full((count, length), end, device=first.device)
        for place in range(length):
            log_probs = logits.float().log_softmax(dim=-1).view(count, beams, vocabulary)
            scores_of_all = scores[:, :, None] + log_probs
            self._keep(scores_of_all[:, :, end], words, place + 1, best, result)
            scores_of_all = scores_of_all.index_fill(2, torch.tensor(end, device=first.device), -torch.inf)
            kept = min(self.num_beams, max(1, beams * (vocabulary - 1)))
            scores, chosen = scores_of_all.flatten(1).topk(kept, dim=1)
            parents, tokens = chosen // vocabulary, chosen % vocabulary  # (N, kept)
            words = torch.cat([words.gather(1, parents[..., None].expand(-1, -1, place)), tokens[..., None]], dim=2)
            if place == length - 1:
                self._keep(scores, words, length, best, result)
            elif may_stop and bool((best >= scores[:, 0] / length**self.length_penalty).all()):
                break
            else:
                rows = torch.arange(count, device=first.device)[:, None] * beams + parents
                logits, beams = step(tokens.flatten(), rows.flatten()), kept
        return result

    def _keep(self, scores: Tensor, words: Tensor, tokens: int, best: Tensor, result: Tensor) -> None:
        """Take finished sequences into ``best`` (N,) and ``result`` (N, length) where they are better. ``scores``: (N,
        K) of ``words`` (N, K, L)."""
        score, which = (scores / tokens**self.length_penalty).max(dim=1)
        better = score > best
        found = words[torch.arange(len(words), device=words.device), which]  # (N, L)
        best.copy_(torch.where(better, score, best))
        result[:, : found.shape[1]] = torch.where(better[:, None], found, result[:, : found.shape[1]])
