"""The reader: what sentences in other words mean, and what is left alone and why."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worldgym.reader import Reader, reader_of

COLOURS, SIDES = ("red", "blue"), ("left side", "right side", "top side", "bottom side")
PLACES = ("centre", *SIDES, "top left corner", "top right corner", "bottom left corner", "bottom right corner")
WAYS = ("left", "right", "up", "down")
PHRASES = (
    *(f"reach the {colour} block" for colour in COLOURS),
    *(f"reach the {place}" for place in PLACES),
    *(f"push the {colour} block to the {place}" for colour in COLOURS for place in PLACES),
    *(f"push the {colour} block {way}" for colour in COLOURS for way in WAYS),
    *(f"push the {a} block to the {b} block" for a in COLOURS for b in COLOURS if a != b),
    *(f"move {way}" for way in WAYS),
    "gather the blocks",
    "separate the blocks",
    "stay still",
)
READER = Reader(PHRASES)


def test_every_phrase_means_itself_with_any_case_punctuation_and_politeness():
    for phrase in PHRASES:
        for form in (
            "{}",
            "{}.",
            "Please {}!",
            "  {} ",
            "could you {}, please?",
            "I would like you to {}, thank you",
            "“{}”",
        ):
            for said in (form.format(phrase), form.format(phrase).upper(), form.format(phrase.capitalize())):
                assert READER.read(said).phrase == phrase, said


@pytest.mark.parametrize(
    ("sentence", "phrase"),
    [
        ("shove the scarlet brick towards the left", "push the red block left"),
        ("get the navy cube to go up", "push the blue block up"),
        ("slide the red one to the left edge", "push the red block to the left side"),
        ("carry the sapphire box to the upper right-hand corner", "push the blue block to the top right corner"),
        ("put the red cube in the corner on the bottom left", "push the red block to the bottom left corner"),
        ("I'd like the blue block in the middle", "push the blue block to the centre"),
        ("bring the red block over to the blue one", "push the red block to the blue block"),
        ("hit the red block with the blue block", "push the blue block to the red block"),
        ("make the blue cube touch the red cube", "push the blue block to the red block"),
        ("walk up to the crimson block", "reach the red block"),
        ("head back to the center", "reach the centre"),
        ("go to the far side of the table", "reach the top side"),
        ("run to the north-west corner", "reach the top left corner"),
        ("drive leftwards", "move left"),
        ("don't move", "stay still"),
        ("stop", "stay still"),
        ("bring the two cubes together", "gather the blocks"),
        ("drag the blocks apart", "separate the blocks"),
        ("move the red block away from the blue block", "separate the blocks"),
    ],
)
def test_other_words_mean_the_same(sentence, phrase):
    assert READER.read(sentence).phrase == phrase


def test_order_counts():
    one, other = READER.read("push red to blue").phrase, READER.read("push blue to red").phrase
    assert (one, other) == ("push the red block to the blue block", "push the blue block to the red block")


@pytest.mark.parametrize(
    ("sentence", "reason"),
    [
        ("do not push the red block left", "it says not to: 'not'"),
        ("Please don't touch the blue block", "it says not to: 'not'"),
        ("leave the red block alone", "it says not to"),
        ("stay away from the blue block", "it says not to: 'stay away'"),
        ("push the green block left", "nothing here is green"),
        ("lift the red block", "the word 'lift' has no meaning here"),
        ("push the red block to the red block", "a thing cannot be brought to itself"),
        ("push the red block", "it does not say where to"),
        ("go to the corner", "it does not say which corner"),
        ("push the red block left and right", "its directions contradict each other"),
        ("the red block left", "it does not say what to do"),
        ("block the left red push", "it does not say what to do"),
        ("why is the red block left of the blue one?", "it is a question"),
        ("push both blocks left", "it means none of this world's phrases"),
        ("make the red block blue", "it does not say what to do with two things"),
        ("I pushed the red block left", "it tells something"),
        ("go around the red block", "the word 'around' has no meaning here"),
        ("turn left", "the word 'turn' has no meaning here"),
        ("", "it says nothing"),
        ("?!", "it says nothing"),
    ],
)
def test_what_is_left_alone_and_why(sentence, reason):
    reading = READER.read(sentence)
    assert not reading.phrases and reason in reading.reason


@pytest.mark.parametrize(
    ("sentence", "phrases"),
    [
        ("push the red block left, then go to the middle", ("push the red block left", "reach the centre")),
        ("Push the red block left. Go to the middle.", ("push the red block left", "reach the centre")),
        ("go left and push the blue block up and stay still", ("move left", "push the blue block up", "stay still")),
        ("before you go left, gather the blocks", ("gather the blocks", "move left")),
        ("walk to the red block and push it down", ("reach the red block", "push the red block down")),
        ("push red left then blue right", ("push the red block left", "push the blue block right")),
    ],
)
def test_several_things_in_a_row(sentence, phrases):
    reading = READER.read(sentence)
    assert reading.phrases == phrases and reading.phrase is None and reading.reason == ""


def test_a_part_that_is_not_understood_stops_the_whole():
    assert not READER.read("push the red block left, then lift it").phrases
    assert not READER.read("push the red block left, but do not go to the centre").phrases
    assert not READER.read(", ".join(["go left"] * 9)).phrases


@pytest.mark.parametrize("part", ["go left, ", "and ", "go left and then ", "the red ", "after ", "a", "., "])
def test_what_would_take_long_is_refused(part):
    """Ways to cut a sentence grow exponentially."""
    for length in (290, 100_000):
        assert not READER.read((part * length)[:length]).phrases


def test_phrases_of_any_world_are_known_by_their_letters():
    reader = Reader(("Hopper-v5", "open the drawer", "pick up the cup"))
    assert reader.read("Please open a drawer!").phrase == "open the drawer"
    assert reader.read("hopper v5").phrase == "Hopper-v5"
    assert "none of this world's" in reader.read("push the red block left").reason
    assert Reader(()).read("go").phrases == ()


def test_colours_are_those_of_the_world():
    reader = Reader(("push the green block left", "push the yellow block left"))
    assert reader.read("shove the emerald cube to the left").phrase == "push the green block left"
    assert reader.read("shove the red cube to the left").reason == "nothing here is red"


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.text(), st.lists(st.sampled_from([*" ".join(PHRASES).split(), "and", "then", ",", "not"])).map(" ".join)
    )
)
def test_no_text_raises(text):
    reading = READER.read(text)
    assert bool(reading.phrases) == (reading.reason == "") and set(reading.phrases) <= set(PHRASES)


def test_a_reader_is_made_once():
    assert reader_of(PHRASES) is reader_of(tuple(PHRASES))
