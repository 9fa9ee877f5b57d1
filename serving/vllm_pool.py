"""The vLLM servers as one: which are up and serve our base, what is loaded on them, who takes the next.

Everything here runs in one event loop. A server that was lost is used again only once it has been checked
anew and has every adapter: vLLM forgets them all when it restarts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import httpx

from serving.adapters import BadAdapter
from serving.base_text import BaseText, ChatTokenizer
from serving.vllm_client import Card, Refused, ReplicaLost, VllmClient
from store.errors import BadValue, Busy, HeedError
from store.fingerprint import base_fingerprint
from store.records import Sampling

logger = logging.getLogger(__name__)

WATCH_S = 2.0
CHECK_S = 120.0  # a server that takes longer over its checks or its adapters is as good as lost
RETURN_S = 10.0  # how long loads may wait for one that comes back
# Letters, digits, marks and scripts that two tokenizers rarely cut the same way.
PROBE = "Heed: people rate what a model says - 0123456789 naïve 人々 привет 🦊!\n\tfin  def f(x): return x+1"
PROBE_TOKENS = 48
HOTTEST = 2.0  # the most that vLLM takes
SAME_NATS = 0.1
SCORING_HINT = (
    "on a CPU it must be started with --lora-target-modules and every layer that adapters wrap, but not"
    " lm_head"
)


class Replica:
    """One server; `problem` says why it is not used, None while it is."""

    def __init__(self, client: VllmClient) -> None:
        self.client = client
        self.problem: str | None = "not asked yet"
        self.base_name = ""
        self.has_priorities = False
        self.num_in_flight = 0
        self.is_lost = asyncio.Event()  # wakes who looks after it

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """One more request of ours is there."""
        self.num_in_flight += 1
        try:
            yield
        finally:
            self.num_in_flight -= 1


class VllmPool:
    """`run` is a word no other Heed uses: adapters' names begin with it, so several can share a server."""

    def __init__(
        self, urls: Sequence[str], http: httpx.AsyncClient, text: BaseText, tokenizer: ChatTokenizer, run: str
    ) -> None:
        self.context_length = text.context_length
        self._replicas = [Replica(VllmClient(url, http)) for url in urls]
        self._text = text
        self._tokenizer = tokenizer
        self._prefix = f"heed-{run}-"
        self._adapters: dict[str, Path] = {}  # what every server that is up has, by vLLM's name
        self._num_loads = 0
        self._changing = asyncio.Lock()  # one load, unload or return of a server at a time

    async def open(self) -> None:
        """Check every server. BadValue when one serves something else, Busy when none can be reached."""
        for replica in self._replicas:
            try:
                self.context_length = min(self.context_length, (await self._check(replica)).context_length)
                replica.problem = None
            except ReplicaLost as error:
                replica.problem = str(error)
                logger.warning("vLLM at %s: %s", replica.client.url, error)
            except Refused as error:
                raise BadValue(f"vLLM at {replica.client.url}: {error}") from error
        self.pick()
        logger.info("%d vLLM servers, context %d", self.num_up, self.context_length)

    @property
    def num_up(self) -> int:
        return sum(replica.problem is None for replica in self._replicas)

    def pick(self) -> Replica:
        """The server with the fewest requests of ours. Busy, with every reason, when none is up."""
        up = [replica for replica in self._replicas if replica.problem is None]
        if not up:
            problems = "; ".join(f"{replica.client.url}: {replica.problem}" for replica in self._replicas)
            raise Busy(f"no vLLM server can answer now ({problems}); try again shortly")
        return min(up, key=lambda replica: replica.num_in_flight)

    def lose(self, replica: Replica, problem: str) -> None:
        """Use a server no more until it has been checked and given its adapters again."""
        if replica.problem != problem:
            logger.warning("vLLM at %s is not used: %s", replica.client.url, problem)
        replica.problem = problem
        replica.is_lost.set()

    async def load(self, folder: Path, label: str) -> str:
        """Load an adapter on every server that is up; returns the name to ask for, new at every load.

        BadAdapter when one refuses: then none keeps it. A server that is down gets it when it returns.
        """
        async with self._changing:
            self._num_loads += 1
            # vLLM's prefix cache goes by name: one that had other weights would answer from their cache.
            name = f"{self._prefix}{self._num_loads}-{label}"
            done: list[Replica] = []
            for replica in [replica for replica in self._replicas if replica.problem is None]:
                try:
                    await replica.client.load_adapter(name, folder.resolve())
                except ReplicaLost as error:
                    self.lose(replica, str(error))
                except Refused as error:
                    await self._unload_from(done, name)
                    raise BadAdapter(
                        f"adapter {folder.name} was refused by vLLM at {replica.client.url}: {error}"
                    ) from error
                else:
                    done.append(replica)
            if not done:
                self.pick()
            self._adapters[name] = folder
        return name

    async def unload(self, name: str) -> None:
        """Unload everywhere; a server that fails to is lost and comes back without it."""
        async with self._changing:
            del self._adapters[name]
            await self._unload_from([r for r in self._replicas if r.problem is None], name)

    async def _unload_from(self, replicas: Sequence[Replica], name: str) -> None:
        for replica in replicas:
            try:
                await replica.client.unload_adapter(name)
            except (ReplicaLost, Refused) as error:
                self.lose(replica, f"it did not unload {name}: {error}")

    async def close(self) -> None:
        """Leave nothing of ours on servers that others may go on using."""
        for name in [*self._adapters]:
            await self.unload(name)

    async def keep_watch(self) -> None:
        """Look after every server, every WATCH_S and whenever it is lost; never returns."""
        await asyncio.gather(*(self._watch(replica) for replica in self._replicas))

    async def _watch(self, replica: Replica) -> None:
        while True:
            await self._look_after(replica)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(replica.is_lost.wait(), WATCH_S)
                await asyncio.sleep(WATCH_S / 4)  # what was just lost is rarely back at once
            replica.is_lost.clear()

    async def _look_after(self, replica: Replica) -> None:
        try:
            if replica.problem is None:
                await self._find_forgotten(replica)
            else:
                await self._bring_back(replica)
        except (ReplicaLost, Refused, HeedError) as error:
            self.lose(replica, str(error))
        except Exception as error:  # the watch must go on, whatever one server says
            logger.exception("vLLM at %s could not be looked after", replica.client.url)
            self.lose(replica, f"{type(error).__name__}: {error}")

    async def _find_forgotten(self, replica: Replica) -> None:
        before = set(self._adapters)
        await replica.client.check_health()
        served = (await replica.client.read_card()).adapters
        forgotten = (before & set(self._adapters)) - served
        if forgotten:
            raise Refused(404, f"it has forgotten {len(forgotten)} adapters, so it was restarted")

    async def _bring_back(self, replica: Replica) -> None:
        """Check it and give it its adapters while others are loaded and answer; only the end is exclusive."""
        await replica.client.check_health()
        async with _at_most(CHECK_S, "its checks"):
            card = await self._check(replica)
            if card.context_length < self.context_length:
                raise BadValue(f"its context is {card.context_length} now, we count on {self.context_length}")
            await self._give_adapters(replica)
        async with self._changing, _at_most(RETURN_S, "the adapters that were loaded meanwhile"):
            await self._give_adapters(replica)
            replica.problem = None
        logger.info("vLLM at %s is used again, with %d adapters", replica.client.url, len(self._adapters))

    async def _give_adapters(self, replica: Replica) -> None:
        """Load what it lacks, and unload what is ours and no longer served."""
        wanted, found = dict(self._adapters), (await replica.client.read_card()).adapters
        for name in sorted(found - set(wanted)):
            if name.startswith(self._prefix):
                await replica.client.unload_adapter(name)
        for name, folder in wanted.items():
            if name not in found:
                await replica.client.load_adapter(name, folder.resolve())

    async def _check(self, replica: Replica) -> Card:
        """Compare what is served with our own base; BadValue says what differs."""
        client, text = replica.client, self._text
        card = await client.read_card()
        replica.base_name = card.base_name
        says = f"vLLM at {client.url} serves {card.root or card.base_name}"
        if card.context_length > text.context_length:
            raise BadValue(
                f"{says} with a context of {card.context_length}, but {text.folder} has {text.context_length}"
            )
        if await client.tokenize(card.base_name, PROBE) != self._tokenizer.encode_text(PROBE):
            raise BadValue(f"{says}, which cuts text into other tokens than {text.folder}")
        if Path(card.root).is_dir():
            self._compare_files(Path(card.root), says)
        else:
            logger.warning("%s, a folder not seen from here: only its tokens were compared", says)
        await self._check_logprobs(replica)
        await self._check_scores(replica)
        await self._check_runtime_loading(client)
        replica.has_priorities = await self._has_priorities(replica)
        return card

    def _compare_files(self, folder: Path, says: str) -> None:
        text = self._text
        if base_fingerprint(folder, text.template, text.quantization, text.dtype) != text.fingerprint:
            raise BadValue(f"{says}, whose files differ from those in {text.folder}")

    async def _check_logprobs(self, replica: Replica) -> None:
        """Raw log-probs do not change with the temperature; every score and round is built on them."""
        cold, hot = [await self._probe(replica, temperature) for temperature in (1.0, HOTTEST)]
        if any(logprob > 0 for logprob in (*cold.values(), *hot.values())):
            raise BadValue(
                f"vLLM at {replica.client.url} reports logits; give it --logprobs-mode raw_logprobs"
            )
        differ = [abs(cold[token] - hot[token]) for token in cold.keys() & hot.keys()]
        if not differ or max(differ) > SAME_NATS:
            raise BadValue(
                f"vLLM at {replica.client.url} reports log-probs after the temperature;"
                " start it with --logprobs-mode raw_logprobs"
            )

    async def _check_scores(self, replica: Replica) -> None:
        """Better it dies now than under a round that scores its answers.

        On a CPU a server without the right flags does die of it. So does, to the eye, one that is restarted:
        it is lost, not refused.
        """
        ids = self._tokenizer.encode_text(PROBE)[:PROBE_TOKENS]
        try:
            await replica.client.score(replica.base_name, ids[:8], ids[8:])
        except Refused as error:
            raise BadValue(
                f"vLLM at {replica.client.url} cannot score an answer ({error}); {SCORING_HINT}"
            ) from error
        except ReplicaLost as error:
            says = f"{error}, while it scored an answer; if it ends there every time: {SCORING_HINT}"
            raise ReplicaLost(says) from error

    async def _probe(self, replica: Replica, temperature: float, priority: int = 0) -> dict[int, float]:
        """The likeliest first tokens after the probe text, with their log-probs."""
        ids = self._tokenizer.encode_text(PROBE)[:PROBE_TOKENS]
        pieces = replica.client.write(
            replica.base_name, ids, Sampling(temperature), 1, (), top_logprobs=5, priority=priority
        )
        return dict([top async for piece in pieces for token in piece.tokens for top in token.top])

    async def _check_runtime_loading(self, client: VllmClient) -> None:
        try:
            await client.unload_adapter(f"{self._prefix}none")
        except Refused as error:
            if "cannot be found" in str(error):
                return
        raise BadValue(
            f"vLLM at {client.url} loads no adapters while it runs; start it with --enable-lora and with"
            " VLLM_ALLOW_RUNTIME_LORA_UPDATING=True in its environment"
        )

    async def _has_priorities(self, replica: Replica) -> bool:
        try:
            await self._probe(replica, 1.0, priority=1)
        except Refused:
            logger.warning("vLLM at %s knows no --scheduling-policy priority", replica.client.url)
            return False
        return True


@contextlib.asynccontextmanager
async def _at_most(limit_s: float, what: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(limit_s):
            yield
    except TimeoutError as error:
        raise ReplicaLost(f"{what} took longer than {limit_s:.0f} s") from error
