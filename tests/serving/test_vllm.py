"""What only the vLLM engine does: several servers, their loss and return, what it refuses to work with.

Most of it runs against the real vLLM, with `-m vllm`; what needs no server runs always.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from serving.adapters import BadAdapter
from serving.base_text import load_text
from serving.settings import BatchSettings, VllmSettings
from serving.vllm_client import Card, ReplicaLost, VllmClient, read_lines
from serving.vllm_engine import VllmEngine, adaptable_layers, read_layers
from serving.vllm_pool import Replica, VllmPool
from serving.vllm_server import VllmServer, make_command, make_environment
from store.errors import BadValue, Busy, HeedError
from store.records import Sampling
from tests.running import ROOT, free_port
from tests.serving.conftest import Reference
from tests.serving.fakes import ask, wait_until
from tests.serving.real_vllm import RealVllm, base_settings, find_python
from tests.serving.test_contract import GREEDY, LONG, count_in_flight, finish

RESTART_LIMIT_S = 300.0
Connect = Callable[..., VllmEngine]


@pytest.fixture
def connect(base_dir: Path, tmp_path: Path) -> Iterator[Connect]:
    """`connect(server, other)`: an engine over these servers, closed after the test."""
    made: list[VllmEngine] = []

    def build(*servers: RealVllm, base: Path = base_dir) -> VllmEngine:
        urls = tuple(server.url for server in servers)
        made.append(
            VllmEngine(base_settings(base), BatchSettings(), VllmSettings(urls=urls), tmp_path / "log")
        )
        return made[-1]

    yield build
    for engine in made:
        engine.close()


def answer(engine: VllmEngine, version: str, text: str = "the fox") -> list[int]:
    return list(finish(engine.generate(version, ask(text), GREEDY)).token_ids)


def answers_again(engine: VllmEngine, version: str) -> bool:
    try:
        answer(engine, version)
    except Busy:
        time.sleep(0.1)
        return False
    return True


def test_either_a_url_or_a_python_is_needed() -> None:
    with pytest.raises(BadValue, match="either --vllm-url or --vllm-python"):
        VllmSettings()
    with pytest.raises(BadValue, match="and not both"):
        VllmSettings(urls=("http://one",), python=Path("python"))
    with pytest.raises(BadValue, match="'localhost:8000' does not begin with http://"):
        VllmSettings(urls=("localhost:8000",))
    with pytest.raises(BadValue, match="max_lora_rank 12 is none of vLLM's"):
        VllmSettings(urls=("http://one",), max_lora_rank=12)


def test_a_server_that_cannot_be_reached_is_named(base_dir: Path, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(Busy, match=f"no vLLM server can answer now \\({url}: ConnectError"):
        VllmEngine(base_settings(base_dir), BatchSettings(), VllmSettings(urls=(url,)), tmp_path / "log")


@pytest.mark.parametrize("is_other_up", [True, False])
def test_a_server_lost_while_it_is_checked_does_not_stop_a_start_that_has_another(
    is_other_up: bool, base_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check(pool: VllmPool, replica: Replica) -> Card:
        if is_other_up and replica.client.url == "http://two":
            return Card("base", "", 256, frozenset())
        await pool._check_scores(replica)
        raise AssertionError("nobody answers there")

    async def break_off(*_: object) -> float:
        raise ReplicaLost("ReadError")

    monkeypatch.setattr(VllmClient, "score", break_off)
    monkeypatch.setattr(VllmPool, "_check", check)
    monkeypatch.setattr(VllmPool, "_look_after", lambda *_: asyncio.sleep(0))
    settings = VllmSettings(urls=("http://one", "http://two"))
    if is_other_up:
        engine = VllmEngine(base_settings(base_dir), BatchSettings(), settings, tmp_path / "log")
        assert engine.stats().slots == BatchSettings().slots
        engine.close()
        return
    with pytest.raises(Busy, match=r"http://one: ReadError, while it scored .* --lora-target-modules"):
        VllmEngine(base_settings(base_dir), BatchSettings(), settings, tmp_path / "log")


def test_four_bit_weights_are_refused(base_dir: Path, tmp_path: Path) -> None:
    settings = type(base_settings(base_dir))(str(base_dir), quantization="nf4")
    with pytest.raises(BadValue, match="give --quantization none"):
        VllmEngine(settings, BatchSettings(), VllmSettings(urls=("http://127.0.0.1:9",)), tmp_path / "log")


def test_a_python_that_is_nowhere_or_has_no_vllm_is_refused(base_dir: Path, tmp_path: Path) -> None:
    nowhere = VllmSettings(python=tmp_path / "python")
    with pytest.raises(BadValue, match="python is no program; give the python of vLLM's own environment"):
        VllmEngine(base_settings(base_dir), BatchSettings(), nowhere, tmp_path / "log")
    ours = VllmSettings(python=Path(sys.executable))
    with pytest.raises(HeedError, match=r"vLLM ended before it answered(.|\n)*No module named 'vllm'"):
        VllmEngine(base_settings(base_dir), BatchSettings(), ours, tmp_path / "log")


def test_the_server_is_told_what_our_figures_need(base_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = load_text(base_settings(base_dir))
    settings = VllmSettings(python=Path("/venv/bin/python"), arguments=("--max-model-len", "128"))
    layers = adaptable_layers(read_layers(text))
    assert layers == ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    command = make_command(text, settings, 32, layers, 8000)
    assert command[0] == "/venv/bin/python"
    assert command[command.index("--logprobs-mode") + 1] == "raw_logprobs"
    assert command[command.index("--scheduling-policy") + 1] == "priority"
    assert command[-2:] == ["--max-model-len", "128"]
    monkeypatch.setenv("HEED_ADMIN_TOKEN", "secret")
    assert "HEED_ADMIN_TOKEN" not in make_environment()


def test_however_we_end_the_server_ends(tmp_path: Path) -> None:
    """Killed outright, nothing of ours runs any more; the server's whole group must go by itself."""
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").write_text("import time\ntime.sleep(600)\n")
    code = (
        "import subprocess, sys, time\n"
        f"leash = {str(ROOT / 'serving' / 'vllm_leash.py')!r}\n"
        "child = subprocess.Popen([sys.executable, leash, sys.executable, '-c', 'import vllm'],"
        " stdin=subprocess.PIPE, start_new_session=True)\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    group = int(owner.stdout.readline())
    wait_until(lambda: len(members(group)) == 2)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    wait_until(lambda: not members(group))


def members(group: int) -> list[int]:
    """The processes of a group that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it ended as we looked
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def test_an_event_ends_with_a_newline_and_with_nothing_else() -> None:
    """A model that wrote a line separator (U+2028) or a next-line mark (U+0085) once broke its own answer."""
    text = 'data: {"text": "a\u2028b\u0085c\x1ed"}'.encode()

    async def read() -> list[bytes]:
        return [line async for line in read_lines(httpx.Response(200, content=text + b"\n\ndata: [DONE]\n"))]

    assert asyncio.run(read()) == [text, b"", b"data: [DONE]"]


@pytest.mark.vllm
def test_closing_an_answer_ends_it_at_vllm_too(vllm_server: RealVllm, connect: Connect) -> None:
    engine = connect(vllm_server)
    engine.load("v0", None)
    written = vllm_server.read_metric("vllm:generation_tokens_total")
    chunks = [engine.generate("v0", ask("a"), Sampling(1, max_tokens=230, seed=seed)) for seed in range(24)]
    next(chunks[0])
    for chunk in chunks:
        chunk.close()  # type: ignore[attr-defined]
    ends = [finish(chunk).finish_reason for chunk in chunks]
    assert ends.count("cancelled") > 12  # the others were quicker
    wait_until(lambda: vllm_server.count_running() == 0 == count_in_flight(engine))
    assert vllm_server.read_metric("vllm:generation_tokens_total") - written < 12 * 230


@pytest.mark.vllm
def test_an_engine_that_closes_leaves_no_adapters(
    vllm_server: RealVllm, connect: Connect, adapters: dict[str, Path]
) -> None:
    engine = connect(vllm_server)
    for version in ("v1", "v2"):
        engine.load(version, adapters[version])
    assert len(vllm_server.adapters()) == 2
    engine.unload("v1")
    assert len(vllm_server.adapters()) == 1
    engine.close()
    assert vllm_server.adapters() == []


@pytest.mark.vllm
def test_a_temperature_that_vllm_does_not_take_is_refused(vllm_server: RealVllm, connect: Connect) -> None:
    engine = connect(vllm_server)
    engine.load("v0", None)
    with pytest.raises(BadValue, match=r"temperature 3.0 is more than vLLM takes, 2.0"):
        engine.generate("v0", ask("a"), Sampling(temperature=3.0))


@pytest.mark.vllm
@pytest.mark.parametrize(
    ("file", "key", "value", "says"),
    [
        ("config.json", "max_position_embeddings", 128, "with a context of 256, but .* has 128"),
        ("config.json", "rms_norm_eps", 0.5, "whose files differ from those in"),
        ("tokenizer.json", "normalizer", {"type": "Lowercase"}, "which cuts text into other tokens than"),
    ],
)
def test_a_server_with_another_base_is_refused(
    vllm_server: RealVllm,
    connect: Connect,
    base_dir: Path,
    tmp_path: Path,
    file: str,
    key: str,
    value: object,
    says: str,
) -> None:
    ours = Path(shutil.copytree(base_dir, tmp_path / "ours"))
    content = json.loads((ours / file).read_text("utf-8"))
    (ours / file).write_text(json.dumps(content | {key: value}), "utf-8")
    with pytest.raises(BadValue, match=says):
        connect(vllm_server, base=ours)


@pytest.mark.vllm
def test_a_server_whose_logprobs_follow_the_temperature_is_refused(
    base_dir: Path, tmp_path: Path, connect: Connect
) -> None:
    server = RealVllm(base_dir, tmp_path / "vllm.log", ("--logprobs-mode", "processed_logprobs"))
    try:
        with pytest.raises(BadValue, match="start it with --logprobs-mode raw_logprobs"):
            connect(server.launch().wait())
    finally:
        server.kill()


@pytest.mark.vllm
def test_two_servers_share_the_work_and_either_may_be_lost(
    vllm_server: RealVllm,
    base_dir: Path,
    adapters: dict[str, Path],
    tmp_path: Path,
    connect: Connect,
    greedy: Reference,
) -> None:
    # At first the second takes no adapter of ours: its largest rank is 1.
    second = RealVllm(base_dir, tmp_path / "vllm.log", ("--max-lora-rank", "1")).launch().wait()
    try:
        engine = connect(vllm_server, second)
        engine.load("v0", None)
        with pytest.raises(BadAdapter, match=f"v1 was refused by vLLM at {second.url}: .*rank 4"):
            engine.load("v1", adapters["v1"])
        assert vllm_server.adapters() == second.adapters() == []
        assert engine.versions() == ["v0"]

        second.freeze()
        asked = [engine.generate("v0", ask("the fox"), GREEDY) for _ in range(4)]
        wait_until(lambda: engine.stats().versions["v0"].finished == 2)
        assert count_in_flight(engine) == 2  # each took half, and what the second has begun does not go on
        second.kill()
        ends = [list(finish(chunks).token_ids) for chunks in asked]
        assert ends == [greedy("v0", "the fox", 24)] * 4
        engine.load("v1", adapters["v1"])
        assert all(answer(engine, "v1") == greedy("v1", "the fox", 24) for _ in range(4))

        second.flags = ()
        second.launch().wait()
        wait_until(lambda: second.adapters() == vllm_server.adapters() != [], RESTART_LIMIT_S)
        wait_until(lambda: engine.stats().slots == 64)
        asked = [engine.generate("v1", ask("the fox"), GREEDY) for _ in range(8)]
        assert {finish(chunks).token_ids for chunks in asked} == {tuple(greedy("v1", "the fox", 24))}
    finally:
        second.kill()


@pytest.mark.vllm
def test_a_server_of_our_own_that_dies_is_started_again_with_its_versions(
    base_dir: Path, adapters: dict[str, Path], tmp_path: Path, greedy: Reference
) -> None:
    settings = VllmSettings(python=find_python())
    engine = VllmEngine(base_settings(base_dir), BatchSettings(), settings, tmp_path / "data" / "vllm.log")
    server = engine.server
    assert isinstance(server, VllmServer)
    try:
        for version in ("v0", "v1", "v2"):
            engine.load(version, adapters.get(version))
        half = engine.generate("v1", ask("a"), LONG)
        next(half)
        group = server.pid
        os.killpg(group, signal.SIGKILL)
        with pytest.raises(Busy, match="was lost while it answered"):
            finish(half)
        with pytest.raises(Busy, match="no vLLM server can answer now"):
            answer(engine, "v1")
        wait_until(lambda: answers_again(engine, "v2"), RESTART_LIMIT_S)
        assert server.pid != group
        for version in ("v0", "v1", "v2"):
            assert answer(engine, version) == greedy(version, "the fox", 24)
    finally:
        engine.close()
    wait_until(lambda: not members(server.pid))
