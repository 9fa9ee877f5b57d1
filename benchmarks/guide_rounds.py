"""Rounds of the guide's recipe beside ours: on the same labels, measured with the same yardstick.

The recipe is not in the service, so it is trained and sampled here, between our rounds, while the service
idles.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.client import HeedClient
from benchmarks.metrics import RoundRecord, measure
from benchmarks.progress import say, timed
from benchmarks.settings import LoopSettings
from benchmarks.taste import TASTES
from benchmarks.yardstick import Yardstick

if TYPE_CHECKING:
    from benchmarks.guide_recipe import GuideRecipe


def prepare_guides(settings: LoopSettings) -> dict[str, GuideRecipe]:
    """The guide's recipe as often as asked for. It learns from pairs, so ratings leave it out."""
    if settings.guide_variant == "none" or settings.feedback == "thumbs":
        return {}
    # Before torch is imported: idle threads must not spin against the service, nor TRL report its start.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if Path(settings.base_model).is_dir():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from benchmarks.guide_recipe import OWN_LEARNING_RATE, GuideRecipe

    ours, own = {"guide_recipe": settings.guide_lr}, {"guide_recipe": OWN_LEARNING_RATE}
    both = ours | {"guide_recipe_own_lr": OWN_LEARNING_RATE}
    rates = {"ours": ours, "own": own, "both": both}[settings.guide_variant]
    return {name: GuideRecipe(settings.base_model, rate, settings.seed) for name, rate in rates.items()}


def read_fresh_pairs(admin: HeedClient, known: set[str]) -> list[dict[str, Any]]:
    """The pairs labelled since the last call, which `known` remembers: the recipe trains on new ones only."""
    keyed = {json.dumps(row, sort_keys=True): row for row in admin.export_pairs()}
    fresh = [row for key, row in keyed.items() if key not in known]
    known.update(keyed)
    return fresh


def run_guide_round(
    recipe: GuideRecipe,
    pairs: list[dict[str, Any]],
    settings: LoopSettings,
    yardstick: Yardstick,
    labels: int,
) -> RoundRecord:
    """One round of the guide's recipe on the same labels. A crash is one of its results and ends nothing."""
    seconds: dict[str, float] = {}
    notes: dict[str, object] = {"pairs": len(pairs), "learning_rate": recipe.learning_rate}
    say(f"the guide's recipe, first learning rate {recipe.learning_rate:g}: {len(pairs)} new pairs")
    metrics = None
    try:
        with timed(seconds, "training"):
            notes |= recipe.train(pairs)
        with timed(seconds, "measure"):
            rows = recipe.answer([q.messages for q in yardstick.questions], settings.max_tokens)
        metrics = measure(rows, yardstick.opponents, TASTES[settings.taste])
    except Exception as error:
        notes["error"] = f"{type(error).__name__}: {error}"
    return RoundRecord(f"guide-{recipe.num_rounds}", metrics is not None, metrics, labels, seconds, notes)
