"""Questions to a language model and its replies: over an OpenAI-compatible endpoint, or from a local checkpoint."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from trimtab.rewards import RewardFailure

if TYPE_CHECKING:
    from trimtab.rewards._http import Post

Reply = str | RewardFailure


class Endpoint:
    """A server's `/v1/chat/completions`, asked `concurrency` questions at a time.

    `settings` are the keys of a request beside its messages. `used` counts the tokens of all requests and replies, as
    the server says; beyond `budget` nothing more is asked, and the questions that are left fail.
    """

    def __init__(self, url: str, settings: dict[str, Any], concurrency: int, budget: int | None):
        self._url, self._settings, self._concurrency, self._budget = url, settings, concurrency, budget
        self._lock, self.used = threading.Lock(), 0

    def __call__(self, post: Post, questions: Sequence[str]) -> list[Reply]:
        """The reply to each question. Questions behind one that no server was there for fail for its reason."""
        down: list[str] = []

        def ask(question: str) -> Reply:
            if down:
                return RewardFailure(down[0])
            if self._budget is not None and self.used >= self._budget:
                return RewardFailure(f"the budget of {self._budget} tokens is used up ({self.used} are used)")
            body = {**self._settings, "messages": [{"role": "user", "content": question}]}
            try:
                reply, tokens = post([self._url], body, _reply)[1]
            except RewardFailure as failure:
                down.extend([failure.reason] if getattr(failure, "down", False) else [])
                return failure
            with self._lock:
                self.used += tokens
            return reply

        with ThreadPoolExecutor(self._concurrency) as pool:
            try:
                return list(pool.map(ask, questions))
            except BaseException:  # such as Ctrl-C, which shall not wait for a deadline
                pool.shutdown(wait=False, cancel_futures=True)
                post.stop()
                raise


def _reply(answer: Any) -> tuple[Reply, int]:
    """The text of an answer, and the tokens that it took. Raises ValueError where there is no text."""
    try:
        choice, usage = answer["choices"][0], answer.get("usage") or {}
        content = choice["message"]["content"]
        tokens = int(usage.get("total_tokens") or 0)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        raise ValueError("no choices[0].message.content in it") from None
    if choice.get("finish_reason") == "length":
        return RewardFailure("the reply was cut off: raise `max_tokens`"), tokens
    if not isinstance(content, str):
        raise ValueError("choices[0].message.content is no text")
    return content, tokens


class Local:
    """A checkpoint on this machine, which replies with its likeliest tokens, or draws them as `drawing` says."""

    def __init__(self, path: str, max_tokens: int, batch_size: int, drawing: Mapping[str, Any] | None = None):
        import torch
        from transformers import pipeline

        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._generate = pipeline("text-generation", model=path, device=device)
        how = {"do_sample": True, **drawing} if drawing else {"do_sample": False}
        self._settings = {"max_new_tokens": max_tokens, "batch_size": batch_size, **how}
        tokenizer = self._generate.tokenizer
        self._has_chats = tokenizer.chat_template is not None
        tokenizer.padding_side = "left"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token

    def __call__(self, questions: Sequence[str]) -> list[Reply]:
        """The reply to each question, as a message where the model has a chat template, else as the text behind it."""
        asked: list[Any] = list(questions)
        if self._has_chats:
            asked = [[{"role": "user", "content": question}] for question in questions]
        answers = self._generate(asked, return_full_text=False, **self._settings)
        return [answer[0]["generated_text"] for answer in answers]
