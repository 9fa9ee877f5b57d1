"""Candidate against live: each check with its value, threshold and noise floor, and the decision.

A candidate is promoted only when every check passes; what could not be measured does not pass. One exception
is said aloud: with few held-out pairs accuracy is "not decided", and the other checks decide.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file

from trainer.limits import GateSettings
from trainer.preferences import TrainingPair
from trainer.probes import Behaviour, Exchange, Policies, observe
from trainer.qlora import LoadedBase

# Two standard errors: a difference the same policy would show in one of twenty repetitions.
SIGMAS = 2.0
TIE = 1e-6


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the gate. `live` is the same measure on the live policy; `details` are the values behind
    it."""

    name: str
    value: float | None
    live: float | None
    threshold: float | str | None
    noise_floor: float | None
    passed: bool
    says: str
    details: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision, a sentence for people, and every check behind it."""

    decision: Literal["promote", "reject"]
    reason: str
    checks: tuple[Check, ...] = field(default_factory=tuple)

    def as_json(self) -> dict[str, object]:
        """As gate.json holds it."""
        return asdict(self)


def decide(checks: Sequence[Check]) -> Verdict:
    """Promote when all checks passed; otherwise the reason names each that did not."""
    failed = [check for check in checks if not check.passed]
    if failed or not checks:
        reason = "; ".join(check.says for check in failed) or "nothing was measured"
        return Verdict("reject", reason, tuple(checks))
    accuracy = next((check.says for check in checks if check.name == "holdout_accuracy"), "")
    return Verdict("promote", f"all {len(checks)} checks passed; {accuracy}", tuple(checks))


def run_gate(
    base: LoadedBase,
    candidate: Path,
    live: Path | None,
    holdout: Sequence[TrainingPair],
    prompts: Sequence[tuple[int, ...]],
    settings: GateSettings,
    step: Callable[[int, int], None],
) -> Verdict:
    """Measure the candidate's files against the live adapter's (None: the base) and decide.

    `step` is told how far it is. Checks of the files come first: a broken adapter is not asked to speak.
    """
    checks = check_files(candidate)
    if not all(check.passed for check in checks):
        return decide(checks)
    policies = Policies(
        base, {"candidate": candidate} | ({"live": live} if live else {}), settings.batch_size
    )
    try:
        checks += check_holdout(policies, "live" if live else "base", holdout, settings)
        step(1, 2)
        # A policy whose log-probs are not numbers has nothing to say.
        if all(check.name != "finite_outputs" for check in checks):
            checks += check_answers(policies, live is not None, prompts, settings)
        step(2, 2)
    finally:
        policies.unload()
    return decide(checks)


def check_files(candidate: Path) -> list[Check]:
    """Are the weights numbers, and do they change anything."""
    weights = load_file(candidate / "adapter_model.safetensors")
    broken = sum(not torch.isfinite(tensor).all() for tensor in weights.values())
    finite = Check(
        "finite_weights",
        float(broken),
        None,
        0.0,
        None,
        broken == 0,
        f"{broken} of {len(weights)} tensors of the adapter are not finite"
        if broken
        else "all weights are finite",
    )
    # lora_B starts at zero, so an adapter that learned nothing has a zero there and changes no answer.
    norm = math.sqrt(
        sum(tensor.float().square().sum().item() for name, tensor in weights.items() if "lora_B" in name)
    )
    changed = Check(
        "nonzero_delta",
        None if broken else norm,
        None,
        0.0,
        None,
        not broken and norm > 0.0,
        f"the adapter changes the base (norm of lora_B {norm:.3g})"
        if norm > 0
        else "the adapter changes nothing",
    )
    return [finite] if broken else [finite, changed]


def check_holdout(
    policies: Policies, live: str, holdout: Sequence[TrainingPair], settings: GateSettings
) -> list[Check]:
    """Held-out pairs: does the candidate agree with people at least as the live policy does, near enough the
    base."""
    if not holdout:
        return [_undecided(0, settings), _drift_unknown()]
    chosen = [Exchange(pair.prompt_ids, pair.chosen_ids) for pair in holdout]
    rejected = [Exchange(pair.prompt_ids, pair.rejected_ids) for pair in holdout]
    logps = {
        name: [score.logp for score in policies.score(name, [*chosen, *rejected])]
        for name in dict.fromkeys(("base", live, "candidate"))
    }
    if not all(map(math.isfinite, logps["candidate"])):
        return [
            Check("finite_outputs", None, None, None, None, False, "the candidate's log-probs are not finite")
        ]
    tokens = sum(len(pair.chosen_ids) + len(pair.rejected_ids) for pair in holdout)
    drift = (sum(logps["candidate"]) - sum(logps["base"])) / tokens
    accuracy = (
        check_accuracy(hits(logps["candidate"], logps["base"]), hits(logps[live], logps["base"]), settings)
        if len(holdout) >= settings.min_holdout_pairs
        else _undecided(len(holdout), settings)
    )
    margin = tell_margin(*(measure_margin(logps[name], logps["base"]) for name in ("candidate", live)))
    return [accuracy, margin, check_drift(drift, settings)]


def measure_margin(logps: Sequence[float], base: Sequence[float]) -> float:
    """How many nats more the chosen answers gained over the base than the rejected ones, on average. First
    half is chosen."""
    rewards = [mine - theirs for mine, theirs in zip(logps, base, strict=True)]
    middle = len(rewards) // 2
    return (sum(rewards[:middle]) - sum(rewards[middle:])) / middle


def tell_margin(candidate: float, live: float) -> Check:
    """A number to compare versions by; it decides nothing, because more is not always better."""
    says = f"held-out chosen answers gained {candidate:+.2f} nats over rejected ones (live {live:+.2f})"
    return Check("holdout_margin", candidate, live, None, None, True, says)


def hits(logps: Sequence[float], base: Sequence[float]) -> list[float]:
    """Per pair 1 when the policy's reward prefers chosen, 0 when rejected, 0.5 when neither. First half is
    chosen."""
    rewards = [mine - theirs for mine, theirs in zip(logps, base, strict=True)]
    middle = len(rewards) // 2
    margins = [c - r for c, r in zip(rewards[:middle], rewards[middle:], strict=True)]
    return [0.5 if abs(margin) < TIE else float(margin > 0) for margin in margins]


def check_accuracy(candidate: Sequence[float], live: Sequence[float], settings: GateSettings) -> Check:
    """The candidate may be worse than live by noise only: the larger of the margin and two standard errors of
    the paired difference, which is never taken for smaller than half a pair."""
    n = len(candidate)
    value, other = statistics.fmean(candidate), statistics.fmean(live)
    spread = statistics.stdev([c - o for c, o in zip(candidate, live, strict=True)])
    noise = max(spread / math.sqrt(n), 0.5 / n)
    margin = max(settings.accuracy_margin, SIGMAS * noise)
    # The base prefers neither, so 0.5 is what knowing nothing scores: being below it is being taught wrong.
    needed = max(other, 0.5) - margin
    comparison = (
        "better than" if value - other > SIGMAS * noise else "within noise of" if value >= needed else "below"
    )
    says = (
        f"it prefers the chosen answer in {value:.0%} of {n} held-out pairs, {comparison} live's {other:.0%}"
    )
    return Check("holdout_accuracy", value, other, needed, noise, value >= needed, says, tuple(candidate))


def _undecided(num_pairs: int, settings: GateSettings) -> Check:
    says = f"accuracy is not decided: not enough held-out pairs ({num_pairs} of {settings.min_holdout_pairs})"
    return Check("holdout_accuracy", None, None, None, None, True, says)


def check_drift(drift: float, settings: GateSettings) -> Check:
    """Held-out answers, good and bad, must not have become much less likely than under the base."""
    says = (
        f"held-out answers moved by {drift:+.2f} nats a token from the base (budget {settings.max_drift:g})"
    )
    return Check(
        "holdout_drift", drift, None, settings.max_drift, None, abs(drift) <= settings.max_drift, says
    )


def _drift_unknown() -> Check:
    # Not a gap in the evidence: drift is measured on the candidate's own samples too, without exception.
    return Check("holdout_drift", None, None, None, None, True, "no held-out pairs to measure drift on")


def check_answers(
    policies: Policies, has_live: bool, prompts: Sequence[tuple[int, ...]], settings: GateSettings
) -> list[Check]:
    """Sample the base, the live policy and the candidate with the same seeds, and compare what they say."""
    if not prompts:
        why = "no prompt is short enough to sample an answer to"
        return [Check("behaviour", None, None, None, None, False, f"behaviour could not be measured: {why}")]
    base, candidate = (observe(policies, name, prompts, settings) for name in ("base", "candidate"))
    live = observe(policies, "live", prompts, settings) if has_live else base
    return check_behaviour(candidate, live, base, settings)


def check_behaviour(
    candidate: Behaviour, live: Behaviour, base: Behaviour, settings: GateSettings
) -> list[Check]:
    """What the candidate's own answers look like, against the live policy's and the base's."""
    return [
        _check_own_drift(candidate, live, settings),
        _check_share("empty", "are empty", candidate, live, base, settings),
        _check_share("unended", "never end", candidate, live, base, settings),
        _check_share("repetitive", "repeat themselves", candidate, live, base, settings),
        _check_distinct(candidate, live, base, settings),
        _check_length(candidate, live, base, settings),
        _check_entropy(candidate, live, base, settings),
    ]


