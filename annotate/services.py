"""What the web process is handed by `app.py`: functions of the other rooms and a few settings. No logic."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from annotate.judge.desk import JudgeDesk
from annotate.patience import Patience
from annotate.settings import AnnotationSettings
from annotate.slots import ChatSlots
from annotate.synthetic import SyntheticDesk
from annotate.text import MOST_REASON_CHARS, MOST_REASONS
from annotate.texts import Texts
from store.backup_keeper import BackupStatus
from store.canary_rows import Canary
from store.canary_settings import CanarySettings
from store.database import Store
from store.effective import QualitySettings
from store.engine_stats import EngineStats
from store.records import Chunk, Message, Promotion, Round, Sampling, TaskKind, Why


@dataclass(frozen=True)
class ChatSettings:
    """What the chat page offers; `reasons` are the chips of a thumb down, kept as they are written here."""

    reasons: tuple[str, ...] = ("Incorrect", "Unsafe", "Ignored instruction", "Refused", "Too long", "Other")

    def __post_init__(self) -> None:
        if len(self.reasons) > MOST_REASONS or len(set(self.reasons)) < len(self.reasons):
            raise ValueError(f"reasons {self.reasons} must be at most {MOST_REASONS} different ones")
        for reason in self.reasons:
            if not reason.strip() or len(reason) > MOST_REASON_CHARS:
                raise ValueError(f"reason {reason!r} must have 1 to {MOST_REASON_CHARS} characters")


@dataclass(frozen=True)
class LimitSettings:
    """How much one person may ask for: `in_flight_per_person` answers at once through the API, or those to
    one question."""

    in_flight_per_person: int = 2

    def __post_init__(self) -> None:
        if self.in_flight_per_person < 1:
            raise ValueError(f"in_flight_per_person {self.in_flight_per_person} must be at least 1")


@dataclass(frozen=True)
class WebSettings:
    """How the pages and the API behave; durations in seconds, sizes in bytes."""

    lease_s: float = 600.0
    temperature: float = 0.8
    top_p: float = 0.95
    max_tokens: int = 512
    max_tokens_limit: int = 4096
    admin_token: str | None = None
    allowed_hosts: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    public_https: bool = False
    max_json_bytes: int = 262_144
    max_import_bytes: int = 64 * 1024 * 1024
    body_timeout_s: float = 30.0
    import_timeout_s: float = 600.0
    max_message_chars: int = 32_000
    web_threads: int = 100
    chat: ChatSettings = field(default_factory=ChatSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    chat_threads: int = 16  # they only hand questions to the engine; each answer then has a thread of its own

    def __post_init__(self) -> None:
        if self.lease_s <= 0:
            raise ValueError(f"lease_s {self.lease_s} must be above 0")
        if not 1 <= self.max_tokens <= self.max_tokens_limit:
            raise ValueError(f"max_tokens {self.max_tokens} is outside 1..{self.max_tokens_limit}")
        if self.admin_token is not None and len(self.admin_token) < 16:
            raise ValueError("the admin token must have at least 16 characters")
        Sampling(self.temperature, self.top_p, self.max_tokens)


class Sample(Protocol):
    """Submits a request now and returns its chunks; closing them, from any thread, cancels it."""

    def __call__(
        self,
        model: str,
        messages: Sequence[Message],
        sampling: Sampling,
        /,
        *,
        top_logprobs: int | None = None,
    ) -> Iterator[Chunk]: ...


class StartRound(Protocol):
    """Starts a round in somebody's name, without the labels of some people (their ids).

    A `fresh` one trains a new adapter on all labels, whatever the settings say.
    """

    def __call__(self, actor: str, without: Sequence[str] = (), fresh: bool = False) -> Round: ...


class CanaryDesk(Protocol):
    """Starts and ends the version on trial; each raises StateConflict when the state does not fit."""

    settings: CanarySettings

    def start(self, version: str, share: float | None, actor: str, reason: str = "") -> Canary:
        """Begin, once the version has proved itself; `share` None is the setting."""

    def stop(self, actor: str, reason: str = "") -> Canary:
        """End it without a verdict."""

    def promote(self, actor: str, reason: str = "") -> Promotion:
        """Make it live."""


@dataclass(frozen=True)
class Services:
    """The functions behind pages and routes; `sample` takes "live", "base" or a version, else NotFound.

    `judge` is None while no AI judge is set up.
    """

    store: Store
    sample: Sample
    loaded_versions: Callable[[], list[str]]
    promote: Callable[[str, str, str], Promotion]  # version, actor name, reason
    roll_back: Callable[[str, str | None, str], Promotion]  # actor name, version or None = previous, reason
    start_round: StartRound
    cancel_round: Callable[[str, str], Round]  # round id, actor name
    explain_round: Callable[[], Why]
    read_progress: Callable[[str], list[dict[str, object]]]
    read_gate: Callable[[str], dict[str, object] | None]
    read_log: Callable[[str, int], list[str]]  # round id, last n lines
    is_ready: Callable[[], bool]
    write_metrics: Callable[[], str]
    engine_stats: Callable[[], EngineStats]
    synthetic: SyntheticDesk
    settings: WebSettings
    quality: QualitySettings = field(default_factory=QualitySettings)
    judge: JudgeDesk | None = None
    canary: CanaryDesk | None = None
    route: Callable[[str, str], str] = lambda model, _: model  # model and conversation -> what to sample from
    rated: Callable[[], None] = lambda: None  # called after a thumb was saved
    backup_folder: Path | None = None
    read_backup_status: Callable[[], BackupStatus] | None = None  # None: no backups by themselves
    annotation: AnnotationSettings = field(default_factory=AnnotationSettings)
    writing: Callable[[], TaskKind | None] = lambda: None  # what kind of task the model writes right now
    show_settings: Callable[[], Mapping[str, object]] = dict  # the effective settings, secrets masked
    read_problems: Callable[[], Sequence[str]] = tuple  # what is not served as it was promoted
    slots: ChatSlots = field(default_factory=ChatSlots)
    draw_curves: Callable[[str], str] = lambda _: ""  # a round's curves and what they mean, as HTML
    read_report: Callable[[Round], str] = lambda _: ""  # the whole page about a round, as HTML
    patience: Patience = field(default_factory=Patience)
    texts: Texts = field(default_factory=Texts)
