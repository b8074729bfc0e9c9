"""Text comes out whole, in order, and is cut where a whole-text search would cut it."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st
from naive import first_stop
from toy import ToyTokenizer

from freehold.engine.detokenizer import OutputText

TOKENIZER = ToyTokenizer()
# Few letters, so that stop strings overlap themselves, each other and token borders.
PIECES = ["a", "b", "ab", "abc", "你", "🙂"]
texts = st.lists(st.sampled_from(PIECES), max_size=24).map("".join)
stop_strings = st.lists(
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=3).map("".join), max_size=4
)


def tokens_of(text, cuts):
    """The text's bytes as tokens: whole words where `cuts` allows, else single bytes."""
    data, ids, i = text.encode(), [], 0
    while i < len(data):
        words = [
            t for t in range(256, TOKENIZER.vocab_size) if data[i:].startswith(TOKENIZER._bytes[t])
        ]
        token = words[0] if words and cuts[len(ids) % len(cuts)] else data[i]
        ids.append(token)
        i += len(TOKENIZER.token_bytes(token))
    return ids


def run(ids, stops, include_stop=False):
    output = OutputText(TOKENIZER.new_stream(), stops, include_stop=include_stop)
    pushed = []
    for token in ids:
        pushed.append(output.push(token))
        if output.is_stopped:
            break
    return output, pushed


@settings(max_examples=400, deadline=None)
@given(texts, stop_strings, st.lists(st.booleans(), min_size=1, max_size=8), st.booleans())
@example("ababc", ["abc"], [False], False)
@example("aaab", ["aab"], [False], False)
@example("xabc", ["abc", "bc"], [False], False)
@example("abab你", ["bab你", "b你"], [False], True)
def test_text_is_cut_as_a_search_of_the_whole_text_cuts_it(text, stops, cuts, include_stop):
    ids = tokens_of(text, cuts)
    output, pushed = run(ids, stops, include_stop)
    got = "".join(pushed) + output.finish()
    found = first_stop(text, stops)
    assert output.is_stopped == (found is not None)
    if found is None:
        assert got == text
    else:
        assert got == text[: found[1] if include_stop else found[0]]
        # It stopped at the very token that completes the stop string.
        read = b"".join(map(TOKENIZER.token_bytes, ids[: len(pushed)])).decode("utf-8", "ignore")
        before = b"".join(map(TOKENIZER.token_bytes, ids[: len(pushed) - 1])).decode(
            "utf-8", "ignore"
        )
        assert len(before) < found[1] <= len(read)


@settings(max_examples=300, deadline=None)
@given(texts, stop_strings, st.lists(st.booleans(), min_size=1, max_size=8))
def test_only_what_may_become_a_stop_string_is_held_back(text, stops, cuts):
    output = OutputText(TOKENIZER.new_stream(), stops)
    shown = ""
    data = b""
    for token in tokens_of(text, cuts):
        shown += output.push(token)
        data += TOKENIZER.token_bytes(token)
        if output.is_stopped:
            return
        held = data.decode("utf-8", "ignore")[len(shown) :]
        # Held text begins a stop string (or is one, prefix of a longer overlap: never complete).
        assert held == "" or any(stop.startswith(held) and stop != held for stop in stops)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, TOKENIZER.vocab_size - 1), max_size=30), stop_strings)
def test_any_tokens_at_all_give_the_decoded_text(ids, stops):
    """Broken UTF-8 and special tokens too."""
    output, pushed = run(ids, stops)
    got = "".join(pushed) + output.finish()
    whole = TOKENIZER.decode(ids[: len(pushed)])
    found = first_stop(whole, stops)
    assert got == (whole if found is None else whole[: found[0]])


def test_an_unfinished_character_comes_out_at_the_end_only():
    output, pushed = run([*"é".encode()[:1], ord("x")], [])
    assert "".join(pushed) == "\ufffdx"
    output, pushed = run([ord("x"), *"你".encode()[:2]], [])
    assert pushed == ["x", "", ""]
    assert output.finish() == "\ufffd"
    assert output.finish() == ""
