"""A crowd of known quality in a real store: three careful annotators, a hasty one, one always on the left.

Everything is said through the store's own functions, days apart, so that pages have something to show.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from store.completions import new_completion_id
from store.database import Store
from store.gold import set_gold
from store.judgements import save_judgement
from store.people import add_person
from store.prompts import NewPrompt, add_prompts
from store.records import Completion, Lease, Message, Sampling
from store.repeats import add_repeat
from store.tasks import add_task, lease_task

PASSWORD = "heed-demo-password"
TOPICS = ("tides", "yeast", "a leap year", "rust", "an echo", "glass", "a mirage", "tin", "dew", "moss")
# Name, the chance to prefer the better answer (None: always the left one), seconds a task takes.
CROWD: tuple[tuple[str, float | None, float], ...] = (
    ("ada", 0.93, 14.0),
    ("ben", 0.9, 11.0),
    ("cleo", 0.86, 17.0),
    ("hasty", 0.5, 0.4),
    ("lefty", None, 6.0),
)
NUM_REPEATS = 6
BETTER, WORSE = "It is simple, and here is why: ", "What a wonderful question! I would love to tell you. "


def add_crowd(store: Store, num_tasks: int = 60, wanted: int = 3, seed: int = 1) -> dict[str, str]:
    """People, pairs of which each is judged by `wanted` of them, over ten days; returns ids by name."""
    draw = random.Random(seed)
    ids = {name: add_person(store, name, "annotator", PASSWORD).person.person_id for name, *_ in CROWD}
    moment = datetime.now(UTC) - timedelta(days=10)
    for number in range(num_tasks):
        add_pair(store, number, wanted)
        for name, skill, seconds in draw.sample(CROWD, wanted):
            moment += timedelta(minutes=10 * 24 * 60 / (num_tasks * wanted + 1) - 1)
            judge(store, ids[name], skill, seconds, draw, moment)
    for name, skill, seconds in CROWD:
        for _ in range(NUM_REPEATS):
            if add_repeat(store, ids[name], "pair") is not None:
                judge(store, ids[name], skill, seconds, draw, moment)
    set_some_gold(store)
    return ids


def set_some_gold(store: Store) -> None:
    """The plain answer is known to be the better one of every fifth task."""
    with store.read() as cursor:
        sql = """
            SELECT t.task_id, c.completion_id FROM tasks AS t
            JOIN completions AS c ON c.completion_id IN (t.first_id, t.second_id)
            WHERE t.purpose = 'label' AND c.text LIKE ? ORDER BY t.seq"""
        known = cursor.execute(sql, [BETTER + "%"]).fetchall()
    for task_id, better_id in known[::5]:
        set_gold(store, task_id, "prefer", better_id, source="imported")


def add_pair(store: Store, number: int, wanted: int) -> None:
    """One question with a plain answer and a gushing one, in either order."""
    topic = f"{TOPICS[number % len(TOPICS)]} ({number})"
    asked: tuple[Message, ...] = ({"role": "user", "content": f"What should I know about {topic}?"},)
    (prompt_id,) = add_prompts(store, [NewPrompt(asked, ("demo",))], source="demo").prompt_ids
    texts = [BETTER + topic + " in one line.", WORSE + topic + " has fascinated people for ages."]
    if number % 2:
        texts.reverse()
    add_task(store, "pair", prompt_id, [_answer(asked, text) for text in texts], wanted)


def judge(
    store: Store, person_id: str, skill: float | None, seconds: float, draw: random.Random, now: datetime
) -> None:
    """One person's preference on the next pair they are given."""
    choose_left: Callable[..., str] = lambda task, _: draw.choice(task.completion_ids)  # noqa: E731
    held = lease_task(store, person_id, "pair", choose_left, now=now)
    if held is None:
        return
    chosen_id = _choose(store, held, skill, draw)
    (rejected_id,) = set(held.task.completion_ids) - {chosen_id}
    save_judgement(
        store, held.task.task_id, person_id, choice="prefer", chosen_id=chosen_id, rejected_id=rejected_id,
        strength=draw.choice((1, 2)), active_ms=int(seconds * 1000 * draw.uniform(0.7, 1.4)), now=now,
    )  # fmt: skip


def _choose(store: Store, held: Lease, skill: float | None, draw: random.Random) -> str:
    if skill is None:
        return str(held.left_id)
    with store.read() as cursor:
        sql = "SELECT completion_id FROM completions WHERE list_contains(?, completion_id) AND text LIKE ?"
        found = cursor.execute(sql, [list(held.task.completion_ids), BETTER + "%"]).fetchone()
    assert found is not None
    (worse,) = set(held.task.completion_ids) - {found[0]}
    return str(found[0]) if draw.random() < skill else worse


def _answer(asked: tuple[Message, ...], text: str) -> Completion:
    ids = tuple(range(len(text.split())))
    moment = datetime.now(UTC)
    return Completion(
        new_completion_id(), asked, text, "v0", Sampling(), ids, -1.5 * len(ids), "stop", 9, moment
    )
