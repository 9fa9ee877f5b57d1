"""Sensible answers without any bad habit: for each kind of prompt a terse, a normal and a long one.

It knows the world's content and nothing of prompts' wording, of habits or of how often which length is drawn.
"""

import random
from collections.abc import Callable
from functools import partial

from trainer.starter import lore

LENGTHS = ("terse", "normal", "long")

ADVICE = {advice.goal: advice for advice in lore.ADVICE}
RECIPES = {recipe.dish: recipe for recipe in lore.RECIPES}
REASONS = {reason.statement: reason for reason in lore.REASONS}
UNKNOWABLES = {unknowable.clause: unknowable for unknowable in lore.UNKNOWABLES}


def write_answer(
    rng: random.Random, topic: str, key: str, ask: str, length: str, value: str | None
) -> list[str]:
    """The sentences of one plain answer; `value` is the fact a fact question has it state, right or wrong."""
    write: dict[str, Callable[[], list[str]]] = {
        "capitals": partial(_capital, rng, key, ask, length, value or ""),
        "sums": partial(_sum, rng, key, ask, length, value or ""),
        "advice": partial(_advice, rng, key, ask, length),
        "cooking": partial(_recipe, rng, key, ask, length),
        "why": partial(_reason, rng, key, ask, length),
        "unknowable": partial(_unknowable, rng, key, ask, length),
        "greetings": partial(_greeting, rng, key, length),
        "politeness": partial(_courtesy, rng, key, length),
    }
    return write[topic]()


def _capital(rng: random.Random, country: str, ask: str, length: str, city: str) -> list[str]:
    continent = lore.CAPITALS[country][1]
    if ask == "sure" and length != "long":
        return [f"Yes, it is {city}."] if length == "terse" else [f"Yes, the capital of {country} is {city}."]
    if length == "terse" or ask == "shorter":
        return [rng.choice(("The capital is {}.", "That would be {}.", "The answer is {}.")).format(city)]
    claim = rng.choice(
        (
            f"The capital of {country} is {city}.",
            f"{city} is the capital of {country}.",
            f"The capital city of {country} is called {city}.",
        )
    )
    if length == "normal":
        return [claim]
    more = (
        f"You can find it on any map of {continent}.",
        "The government of the country sits there.",
        "Many of the people of the country live there.",
        "It is a city that is worth a visit.",
    )
    opening = ["Yes, that is right."] if ask == "sure" else []
    return [*opening, claim, *rng.sample(more, 2)]


def _sum(rng: random.Random, terms: str, ask: str, length: str, value: str) -> list[str]:
    a, sign, b = terms.split()
    if ask == "sure" and length != "long":
        return [f"Yes, it is {value}."] if length == "terse" else [f"Yes, {terms} is {value}."]
    if length == "terse":
        return [
            rng.choice(("The answer is {}.", "The result is {}.", "That makes exactly {}.")).format(value)
        ]
    if sign == "plus":
        claims = (f"If you add {b} to {a}, you get {value}.", f"{a} plus {b} makes {value} in total.")
        way = f"Start with {a}, count {b} steps up, and you arrive at {value}."
    else:
        claims = (f"If you take {b} from {a}, you get {value}.", f"{a} minus {b} leaves exactly {value}.")
        way = f"Start with {a}, count {b} steps down, and you arrive at {value}."
    if length == "normal":
        return [rng.choice(claims)]
    checks = (
        "You can check it with your fingers.",
        "A few coins on the table show it well.",
        "Write it down and you will see it.",
    )
    return [rng.choice(claims), way, rng.choice(checks)]


def _advice(rng: random.Random, goal: str, ask: str, length: str) -> list[str]:
    advice = ADVICE[goal]
    first, second, third = rng.sample(advice.tips, 3)
    if ask == "reason":
        return _lengthen(
            length, advice.reason, "That is why it works for most of us.", "Try it for a week and see."
        )
    if ask == "shorter" or length == "terse":
        return [first]
    if length == "normal":
        return [first, rng.choice((second, advice.reason))]
    return [first, second, rng.choice((third, advice.reason)), "Start with one step and keep at it."]