def _check_own_drift(candidate: Behaviour, live: Behaviour, settings: GateSettings) -> Check:
    value, budget = candidate.drift, settings.max_own_drift
    says = f"its own answers lie {value:.2f} nats a token from the base (budget {budget:g})"
    return Check("own_drift", value, live.drift, budget, None, math.isfinite(value) and value <= budget, says)


def _check_share(
    name: str, doing: str, candidate: Behaviour, live: Behaviour, base: Behaviour, settings: GateSettings
) -> Check:
    value, before, at_first = (getattr(seen, name) for seen in (candidate, live, base))
    n = candidate.num_answers
    pooled = (value + before) * n / (2 * n + 2) + 1 / (2 * n + 2)  # of both, and never quite 0 or 1
    noise = math.sqrt(2 * pooled * (1 - pooled) / n)
    allowed = max(before, at_first) + max(settings.share_margin, SIGMAS * noise)
    says = (
        f"{value:.0%} of its answers {doing} (live {before:.0%}, base {at_first:.0%}, allowed {allowed:.0%})"
    )
    return Check(f"{name}_share", value, before, allowed, noise, value <= allowed, says)


def _check_distinct(candidate: Behaviour, live: Behaviour, base: Behaviour, settings: GateSettings) -> Check:
    needed = settings.min_distinct * min(live.distinct, base.distinct)
    says = (
        f"{candidate.distinct:.0%} of its word triples differ (live {live.distinct:.0%}, needed {needed:.0%})"
    )
    return Check(
        "distinct_3", candidate.distinct, live.distinct, needed, None, candidate.distinct >= needed, says
    )


