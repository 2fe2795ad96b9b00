"""A policy with a soft prompt: the embeddings of tokens in its vocabulary that stand for no word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import trl

from trimtab.pipelines.sampling.moved import Moved

if TYPE_CHECKING:
    import numpy as np


class MovedTokens(Moved):
    """e_t + sd v_t for each token t, e being its embedding in the model and sd that of all embeddings' entries.

    Raises ValueError for a token that the vocabulary lacks.
    """

    def __init__(self, model: trl.ModelConfig, tokens: Sequence[str]):
        import numpy as np

        from trimtab.pipelines.sampling import transformers_engine

        super().__init__(model)
        vocabulary = transformers_engine.load_tokenizer(model).get_vocab()
        missing = [token for token in tokens if token not in vocabulary]
        if missing:
            message = "is no token of the vocabulary: `kind: add_tokens` adds it"
            raise ValueError(f"{missing[0]!r} {message}")
        self.tokens = tokens
        self.ids = [vocabulary[token] for token in tokens]
        self.weight = self.policy.get_input_embeddings().weight
        self.origin = self.weight.detach()[self.ids].float().clone()
        self.spread = float(self.weight.detach().float().std())
        self.names = []
        self.start = np.zeros(self.origin.numel())

    def at(self, vector: np.ndarray) -> Any:
        import torch

        moves = torch.tensor(vector, dtype=torch.float32).reshape(self.origin.shape).to(self.origin.device)
        with torch.no_grad():
            self.weight[self.ids] = (self.origin + self.spread * moves).to(self.weight.dtype)
        return self.policy

    def values(self, vector: np.ndarray) -> dict[str, float]:
        rows = vector.reshape(self.origin.shape).tolist()
        named = zip(self.tokens, rows, strict=True)
        return {f"{token}/{place}": value for token, row in named for place, value in enumerate(row)}
