"""Chat templates in the styles that public models have, and a small tokenizer that knows their special tokens."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SPECIAL = [
    "<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|head|>", "<|/head|>", "<|eot|>", "[INST]", "[/INST]",
    "<turn>", "</turn>", "<|user|>", "<|assistant|>", "<|system|>", "<think>", "</think>", "<tools>", "</tools>",
]  # fmt: skip
PARTS = (
    "{% macro said(content) %}{% if content is string %}{{ content }}{% else %}"
    "{% for part in content %}{{ part['text'] }}{% endfor %}{% endif %}{% endmacro %}"
)
TEMPLATES = {
    "chatml": (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "llama 3": (
        "{{ bos_token }}{% for m in messages %}"
        "{{ '<|head|>' + m['role'] + '<|/head|>\n\n' + (m['content'] | trim) + '<|eot|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|head|>assistant<|/head|>\n\n' }}{% endif %}"
    ),
    "mistral": (
        "{{ bos_token }}{% for m in messages %}"
        "{% if m['role'] == 'system' %}{{ raise_exception('No place for a system message') }}{% endif %}"
        "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
        "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
    ),
    "gemma": (
        "{{ bos_token }}{% for m in messages %}"
        "{% if m['role'] == 'system' %}{{ raise_exception('Gemma takes no system message') }}{% endif %}"
        "{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
        "{{ '<turn>' + role + '\n' + (m['content'] | trim) + '</turn>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<turn>model\n' }}{% endif %}"
    ),
    "thinking mode": (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
        "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
        "{% endif %}"
    ),
    "tools": (
        "{% if tools %}<tools>{% for tool in tools %}{{ tool | tojson }}{% endfor %}</tools>{% endif %}"
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
        "{% if m['tool_calls'] %}{% for call in m['tool_calls'] %}{{ call | tojson }}{% endfor %}"
        "{% else %}{{ m['content'] }}{% endif %}{{ '<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "generation marks": (
        "{% for m in messages %}{{ '<|' + m['role'] + '|>' }}{% if m['role'] == 'assistant' %}"
        "{% generation %}{{ m['content'] + eos_token }}{% endgeneration %}"
        "{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    ),
    "history without its thoughts": (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
        "{% if m['role'] == 'assistant' and not loop.last %}{{ m['content'].split('</think>')[-1] }}"
        "{% else %}{{ m['content'] }}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
    ),
    "no generation prompt": (
        "{% for m in messages %}{{ m['role'] | upper + ' ' + m['content'] + eos_token }}{% endfor %}"
    ),
    "newline after the end": (
        "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + eos_token + '\n\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    ),
    "zephyr": (
        "{% for m in messages %}\n{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token }}\n"
        "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>' }}\n{% endif %}{% endfor %}"
    ),
    "plain role names": (
        "{% for m in messages %}{{ m['role'] | capitalize + ': ' + m['content'] + '\n' }}"
        "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"
    ),
    "content parts": PARTS
    + (
        "{{ bos_token }}{% for m in messages %}{{ '<|head|>' + m['role'] + '<|/head|>' + said(m['content']) }}"
        "{{ '<|eot|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|head|>assistant<|/head|>' }}{% endif %}"
    ),
    "a system message of its own": PARTS
    + (
        "{% if messages[0]['role'] != 'system' %}{{ '<|system|>' + (persona or 'Be kind.') + eos_token }}{% endif %}"
        "{% for m in messages %}{{ '<|' + m['role'] + '|>' + said(m['content']) + eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    ),
}
TEXTS = ("What is the weather in the city? It is warm.", "Name a colour. It is blue. User: Assistant: system")
AROUND = {  # what a tokenizer puts around a text
    "nothing": None,
    "a beginning": "<s> $A",
    "an end": "$A </s>",
    "both": "<s> $A </s>",
}


def tokenizer(template: str | None = None, around: str = "nothing") -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with one of the templates."""
    fast = Tokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    fast.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(vocab_size=420, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False),
    )
    if AROUND[around]:
        ends = [(token, fast.token_to_id(token)) for token in ("<s>", "</s>")]
        fast.post_processor = processors.TemplateProcessing(single=AROUND[around], special_tokens=ends)
    made = PreTrainedTokenizerFast(
        tokenizer_object=fast,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=SPECIAL[3:],
    )
    made.chat_template = TEMPLATES[template] if template else None
    return made
