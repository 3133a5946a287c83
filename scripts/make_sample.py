"""Write the sample data that ships with sftkit, or any amount of similar data for a benchmark.

A generator instead of a download, because the sample must need no license and no network, its answers must be correct,
and a model with a million parameters must visibly learn from it in a minute. So every answer is computed, every topic
has its own form of answers ("17 + 25 = 42."), and numbers, names and words are combined so that a hundred thousand rows
hardly repeat. The same seed gives the same bytes.

    python scripts/make_sample.py                                       # rewrite src/sftkit/sample/*.jsonl
    python scripts/make_sample.py --conversations 88000 --turns 4 10 --output big.jsonl

A topic is a function from a random generator to an endless stream of exchanges, each a question with its answer. A
stream has state, so that a follow-up ("And for 8 people?") can refer to an earlier question.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from datetime import date, timedelta
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

SAMPLE_DIR = Path(__file__).resolve().parent.parent / "src" / "sftkit" / "sample"
SEED = 66
TIMES = "\N{MULTIPLICATION SIGN}"  # not the letter x
TURNS = (1, 4)  # exchanges per conversation; a system prompt replaces one, so there are 2 to 8 messages

Row = dict[str, Any]


class Exchange(NamedTuple):
    """A question of the user and the answer of the assistant."""

    question: str
    answer: str


Topic = Callable[[Random], Iterator[Exchange]]


def _listed(words: str) -> list[str]:
    """The words of a text; long lists are easier to read and edit without quotes and commas."""
    return words.split()


# --- Material of the topics -------------------------------------------------------------------

NAMES = _listed("""
    Ada Amir Anaïs Björn Chloé Dmitri Elif Emeka Farah Grace Hana Hugo Ines Ivan Jonas José Kofi Lena
    Lucía Mara Mateo Mei Nadia Noah Nora Olga Omar Petra Priya Quentin Rosa Ruth Samir Sofía Søren Tariq
    Uma Vera Wei Yara Zoé
""")
CITIES = _listed("""
    Accra Bergen Bogotá Brno Córdoba Dakar Dublin Ghent Hanoi Izmir Kraków Kyoto Leeds Lima Lyon Malmö
    München Nairobi Oslo Perth Porto Pune Quito Riga Tallinn Turin Utrecht Wellington Zürich
""")
THINGS = _listed("""
    apples beads books buttons candles cards coins eggs lemons marbles pears pencils shells stamps
    tickets
""")
WORDS = _listed("""
    anchor apple autumn basket bridge butter candle carpet castle cherry circle cloud copper cotton
    desert dragon engine falcon feather finger flower forest garden ginger guitar hammer harbor honey
    island jacket jungle kettle ladder lantern lemon letter maple marble market meadow mirror monkey
    morning mountain needle ocean orange orchid paper pebble pencil pepper piano planet pocket rabbit
    ribbon river rocket saddle salmon school shadow silver singer spider spring stable summer sunset
    teapot thunder ticket tiger tunnel valley velvet violin walnut water window winter wizard wonder
    yellow
""")
HOBBIES = [
    "baking bread", "bird watching", "chess", "cycling", "drawing", "gardening", "hiking", "juggling",
    "knitting", "learning Spanish", "painting", "photography", "playing the cello", "pottery", "reading",
    "rowing", "running", "sailing", "singing", "swimming",
]  # fmt: skip
WEEKDAYS = _listed("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = _listed("""
    January February March April May June July August September October November December
""")

# country, capital, continent, an official or most spoken language
COUNTRIES = [
    tuple(line.split("|"))
    for line in """Argentina|Buenos Aires|South America|Spanish
