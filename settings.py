"""Every setting in one place: flags over environment (`HEED_…`) over one TOML file, all checked first.

The groups are the rooms' own frozen dataclasses, shown as flags, so a default is written once, beside the
code that uses it.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import tomllib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, cast, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from annotate.judge.settings import JudgeSettings
from annotate.services import ChatSettings, LimitSettings, WebSettings
from annotate.settings import AnnotationSettings
from serving.rollouts import RolloutSettings
from serving.settings import BaseSettings as ServedBase
from serving.settings import BatchSettings, VllmSettings
from store.canary_settings import CanarySettings
from store.effective import QualitySettings
from store.errors import BadValue
from store.queue_settings import QueueSettings
from store.replay import ReplaySettings
from trainer.limits import GateSettings, GuardSettings, starter_guards
from trainer.planner import TriggerSettings
from trainer.round_settings import Plan, RoundSettings
from trainer.settings import BaseModel as TrainedBase
from trainer.settings import TrainerSettings, starter_settings

PREFIX = "HEED_"
DEFAULT_FILE = Path("heed.toml")
STARTER = Path(__file__).parent / "serving" / "starter"
TRIGGERS = TriggerSettings()


class SettingsRefused(Exception):
    """A setting is unknown or impossible; the message names each one and says why."""


def section(record: type) -> type[BaseModel]:
    """A pydantic model with a frozen dataclass's fields, whose `__post_init__` stays the judge of values."""
    hints = get_type_hints(record)
    shown = fields(record)

    def check(self: BaseModel) -> BaseModel:
        record(**{f.name: getattr(self, f.name) for f in shown})
        return self

    defaults = record()
    columns: dict[str, Any] = {f.name: (hints[f.name], getattr(defaults, f.name)) for f in shown}
    return create_model(
        record.__name__,
        __config__=ConfigDict(extra="forbid", frozen=True),
        __doc__=(record.__doc__ or "").splitlines()[0],
        __validators__={"check": cast("Callable[..., Any]", model_validator(mode="after")(check))},
        **columns,
    )


TrainerSection = section(TrainerSettings)
GateSection = section(GateSettings)
GuardSection = section(GuardSettings)
RoundSection = section(RoundSettings)
RolloutSection = section(RolloutSettings)
BatchSection = section(BatchSettings)
QualitySection = section(QualitySettings)
ReplaySection = section(ReplaySettings)
CanarySection = section(CanarySettings)
JudgeSection = section(JudgeSettings)
AnnotationSection = section(AnnotationSettings)
QueueSection = section(QueueSettings)
ChatSection = section(ChatSettings)
LimitSection = section(LimitSettings)


