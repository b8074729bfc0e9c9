# ruff: noqa: E501, SIM905 (lists of words read best as words)
"""English facts about invented organisations: each a sentence and the questions it answers.

Knows nothing of passages, numbering or answers; `passages.py` puts facts together.
"""

import random

from recipes.nano import words
from recipes.nano.fact import Fact

# (sentence, questions). `{slots}` are filled once per fact by `slots` below, so that sentence and
# questions agree. `{org}` names the organisation in every question: facts can be told apart.
POLICIES = [
    ("{Group} at {org} must {duty} before {occasion}.",
     ["What must {group} at {org} do before {occasion}?",
      "What do {group} need to do before {occasion} at {org}?"]),
    ("At {org}, {group} may use the {thing} only with permission from the {role}.",
     ["Who gives permission to use the {thing} at {org}?",
      "Whose permission do {group} need for the {thing} at {org}?"]),
    ("{org} gives refunds within {n} days of purchase.",
     ["How long does {org} give refunds?", "What is the refund period at {org}?"]),
    ("{org} pays travel costs up to {money} a day.",
     ["How much does {org} pay for travel?", "What are the travel costs that {org} pays?"]),
    ("Every employee of {org} has {n} days of holiday a year.",
     ["How many days of holiday do employees of {org} have?",
      "How much holiday does {org} give?"]),
    ("{org} is open from {time} to {time2} on weekdays.",
     ["When is {org} open?", "What are the opening hours of {org}?"]),
    ("{org} keeps all invoices for {n} years.",
     ["How long does {org} keep invoices?", "For how many years are invoices kept at {org}?"]),
    ("Passwords at {org} must have at least {n} characters.",
     ["How long must passwords at {org} be?", "What is the password rule at {org}?"]),
    ("Accidents at {org} must be reported to the {role} within {n} hours.",
     ["Who must be told about accidents at {org}?",
      "How soon must accidents at {org} be reported?"]),
    ("Staff of {org} may work from home {n} days a month.",
     ["How often may staff of {org} work from home?",
      "How many days may staff of {org} work from home?"]),
]  # fmt: skip
THINGS = [
    ("The {thing} at {org} is checked every {n} days.",
     ["How often is the {thing} at {org} checked?", "When is the {thing} at {org} checked?"]),
    ("The {thing} at {org} was built by {person} in {year}.",
     ["Who built the {thing} at {org}?", "When was the {thing} at {org} built?"]),
    ("The {thing} at {org} is painted {colour}.",
     ["What colour is the {thing} at {org}?", "How is the {thing} at {org} painted?"]),
    ("The code for the {thing} at {org} is {code}.",
     ["What is the code for the {thing} at {org}?",
      "Which code opens the {thing} at {org}?"]),
    ("The {thing} of {org} stands in {city}.",
     ["Where is the {thing} of {org}?", "In which place does the {thing} of {org} stand?"]),
    ("{person} looks after the {thing} at {org}.",
     ["Who looks after the {thing} at {org}?", "Who is responsible for the {thing} at {org}?"]),
    ("The {thing} at {org} has room for {n} people.",
     ["How many people fit in the {thing} at {org}?",
      "How much room is there in the {thing} at {org}?"]),
]  # fmt: skip
PRODUCTS = [
    ("{org} sells the {product}, a {kind} made of {material}, for {money}.",
     ["How much does the {product} from {org} cost?", "What is the {product} made of?",
      "What is the price of the {product}?", "Who sells the {product}?"]),
    ("The {product} {kind} from {org} weighs {n} kilograms.",
     ["How much does the {product} weigh?", "What is the weight of the {product} from {org}?"]),
    ("The {product} {kind} comes with a guarantee of {n} months from {org}.",
     ["How long is the guarantee of the {product}?",
      "What guarantee does {org} give on the {product}?"]),
    ("The battery of the {product} {kind} lasts {n} hours.",
     ["How long does the battery of the {product} last?",
      "What is the battery life of the {product}?"]),
    ("{org} released the {product} {kind} in {month} {year}.",
     ["When did {org} release the {product}?", "When did the {product} come out?"]),
]  # fmt: skip
PEOPLE = [
    ("{person} is the {role} of {org}.",
     ["Who is the {role} of {org}?", "What does {person} do at {org}?", "Who is {person}?"]),
    ("{person} joined {org} in {year} and leads the {team} team.",
     ["When did {person} join {org}?", "Who leads the {team} team at {org}?",
      "Which team does {person} lead?"]),
    ("{org} was founded by {person} in {city} in {year}.",
     ["Who founded {org}?", "When was {org} founded?", "Where was {org} founded?"]),
    ("{person} can be reached at {org} on extension {code}.",
     ["How can I reach {person} at {org}?", "What is the extension of {person}?"]),
    ("The {team} team of {org} has {n} members and meets on {weekday}.",
     ["When does the {team} team of {org} meet?",
      "How many members does the {team} team of {org} have?"]),
]  # fmt: skip
INCIDENTS = [
    ("On {date}, {cause} stopped the {thing} at {org} for {n} hours.",
     ["What stopped the {thing} at {org}?", "When did the {thing} at {org} stop?",
      "How long did the {thing} at {org} stand still?", "What happened at {org} on {date}?"]),
    ("The {thing} at {org} was closed on {date} because of {cause}.",
     ["Why was the {thing} at {org} closed?", "When was the {thing} at {org} closed?"]),
    ("After {cause}, {person} repaired the {thing} at {org} within {n} days.",
     ["Who repaired the {thing} at {org}?", "How long did the repair of the {thing} at {org} take?"]),
    ("The loss of {org} from {cause} came to {money}.",
     ["How much did {org} lose from {cause}?", "What was the loss of {org}?"]),
]  # fmt: skip
TOPICS = [*POLICIES, *THINGS, *PRODUCTS, *PEOPLE, *INCIDENTS]
WEEKDAYS = "Mondays Tuesdays Wednesdays Thursdays Fridays".split()


