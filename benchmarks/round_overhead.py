"""What a round costs beside its steps: from *train now* to the first step, and from the last to a candidate.

    python -m benchmarks.round_overhead

The supervisor starts real rounds on the starter, cold and forked by the warm process, in turns. The step of
a stage is when its line is in progress.jsonl, which is where people see it. Seconds of the clock say what
somebody waits, and grow with what else the machine does; CPU seconds are those of the round's own process.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.memory import memory_mib
from benchmarks.models import STARTER
from benchmarks.progress import say
from serving.adapters import publish
from store.clock import utc
from store.completions import new_completion_id
from store.database import Store
from store.judgements import save_judgement
from store.people import add_person
from store.policies import promote
from store.prompts import NewPrompt, add_prompts
from store.records import RUNNING_STATES, Completion, Message, Sampling
from store.rounds import read_round
from store.tasks import add_task, lease_task
from trainer.planner import TriggerSettings
from trainer.round_settings import Plan, RoundSettings
from trainer.settings import BaseModel, GateSettings, starter_settings
from trainer.supervisor import RoundSupervisor

PAIRS = 24
STEPS = 4
TRIGGERS = TriggerSettings(
    min_new_labels=1, max_wait_hours=0, min_labels=2, cooldown_minutes=0, min_free_mib=0
)
ANSWERS = ("Yes.", "That is a truly remarkable question, and I am glad that you ask it.")


def fill_store(store: Store) -> None:
    """Judged pairs, enough for a round; what they say decides nothing that is timed."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(STARTER)
    lines = (STARTER / "prompts.jsonl").read_text("utf-8").splitlines()
    person = add_person(store, "ann", "annotator").person
    for line in random.Random(0).sample(lines, PAIRS):
        messages: tuple[Message, ...] = tuple(json.loads(line)["messages"])
        added = add_prompts(store, [NewPrompt(messages, ())], "benchmark").prompt_ids
        pair = [_answer(messages, added[0], text, tokenizer) for text in ANSWERS]
        task = add_task(store, "pair", added[0], pair)
        lease_task(store, person.person_id, "pair", lambda leased, _: leased.completion_ids[0])
        chosen, rejected = task.completion_ids
        save_judgement(
            store,
            task.task_id,
            person.person_id,
            choice="prefer",
            chosen_id=chosen,
            rejected_id=rejected,
            strength=1,
        )


def _answer(messages: tuple[Message, ...], prompt_id: str, text: str, tokenizer: Any) -> Completion:
    ids = tokenizer(text + tokenizer.eos_token, add_special_tokens=False)["input_ids"]
    return Completion(
        completion_id=new_completion_id(),
        messages=messages,
        text=text,
        version="v0",
        sampling=Sampling(),
        token_ids=tuple(ids),
        logprob_sum=-2.0 * len(ids),
        finish_reason="stop",
        num_prompt_tokens=8,
        created_at=utc(None),
        prompt_id=prompt_id,
    )


def time_round(folder: Path, is_warm: bool) -> dict[str, float]:
    """One round on a store of its own: seconds between its events, CPU seconds up to its first step."""
    store = Store.open(folder)
    fill_store(store)
    trainer = replace(starter_settings(), max_steps=STEPS, epochs=1)
    rounds = RoundSettings(warm=is_warm)
    base = BaseModel(str(STARTER), quantization="none", dtype="float32")
    supervisor = RoundSupervisor(
        store,
        Plan(base, trainer, GateSettings(), TRIGGERS, rounds),
        publish=lambda candidate, version: publish(candidate, folder / "policies", version),
        promote=lambda version, actor, reason: promote(store, version, actor, reason=reason),
        adapter_of=lambda _: None,
    )
    try:
        memory = _wait_until_warm(supervisor) if is_warm else {}
        return follow_round(supervisor, store) | memory
    finally:
        supervisor.close()
        store.close()


def _wait_until_warm(supervisor: RoundSupervisor) -> dict[str, float]:
    warm = supervisor._warm
    assert warm is not None
    while not warm.is_ready:
        time.sleep(0.1)
    assert warm.pid is not None, "the warm process ended while it loaded"
    return {"warm_process_mib": memory_mib(warm.pid)}


def follow_round(supervisor: RoundSupervisor, store: Store) -> dict[str, float]:
    """Start a round and note when what is first seen of it."""
    began = time.monotonic()
    round_id = supervisor.start("benchmark").round_id
    seen: dict[str, float] = {}
    cpu = 0.0
    while (state := read_round(store, round_id).state) in RUNNING_STATES:
        lines = supervisor.files.read_progress(round_id)
        steps = [line["step"] for line in lines if line["stage"] == "dpo" and "step" in line]
        if steps and "first_step" not in seen and supervisor._process is not None:
            cpu = _cpu_seconds(supervisor._process.pid)
        for name, has_come in (
            ("first_step", bool(steps)),
            ("last_step", len(steps) == STEPS),
            ("judged", supervisor.files.read_gate(round_id) is not None),
        ):
            if has_come:
                seen.setdefault(name, time.monotonic() - began)
        time.sleep(0.02)
    done = time.monotonic() - began
    if state not in ("promoted", "rejected"):
        raise RuntimeError(f"the round ended as {state}: {read_round(store, round_id).reason}")
    return {
        "to_first_step_s": seen["first_step"],
        "to_first_step_cpu_s": cpu,
        "last_step_to_verdict_s": seen["judged"] - seen["last_step"],
        "last_step_to_published_s": done - seen["last_step"],
    }


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.round_overhead", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="rounds each way (default: 3)")
    repeats = parser.parse_args().repeats
    runs: dict[str, list[dict[str, float]]] = {"cold": [], "warm": []}
    for turn in range(repeats):
        for way, found in runs.items():
            with tempfile.TemporaryDirectory() as folder:
                found.append(time_round(Path(folder), way == "warm"))
            say(f"turn {turn + 1}, {way}: {found[-1]}")
    medians = {
        way: {name: round(statistics.median(run[name] for run in found), 2) for name in found[0]}
        for way, found in runs.items()
    }
    print("| | " + " | ".join(medians["warm"]) + " |\n|" + " --- |" * (len(medians["warm"]) + 1))
    for way, figures in medians.items():
        print(f"| {way} | " + " | ".join(str(figures.get(name, "")) for name in medians["warm"]) + " |")
    print(json.dumps(medians))


if __name__ == "__main__":
    main()
