"""The formats we read, one file each: what a row of it looks like, and what it becomes here.

`FORMATS` is the whole list; the detectors of two formats never both hold for a row of either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from store.formats.argilla import is_argilla, read_argilla
from store.formats.found import Found, Names, Row, is_conversation
from store.formats.heed import is_heed, read_heed
from store.formats.hh_rlhf import is_hh_rlhf, read_hh_rlhf
from store.formats.label_studio import is_label_studio, read_label_studio
from store.formats.lmsys import is_arena, is_arena_55k, read_arena, read_arena_55k
from store.formats.oasst import is_oasst
from store.formats.open_webui import is_feedback, read_feedback
from store.formats.orca import is_orca, read_orca
from store.formats.potato import is_potato, read_potato
from store.formats.prompts import is_prompt, read_new_prompt
from store.formats.shp import is_shp, read_shp
from store.formats.trl import is_preference, is_unpaired, read_preference, read_unpaired
from store.formats.ultrafeedback import is_binarized, is_raw, read_binarized, read_raw


@dataclass(frozen=True, slots=True)
class Format:
    """One format. `read` is None for the one whose rows only make sense together (`oasst.read_trees`)."""

    name: str
    fields: str
    detect: Callable[[Row], bool]
    read: Callable[[Row, Names], list[Found]] | None


def _is_plain_preference(row: Row) -> bool:
    others = (is_heed, is_binarized, is_hh_rlhf, is_orca)
    return is_preference(row) and not any(detect(row) for detect in others)


def _is_plain_orca(row: Row) -> bool:
    return is_orca(row) and not is_hh_rlhf(row) and not is_conversation(row["chosen"])


def _is_plain_unpaired(row: Row) -> bool:
    return is_unpaired(row) and not is_heed(row)


FORMATS: tuple[Format, ...] = (
    Format("heed", "format, row_id, annotators, source … (our own export)", is_heed, read_heed),
    Format(
        "trl-preference",
        "prompt, chosen, rejected (or chosen and rejected alone)",
        _is_plain_preference,
        read_preference,
    ),
    Format("trl-unpaired", "prompt, completion, label", _is_plain_unpaired, read_unpaired),
    Format("hh-rlhf", 'chosen, rejected as "Human: … Assistant: …"', is_hh_rlhf, read_hh_rlhf),
    Format(
        "ultrafeedback-binarized",
        "chosen, rejected, score_chosen, score_rejected",
        is_binarized,
        read_binarized,
    ),
    Format("ultrafeedback", "instruction, completions[].{response, overall_score}", is_raw, read_raw),
    Format("shp", "history, human_ref_A, human_ref_B, labels, score_ratio", is_shp, read_shp),
    Format("oasst1", "message_id, parent_id, text, role, rank", is_oasst, None),
    Format("orca-dpo", "system, question or input, chosen, rejected", _is_plain_orca, read_orca),
    Format("argilla", "fields, responses (records of Argilla 2)", is_argilla, read_argilla),
    Format("open-webui", "data.rating, meta.message_id, snapshot", is_feedback, read_feedback),
    Format("lmsys-arena", "conversation_a, conversation_b, winner", is_arena, read_arena),
    Format("lmsys-55k", "prompt, response_a, response_b, winner_model_a", is_arena_55k, read_arena_55k),
    Format("label-studio", "data, annotations (pairwise)", is_label_studio, read_label_studio),
    Format("potato", "id, label_annotations (pairwise), responses", is_potato, read_potato),
    Format("prompts", "prompt or messages, or one text a line", is_prompt, read_new_prompt),
)
