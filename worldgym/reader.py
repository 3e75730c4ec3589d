"""What a sentence means among the phrases of a world: words, not letters, decide.

    reader = Reader(("push the red block left", "reach the centre"))
    reader.read("Please shove the crimson cube leftwards!").phrase     # "push the red block left"
    reader.read("do not push the red block left").reason               # "it says not to: 'not'"
    reader.read("go to the middle, then push the red block left")      # two phrases in a row

Sentence and phrases become *frames* by the same grammar: what is done, to what, and where to. A sentence means the
phrase that has its frame. What is not a command, forbids something, has a word of unknown meaning or fits no phrase
means nothing, and the reason says why: an action that is guessed at does more harm than one that is left undone. Words
come from lexicon.py. A phrase that the grammar cannot read, such as an environment's id, is known by its letters,
whatever case, punctuation, articles and politeness a sentence adds.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

from . import lexicon

Frame = tuple[str, ...]
"""What is done, to what, where to: ("push", "red", "left"), ("reach", "centre"), ("gather",)."""
MOST_STEPS = 4
"""Commands that one sentence may give, one after the other."""
LONGEST_SENTENCE, MOST_CUTS = 300, 12
"""Characters, and places where a command may end. No command takes more, and ways to cut a sentence grow with both."""
SEPARATORS = re.compile(
    r"[.;!?\n]+|,?\s+(?<!\bgo )(?<!\bcome )(?<!\btry )(?<!\bahead )and\s+|"
    r",?\s*\b(?:then|afterwards|after that|after which|followed by|before|subsequently|thereafter|next|finally)\b,?\s*|"
    r",\s*"
)
"""Where one command may end and another begin."""
TURNED = (
    (re.compile(r"\s*before\s+(?:you\s+)?(.*?),\s*(.*)", re.S | re.I), r"\2, then \1"),
    (re.compile(r"\s*(?:after|once)\s+(?:you\s+)?(?:have\s+)?(.*?),\s*(.*)", re.S | re.I), r"\1, then \2"),
    (re.compile(r"(.*?),?\s+(?:after|once)\s+(?:you\s+)?(?:have\s+)?(?!that|which)(.*)", re.S | re.I), r"\2, then \1"),
)
"""Ways to say the second command first, or to say that one is the first, and how they are read."""
CROSSWAYS = {"left": "right", "right": "left", "up": "down", "down": "up"}
SIDES = {"left": "left side", "right": "right side", "up": "top side", "down": "bottom side"}
WISHES = (
    "want",
    "like",
    "need",
    "needs",
    "wish",
    "love",
    "should",
    "must",
    "ought",
    "see",
    "belongs",
    "belong",
    "goes",
)
"""Among what is said before a thing, or after it: that it shall be somewhere, which is as good as a verb."""


TELLERS = ("i", "we", "he", "she", "they", "it")
"""Whoever comes first does not command, once wishes are taken away."""


class Reading(NamedTuple):
    """What was made of a sentence."""

    phrases: tuple[str, ...]
    """Phrases of the world, one after the other; none where it is not understood."""
    reason: str
    """Why it is not understood; empty where it is."""

    @property
    def phrase(self) -> str | None:
        """The one phrase that it means; None of several, and where it is not understood."""
        return self.phrases[0] if len(self.phrases) == 1 else None


class Meaning(NamedTuple):
    """What an expression can mean."""

    words: tuple[str, ...]
    kinds: dict[str, frozenset[str]]
    """Among "verb", "colour", "noun", "direction", "place", "relation" and "dropped": its meanings of that kind."""


class NotUnderstood(Exception):
    """With the reason."""


class Reader:
    """Reads sentences by the phrases of a world, or by its instructions.

    Args:
        phrases: any strings; each always means itself.
    """

    def __init__(self, phrases: Iterable[str]):
        self.known = {phrase: phrase for phrase in phrases}
        self._letters: dict[tuple[str, ...], str] = {}
        self._frames: dict[Frame, str] = {}
        for phrase in self.known:
            self._letters.setdefault(_bare(_tokens(phrase)), phrase)
            try:
                self._frames.setdefault(read_frame(_tokens(phrase)), phrase)
            except NotUnderstood:
                continue
        self._things = {part for frame in self._frames for part in frame[1:]}
        self.read = lru_cache(maxsize=1024)(self._read)

    def __reduce__(self):
        return reader_of, (tuple(self.known),)

    def _read(self, sentence: str) -> Reading:
        if sentence in self.known:
            return Reading((sentence,), "")
        if len(sentence) > LONGEST_SENTENCE:
            return Reading((), f"it has {len(sentence)} characters, more than {LONGEST_SENTENCE}")
        if len(SEPARATORS.findall(sentence)) > MOST_CUTS:
            return Reading((), "it has too many parts")
        tokens = _tokens(sentence)
        if (same := self._letters.get(_bare(tokens))) is not None and tokens:
            return Reading((same,), "")
        if not self._frames:
            return Reading((), "it is none of this world's phrases")
        reasons = []
        for parts in _splits(sentence):
            try:
                if len(parts) > MOST_STEPS:
                    raise NotUnderstood(f"it gives more than {MOST_STEPS} commands")
                return Reading(self._commands(parts), "")
            except NotUnderstood as reason:
                reasons.append(str(reason))
        return Reading((), reasons[0])

    def _commands(self, parts: Iterable[Sequence[str]]) -> tuple[str, ...]:
        """The phrases of commands in a row: "it" is the thing of the one before, and a verb may be left out."""
        said: list[str] = []
        it: str | None = None
        verb: tuple[str, ...] = ()
        for tokens in parts:
            if verb and not _verb(tokens):
                tokens = (*verb, *tokens)
            frame, verb = read_frame(tokens, it), _verb(tokens)
            said.append(self._phrase(frame))
            it = frame[1] if len(frame) > 1 and frame[1] in lexicon.COLOURS else it
        return tuple(said)

    def _phrase(self, frame: Frame) -> str:
        if (phrase := self._frames.get(frame)) is not None:
            return phrase
        strange = [part for part in frame[1:] if part in lexicon.COLOURS and part not in self._things]
        raise NotUnderstood(f"nothing here is {strange[0]}" if strange else "it means none of this world's phrases")


@lru_cache(maxsize=64)
def reader_of(phrases: tuple[str, ...]) -> Reader:
    """The reader of these phrases; they are parsed once."""
    return Reader(phrases)


# -- words ------------------------------------------------------------------------------------------------------------


def _tokens(sentence: str) -> tuple[str, ...]:
    """Words in lower case, without punctuation; "don't" is "do not"."""
    plain = unicodedata.normalize("NFKC", sentence).casefold().replace("\u2019", "'")
    plain = re.sub(r"\bcan'?t\b|\bcannot\b", "can not", plain)
    plain = re.sub(r"n't\b", " not", plain)
    return tuple(re.findall(r"[^\W_]+", plain))


def _listed(expressions: str) -> list[tuple[str, ...]]:
    return [tuple(one.split()) for one in expressions.split("|")]


def _lexicon() -> dict[tuple[str, ...], dict[str, frozenset[str]]]:
    """What each expression can mean."""
    entries: dict[tuple[str, ...], dict[str, frozenset[str]]] = {}
    tables = {
        "verb": lexicon.VERBS, "colour": lexicon.COLOURS, "noun": lexicon.NOUNS, "direction": lexicon.DIRECTIONS,
        "place": lexicon.PLACES, "relation": lexicon.RELATIONS, "dropped": {"": lexicon.DROPPED},
    }  # fmt: skip
    for kind, table in tables.items():
        for meaning, expressions in table.items():
            for words in _listed(expressions):
                kinds = entries.setdefault(words, {})
                kinds[kind] = kinds.get(kind, frozenset()) | {meaning}
    return entries


EXPRESSIONS = _lexicon()
LONGEST = max(map(len, EXPRESSIONS))
NEGATIONS = sorted(_listed(lexicon.NEGATIONS), key=len, reverse=True)
OPENINGS = sorted(_listed(lexicon.OPENINGS), key=len, reverse=True)
QUESTIONS = _listed(lexicon.QUESTIONS)
STILL = _listed(lexicon.VERBS["stay"])
"""Some of these say "not" and forbid nothing."""


def _bare(tokens: Sequence[str]) -> tuple[str, ...]:
    """Words without articles, and without the politeness around them."""
    rest, _ = _opened(tokens)
    return tuple(
        word for word in rest if word not in ("the", "a", "an", "please", "pls", "now", "thanks", "thank", "you")
    )


def _begins(tokens: Sequence[str], words: tuple[str, ...]) -> bool:
    return tuple(tokens[: len(words)]) == words


def _opened(tokens: Sequence[str]) -> tuple[Sequence[str], set[str]]:
    """What is left without politeness, and the words of that."""
    said: set[str] = set()
    while opening := next((words for words in OPENINGS if _begins(tokens, words)), None):
        if len(opening) == len(tokens):
            break
        tokens = tokens[len(opening) :]
        said.update(opening)
    return tokens, said


def _symbols(tokens: Sequence[str]) -> list[Meaning]:
    """The expressions of a sentence, the longest first at every place; a NotUnderstood at a word without a meaning."""
    found, at = [], 0
    while at < len(tokens):
        for length in range(min(LONGEST, len(tokens) - at), 0, -1):
            words = tuple(tokens[at : at + length])
            if (kinds := EXPRESSIONS.get(words)) is not None:
                found.append(Meaning(words, kinds))
                at += length
                break
        else:
            word = tokens[at]
            if not (word.endswith("ly") and len(word) > 4):  # how something is done changes nothing here
                if (stem := _stem(word)) is None:
                    raise NotUnderstood(f"the word {word!r} has no meaning here")
                found.append(Meaning((word,), {"verb": EXPRESSIONS[(stem,)]["verb"]}))
            at += 1
    return found


def _stem(word: str) -> str | None:
    """The verb of which the word is a form; None if it is none of a verb here."""
    for ending, instead in (("ing", ""), ("ing", "e"), ("ed", ""), ("ed", "e"), ("es", ""), ("s", "")):
        if word.endswith(ending):
            stem = word.removesuffix(ending) + instead
            doubled = stem[:-1] if len(stem) > 2 and stem[-1:] == stem[-2:-1] else stem
            for form in (stem, doubled):
                if "verb" in EXPRESSIONS.get((form,), {}):
                    return form
    return None


# -- commands ---------------------------------------------------------------------------------------------------------


def _splits(sentence: str) -> Iterable[list[tuple[str, ...]]]:
    """Ways to cut the sentence into commands, fewest first: it is cut before every verb, and elsewhere if need be."""
    for form, instead in TURNED:
        if form.fullmatch(sentence):
            sentence = form.sub(instead, sentence)
            break
    cuts = [(match.start(), match.end()) for match in SEPARATORS.finditer(sentence)]
    needed = [cut for cut in cuts if _verb(_tokens(sentence[cut[1] :]))]
    others = [cut for cut in cuts if cut not in needed][:6]
    for count in range(len(others) + 1):
        for chosen in combinations(others, count):
            edges = [0, *(edge for cut in sorted([*needed, *chosen]) for edge in cut), len(sentence)]
            parts = [_tokens(sentence[a:b]) for a, b in zip(edges[::2], edges[1::2], strict=True)]
            yield [part for part in parts if not _idle(part)][: MOST_STEPS + 1] or [()]


def _verb(tokens: Sequence[str]) -> tuple[str, ...]:
    """The words of the verb that a command begins with; none if it begins with none."""
    rest, _ = _opened(tokens)
    for length in range(min(LONGEST, len(rest)), 0, -1):
        if (kinds := EXPRESSIONS.get(tuple(rest[:length]))) is not None:
            clear = "verb" in kinds and not {"direction", "relation", "colour", "noun"} & set(kinds)
            return tuple(rest[:length]) if clear else ()
    return tuple(rest[:1]) if rest and _stem(rest[0]) else ()


def _idle(tokens: Sequence[str]) -> bool:
    """Whether it is politeness alone."""
    rest, _ = _opened(tokens)
    return tuple(rest) in OPENINGS or all("dropped" in EXPRESSIONS.get((word,), {}) for word in rest)


def read_frame(tokens: Sequence[str], it: str | None = None) -> Frame:
    """The frame of one command; a NotUnderstood, with the reason, if it is none.

    Args:
        it: the thing that "it" means.
    """
    if not tokens:
        raise NotUnderstood("it says nothing")
    rest, said = _opened(tokens)
    if any(tuple(rest) == words for words in STILL):
        return ("stay",)
    _refuse_negations(tokens)
    if rest and rest[0] in TELLERS:
        raise NotUnderstood("it tells something")
    if any(_begins(rest, words) for words in QUESTIONS):
        raise NotUnderstood("it is a question")
    symbols = _symbols(rest)
    while symbols and "verb" not in symbols[0].kinds and set(symbols[0].kinds) == {"dropped"}:
        symbols = symbols[1:]
    if not symbols:
        raise NotUnderstood("it does not say what to do")
    wished = bool((said | {word for symbol in symbols for word in symbol.words}) & set(WISHES))
    if "verb" in symbols[0].kinds:
        verbs, args = symbols[0].kinds["verb"], _Arguments(symbols[1:])
    elif wished:
        verbs, args = frozenset({"push"}), _Arguments(symbols)
    else:
        raise NotUnderstood("it does not say what to do")
    if not args.things and it is not None and {"it", "that", "this"} & set(rest):
        args.things = [it]
    return _frame(verbs, args)


def _refuse_negations(tokens: Sequence[str]) -> None:
    left = list(tokens)
    for words in STILL:
        if len(words) > 1 and tuple(left[-len(words) :]) == words:
            del left[-len(words) :]
            break
    for words in NEGATIONS:
        for at in range(len(left)):
            if _begins(left[at:], words):
                raise NotUnderstood(f"it says not to: {' '.join(words)!r}")
    if "leave" in left and ("alone" in left or "be" in left):
        raise NotUnderstood("it says not to: 'leave alone'")


class _Arguments:
    """What follows a verb: things in their order, and where to."""

    def __init__(self, symbols: Sequence[Meaning]):
        self.things: list[str] = []
        """Colours, "block" for one without, "blocks" for several."""
        self.first_after_to = False
        """Whether "to" or the like comes before the first thing."""
        self.related = False
        """Whether something says how the second thing is related to the first."""
        self.swapped = False
        """Whether the second thing is what moves: hit one *with* another."""
        self.together = self.apart = False
        self.directions: list[str] = []
        self.place: str | None = None
        self.towards = False
        """Whether "to" or the like comes before the directions."""
        self.end = False
        """Whether "top" or "bottom" is said, which are places as well."""
        self.verbs: set[str] = set()
        """Further verbs: let it *touch* the other one."""
        self._take(symbols)

    def _take(self, symbols: Sequence[Meaning]) -> None:
        to = fresh = False
        for index, (words, kinds) in enumerate(symbols):
            follows = next((one.kinds for one in symbols[index + 1 :] if set(one.kinds) != {"dropped"}), {})
            kind = _kind(words, kinds, follows)
            meanings = kinds.get(kind, frozenset())
            if kind == "colour":
                self._thing(next(iter(meanings)), to)
                to, fresh = False, True
            elif kind == "noun":
                if not fresh:
                    self._thing("blocks" if "blocks" in meanings else "block", to)
                elif "blocks" in meanings and len(self.things) > 1:  # the red and the blue blocks
                    self.things = ["blocks"]
                to, fresh = False, True
            elif kind == "direction":
                self.directions += [word for meaning in meanings for word in meaning.split()]
                self.towards |= to
                self.end |= words in (("top",), ("bottom",))
                fresh = False
            elif kind == "place":
                found = next(iter(meanings))
                order = ("centre", "side", "corner")
                self.place = max(self.place or found, found, key=order.index)
                fresh = False
            elif kind == "relation":
                self.together |= "together" in meanings and not ("to" in meanings and {"colour", "noun"} & set(follows))
                self.apart |= "apart" in meanings
                self.swapped |= "with" in meanings
                to, fresh = "to" in meanings or "with" in meanings, False
            elif kind == "verb":
                self.verbs |= meanings

    def _thing(self, name: str, to: bool) -> None:
        if not self.things:
            self.first_after_to = to
        else:
            self.related |= to or bool(self.verbs)
        self.things.append(name)

    def where(self) -> str | None:
        """A direction or the name of a place; None if none is said.

        Raises:
            NotUnderstood: directions contradict each other, or a place is not named in full.
        """
        ways = list(dict.fromkeys(self.directions))
        if any(CROSSWAYS[way] in ways for way in ways):
            raise NotUnderstood("its directions contradict each other")
        if len(ways) == 2 and (self.place in ("side", "corner") or self.towards):
            across, along = sorted(ways, key=("up", "down", "left", "right").index)
            return f"{SIDES[across].split()[0]} {along} corner"
        if len(ways) == 2:
            raise NotUnderstood("it says two directions")
        if self.place == "corner" or (self.place == "side" and not ways):
            raise NotUnderstood(f"it does not say which {self.place}")
        if self.place == "centre" and not ways:
            return "centre"
        if self.place == "centre":
            raise NotUnderstood("it says two places")
        if self.place == "side" or (self.end and self.towards):
            return SIDES[ways[0]]
        return ways[0] if ways else None


def _kind(words: tuple[str, ...], kinds: dict[str, frozenset[str]], follows: dict[str, frozenset[str]]) -> str:
    """Which kind an expression is of here, by what follows it."""
    if "relation" in kinds and "direction" in kinds:
        return (
            "direction" if "place" in follows and words != ("closer", "to") else "relation" if follows else "direction"
        )
    for kind in ("colour", "noun", "place", "direction", "relation", "dropped", "verb"):
        if kind in kinds:
            return kind
    raise AssertionError(words)


def _frame(verbs: frozenset[str], args: _Arguments) -> Frame:
    """What is done to what, and where to."""
    things = args.things
    several = "blocks" in things or len(set(things)) > 1
    where = args.where()
    if "stay" in verbs and not things and where is None:
        return ("stay",)
    pushes = bool(verbs & {"push", "move", "make"})
    if "gather" in verbs or (pushes and args.together) or (pushes and things == ["blocks"] and "gather" in args.verbs):
        return _all_blocks("gather", several or (args.together and not things), where)
    if "separate" in verbs or (pushes and args.apart) or (pushes and things == ["blocks"] and "separate" in args.verbs):
        return _all_blocks("separate", several or not things, where)
    if args.apart or args.together:
        raise NotUnderstood("it does not say what to do with the blocks")
    if "make" in verbs and things == ["blocks"] and "reach" in args.verbs:
        return ("gather",)
    if not things:
        return _go(verbs, where, args)
    if len(things) > 2 or (len(things) == 2 and where is not None):
        raise NotUnderstood("it says too much at once")
    if len(things) == 2:
        moved, target = reversed(things) if args.swapped else things
        if not args.related or not (pushes or args.swapped):
            raise NotUnderstood("it does not say what to do with two things")
        if moved == target:
            raise NotUnderstood("a thing cannot be brought to itself")
        return ("push", moved, target)
    if where is not None:
        if pushes and not (args.first_after_to and "push" not in verbs):
            return ("push", things[0], where)
        raise NotUnderstood("it says too much at once")
    if "reach" in verbs or (verbs & {"go", "move"} and args.first_after_to):
        return ("reach", things[0])
    raise NotUnderstood("it does not say where to")


def _all_blocks(verb: str, said: bool, where: str | None) -> Frame:
    if where is not None:
        raise NotUnderstood("it says too much at once")
    if not said:
        raise NotUnderstood("it does not say which blocks")
    return (verb,)


def _go(verbs: frozenset[str], where: str | None, args: _Arguments) -> Frame:
    """Where the one who is spoken to goes."""
    if where is None:
        raise NotUnderstood("it does not say where to")
    if where in CROSSWAYS:
        if verbs & {"go", "move"}:
            return ("move", where)
    elif verbs & {"go", "move", "reach", "stay"}:
        return ("reach", where)
    raise NotUnderstood("it does not say what to move")
