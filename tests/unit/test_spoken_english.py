"""What is known of spoken English: what a summary leaves out of a sentence, and which sentences read like writing."""

import pytest

from worker.models.extractive import ExtractiveSummarizer
from worker.models.spoken_english import formality, is_english, is_unfinished, tidied, words_of

SUMMARIZER = ExtractiveSummarizer()

GERMAN = """\
Er hat um acht Uhr um die Batterie gebeten , um sie am Abend an den Lieferanten zu schicken .
Wir haben in der Sitzung lange über den Preis der neuen Fernbedienung für den europäischen Markt gesprochen .
Am Ende hat er die billigere Batterie genommen , um den Preis der Fernbedienung bei fünfundzwanzig Euro zu halten .
"""


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("Um , the uh battery is , er , empty .", "the battery is, empty."),
        ("I, I think it 's on the on the on the table, um.", "I think it's on the table."),
        ("We do n't sell, uh?", "We don't sell?"),
        ("It costs .5 Euro ... really ?", "It costs .5 Euro... really?"),
        ("Uh , um .", ""),
    ],
)
def test_a_sentence_loses_hesitations_stutter_and_loose_spaces(said: str, read: str) -> None:
    """What a person leaves out when writing down what was said is left out; the rest stays in its order."""
    assert tidied(said) == read


@pytest.mark.parametrize("sentence", ["Dial five five five.", "No, no, we had had enough.", "Very, very good."])
def test_a_word_that_means_something_may_be_said_twice(sentence: str) -> None:
    """A number or an emphasis keeps its repetition."""
    assert tidied(sentence) == sentence


def test_a_sentence_that_names_things_is_more_formal_than_one_of_persons() -> None:
    """Articles and prepositions count for it, personal pronouns against it; no words are neither."""
    named = formality(words_of("The price of the battery depends on the market."))
    assert named > 0 > formality(words_of("I told you we wanted it."))
    assert formality([]) == 0


def test_a_sentence_that_breaks_off_is_unfinished() -> None:
    """No sentence ends with an article or a conjunction; many end with a preposition."""
    assert is_unfinished(words_of("the colour of the phone or the"))
    assert not is_unfinished(words_of("Please switch it on."))
    assert not is_unfinished([])


@pytest.mark.parametrize(
    "text",
    [
        GERMAN,
        "We hebben het in de vergadering over de prijs van het project gehad, en we zijn het eens.",
        "A me piace, ma i nostri clienti vogliono i prezzi a Roma e a Milano.",
        "",
    ],
)
def test_other_languages_are_not_taken_for_english(text: str) -> None:
    """Words that look like English ones, such as "um", "a", "over" and "we", make no English."""
    assert not is_english(text)
    assert is_english("So the battery that you sell is empty.")


def test_a_summary_in_another_language_keeps_every_word() -> None:
    """The German "er" and "um" are no hesitations."""
    lines = SUMMARIZER.summarize(GERMAN, max_words=25).split("\n")
    assert all(line in GERMAN.splitlines() for line in lines)


def test_of_two_sentences_on_one_subject_the_formal_one_is_chosen() -> None:
    """The sentence that can be understood without having been there is the summary."""
    personal = "I told you that we want our cheaper batteries if you order your controls with them from us."
    formal = "The price of the battery depends on the size of the order from the supplier."
    for text in (f"{personal}\n{formal}", f"{formal}\n{personal}"):
        assert SUMMARIZER.summarize(text, max_words=20) == formal


def test_half_a_sentence_is_no_summary_while_a_whole_one_fits() -> None:
    """A sentence that broke off is passed over, however much it says."""
    half = "The battery of the remote control, the price of the battery of the remote control, and the"
    whole = "The supplier of the battery wants an answer before the end of May."
    assert SUMMARIZER.summarize(f"{half}\n{whole}", max_words=20) == whole
