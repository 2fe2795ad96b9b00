"""A tiny language world: topics, items, facts, checkable prompts and answers of mixed quality. Pure Python.

A prompt names two or three items, a tone and a word limit; every sentence of an answer reads "The item verb rest.", so
`rewards/gold.py` can score it from the text alone. All randomness comes from the `random.Random` that is passed in.
"""

import math
from dataclasses import dataclass
from itertools import chain
from random import Random

# per topic: its items, each with an adjective of its own, then the facts that hold for all of them
TOPICS = """\
beans:green oats:pale peas:round
    grow in fields, need some rain, give good food, keep for months
apples:crisp pears:soft plums:purple
    grow on trees, need warm days, have thin skin, make fine jam
ducks:brown owls:quiet crows:black
    have two wings, live in nests, come back in spring, like old trees
trout:quick carp:lazy eels:long
    live in water, move in groups, have cold blood, like deep pools
cats:proud dogs:loyal rabbits:shy
    live with people, need daily care, like warm beds, make good company
bees:busy ants:strong moths:grey
    have six legs, live in summer, move very fast, help the garden
oaks:old pines:tall elms:broad
    grow very slowly, give cool shade, turn light into wood, need deep soil
roses:fragrant tulips:simple lilies:pale
    need morning sun, come up in spring, make rooms bright, stay fresh in water
hammers:heavy saws:sharp drills:loud
    help the builder, stay in the shed, need clean hands, cost little money
spoons:round forks:shiny knives:sharp
    stay in drawers, help every cook, need a good wash, come in sets
drums:loud flutes:light violins:small
    make sweet sounds, need much practice, play in concerts, cost much money
coats:warm shirts:clean socks:woolen
    keep people warm, come in all sizes, turn old with time, need a good wash
trucks:big vans:roomy buses:crowded
    move on roads, need fuel and oil, carry many people, turn at corners
ferries:slow canoes:narrow yachts:costly
    move on rivers, carry heavy loads, need calm weather, stay in harbours
pebbles:smooth crystals:clear boulders:huge
    come from mountains, stay for ages, break under force, make strong walls
teas:hot juices:sweet coffees:dark
    come in cups, help the thirsty, cost a few coins, stay cool in cellars
rolls:crusty bagels:chewy buns:sweet
    come from ovens, sell every morning, need flour and salt, make a good breakfast
bries:soft cheddars:yellow fetas:white
    come from milk, keep in cool rooms, like a slice of bread, sell at markets
races:fast matches:tense games:fair
    make people strong, need a referee, turn into parties, like loud crowds
storms:wild showers:short fogs:thick
    come from the west, turn at night, stay for hours, move over hills
halls:long attics:dusty cellars:dark
    have four walls, need fresh air, hold old chairs, keep the rain out
books:thick letters:short maps:large
    hold many words, burn very easily, stay on shelves, carry old stories
lamps:bright candles:slim torches:strong
    shine in the dark, burn until dawn, help at night, make long shadows
puzzles:tricky dominoes:black riddles:clever
    play in the park, make children happy, need two players, stay in boxes
cows:calm sheep:woolly goats:stubborn
    live on farms, give us food, need clean straw, like green grass
bakers:early nurses:kind pilots:careful
    work long days, help other people, need good shoes, have busy weeks
"""
COURTESIES = (
    "I thank you for asking.", "I hope this helps you.", "I wish you a good day.", "You are most welcome here.",
    "I appreciate your question.", "I am glad to help.", "You have a friend here.", "It is my pleasure.",
)  # fmt: skip
RUDE = ("You bore me.", "I hate this question.", "That is a silly question.", "You are a fool.")
FILLER = ("People say many things.", "Time is always short.", "Days come and go.", "We have other plans.")
OPENINGS = ("Tell me about", "Write about", "Say something about", "Please talk about")


