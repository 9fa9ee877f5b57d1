"""A small server to look at the three pages: a real store in a temporary folder, invented answers, no model.

    python -m tests.e2e.pages_demo 7878 [--empty]

Signs in with `ann`, `tess` or `root`, password `heed-demo-password`.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import uvicorn

from annotate.services import Services, WebSettings
from annotate.synthetic import SyntheticDesk
from annotate.web import build_app
from store.completions import new_completion_id
from store.database import Store
from store.engine_stats import EngineStats, VersionStats
from store.outside import add_outside_labels
from store.people import add_person
from store.policies import add_policy, live_version, promote
from store.prompts import NewPrompt, add_prompts
from store.records import (
    Chunk,
    Completion,
    Condition,
    Message,
    OutsideLabel,
    Promotion,
    Role,
    Round,
    Sampling,
    TaskKind,
    Why,
)
from store.rounds import advance_round, create_round, running_round
from store.tasks import add_task
from tests.canary_desk import StoreDesk
from tests.e2e.crowd import PASSWORD, add_crowd
from trainer.report import write_page
from trainer.report_parts import write_curves

ACCOUNTS: tuple[tuple[str, Role], ...] = (("ann", "annotator"), ("tess", "tester"), ("root", "admin"))
QUESTIONS = (
    "Explain recursion to a child.",
    "Write a Python function that returns the first *n* Fibonacci numbers, and say how fast it is.",
    "What is the capital of Australia, and why is it not Sydney?",
    "Write a short thank-you note to a colleague who covered my shift.",
)
ANSWERS = (
    """Imagine a **row of boxes**, each with a smaller box inside. To find the toy you open a box, and if
there is another box, you do *the same thing again*. You stop when there is no box left.

- open the box
- is it the toy? stop
- else: open the next one""",
    """What a great question! I would love to help. Recursion is when a function calls itself, which is a
truly wonderful idea.

```python
def countdown(n: int) -> None:
    if n == 0:
        return
    print(n)
    countdown(n - 1)
```