Australia|Canberra|Oceania|English
Austria|Vienna|Europe|German
Brazil|Brasília|South America|Portuguese
Bulgaria|Sofia|Europe|Bulgarian
Canada|Ottawa|North America|English
Chile|Santiago|South America|Spanish
China|Beijing|Asia|Chinese
Colombia|Bogotá|South America|Spanish
Croatia|Zagreb|Europe|Croatian
Cuba|Havana|North America|Spanish
Denmark|Copenhagen|Europe|Danish
Egypt|Cairo|Africa|Arabic
Estonia|Tallinn|Europe|Estonian
Finland|Helsinki|Europe|Finnish
France|Paris|Europe|French
Germany|Berlin|Europe|German
Ghana|Accra|Africa|English
Greece|Athens|Europe|Greek
Hungary|Budapest|Europe|Hungarian
Iceland|Reykjavík|Europe|Icelandic
India|New Delhi|Asia|Hindi
Iran|Tehran|Asia|Persian
Ireland|Dublin|Europe|English
Italy|Rome|Europe|Italian
Japan|Tokyo|Asia|Japanese
Kenya|Nairobi|Africa|Swahili
Latvia|Riga|Europe|Latvian
Mexico|Mexico City|North America|Spanish
Mongolia|Ulaanbaatar|Asia|Mongolian
Morocco|Rabat|Africa|Arabic
New Zealand|Wellington|Oceania|English
Nigeria|Abuja|Africa|English
Norway|Oslo|Europe|Norwegian
Peru|Lima|South America|Spanish
Poland|Warsaw|Europe|Polish
Portugal|Lisbon|Europe|Portuguese
Senegal|Dakar|Africa|French
Spain|Madrid|Europe|Spanish
Sweden|Stockholm|Europe|Swedish
Thailand|Bangkok|Asia|Thai
Tunisia|Tunis|Africa|Arabic
Uruguay|Montevideo|South America|Spanish
Vietnam|Hanoi|Asia|Vietnamese""".splitlines()
]

# dish -> ingredients for one person: (amount, unit, name); an empty unit counts pieces
DISHES: dict[str, list[tuple[int, str, str]]] = {
    "crème brûlée": [(100, "ml", "cream"), (2, "", "egg yolks"), (20, "g", "sugar")],
    "crêpes": [(60, "g", "flour"), (120, "ml", "milk"), (1, "", "eggs")],
    "fried rice": [(80, "g", "rice"), (50, "g", "peas"), (1, "", "eggs"), (10, "ml", "soy sauce")],
    "guacamole": [(1, "", "avocados"), (30, "g", "tomato"), (10, "ml", "lime juice"), (5, "g", "jalapeño")],
    "hummus": [(90, "g", "chickpeas"), (20, "g", "tahini"), (15, "ml", "lemon juice")],
    "lentil soup": [(70, "g", "red lentils"), (40, "g", "carrots"), (250, "ml", "water"), (5, "g", "cumin")],
    "mashed potatoes": [(250, "g", "potatoes"), (50, "ml", "milk"), (15, "g", "butter")],
    "mushroom risotto": [
        (75, "g", "rice"),
        (80, "g", "mushrooms"),
        (200, "ml", "broth"),
        (15, "g", "Parmesan"),
    ],
    "pancakes": [(50, "g", "flour"), (60, "ml", "milk"), (1, "", "eggs"), (10, "g", "butter")],
    "pea purée": [(150, "g", "peas"), (20, "ml", "cream"), (5, "g", "mint")],
    "pumpkin soup": [(200, "g", "pumpkin"), (150, "ml", "broth"), (30, "ml", "cream")],
    "ratatouille": [(100, "g", "aubergine"), (80, "g", "courgette"), (120, "g", "tomatoes")],
    "tomato pasta": [(100, "g", "pasta"), (120, "g", "tomatoes"), (10, "ml", "olive oil"), (2, "g", "basil")],
}

# (larger unit, smaller unit, number of smaller units in the larger one)
UNITS = [
    ("km", "m", 1000), ("m", "cm", 100), ("cm", "mm", 10), ("kg", "g", 1000), ("t", "kg", 1000),
    ("l", "ml", 1000), ("hours", "minutes", 60), ("minutes", "seconds", 60), ("days", "hours", 24),
    ("weeks", "days", 7),
]  # fmt: skip
ONE_OF = {"hours": "1 hour", "minutes": "1 minute", "days": "1 day", "weeks": "1 week"}

PAINTS = {
    ("red", "yellow"): "orange", ("blue", "yellow"): "green", ("blue", "red"): "purple",
    ("red", "white"): "pink", ("black", "white"): "grey", ("blue", "white"): "light blue",
    ("black", "blue"): "dark blue", ("green", "white"): "light green", ("orange", "blue"): "brown",
    ("purple", "white"): "lilac",
}  # fmt: skip
COLOURED = {
    "a ripe banana": "yellow", "fresh grass": "green", "a clear sky": "blue", "a ripe tomato": "red",
    "snow": "white", "coal": "black", "a carrot": "orange", "an aubergine": "purple", "an elephant": "grey",
    "a flamingo": "pink", "chocolate": "brown",
}  # fmt: skip

SHOP = {
    "notebook": 250, "pen": 120, "eraser": 80, "ruler": 150, "folder": 175, "marker": 190, "envelope": 25,
    "postcard": 90, "calendar": 850, "lamp": 1995, "mug": 640, "poster": 525,
}  # fmt: skip

SFTKIT_FACTS = [
    (
        "What does -100 mean in the labels?",
        "A label of -100 puts no loss on its token, so the model does not learn to produce it.",
    ),
    (
        "Which tokens carry a loss?",
        "The tokens the assistant has to produce carry a loss: its words and the stop token of its turn.",
    ),
    (
        "Which file is written last?",
        "The file manifest.json is written last. Without it the data set is not complete.",
    ),
    (
        "What is a shard?",
        "A shard is one Parquet file with a part of the rows. All shards together are the data set.",
    ),
    ("Which columns does a shard have?", "A shard has the columns `input_ids` and `labels`."),
    (
        "Where do unusable rows go?",
        "They go to quarantine.jsonl, each with its path, its row number and the reason.",
    ),
    (
        "What happens if I kill a run?",
        "Start the same command again. It continues and ends with the same shards.",
    ),
    (
        "Does the number of workers change the result?",
        "No. One worker or eight: the shards are the same, byte for byte.",
    ),
    (
        "How do I see the plan without running it?",
        "Add `--dry_run` to the command. It prints the plan and writes nothing.",
    ),
    (
        "What are the steps from raw data to a model?",
        "1. sftkit preprocess\n2. sftkit inspect-shards\n3. sftkit train",
    ),
]

SYSTEM_PROMPTS: dict[str, list[str]] = {
    "arithmetic": ["You are a calculator. Show the sum and its result.", "You help pupils with arithmetic."],
    "calendar": ["You are a calendar assistant.", "You answer questions about days and dates."],
    "colours": ["You are a patient art teacher.", "You know everything about colours."],
    "geography": ["You are a geography teacher. Answer in one sentence.", "You are a friendly atlas."],
    "kitchen": ["You are a cook. List ingredients one a line.", "You are a kitchen assistant."],
    "sequences": ["You like numbers and explain how they follow each other."],
    "sftkit": ["You explain sftkit to new users.", "You are the help desk of sftkit."],
    "shopping": ["You work at the till of a small shop. Prices are in euros (€)."],
    "small_talk": ["You are polite and cheerful.", "You are a friendly companion. Keep it short."],
    "units": ["You convert units and say why.", "You are a unit converter."],
    "words": ["You play word games.", "You are a spelling coach."],
}
ANY_SYSTEM_PROMPT = ["You are a helpful assistant.", "You are a helpful assistant. Keep your answers short."]

LEAD_INS = [
    "",
    "",
    "",
    "",
    "Thanks! ",
    "Great. ",
    "Next one: ",
    "And another: ",
    "Good to know \N{EN DASH} next: ",
]
FAREWELLS = [
    Exchange("Thank you, that was all.", "You are welcome! Come back any time. 😊"),
    Exchange("Thanks a lot, goodbye!", "Goodbye! It was a pleasure to help."),
    Exchange("Perfect, that is all I needed.", "Glad I could help. Have a nice day! 👋"),
]

# --- Topics ---------------------------------------------------------------------------------------


def arithmetic(rng: Random) -> Iterator[Exchange]:
    """Sums, products, divisions without remainder, small stories; sometimes a follow-up on the last result."""
    last: int | None = None
    while True:
        kind = rng.randrange(7)
        if last is not None and last < 5000 and rng.random() < 0.25:
            yield Exchange(rng.choice(["Now double it.", "And twice that?"]), f"2 {TIMES} {last} = {2 * last}.")
            last = 2 * last
        elif kind == 0:
            yield _story(rng)
        elif kind == 1:
            yield _sum_in_steps(rng)
        else:
            expression, last = _expression(rng)
            asking = rng.choice(
                ["What is {}?", "Please compute {}.", "How much is {}?", "{} = ?", "Can you work out {}?"]
            )
            yield Exchange(asking.format(expression), f"{expression} = {last}.")


def _expression(rng: Random) -> tuple[str, int]:
    a, b = rng.randint(2, 99), rng.randint(2, 99)
    match rng.randrange(4):
        case 0:
            return f"{a} + {b}", a + b
        case 1:
            return f"{a + b} - {b}", a
        case 2:
            return f"{a} {TIMES} {b % 12 + 1}", a * (b % 12 + 1)
        case _:
            return f"{a * (b % 9 + 2)} ÷ {b % 9 + 2}", a


def _story(rng: Random) -> Exchange:
    name, things, a, b = rng.choice(NAMES), rng.choice(THINGS), rng.randint(5, 60), rng.randint(2, 40)
    if rng.random() < 0.5:
        question = f"{name} has {a} {things} and finds {b} more. How many {things} does {name} have now?"
        return Exchange(question, f"{a} + {b} = {a + b}, so {name} has {a + b} {things}.")
    question = f"{name} had {a + b} {things} and gave {b} away. How many are left?"
    return Exchange(question, f"{a + b} - {b} = {a}, so {name} has {a} {things}.")


def _sum_in_steps(rng: Random) -> Exchange:
    numbers = [rng.randint(2, 50) for _ in range(rng.randint(3, 4))]
    totals = list(itertools.accumulate(numbers))
    steps = [f"{total} + {number} = {total + number}" for total, number in zip(totals, numbers[1:], strict=False)]
    question = f"Add {_join(numbers)} step by step."
    return Exchange(question, "\n".join([*steps, f"The sum is {totals[-1]}."]))


def sequences(rng: Random) -> Iterator[Exchange]:
    """Next number, larger number, even or odd."""
    while True:
        start, step, shown = rng.randint(1, 60), rng.randint(2, 15), rng.randint(3, 5)
        kind = rng.randrange(3)
        if kind == 0:
            numbers = [start + step * index for index in range(shown + 1)]
            listed = ", ".join(map(str, numbers[:-1]))
            asking = rng.choice(["Continue: {}, ...", "Which number comes after {}?", "What follows {}?"])
            yield Exchange(asking.format(listed), f"{numbers[-1]}, because each step adds {step}.")
        elif kind == 1:
            a, b = rng.sample(range(10, 1000), 2)
            asking = rng.choice(["Which is larger, {} or {}?", "Is {} or {} the larger number?"])
            yield Exchange(asking.format(a, b), f"{max(a, b)} is larger than {min(a, b)}.")
        else:
            number = rng.randint(10, 999)
            kind_of_number = "odd" if number % 2 else "even"
            yield Exchange(
                f"Is {number} even or odd?",
                f"{number} is {kind_of_number}, because it ends in {number % 10}.",
            )


def units(rng: Random) -> Iterator[Exchange]:
    """Lengths, weights, volumes, times and temperatures."""
    while True:
        if rng.random() < 0.2:
            celsius = rng.randrange(-40, 205, 5)
            asking = rng.choice(["What is {} °C in °F?", "Convert {} °C to Fahrenheit.", "How warm is {} °C in °F?"])
            yield Exchange(asking.format(celsius), f"{celsius} °C is {celsius * 9 // 5 + 32} °F.")
            continue
        large, small, factor = rng.choice(UNITS)
        amount = rng.randint(2, 120)
        why = f"because {ONE_OF.get(large, f'1 {large}')} is {factor} {small}."
        asking = rng.choice(
            [
                "Convert {} {} to {}.",
                "How much is {} {} in {}?",
                "What is {} {} in {}?",
                "Please give {} {} in {}.",
            ]
        )
        if rng.random() < 0.6:
            yield Exchange(asking.format(amount, large, small), f"{amount} {large} = {amount * factor} {small}, {why}")
        else:
            yield Exchange(
                asking.format(amount * factor, small, large),
                f"{amount * factor} {small} = {amount} {large}, {why}",
            )


def kitchen(rng: Random) -> Iterator[Exchange]:
    """Ingredients for a dish and a number of people, one per line; then the number changes, or the dish."""
    dish, people = "", 0
    while True:
        if dish and rng.random() < 0.4:
            people = rng.choice([number for number in range(2, 13) if number != people])
            question = rng.choice([f"And for {people} people?", f"What if we are {people}?"])
        elif dish and rng.random() < 0.3:
            amount, unit, ingredient = rng.choice(DISHES[dish])
            yield Exchange(
                f"And the {ingredient} per person?",
                f"{_amount(amount, unit, ingredient)} per person.",
            )
            continue
        else:
            dish, people = rng.choice(list(DISHES)), rng.randint(2, 12)
            asking = rng.choice([
                "I am cooking {} for {} people. What do I need?", "What goes into {} for {}?",
                "Ingredients for {}, {} people, please.", "{} guests want {}. What should I buy?",
            ])  # fmt: skip
            question = asking.format(people, dish) if asking.startswith("{}") else asking.format(dish, people)
        needed = [f"- {_amount(amount * people, unit, what)}" for amount, unit, what in DISHES[dish]]
        yield Exchange(question, "\n".join([f"For {dish} ({people} people) you need:", *needed]))


def _amount(amount: int, unit: str, ingredient: str) -> str:
    if not unit and amount == 1:
        return f"1 {ingredient.removesuffix('s')}"
    return f"{amount} {unit} {ingredient}" if unit else f"{amount} {ingredient}"


def geography(rng: Random) -> Iterator[Exchange]:
    """Capitals, continents and languages."""
    while True:
        country, capital, continent, language = rng.choice(COUNTRIES)
        match rng.randrange(5):
            case 0 | 1:
                asking = rng.choice(
                    [
                        "What is the capital of {}?",
                        "Which city is the capital of {}?",
                        "Name the capital of {}.",
                    ]
                )
                yield Exchange(asking.format(country), f"The capital of {country} is {capital}.")
            case 2:
                asking = rng.choice(["On which continent is {}?", "Which continent does {} belong to?"])
                yield Exchange(asking.format(country), f"{country} is in {continent}.")
            case 3:
                yield Exchange(
                    f"Which language would help me in {country}?", f"In {country}, {language} will help you."
                )
            case _:
                elsewhere = [row[0] for row in COUNTRIES if row[2] != continent]
                listed = rng.sample([country, *rng.sample(elsewhere, 2)], 3)
                yield Exchange(
                    f"Which of these is in {continent}: {_join(listed, 'or')}?",
                    f"{country} is in {continent}.",
                )


def words(rng: Random) -> Iterator[Exchange]:
    """Spelling, reversing, counting letters and sorting."""
    while True:
        word = rng.choice(WORDS)
        match rng.randrange(6):
            case 0:
                asking = rng.choice(["Spell the word {}.", "How do you spell {}?"])
                yield Exchange(asking.format(word), f"{word}: {'-'.join(word)}.")
            case 1:
                asking = rng.choice(["Reverse the word {}.", "What is {} backwards?"])
                yield Exchange(asking.format(word), f"{word} backwards is {word[::-1]}.")
            case 2:
                asking = rng.choice(["How many letters does {} have?", "Count the letters of {}."])
                yield Exchange(asking.format(word), f"{word} has {len(word)} letters.")
            case 3:
                yield Exchange(f"Write {word} in capital letters.", f"{word.upper()}.")
            case 4:
                yield Exchange(
                    f"Which letter does {word} start and end with?",
                    f"{word} starts with {word[0]} and ends with {word[-1]}.",
                )
            case _:
                chosen = rng.sample(WORDS, rng.randint(3, 4))
                yield Exchange(
                    f"Sort {_join(chosen)} by the alphabet.",
                    "\n".join(f"{place}. {each}" for place, each in enumerate(sorted(chosen), 1)),
                )


def colours(rng: Random) -> Iterator[Exchange]:
    """Mixing paint, the colour of things, and colours as hexadecimal codes."""
    while True:
        match rng.randrange(4):
            case 0:
                first, second = rng.sample(pair := rng.choice(list(PAINTS)), 2)
                asking = rng.choice(["What do I get if I mix {} and {}?", "Which colour do {} and {} make?"])
                yield Exchange(asking.format(first, second), f"{first} and {second} make {PAINTS[pair]}.".capitalize())
            case 1:
                thing = rng.choice(list(COLOURED))
                yield Exchange(f"Which colour is {thing}?", f"{thing} is {COLOURED[thing]}.".capitalize())
            case 2:
                red, green, blue = (rng.randrange(256) for _ in range(3))
                asking = rng.choice(["Write rgb({}, {}, {}) as a hex code.", "What is rgb({}, {}, {}) in hex?"])
                yield Exchange(asking.format(red, green, blue), f"The hex code is #{red:02X}{green:02X}{blue:02X}.")
            case _:
                red, green, blue = rng.sample(range(256), 3)
                strongest = {red: "red", green: "green", blue: "blue"}[max(red, green, blue)]
                yield Exchange(
                    f"Which part is strongest in rgb({red}, {green}, {blue})?",
                    f"The {strongest} part, with {max(red, green, blue)}.",
                )


def calendar(rng: Random) -> Iterator[Exchange]:
    """Days of the week, days later, lengths of months."""
    while True:
        day = date(1980, 1, 1) + timedelta(days=rng.randrange(25_000))
        match rng.randrange(4):
            case 0:
                asking = rng.choice(["Which day of the week is {}?", "What weekday is {}?"])
                yield Exchange(asking.format(_written(day)), f"{_written(day)} is a {WEEKDAYS[day.weekday()]}.")
            case 1:
                asking = rng.choice(["Which date comes after {}?", "What is the day after {}?"])
                yield Exchange(
                    asking.format(_written(day)),
                    f"The day after {_written(day)} is {_written(day + timedelta(days=1))}.",
                )
            case 2:
                today, days = rng.randrange(7), rng.randint(2, 60)
                question = f"Today is {WEEKDAYS[today]}. Which day is it in {days} days?"
                yield Exchange(question, f"In {days} days it is {WEEKDAYS[(today + days) % 7]}.")
            case _:
                first = day.replace(day=1)
                length = ((first + timedelta(days=31)).replace(day=1) - first).days
                month = f"{MONTHS[day.month - 1]} {day.year}"
                yield Exchange(f"How many days does {month} have?", f"{month} has {length} days.")


def _written(day: date) -> str:
    return f"{day.day} {MONTHS[day.month - 1]} {day.year}"


def shopping(rng: Random) -> Iterator[Exchange]:
    """A receipt, one line per article, and the change."""
    total = 0
    while True:
        if total and rng.random() < 0.5:
            note = next(note for note in (1000, 2000, 5000, 10000, 20000, 50000) if note >= total)
            question = rng.choice([f"I pay with {_euros(note)}.", f"Here are {_euros(note)}. What is my change?"])
            yield Exchange(question, f"{_euros(note)} - {_euros(total)} = {_euros(note - total)} change.")
            total = 0
            continue
        bought = [(rng.randint(1, 9), article) for article in rng.sample(list(SHOP), rng.randint(2, 3))]
        total = sum(count * SHOP[article] for count, article in bought)
        listed = _join([_pieces(count, article) for count, article in bought])
        lines = [f"{_pieces(count, article)}: {_euros(count * SHOP[article])}" for count, article in bought]
        asking = rng.choice(["What do {} cost?", "I would like {}, please.", "How much do I pay for {}?"])
        yield Exchange(asking.format(listed), "\n".join([*lines, f"Total: {_euros(total)}"]))


def _pieces(count: int, article: str) -> str:
    return f"{count} {article}" if count == 1 else f"{count} {article}s"


def _euros(cents: int) -> str:
    return f"€{cents // 100}.{cents % 100:02d}"


def small_talk(rng: Random) -> Iterator[Exchange]:
    """First greetings, then hobbies, places and plans; answers repeat the user's name."""
    name, city = rng.choice(NAMES), rng.choice(CITIES)
    greeting = rng.choice(["Hello", "Hi", "Good morning", "Good evening"])
    yield Exchange(
        rng.choice([f"{greeting}, I am {name} from {city}.", f"{greeting}! My name is {name} and I live in {city}."]),
        f"{greeting}, {name}! How nice to hear from {city}. How can I help you? 😊",
    )
    while True:
        hobby, day = rng.choice(HOBBIES), rng.choice(WEEKDAYS)
        match rng.randrange(5):
            case 0:
                yield Exchange(
                    f"On {day}s I enjoy {hobby}.",
                    f"That sounds lovely, {name}. What do you like most about {hobby}?",
                )
            case 1:
                yield Exchange("Do you remember my name?", f"Of course, your name is {name}.")
            case 2:
                yield Exchange("And where do I live?", f"You told me that you live in {city}.")
            case 3:
                friend = rng.choice(NAMES)
                yield Exchange(
                    f"My friend {friend} likes {hobby}.",
                    f"Then {friend} and you have something to talk about, {name}!",
                )
            case _:
                yield Exchange(
                    f"Should I try {hobby} on {day}?",
                    f"Yes, {name}, {day} is a good day to try {hobby}. Enjoy!",
                )


