"""Rankings made one, and texts made words."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker.models.words import LONGEST, names_of, spelled_out, words_of
from worker.recall.fusing import fuse

KEYS = st.lists(st.integers(0, 8), max_size=8)


def test_what_is_high_in_both_rankings_comes_first() -> None:
    """By reciprocal rank, with the paper's constant."""
    fused = fuse([["a", "b", "c"], ["c", "b"]])
    assert [key for key, _ in fused] == ["c", "b", "a"]
    assert dict(fused) == {"a": 1 / 61, "b": 2 / 62, "c": 1 / 63 + 1 / 61}


@given(st.lists(KEYS, max_size=4))
def test_everything_is_in_the_fusion_once_and_in_order(rankings: list[list[int]]) -> None:
    """Whatever the rankings are, and however often something is in one."""
    fused = fuse(rankings)
    assert sorted(key for key, _ in fused) == sorted({key for ranking in rankings for key in ranking})
    assert [score for _, score in fused] == sorted((score for _, score in fused), reverse=True)


@given(KEYS)
def test_one_ranking_alone_keeps_its_order(ranking: list[int]) -> None:
    """Fused with nothing, and with itself."""
    order = list(dict.fromkeys(ranking))
    assert [key for key, _ in fuse([ranking])] == order
    assert [key for key, _ in fuse([ranking, ranking, []])] == order


def words(text: str) -> list[str]:
    return list(words_of(text))


def test_a_name_gives_itself_and_its_parts() -> None:
    """However it is written."""
    assert words("parseHTTP_url2") == ["parsehttp_url2", "parse", "http", "url", "2"]
    assert words("XMLHttpRequest") == ["xmlhttprequest", "xml", "http", "request"]
    assert words("__init__") == ["init"]
    assert words("naïveÜbung STRASSE straße") == ["naïveübung", "naïve", "übung", "strasse", "strasse"]


def test_a_name_spelled_out_is_words() -> None:
    """As a person would say it; other scripts stay."""
    assert [spelled_out(name) for name in names_of("parseHTTP_url2(x): 東京都")] == ["parse http url 2", "x", "東京都"]
    assert [spelled_out(name) for name in names_of("_ __ ...")] == ["", ""]


def test_scripts_without_spaces_give_pairs_of_characters() -> None:
    """Beside names that stand among them."""
    assert words("東京都とparseUrl") == ["東京", "京都", "都と", "parseurl", "parse", "url"]
    assert words("日") == ["日"]


@given(st.text())
def test_no_text_has_words_that_are_none(text: str) -> None:
    """None is empty, too long, or holds white space; nothing fails."""
    assert all(0 < len(word) <= 2 * LONGEST and not any(map(str.isspace, word)) for word in words(text))


@given(st.text(), st.text())
def test_the_words_of_two_texts_are_those_of_both(one: str, other: str) -> None:
    """A question finds the words of what it asks for, wherever they stand."""
    assert words(f"{one} {other}") == words(one) + words(other)
