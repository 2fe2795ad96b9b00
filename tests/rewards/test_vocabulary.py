"""The identity of a vocabulary: what a token id means, and nothing else."""

from chat_templates import tokenizer

from trimtab.pipelines.training.from_scratch import make_tokenizer
from trimtab.rewards._vocabulary import foreign, identity

WORDS = ["the zebra and the xylophone", "a quilt of a wizard"]


def test_a_vocabulary_is_the_same_with_another_template_and_padding():
    plain, other = tokenizer("chatml"), tokenizer("gemma", around="both")
    other.add_special_tokens({"pad_token": "<|padding|>"})
    assert len(other) > len(plain)
    assert identity(plain) == identity(other)


def test_another_corpus_size_or_order_of_the_special_tokens_is_another_vocabulary():
    plain = make_tokenizer(WORDS, vocab_size=300)
    others = [
        make_tokenizer(["say a and b", "say c"], vocab_size=300),
        make_tokenizer(WORDS, vocab_size=290),
        make_tokenizer(WORDS, kind="word"),
    ]
    added, swapped = make_tokenizer(WORDS, vocab_size=300), make_tokenizer(WORDS, vocab_size=300)
    added.add_tokens(["<one>", "<two>"])
    swapped.add_tokens(["<two>", "<one>"])
    assert len({identity(vocabulary) for vocabulary in (plain, *others, added, swapped)}) == 6
    assert identity(plain) == identity(make_tokenizer(WORDS, vocab_size=300))


def test_the_rows_of_another_vocabulary_are_named():
    ours, theirs = make_tokenizer(WORDS, vocab_size=300), make_tokenizer(WORDS, vocab_size=290)
    assert foreign(ours, [identity(ours), None, identity(theirs), identity(ours)]) == [2]
    assert foreign(ours, None) == []