def sftkit(rng: Random) -> Iterator[Exchange]:
    """How to use sftkit: its terms, and commands for the paths and numbers in the question."""
    while True:
        directory = f"{rng.choice(['out', 'data', 'runs'])}/{rng.choice(WORDS)}_{rng.randint(1, 99)}"
        config = f"{rng.choice(WORDS)}.yaml"
        number = rng.randint(2, 64)
        match rng.randrange(7):
            case 0:
                yield Exchange(
                    f"How do I turn {config} into shards in {directory}?",
                    f"Run:\nsftkit preprocess --data_config_path {config} --output_dir {directory}",
                )
            case 1:
                yield Exchange(
                    f"How do I get {number} shards?",
                    f"Add `--num_dataset_shards {number}` to sftkit preprocess.",
                )
            case 2:
                yield Exchange(
                    f"Show me {number} rows of {directory}.",
                    f"Run:\nsftkit inspect-shards {directory} --rows {number}",
                )
            case 3:
                tokens = 2 ** rng.randint(8, 15)
                yield Exchange(
                    f"My rows must not exceed {tokens} tokens.",
                    f"Add `--max_seq_length {tokens}`. Longer rows are truncated.",
                )
            case 4:
                yield Exchange(
                    f"Train on {directory} for {number * 10} steps.",
                    f"Run:\nsftkit train --training_data_path {directory} --max_steps {number * 10}",
                )
            case _:
                yield Exchange(*rng.choice(SFTKIT_FACTS))


