"""Duplicates and quotations, whatever the case, the white space and the punctuation."""

from trimtab.pipelines.algorithms import clean_text


def test_equal_and_nearly_equal_examples():
    long = "The quick brown fox jumps over the lazy dog, and then it does so again and again until nightfall."
    examples = [
        ("q", long),
        ("q", long),
        ("q", long.replace("nightfall", "Nightfall!")),
        ("other question", long),
        ("2 + 2?", "4"),
        ("3 + 1?", "4"),
        ("q", "something else entirely"),
    ]
    assert clean_text.duplicates(examples) == [None, "exact", *[None] * 5]
    assert clean_text.duplicates(examples, 0.8) == [None, "exact", "near", *[None] * 4]
    assert clean_text.duplicates(examples, 1.0) == [None, "exact", *[None] * 5]


def test_a_prompt_is_held_out_when_it_equals_or_quotes_one():
    words = [f"word{n}" for n in range(20)]
    held_out = clean_text.HeldOut(["What is 1+1?", " ".join(words)])
    assert "what is  1+1?" in held_out
    assert "What is 1-1?" not in held_out
    assert "Tell me what is 1+1? Please." not in held_out  # too short to be a quotation
    assert f"Please: {', '.join(words[3:16])}!" in held_out
    assert " ".join(words[3:15]) not in held_out


def test_texts_that_are_shorter_than_a_shingle_are_near_when_they_are_equal():
    assert clean_text.duplicates([("q", "ab"), ("q", "cb")], 0.3) == [None, None]
    assert clean_text.duplicates([("q", "ab"), ("q", "AB")], 0.3) == [None, "near"]


def test_a_similarity_is_that_of_whole_shingles():
    """abcde and bcdef against xbcde and bcdef: one of three."""
    assert clean_text.duplicates([("q", "abcdef"), ("q", "xbcdef")], 0.4) == [None, None]
    assert clean_text.duplicates([("q", "abcdef"), ("q", "xbcdef")], 0.3) == [None, "near"]