def _check_length(candidate: Behaviour, live: Behaviour, base: Behaviour, settings: GateSettings) -> Check:
    """Against the base for the whole way, against live for one step of it."""
    ratios = [candidate.length / other.length for other in (live, base)]
    low, high = settings.min_length_ratio, settings.max_length_ratio
    passed = all(low <= ratio <= high for ratio in ratios)
    says = (
        f"its answers have {candidate.length:.1f} tokens, {ratios[0]:.2f} times live's and {ratios[1]:.2f}"
        f" times the base's (allowed {low:g} to {high:g})"
    )
    return Check(
        "length_ratio", ratios[1], live.length / base.length, f"{low:g} to {high:g}", None, passed, says
    )


def _check_entropy(candidate: Behaviour, live: Behaviour, base: Behaviour, settings: GateSettings) -> Check:
    ratio, before = candidate.entropy / base.entropy, live.entropy / base.entropy
    low, high = settings.min_entropy_ratio, settings.max_entropy_ratio
    says = (
        f"its entropy is {candidate.entropy:.2f} nats a token, {ratio:.2f} times the base's"
        f" (allowed {low:g} to {high:g})"
    )
    return Check("entropy_ratio", ratio, before, f"{low:g} to {high:g}", None, low <= ratio <= high, says)
