"""Tokens that are added to a vocabulary, such as the marks around what a model thinks.

They are whole tokens of their own that stay in the text of an answer, where rewards and masks look for them: a special
token, as the end of a turn is, is left out of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

NOISE = 0.1  # of a new row of the embeddings, in standard deviations of the rows before


def wrong(tokens: Sequence[str]) -> str | None:
    """What is wrong with a list of tokens to add; None where nothing is."""
    blank = next((token for token in tokens if not token or token != token.strip()), None)
    if blank is not None:
        return f"{blank!r} is empty or has blanks around it, and no mark"
    twice = next((token for token in tokens if tokens.count(token) > 1), None)
    return None if twice is None else f"{twice!r} stands there twice"


def add(tokenizer: Any, tokens: Sequence[str]) -> list[int]:
    """Gives a tokenizer the tokens that it lacks, and returns their ids.

    Raises ValueError for a token that is a special one of the tokenizer already.
    """
    from tokenizers import AddedToken

    special = next((token for token in tokens if token in tokenizer.all_special_tokens), None)
    if special is not None:
        raise ValueError(f"{special!r} is a special token of the vocabulary already, and left out of what is said")
    before = len(tokenizer)
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in tokens])
    return list(range(before, len(tokenizer)))


def embed(model: Any, ids: Sequence[int], known: int, seed: int) -> None:
    """Makes room for new ids in a model's embeddings and head, and gives each the mean of the `known` rows before.

    With noise of NOISE standard deviations, so that no two of them are one. Rows that the model's file had in store,
    as those that fill up a matrix, are written over: they have never been trained.
    """
    import torch

    if ids and ids[-1] >= model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(ids[-1] + 1, mean_resizing=False)
    generator = torch.Generator().manual_seed(seed)
    matrices = [model.get_input_embeddings(), model.get_output_embeddings()]
    weights = [matrix.weight for matrix in matrices if matrix is not None]
    tied = len(weights) == 2 and weights[0] is weights[1]
    with torch.no_grad():
        for weight in weights[:1] if tied else weights:
            rows = weight[:known].float()
            noise = torch.randn(len(ids), rows.shape[1], generator=generator) * rows.std(0) * NOISE
            weight[list(ids)] = (rows.mean(0) + noise).to(weight.dtype)
