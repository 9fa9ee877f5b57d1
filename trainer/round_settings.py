"""How rounds are run, and everything that a round needs besides the labels."""

from __future__ import annotations

from dataclasses import dataclass, field

from store.effective import QualitySettings
from store.replay import ReplaySettings
from trainer.limits import GateSettings, GuardSettings
from trainer.planner import TriggerSettings
from trainer.round_process import check_launch
from trainer.settings import BaseModel, TrainerSettings


@dataclass(frozen=True, slots=True)
class RoundSettings:
    """How the round process is run. `launch` is put before the command (`torchrun --nproc_per_node 2` …).

    A process that does nothing for `silence_limit_s` is stopped, one that computes only after `slow_limit_s`
    without a step. One that is killed from outside is resumed, `max_resumes` times in a row without getting
    any further.
    `warm` keeps a process with the training libraries loaded, which forks the rounds; not behind a `launch`.
    """

    threads: int = 1
    nice: int = 10
    holdout_share: float = 0.1
    silence_limit_s: float = 1800.0
    slow_limit_s: float = 14400.0
    resume: bool = True
    max_resumes: int = 3
    stop_grace_s: float = 15.0
    launch: tuple[str, ...] = ()
    warm: bool = False

    def __post_init__(self) -> None:
        if self.threads < 1 or not 0 <= self.nice <= 19:
            raise ValueError(f"threads {self.threads} must be at least 1 and nice {self.nice} within 0..19")
        if not 0.0 <= self.holdout_share <= 0.5:
            raise ValueError(f"holdout_share {self.holdout_share} is outside 0..0.5")
        if self.silence_limit_s <= 0 or self.slow_limit_s <= 0 or self.stop_grace_s <= 0:
            raise ValueError("silence_limit_s, slow_limit_s and stop_grace_s must be positive")
        if self.max_resumes < 0:
            raise ValueError(f"max_resumes {self.max_resumes} cannot be negative")


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a round needs besides the labels: one record a section of round.json."""

    base: BaseModel
    trainer: TrainerSettings
    gate: GateSettings
    triggers: TriggerSettings
    rounds: RoundSettings
    quality: QualitySettings = field(default_factory=QualitySettings)
    guards: GuardSettings = field(default_factory=GuardSettings)
    replay: ReplaySettings = field(default_factory=ReplaySettings)

    def __post_init__(self) -> None:
        check_launch(self.rounds.launch, self.trainer.processes)