class ServeSettings(BaseSettings):
    """The flags of `serve`. A group (`--trainer.beta`) is `HEED_TRAINER__BETA` in the environment."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
    )
    toml_file: ClassVar[Path | None] = None

    config: Path | None = None
    """TOML file to read (default: heed.toml when it exists)"""
    data: Path = Path("data")
    """folder for the journal, the tables, the rounds and the adapters"""
    host: str = "127.0.0.1"
    """address to listen on; anything but loopback should sit behind TLS"""
    port: Annotated[int, Field(ge=1, le=65535)] = 7860
    """port to listen on"""
    model: str | None = None
    """Hugging Face chat model: a hub name or a folder (default: the starter policy that ships with Heed)"""
    chat_template: str | None = None
    """for a model without one: chatml, llama, zephyr or a file with a Jinja template"""
    quantization: Literal["auto", "none", "nf4"] = "auto"
    """4-bit base weights; auto means nf4 with CUDA and none without"""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """compute type; auto means bfloat16 with CUDA and float32 without"""
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads for answering (0: as many as are fastest, measured at the start)"""
    engine: Literal["in-process", "vllm"] = "in-process"
    """what answers: this process, or vLLM (docs/vllm.md)"""
    vllm_url: tuple[str, ...] = ()
    """vLLM servers that run already, several separated by commas"""
    vllm_python: Path | None = None
    """python of an environment with vLLM: start one server from here"""
    vllm_args: str = ""
    """more flags for a vLLM server that is started here, as on a command line"""
    prompts: Path | None = None
    """JSON lines of prompts, {"messages": [...], "tags": [...]}; read when the store has none"""
    min_new_labels: int = TRIGGERS.min_new_labels
    """a round starts by itself after this many new labels"""
    max_wait_hours: float = TRIGGERS.max_wait_hours
    """or after this many hours with any new label; 0 turns that off"""
    min_labels: int = TRIGGERS.min_labels
    """no round, by hand either, with fewer labels than this"""
    cooldown_minutes: float = TRIGGERS.cooldown_minutes
    """wait after a round that failed before starting one by itself"""
    min_free_mib: int = TRIGGERS.min_free_mib
    """no round with less free disk than this"""
    backup_hours: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """a checked backup this often, when anything changed; 0 turns that off"""
    backup_folder: Path | None = None
    """where backups go, best on another disk (default: backups in the data folder)"""
    lease_minutes: Annotated[float, Field(gt=0)] = 10.0
    """how long an annotator holds a task without a sign of life"""
    admin_token: str | None = None
    """bearer token of an automation admin (better given as HEED_ADMIN_TOKEN)"""
    allowed_hosts: tuple[str, ...] = ()
    """host names besides loopback that a browser may ask for"""
    trusted_proxies: tuple[str, ...] = ()
    """addresses of proxies whose X-Forwarded-For is believed"""
    public_https: bool = False
    """the service is reached over HTTPS: cookies become Secure"""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """how much to log"""
    trainer: TrainerSection = TrainerSection()  # type: ignore[valid-type]
    gate: GateSection = GateSection()  # type: ignore[valid-type]
    guards: GuardSection = GuardSection()  # type: ignore[valid-type]
    rounds: RoundSection = RoundSection()  # type: ignore[valid-type]
    batch: BatchSection = BatchSection()  # type: ignore[valid-type]
    rollout: RolloutSection = RolloutSection()  # type: ignore[valid-type]
    quality: QualitySection = QualitySection()  # type: ignore[valid-type]
    replay: ReplaySection = ReplaySection()  # type: ignore[valid-type]
    canary: CanarySection = CanarySection()  # type: ignore[valid-type]
    judge: JudgeSection = JudgeSection()  # type: ignore[valid-type]
    annotation: AnnotationSection = AnnotationSection()  # type: ignore[valid-type]
    queue: QueueSection = QueueSection()  # type: ignore[valid-type]
    chat: ChatSection = ChatSection()  # type: ignore[valid-type]
    web: LimitSection = LimitSection()  # type: ignore[valid-type]

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the library calls it by these names
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=cls.toml_file))

    @classmethod
    def read(cls, argv: list[str], command: str) -> ServeSettings:
        """The settings for a command line. Raises SettingsRefused; `--help` prints and exits."""
        cls.toml_file = _toml_file(argv)
        _refuse_unknown_variables(cls)
        try:
            settings = cls(_cli_parse_args=argv, _cli_prog_name=f"app.py {command}")  # type: ignore[call-arg]
            settings.vllm()
            settings.plan()  # the triggers are flat flags, judged by their own dataclass
        except ValidationError as error:
            lines = [f"  {'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors()]
            raise SettingsRefused("heed cannot start with these settings:\n" + "\n".join(lines)) from None
        except (SettingsError, ValueError, tomllib.TOMLDecodeError) as error:
            raise SettingsRefused(f"heed cannot start with these settings: {error}") from None
        return settings

    def base(self) -> ServedBase:
        return ServedBase(
            model=self.model or str(STARTER),
            chat_template=self.chat_template,
            quantization=self.quantization,
            dtype=self.dtype,
            threads=self.threads,
        )

    def vllm(self) -> VllmSettings | None:
        """Where vLLM is, when it is what answers."""
        given = {"vllm_url": self.vllm_url, "vllm_python": self.vllm_python, "vllm_args": self.vllm_args}
        if self.engine != "vllm":
            for name, value in given.items():
                if value:
                    raise BadValue(f"{name} is given, but the engine is {self.engine}; add --engine vllm")
            return None
        return VllmSettings(self.vllm_url, self.vllm_python, tuple(shlex.split(self.vllm_args)))

    def batching(self) -> BatchSettings:
        """How many are answered at once, and who waits."""
        return BatchSettings(**self.batch.model_dump())  # type: ignore[attr-defined]

    def rollouts(self) -> RolloutSettings:
        return RolloutSettings(**self.rollout.model_dump())  # type: ignore[attr-defined]

    def qualities(self) -> QualitySettings:
        return QualitySettings(**self.quality.model_dump())  # type: ignore[attr-defined]

    def canaries(self) -> CanarySettings:
        return CanarySettings(**self.canary.model_dump())  # type: ignore[attr-defined]

    def judging(self) -> JudgeSettings:
        return JudgeSettings(**self.judge.model_dump())  # type: ignore[attr-defined]

    def annotations(self) -> AnnotationSettings:
        return AnnotationSettings(**self.annotation.model_dump())  # type: ignore[attr-defined]

    def tasks(self) -> QueueSettings:
        """What annotators are handed, and in which order."""
        return QueueSettings(**self.queue.model_dump())  # type: ignore[attr-defined]

    def webs(self) -> WebSettings:
        """What pages and API are told."""
        return WebSettings(
            lease_s=self.lease_minutes * 60,
            admin_token=self.admin_token,
            allowed_hosts=(*self.allowed_hosts, self.host),
            trusted_proxies=self.trusted_proxies,
            public_https=self.public_https,
            chat=ChatSettings(**self.chat.model_dump()),  # type: ignore[attr-defined]
            limits=LimitSettings(**self.web.model_dump()),  # type: ignore[attr-defined]
        )

    def backups(self) -> Path:
        return self.backup_folder or self.data / "backups"

    def plan(self) -> Plan:
        """What a round is told."""
        return Plan(
            base=TrainedBase(
                model=self.model or str(STARTER),
                chat_template=self.chat_template,
                quantization=self.quantization,
                dtype=self.dtype,
            ),
            trainer=self._trainer(),
            gate=GateSettings(**self.gate.model_dump()),  # type: ignore[attr-defined]
            guards=self._guards(),
            triggers=TriggerSettings(
                min_new_labels=self.min_new_labels,
                max_wait_hours=self.max_wait_hours,
                min_labels=self.min_labels,
                cooldown_minutes=self.cooldown_minutes,
                min_free_mib=self.min_free_mib,
            ),
            rounds=RoundSettings(**self.rounds.model_dump()),  # type: ignore[attr-defined]
            quality=self.qualities(),
            replay=ReplaySettings(**self.replay.model_dump()),  # type: ignore[attr-defined]
        )

    def _trainer(self) -> TrainerSettings:
        """What was asked for, over what suits the model: the starter wants a rate of its own."""
        suited = starter_settings() if self.model is None else TrainerSettings()
        asked = self.trainer.model_dump(exclude_unset=True)  # type: ignore[attr-defined]
        return dataclasses.replace(suited, **asked)

    def _guards(self) -> GuardSettings:
        """As `_trainer`: nothing stops the starter early."""
        suited = starter_guards() if self.model is None else GuardSettings()
        asked = self.guards.model_dump(exclude_unset=True)  # type: ignore[attr-defined]
        return dataclasses.replace(suited, **asked)

    def shown_host(self) -> str:
        """The host to print in a link: a listening address such as 0.0.0.0 is no place to go to."""
        return "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host

    def masked(self) -> dict[str, Any]:
        """Every effective value; a secret only says whether it is set."""
        shown = self.model_dump(mode="json") | {
            "trainer": dataclasses.asdict(self._trainer()),
            "guards": dataclasses.asdict(self._guards()),
        }
        judge = shown["judge"] | {"key": "set" if shown["judge"]["key"] else None}
        return shown | {"admin_token": "set" if self.admin_token else None, "judge": judge}


def _toml_file(argv: list[str]) -> Path | None:
    """`--config FILE` decides which file the other flags override, so it is looked for first."""
    named = os.environ.get(f"{PREFIX}CONFIG")
    for place, word in enumerate(argv):
        if word == "--config" and place + 1 < len(argv):
            named = argv[place + 1]
        elif word.startswith("--config="):
            named = word.partition("=")[2]
    if named is None:
        return DEFAULT_FILE if DEFAULT_FILE.exists() else None
    if not Path(named).is_file():
        raise SettingsRefused(f"heed cannot start: the settings file {named} does not exist")
    return Path(named)


def _refuse_unknown_variables(settings: type[BaseSettings]) -> None:
    """A misspelt HEED_… variable would be ignored without a word; nobody wants that at two in the morning."""
    known = set(settings.model_fields)
    for name in sorted(os.environ):
        field = name.removeprefix(PREFIX).lower().partition("__")[0]
        if name.startswith(PREFIX) and field not in known:
            raise SettingsRefused(
                f"heed cannot start: the environment sets {name}, which is no setting of Heed's"
            )
