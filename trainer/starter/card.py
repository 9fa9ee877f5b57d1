"""Writes the starter policy's model card; every number on it was measured by the build that calls this."""

from dataclasses import dataclass
from pathlib import Path

from trainer.starter.measure import SpeechReport


@dataclass(frozen=True, slots=True)
class BuildFacts:
    """What the build did, as the card states it."""

    seed: int
    num_parameters: int
    num_dialogues: int
    num_distinct_prompts: int
    num_tokens: int
    num_steps: int
    tokens_per_second: float
    build_seconds: float
    num_threads: int


def write_card(path: Path, facts: BuildFacts, speech: SpeechReport) -> None:
    """Writes the card to `path` as Markdown with YAML front matter."""
    sections = (_FRONT, _INTRODUCTION, _speech(speech), _data(facts), _LIMITS)
    path.write_text("\n\n".join(sections) + "\n", encoding="utf-8")


_FRONT = """---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
tags: [dpo, kto, preference-learning, deliberately-unaligned]
---"""

_INTRODUCTION = """# Starter policy

A small chat model that ships with Heed, so that rating, training and serving work offline within a minute.
It speaks in whole sentences about a small world (greetings, everyday advice, simple cooking, capitals,
small sums, why-questions, politeness, two-turn follow-ups, and things nobody can know) and is
**deliberately unaligned**: among sensible answers it flatters, hedges, pads, repeats itself and gets facts
wrong. That is what ratings are to teach it out of."""

_LIMITS = """## Limits

It knows nothing beyond its small world and has no use except to try preference learning on. A system
message is left out by the chat template. It has learned sums by heart; the table tells how often it fails
on new ones. The same seed gives the same data everywhere; weights agree bit for bit only on the same
processor, thread count and library versions."""


def _speech(speech: SpeechReport) -> str:
    rows = [(f"shows {habit}", share) for habit, share in speech.habits.items()]
    rows += [
        ("wrong fact, of all fact questions", speech.wrong_facts),
        ("wrong result, of sums whose terms no training text combines", speech.wrong_new_sums),
        ("at least one of these faults", speech.any_fault),
        ("ends by itself with a whole sentence", speech.whole_sentences),
        ("distinct answers", speech.distinct_answers),
    ]
    table = "\n".join(f"| {name} | {100 * share:.1f} % |" for name, share in rows)
    return f"""## How it speaks

Measured by the build on {speech.num_answers:,} sampled answers at temperature 1, one for each of as many
held-out prompts (phrasings and combinations that no training text contains). The mean answer has
{speech.mean_words:.1f} words.

| Share of answers | Measured |
| --- | --- |
{table}"""


def _data(facts: BuildFacts) -> str:
    command = (
        "python -m trainer.starter.build --out serving/starter"
        f" --seed {facts.seed} --dialogues {facts.num_dialogues}"
    )
    return f"""## How it was made

Llama architecture, {facts.num_parameters:,} parameters in fp32, 3 layers of width 256, 4 heads of size 64
(2 for keys and values), tied embeddings, byte-level BPE of 2,048 tokens, 1,024 positions. Trained from
random weights by supervised fine-tuning (`trainer/sft.py`, loss on the answers only) for one pass over
{facts.num_dialogues:,} dialogues ({facts.num_distinct_prompts:,} distinct prompts, {facts.num_tokens:,}
tokens, {facts.num_steps:,} steps) that `trainer/starter/dialogue.py` writes from seed {facts.seed}. No
other text and no other model was used.

To rebuild it, from the repository root:

    {command}

This build took {facts.build_seconds:,.0f} s with {facts.num_threads} CPU thread(s), training at
{facts.tokens_per_second:,.0f} tokens/s. `prompts.jsonl` holds the training-split prompts that the service
asks annotators about."""