| call | prints |
| --- | --- |
| `countdown(2)` | 2 |
| `countdown(1)` | 1 |""",
    'It is Canberra.<img src=x onerror="document.title=1"> The cost is $$O(2^n)$$ when $a < b$ & nothing is'
    "\u202e kept.",
)


def tell(name: str, messages: Sequence[Message], sampling: Sampling) -> Iterator[Chunk]:
    """Invented words at reading speed, the last chunk with everything a completion keeps."""
    del name
    words = ANSWERS[sampling.seed % 2].split(" ")
    for word in words:
        time.sleep(0.03)
        yield Chunk(text=word + " ", version="v0")
    yield Chunk("", "v0", "stop", tuple(range(len(words))), -1.5 * len(words), 9 * len(messages))


def fill(store: Store, num_tasks: int) -> None:
    """People, prompts and tasks of both kinds; with tasks, also a crowd of known quality that judged some."""
    for name, role in ACCOUNTS:
        add_person(store, name, role, PASSWORD)
    if num_tasks:
        add_crowd(store)
    if num_tasks:
        failed = create_round(store, "new_labels", "v0")
        reason = "the round process was killed (signal 9): out of memory?"
        advance_round(store, failed.round_id, "failed", reason=reason, num_pairs=120, num_ratings=8)
        bring_labels(store)
    add_policy(store, "v1", "v0", None, "0" * 64)
    promote(store, "v1", "scheduler", reason="all 6 checks passed; held-out accuracy 0.71, needed 0.55")
    add_policy(store, "v2", "v1", None, "1" * 64)
    prompts = [NewPrompt(({"role": "user", "content": question},), ("demo",)) for question in QUESTIONS]
    turns: tuple[Message, ...] = (
        {"role": "user", "content": "Who wrote <i>Faust</i>?"},
        {"role": "assistant", "content": "Goethe, mostly in Weimar."},
        {"role": "user", "content": "And how long did it take him?"},
    )
    ids = add_prompts(store, [NewPrompt(turns), *prompts], source="demo").prompt_ids
    asked = [turns, *(prompt.messages for prompt in prompts)]
    for number in range(num_tasks):
        which = number % len(ids)
        kind: TaskKind = "single" if number % 4 == 3 else "pair"
        texts = (ANSWERS[number % 3], ANSWERS[(number + 1) % 3])[: 2 if kind == "pair" else 1]
        add_task(store, kind, ids[which], [make_completion(tuple(asked[which]), text) for text in texts])


def bring_labels(store: Store) -> None:
    """A few labels from outside, as an import leaves them."""
    at = datetime.now(UTC)
    labels = [
        OutsideLabel(
            "", "pair", "import:trl", ({"role": "user", "content": f"What is {topic}?"},),
            f"{topic}: in short …", at, rejected="I do not know.",
        )
        for topic in ("an atoll", "basalt", "a cirrus", "a delta")
    ]  # fmt: skip
    add_outside_labels(store, labels)


def make_completion(messages: tuple[Message, ...], text: str) -> Completion:
    """One invented answer of the base model."""
    return Completion(
        completion_id=new_completion_id(),
        messages=messages,
        text=text,
        version="v0",
        sampling=Sampling(),
        token_ids=(1, 2, 3),
        logprob_sum=-3.0,
        finish_reason="stop",
        num_prompt_tokens=5,
        created_at=datetime.now(UTC),
    )


def explain() -> Why:
    """Two triggers and a guard, none of them true enough."""
    return Why(
        starts=False,
        conditions=(
            Condition("new_labels", "trigger", 43, 100, False, "43 of 100 new labels since the last round"),
            Condition("waited_hours", "trigger", 3.5, 24.0, False, "3.5 of 24 hours since the last round"),
            Condition("none_running", "guard", None, None, True, "no round is running"),
            Condition(
                "free_disk_mib",
                "guard",
                20480,
                512,
                True,
                "20480 MiB free on the data disk; a round needs 512",
            ),
        ),
    )


RECORDED = Path(__file__).parents[1] / "trainer" / "recorded" / "starter_progress.jsonl"


def progress(_: str) -> list[dict[str, object]]:
    """A round that has come three quarters of its way: steps that a real round of the starter logged."""
    rows: list[dict[str, object]] = [
        {"stage": "prepare", "event": "start"},
        {"stage": "dpo", "event": "start"},
    ]
    lines = RECORDED.read_text("utf-8").splitlines()
    return [*rows, *map(json.loads, lines[: len(lines) * 3 // 4])]


def draw_curves(round_id: str) -> str:
    """The curves of that round, as the service draws them."""
    told = {"beta": 0.3, "label_smoothing": 0.1, "sft_weight": 12.0}
    return write_curves(progress(round_id), {"trainer": told}, None)


GATE: dict[str, object] = {
    "decision": "reject",
    "reason": "held-out accuracy 0.52 is not above 0.50 by more than the noise",
    "checks": [
        {"name": "holdout_accuracy", "value": 0.52, "live": 0.5, "threshold": 0.55, "noise_floor": 0.03,
         "passed": False, "says": "held-out accuracy 0.52, needed 0.55"},
        {"name": "kl", "value": 4.1, "live": None, "threshold": 20.0, "noise_floor": None,
         "passed": True, "says": "KL to the reference 4.1, at most 20"},
    ],
}  # fmt: skip


SERVING = EngineStats(
    versions={
        "v0": VersionStats(finished=18, tokens=790, first_token_counts=(0, 4, 9, 5, *[0] * 7)),
        "v1": VersionStats(
            waiting=2, running=8, finished=1204, cancelled=31, failed=1, tokens=61_880, tokens_per_s=412.0,
            first_token_counts=(120, 800, 240, 50, 20, 4, *[0] * 5), adapter_bytes=3 << 20,
        ),
        "v2": VersionStats(adapter_bytes=3 << 20),
    },
    slots=8, parked=3, cache_tokens=5_310, cache_tokens_limit=16_384, cache_bytes=42 << 20,
    base_bytes=8_700_000,
)  # fmt: skip


def serve(store: Store, port: int) -> None:
    """Answer on 127.0.0.1 until interrupted."""

    def start(actor: str, without: Sequence[str] = (), fresh: bool = False) -> Round:  # noqa: ARG001
        made = create_round(store, f"by hand ({actor})", live_version(store), without)
        for state in ("preparing", "training"):
            made = advance_round(store, made.round_id, state, version="v3", num_pairs=43, num_ratings=12)
        return made

    def cancel(round_id: str, actor: str) -> Round:
        return advance_round(store, round_id, "cancelled", reason=f"cancelled by {actor}")

    def go_back(actor: str, version: str | None, reason: str) -> Promotion:
        return promote(store, version or "v0", actor, kind="rollback", reason=reason)

    services = Services(
        store=store,
        sample=tell,
        loaded_versions=lambda: ["v0"],
        promote=lambda version, actor, reason: promote(store, version, actor, reason=reason),
        roll_back=go_back,
        start_round=start,
        cancel_round=cancel,
        explain_round=explain,
        read_progress=progress,
        draw_curves=draw_curves,
        read_report=lambda found: write_page(found.round_id, draw_curves(found.round_id)),
        read_gate=lambda _: GATE if running_round(store) else None,
        read_log=lambda _, __: ["step 39 loss 0.389", "step 40 loss 0.383 <script>alert(1)</script>"],
        is_ready=lambda: True,
        write_metrics=lambda: "",
        engine_stats=lambda: SERVING,
        synthetic=SyntheticDesk(store, tell),
        settings=WebSettings(),
        canary=StoreDesk(store),
        show_settings=lambda: {"port": port, "admin_token": None, "trainer": {"beta": 0.1, "rank": 16}},
    )
    uvicorn.run(build_app(services), host="127.0.0.1", port=port, log_level="warning")


def main() -> None:
    """Fill a store and serve it."""
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 7878
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Path(folder))
        fill(store, 0 if "--empty" in sys.argv else 40)
        serve(store, port)


if __name__ == "__main__":
    main()