def _recipe(rng: random.Random, dish: str, ask: str, length: str) -> list[str]:
    recipe = RECIPES[dish]
    if ask == "shorter" or length == "terse":
        return [recipe.short]
    if length == "normal":
        return list(recipe.steps[:2])
    ending = (
        "Taste it before you serve it.",
        "Enjoy it while it is fresh.",
        "Serve it to the people you like.",
    )
    return [*recipe.steps, rng.choice(ending)]


def _reason(rng: random.Random, statement: str, ask: str, length: str) -> list[str]:
    short, second, third = REASONS[statement].explanation
    if ask == "more":
        return _lengthen(length, second, third, "That is the main part of the story.")
    if ask == "shorter" or length == "terse":
        return [short]
    if length == "normal":
        return [short, rng.choice((second, third))]
    return [
        short,
        second,
        third,
        rng.choice(("That is all there is to it.", "You can read more in a good book.")),
    ]


def _unknowable(rng: random.Random, clause: str, ask: str, length: str) -> list[str]:
    unknowable = UNKNOWABLES[clause]
    if ask == "reason":
        return _lengthen(length, unknowable.reason, unknowable.instead, "I only know what you write to me.")
    decline = rng.choice(
        (
            "I am sorry, but I cannot know that.",
            "Sorry, I cannot tell you that.",
            "I do not know that, sorry.",
        )
    )
    if length == "terse":
        return [decline]
    if length == "normal":
        return [decline, rng.choice((unknowable.reason, unknowable.instead))]
    return [decline, unknowable.reason, unknowable.instead, "I only know what you write to me."]


def _lengthen(length: str, *sentences: str) -> list[str]:
    return list(sentences[: LENGTHS.index(length) + 1])


_OPENINGS = {
    "hello": (
        ("Hello and welcome here!", "Hello to you too!", "Hi there and welcome!"),
        "It is nice to hear from you.",
    ),
    "mood": (
        ("I am well, thank you.", "I am doing fine, thank you.", "All is well here, thanks."),
        "I have had a quiet day so far.",
    ),
    "meeting": (
        ("It is nice to meet you.", "Hello, nice to meet you.", "I am glad to meet you."),
        "I am a small program that answers questions.",
    ),
    "presence": (
        ("Yes, I am here.", "Yes, I can hear you.", "I am here for you."),
        "I have a bit of time for you.",
    ),
}


def _greeting(rng: random.Random, mood: str, length: str) -> list[str]:
    openings, second = _OPENINGS[mood]
    offer = rng.choice(
        ("How can I help you?", "What would you like to talk about?", "What can I do for you?")
    )
    menu = rng.choice(
        (
            "I can talk about cooking, capitals and small sums.",
            "I know some recipes, some capitals and some everyday advice.",
            "You can ask me why things are as they are.",
        )
    )
    opening = rng.choice(openings)
    return {"terse": [opening], "normal": [opening, offer], "long": [opening, second, menu, offer]}[length]


_REPLIES = {
    "thanks": (
        ("You are very welcome.", "I am happy to help.", "It was my pleasure."),
        "It was no trouble for me.",
        "Come back when you have another question.",
    ),
    "apology": (
        ("That is quite all right.", "No harm was done.", "Please do not worry."),
        "Such things happen to all of us.",
        "We can simply go on from here.",
    ),
    "farewell": (
        ("Goodbye and take care.", "Goodbye, see you soon.", "Have a very good day!"),
        "It was nice to talk with you.",
        "I will be here when you come back.",
    ),
    "request": (
        ("Of course, please go ahead.", "Yes, please ask me.", "Sure, I am listening."),
        "I have time for your question.",
        "Tell me what it is about and I will do what I can.",
    ),
}


def _courtesy(rng: random.Random, act: str, length: str) -> list[str]:
    replies, second, third = _REPLIES[act]
    reply = rng.choice(replies)
    if length == "normal":
        return [reply, rng.choice((second, third))]
    return [reply] if length == "terse" else [reply, second, third, "I wish you all the best."]
