"""The words people ask in: for each kind of prompt the phrasings training shows, and those it never does.

Content only, with `{0}` and its like where a country, a sum or a name goes. It knows no answers and no seeds.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Phrasings:
    """The ways to ask for one thing: those that training shows and those it never does."""

    train: tuple[str, ...]
    heldout: tuple[str, ...]


QUESTIONS = {
    "capitals": Phrasings(
        (
            "What is the capital of {0}?",
            "Which city is the capital of {0}?",
            "Can you tell me the capital of {0}?",
            "Capital of {0}?",
            "Tell me the capital city of {0}.",
            "I need the capital of {0}, please.",
            "Do you know what the capital of {0} is?",
            "Which city is the seat of government in {0}?",
            "My homework asks for the capital of {0}.",
        ),
        (
            "Name the capital of {0}.",
            "What city is {0}'s capital?",
            "Hey, what would be the capital of {0}?",
            "I forgot the capital of {0}, can you help?",
        ),
    ),
    "sums": Phrasings(
        (
            "What is {0}?",
            "How much is {0}?",
            "Can you work out {0}?",
            "Please calculate {0}.",
            "What does {0} make?",
            "Tell me the result of {0}.",
            "A quick sum for you: {0}.",
            "Do you know how much {0} is?",
        ),
        (
            "Could you solve {0} for me?",
            "I wonder what {0} comes to.",
            "My son asks what {0} gives.",
            "What do I get for {0}?",
        ),
    ),
    "advice": Phrasings(
        (
            "How can I {0}?",
            "Give me a tip to {0}.",
            "What should I do to {0}?",
            "I want to {0}, what helps?",
            "Do you have advice on how to {0}?",
            "Please help me to {0}.",
            "What is a good way to {0}?",
            "I find it hard to {0}.",
        ),
        (
            "Any ideas on how to {0}?",
            "What would help me {0}?",
            "I would like to {0}, any advice?",
            "How do people manage to {0}?",
        ),
    ),
    "cooking": Phrasings(
        (
            "How do I make {0}?",
            "How do you cook {0}?",
            "Can you give me a recipe for {0}?",
            "I want to make {0} tonight.",
            "What is the best way to prepare {0}?",
            "Tell me how to make {0}.",
            "Do you know how to cook {0}?",
        ),
        (
            "Teach me to prepare {0}.",
            "What are the steps for {0}?",
            "My guests want {0}, how do I go about it?",
            "How does one make {0} at home?",
        ),
    ),
    "why": Phrasings(
        (
            "Why {1}?",
            "Can you explain why {0}?",
            "Do you know why {0}?",
            "Tell me why {0}.",
            "My daughter asks why {0}.",
            "I always wondered why {0}.",
            "Please explain to me why {0}.",
        ),
        (
            "How come {0}?",
            "What is the reason that {0}?",
            "I would like to know why {0}.",
            "Could you say why {0}?",
        ),
    ),
    "unknowable": Phrasings(
        (
            "{1}",
            "Can you tell me {0}?",
            "Do you know {0}?",
            "Please tell me {0}.",
            "I need to know {0}.",
            "Can you find out {0}?",
        ),
        ("I want you to tell me {0}.", "Any idea {0}?", "Say {0}, please.", "Could you guess {0}?"),
    ),
}

TALK = {
    "hello": Phrasings(
        ("{0}!", "{0}.", "{0}, friend!", "{0}, can we talk?", "{0}, I have a question."),
        ("{0}, dear assistant!", "{0}, may I talk to you?"),
    ),
    "mood": Phrasings(
        ("{0}, how are you?", "{0}, how are you today?", "{0}, how is it going?", "{0}, are you well?"),
        ("{0}, how do you do?", "{0}, how has your day been?"),
    ),
    "meeting": Phrasings(
        ("{0}, I am {1}.", "{0}, my name is {1}.", "{0}, nice to meet you."),
        ("{0}, people call me {1}.", "{0}, this is {1} speaking."),
    ),
    "presence": Phrasings(
        ("{0}, are you there?", "{0}, can you hear me?", "{0}, is anyone there?"),
        ("{0}, are you listening?", "{0}, do you have a moment?"),
    ),
    "thanks": Phrasings(
        ("{2}.", "{2} for {3}.", "{2} for {3}!", "{2}, you helped me with {3}."),
        ("Many thanks for {3}.", "I am grateful for {3}."),
    ),
    "apology": Phrasings(
        ("{4} for {5}.", "{4} about {5}.", "{4}, I did not mean {5}."),
        ("Please forgive me for {5}.", "I regret {5}."),
    ),
    "farewell": Phrasings(
        ("{6}!", "{6}, I have to go.", "{6}, {1} is waiting for me.", "{6}, talk to you tomorrow."),
        ("{6}, that was all for now.", "{6}, I am off to see {1}."),
    ),
    "request": Phrasings(
        ("{7} ask you something?", "{7} ask you about {3}?", "{7} trouble you with a question?"),
        ("{7} bother you for a minute?", "{7} put a question about {3}?"),
    ),
}
GREETINGS = ("hello", "mood", "meeting", "presence")
COURTESIES = ("thanks", "apology", "farewell", "request")
TALK_WORDS = (
    ("Hello", "Hi", "Hey", "Good morning", "Good evening", "Good afternoon", "Hello there", "Hi there"),
    (
        "Anna",
        "Ben",
        "Clara",
        "David",
        "Emma",
        "Felix",
        "Grace",
        "Hugo",
        "Ida",
        "Jonas",
        "Karin",
        "Leo",
        "Mia",
    ),
    ("Thank you", "Thanks", "Thanks a lot", "Thank you very much", "Thank you so much"),
    (
        "the answer",
        "the recipe",
        "your help",
        "the tip",
        "your time",
        "the explanation",
        "the sum",
        "the idea",
    ),
    ("Sorry", "I am sorry", "I am very sorry", "I want to say sorry"),
    (
        "the late reply",
        "the mistake",
        "my bad spelling",
        "asking twice",
        "the noise",
        "the mess",
        "the delay",
    ),
    ("Goodbye", "Bye", "Bye bye", "See you", "Good night"),
    ("May I", "Can I", "Could I", "Is it all right if I"),
)

_SHORTER = Phrasings(("Can you say it shorter?", "Shorter, please."), ("Make it brief.", "In few words?"))
_SURE = Phrasings(("Are you sure?", "Is that right?"), ("Is that really so?", "Can I trust that?"))

# What may follow the first answer of each topic, and how people ask for it.
FOLLOW_UPS = {
    "capitals": {
        "another": Phrasings(
            ("And of {0}?", "And what about {0}?", "And for {0}?"), ("Now {0}.", "Same for {0}?")
        ),
        "sure": _SURE,
        "shorter": _SHORTER,
    },
    "sums": {
        "another": Phrasings(
            ("And {0}?", "And how much is {0}?", "And what about {0}?"), ("Now {0}.", "Then {0}?")
        ),
        "sure": _SURE,
    },
    "advice": {
        "shorter": _SHORTER,
        "reason": Phrasings(
            ("Why is that?", "Why does that help?"), ("What makes that work?", "And why so?")
        ),
    },
    "cooking": {
        "shorter": _SHORTER,
    },
    "why": {
        "shorter": _SHORTER,
        "more": Phrasings(
            ("Can you tell me more?", "Go on, please."), ("What else is there?", "Say some more.")
        ),
    },
    "unknowable": {
        "reason": Phrasings(
            ("Why is that?", "Why can you not know that?"), ("Why not, then?", "And why so?")
        ),
    },
}