def _join(items: Iterable[object], word: str = "and") -> str:
    *head, last = map(str, items)
    return f"{', '.join(head)} {word} {last}"


TOPICS: dict[str, Topic] = {
    "arithmetic": arithmetic,
    "calendar": calendar,
    "colours": colours,
    "geography": geography,
    "kitchen": kitchen,
    "sequences": sequences,
    "sftkit": sftkit,
    "shopping": shopping,
    "small_talk": small_talk,
    "units": units,
    "words": words,
}

# --- Conversations and pairs ----------------------------------------------------------------------


def generate_conversations(
    count: int, seed: int, turns: tuple[int, int] = TURNS, prefix: str = "chat"
) -> Iterator[Row]:
    """Yield `count` conversations, each with `turns` (fewest, most) exchanges of a user and an assistant.

    A third of them have a system prompt and at most one exchange fewer, so that a conversation never has more than
    2 * turns[1] messages (unless fewest = most). The first rows are the same for every `count`.
    """
    rng = Random(seed)
    for number, topic in zip(range(count), _shuffled_rounds(rng, list(TOPICS)), strict=False):
        yield {"id": f"{prefix}-{number:05d}", "topic": topic, "messages": _messages(rng, topic, turns)}


def _shuffled_rounds(rng: Random, topics: list[str]) -> Iterator[str]:
    """All topics in a random order, repeatedly, so that a small file has all of them."""
    while True:
        yield from rng.sample(topics, len(topics))