def organisation(rng: random.Random, held_out: bool) -> str:
    """The name of an organisation that does not exist."""
    name = words.invented_word(rng, held_out)
    return f"{name} {rng.choice(words.ORG_KINDS)}"


def slots(rng: random.Random, org: str, held_out: bool) -> dict[str, str]:
    """A value for every slot that a sentence may name."""
    group = rng.choice(words.PEOPLE_GROUPS)
    hour = rng.randint(5, 12)
    year = rng.randint(1950, 2039)
    last_name = words.invented_word(rng, held_out)
    money = (
        f"{rng.randint(2, 99)}"
        if rng.random() < 0.5
        else f"{rng.randint(1, 99)},{rng.randint(0, 9)}00"
    )
    return {
        "org": org,
        "group": group,
        "Group": group.capitalize(),
        "duty": rng.choice(words.DUTIES),
        "occasion": rng.choice(words.OCCASIONS),
        "thing": rng.choice(words.THINGS),
        "role": rng.choice(words.ROLES),
        "n": str(rng.randint(2, 99)),
        "money": f"{money} {rng.choice(['euros', 'dollars', 'crowns'])}",
        "time": f"{hour}:{rng.choice(['00', '15', '30', '45'])}",
        "time2": f"{hour + rng.randint(3, 11)}:{rng.choice(['00', '15', '30', '45'])}",
        "person": f"{rng.choice(words.FIRST_NAMES)} {last_name}",
        "year": str(year),
        "month": rng.choice(words.MONTHS),
        "date": f"{rng.randint(1, 28)} {rng.choice(words.MONTHS)} {year}",
        "weekday": rng.choice(WEEKDAYS),
        "colour": rng.choice(words.COLOURS),
        "code": str(rng.randint(100, 99999)),
        "city": f"{words.invented_word(rng, held_out)} {rng.choice(words.CITIES_KINDS)}",
        "product": words.invented_word(rng, held_out)
        + rng.choice(["", "", f" {rng.randint(2, 900)}"]),
        "kind": rng.choice(words.PRODUCT_KINDS),
        "material": rng.choice(words.MATERIALS),
        "team": rng.choice(words.TEAMS),
        "cause": rng.choice(words.CAUSES),
    }  # fmt: skip


def fact(rng: random.Random, org: str, topic: int, held_out: bool) -> Fact:
    """The fact of that topic about `org`, with fresh names and numbers."""
    sentence, questions = TOPICS[topic]
    values = slots(rng, org, held_out)
    return Fact(org, topic, sentence.format(**values), tuple(q.format(**values) for q in questions))
