"""What PEFT writes into an adapter's config when nothing was asked for: everything else changes what it does.

Written down because importing PEFT, and all that it imports, took a sixth of the CPU time of a start.
tests/serving/test_peft_defaults.py holds the table against the PEFT that is installed.
"""

from __future__ import annotations

import json
from typing import Any

# LoraConfig of PEFT 0.21, as JSON writes it; keys that adapter_checks.py checks by itself are left out.
DEFAULTS: dict[str, Any] = {
    "alora_invocation_tokens": None,
    "alpha_pattern": {},
    "arrow_config": None,
    "auto_mapping": None,
    "bias": "none",
    "corda_config": None,
    "ensure_weight_tying": False,
    "eva_config": None,
    "exclude_modules": None,
    "init_lora_weights": True,
    "kasa_config": None,
    "layer_replication": None,
    "layers_pattern": None,
    "layers_to_transform": None,
    "loftq_config": {},
    "lora_bias": False,
    "lora_ga_config": None,
    "megatron_config": None,
    "megatron_core": "megatron.core",
    "modules_to_save": None,
    "monteclora_config": None,
    "qalora_group_size": 16,
    "rank_pattern": {},
    "target_parameters": None,
    "trainable_token_indices": None,
    "use_bdlora": None,
    "use_dora": False,
    "use_qalora": False,
    "velora_config": None,
}


def read_default(key: str) -> Any:
    """The value a key has when nobody set it. KeyError when PEFT knows no such key."""
    if key in DEFAULTS:
        return DEFAULTS[key]
    return read_installed()[key]  # a newer PEFT may know it


def read_installed() -> dict[str, Any]:
    """Every key and its default, of the PEFT that is installed."""
    from peft import LoraConfig  # here, for its seconds

    defaults: dict[str, Any] = json.loads(json.dumps(LoraConfig().to_dict()))
    return defaults