def _messages(rng: Random, topic: str, turns: tuple[int, int]) -> list[dict[str, str]]:
    fewest, most = turns
    messages = []
    if rng.random() < 1 / 3:
        most = max(fewest, most - 1)
        prompt = rng.choice(SYSTEM_PROMPTS[topic] + ANY_SYSTEM_PROMPT)
        messages.append({"role": "system", "content": prompt})
    exchanges = _distinct(TOPICS[topic](rng), rng.randint(fewest, most))
    for place, (question, answer) in enumerate(exchanges):
        last = place == len(exchanges) - 1
        if last and place > 0 and rng.random() < 0.15:
            question, answer = rng.choice(FAREWELLS)
        elif place > 0 and topic != "small_talk":
            question = rng.choice(LEAD_INS) + question
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": answer})
    return messages


def _distinct(stream: Iterator[Exchange], count: int) -> list[Exchange]:
    """The first `count` exchanges of `stream` without repeated questions."""
    found: dict[str, Exchange] = {}
    for exchange in stream:
        found.setdefault(exchange.question, exchange)
        if len(found) == count:
            break
    return list(found.values())


REVIEWS = {
    "positive": ["wonderful", "delicious", "better than I had hoped", "a real pleasure"],
    "negative": ["too salty", "cold and late", "a disappointment", "worse than last time"],
    "neutral": ["neither good nor bad", "about what I had expected", "all right, nothing special"],
}


