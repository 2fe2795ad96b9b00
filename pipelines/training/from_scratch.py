"""A tokenizer trained on a corpus and a small random model of any transformers architecture."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

PAD, SYSTEM, USER, ASSISTANT = "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>"
END, UNKNOWN = "<|end|>", "<|unknown|>"
# The generation marks let trl's assistant_only_loss find what the model itself says.
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
SMALLEST = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def is_known(model_type: Any) -> bool:
    """Whether transformers has models of that type."""
    from transformers import CONFIG_MAPPING

    return model_type in CONFIG_MAPPING


def make_tokenizer(
    texts: Iterable[str],
    *,
    kind: Literal["bpe", "word"] = "bpe",
    vocab_size: int = 2000,
    max_length: int = 1024,
    chat_template: str = TEMPLATE,
) -> Any:
    """A byte-level BPE tokenizer, or one token per word and punctuation mark, trained on `texts`.

    It has tokens for padding, for the roles of a chat and for the end of a turn.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = [PAD, END, SYSTEM, USER, ASSISTANT]
    common = {"vocab_size": vocab_size, "special_tokens": special, "show_progress": False}
    if kind == "bpe":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(**common, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    else:
        special.append(UNKNOWN)
        tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Metaspace(prepend_scheme="always"), pre_tokenizers.Punctuation()]
        )
        tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
        trainer = trainers.WordLevelTrainer(**common)
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[SYSTEM, USER, ASSISTANT],
        model_max_length=max_length,
        **({"unk_token": UNKNOWN} if kind == "word" else {}),
    )
    fast.chat_template = chat_template
    return fast


def save_model(tokenizer: Any, config: dict[str, Any], folder: Path, *, seed: int, max_length: int = 1024) -> Any:
    """Writes the tokenizer and a random model into the folder, and returns the model.

    `config` goes to transformers' AutoConfig.for_model; vocabulary and special tokens are filled in.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, set_seed

    set_seed(seed)
    whole = AutoConfig.for_model(
        **{"max_position_embeddings": max_length, **config},
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    tokenizer.save_pretrained(folder)
    whole.save_pretrained(folder)
    # an architecture may have a tokenizer class of its own, which adds tokens when it is loaded (qwen2's does)
    whole.vocab_size = len(AutoTokenizer.from_pretrained(folder))
    model = AutoModelForCausalLM.from_config(whole)
    model.save_pretrained(folder)
    return model