def _facts() -> dict[str, list[str]]:
    """The five facts of each item: its adjective, then the four of its topic."""
    lines = TOPICS.splitlines()
    facts = {}
    for items, shared in zip(lines[::2], lines[1::2], strict=True):
        of_topic = shared.strip().split(", ")
        for pair in items.split():
            item, adjective = pair.split(":")
            facts[item] = [f"The {item} {fact}." for fact in (f"are {adjective}", *of_topic)]
    return facts


FACTS = _facts()


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One request: the named items, the tone (`polite` or not) and the word limit."""

    items: tuple[str, ...]
    polite: bool
    limit: int
    opening: str = OPENINGS[0]

    def __str__(self) -> str:
        named = ", ".join(self.items[:-1]) + " and " + self.items[-1]
        tone = "polite" if self.polite else "plain"
        return f"{self.opening} {named}. Be {tone}. Use at most {self.limit} words."


def prompts(rng: Random, train: int, test: int) -> tuple[list[Prompt], list[Prompt]]:
    """Train and test prompts. Each names a set of items of its own, so no test prompt has a twin in train."""
    if train + test > 50_000:  # of 79,079 sets of two or three items
        raise ValueError(f"the tiny world has 50000 prompts at most, {train + test} asked for")
    drawn: dict[frozenset[str], Prompt] = {}
    while len(drawn) < train + test:
        items = tuple(rng.sample(list(FACTS), rng.choice((2, 3))))
        limit = 5 * len(items) + rng.choice((10, 12, 14, 16))
        prompt = Prompt(items=items, polite=rng.random() < 0.85, limit=limit, opening=rng.choice(OPENINGS))
        drawn.setdefault(frozenset(items), prompt)
    everything = list(drawn.values())
    return everything[:train], everything[train:]


def answer(prompt: Prompt, rng: Random, quality: float | None = None) -> str:
    """One answer, of a quality in [0, 1] that is drawn where none is given.

    The quality sets how often items are left out, the tone is missed, and the answer rambles, repeats itself, is rude
    or leaves the subject. Even at 1, answers are good, not perfect.
    """
    quality = rng.random() if quality is None else quality
    slip = 1 - quality

    def happens(probability: float) -> bool:
        return rng.random() < probability

    chatty = rng.choice((0.1, 0.3, 0.7)) if happens(0.2 + 0.5 * slip) else 0.1  # chance of each further fact
    body = []
    for item in prompt.items:
        if happens(0.95 - 0.6 * slip):
            count = 1 + sum(happens(chatty) for _ in FACTS[item][1:])
            body += rng.sample(FACTS[item], count)
    if happens(0.6 * slip):
        other = rng.choice(list(FACTS))
        body.insert(rng.randint(0, len(body)), rng.choice((*FILLER, rng.choice(FACTS[other]))))
    if body and happens(0.4 * slip):
        body.insert(rng.randint(0, len(body)), rng.choice(body))

    warmth = rng.choice((1, 1, 2)) if prompt.polite else 0
    if happens(0.1 + 0.6 * slip):  # misses the tone
        warmth = rng.choice((0, 0, 0, 0, 0, 0, 3, 4, 6) if prompt.polite else (1, 1, 2, 4))
    courtesies = [rng.choice(COURTESIES) for _ in range(warmth)]
    if happens(0.45 * slip):
        courtesies = courtesies[1:]
        body.insert(rng.randint(0, len(body)), rng.choice(RUDE))
    before = rng.randint(0, len(courtesies))
    return " ".join([*courtesies[:before], *body, *courtesies[before:]]) or rng.choice(FILLER)


def prefers(first: float, second: float, temperature: float, rng: Random) -> bool:
    """A noisy Bradley-Terry choice: True with P = sigmoid((first - second) / temperature)."""
    return rng.random() < 1 / (1 + math.exp(-max(-500.0, min(500.0, (first - second) / temperature))))


def vocabulary() -> set[str]:
    """Every lower-case word that a prompt or an answer can hold (numbers aside)."""
    sentences = [*COURTESIES, *RUDE, *FILLER, *OPENINGS, *chain.from_iterable(FACTS.values())]
    words = " ".join([*sentences, "and Be polite plain Use at most words"]).lower().replace(".", "").split()
    return set(words)