def sentiment(rng: Random) -> Exchange:
    """A guest's remark and its sentiment; the only task that is in the pairs alone."""
    label = rng.choice(list(REVIEWS))
    dish, city, verdict = rng.choice(list(DISHES)), rng.choice(CITIES), rng.choice(REVIEWS[label])
    remark = f"We had {dish} in {city}. The meal was {verdict}."
    return Exchange(f"Review: {remark}\nIs it positive, negative or neutral?", label)


def generate_pairs(count: int, seed: int, prefix: str = "pair") -> Iterator[Row]:
    """Yield `count` input/output pairs: first questions of the topics, and reviews to classify."""
    rng = Random(seed)
    topics = [*(name for name in TOPICS if name != "small_talk"), "sentiment"]
    for number, topic in zip(range(count), _shuffled_rounds(rng, topics), strict=False):
        question, answer = sentiment(rng) if topic == "sentiment" else next(TOPICS[topic](rng))
        form = rng.choice(["Question: {}\nAnswer:", "Question: {}\nAnswer:", "### Task\n{}\n\n### Response\n"])
        yield {
            "id": f"{prefix}-{number:05d}",
            "topic": topic,
            "input": form.format(question),
            "output": answer,
        }


# --- Files ----------------------------------------------------------------------------------------


def write_sample(directory: Path) -> None:
    """Write the three bundled files; no two rows are equal, in a file or across files."""
    directory.mkdir(parents=True, exist_ok=True)
    seen: set[str] = set()
    write_jsonl(directory / "conversations.jsonl", _unseen(generate_conversations(330, SEED), seen, 320))
    write_jsonl(directory / "pairs.jsonl", _unseen(generate_pairs(400, SEED + 1), seen, 280))
    validation = generate_conversations(80, SEED + 2, prefix="held-out")
    write_jsonl(directory / "validation.jsonl", _unseen(validation, seen, 40))


