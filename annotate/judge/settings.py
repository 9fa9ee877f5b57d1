"""Which endpoint judges, and how much it may be asked. No HTTP, so that the command line can read it."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from store.errors import BadValue


@dataclass(frozen=True, slots=True)
class JudgeSettings:
    """The judge. `url` ends before /chat/completions; without `url` and `model` there is none.

    `calls_per_day` (UTC) and `calls_total` bound the requests ever sent to that model, retries included; a
    pair takes two. Times are in seconds.
    """

    url: str | None = None
    model: str | None = None
    key: str | None = field(default=None, repr=False)
    calls_per_day: int = 1000
    calls_total: int = 20_000
    concurrency: int = 4
    timeout_s: float = 60.0
    max_tries: int = 5
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0
    max_failures: int = 5
    max_tokens: int = 16

    def __post_init__(self) -> None:
        if bool(self.url) != bool(self.model):
            raise BadValue("a judge needs both url and model")
        if self.url is not None:
            parts = urlsplit(self.url)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
                raise BadValue(
                    "the judge's url must be http(s)://host/…, without a user name; the key goes in key"
                )
        if self.key is not None and not (self.key.isascii() and self.key.isprintable() and self.key.strip()):
            # An HTTP library names a header it cannot send, and with it the key.
            raise BadValue("the judge's key must be printable ASCII")
        for name in ("calls_per_day", "calls_total"):
            if getattr(self, name) < 0:
                raise BadValue(f"{name} {getattr(self, name)} must be 0 or more")
        for name in ("concurrency", "max_tries", "max_failures", "max_tokens"):
            if getattr(self, name) < 1:
                raise BadValue(f"{name} {getattr(self, name)} must be at least 1")
        if not 0 < self.timeout_s <= 3600:
            raise BadValue(f"timeout_s {self.timeout_s} is outside 0..3600")
        if not 0 <= self.first_wait_s <= self.longest_wait_s:
            raise BadValue(
                f"first_wait_s {self.first_wait_s} is outside 0..{self.longest_wait_s} (longest_wait_s)"
            )

    @property
    def source(self) -> str:
        """What the judge's labels are stamped with."""
        return f"judge:{self.model}"