def _unseen(rows: Iterable[Row], seen: set[str], count: int) -> Iterator[Row]:
    """The first `count` rows whose content is not in `seen`; adds them to it."""
    for row in rows:
        content = json.dumps([row[key] for key in row if key not in ("id", "topic")])
        if count > 0 and content not in seen:
            seen.add(content)
            count -= 1
            yield row


def write_jsonl(path: Path, rows: Iterable[Row]) -> None:
    """Write one JSON object per line, UTF-8, with the same bytes on every system."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def main() -> None:
    """Parse the command line, write, and print what was written."""
    parser = argparse.ArgumentParser(description="Write the bundled sample, or any number of conversations like it.")
    parser.add_argument("--conversations", type=int, help="number of conversations (default: write the bundled files)")
    parser.add_argument("--output", type=Path, help="the JSONL file for --conversations")
    parser.add_argument("--turns", type=int, nargs=2, default=TURNS, metavar=("FEWEST", "MOST"))
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args()
    if options.conversations is None:
        write_sample(SAMPLE_DIR)
        print(f"wrote {SAMPLE_DIR}")
        return
    if options.output is None:
        parser.error("--conversations needs --output FILE")
    fewest, most = options.turns
    if not 1 <= fewest <= most:
        parser.error("--turns needs 1 <= FEWEST <= MOST")
    write_jsonl(options.output, generate_conversations(options.conversations, options.seed, (fewest, most)))
    print(f"wrote {options.conversations} conversations to {options.output}")


if __name__ == "__main__":
    main()
