"""Settings: which source wins, and that a bad value stops the start with a sentence that names it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from settings import ServeSettings, SettingsRefused
from trainer.settings import TrainerSettings, starter_settings


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_flag_beats_the_environment_which_beats_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "heed.toml").write_text("port = 1111\nmin_new_labels = 11\n[trainer]\nbeta = 0.11\n", "utf-8")
    monkeypatch.setenv("HEED_PORT", "2222")
    monkeypatch.setenv("HEED_MIN_NEW_LABELS", "22")
    settings = ServeSettings.read(["--port", "3333"], "serve")
    assert settings.port == 3333
    assert settings.plan().triggers.min_new_labels == 22
    assert settings.plan().trainer.beta == 0.11


def test_one_flag_of_a_group_leaves_the_rest_as_it_suits_the_starter() -> None:
    """A default that was merged under the flag once counted as asked for: the rate fell to a hundredth."""
    trainer = ServeSettings.read(["--trainer.max-steps", "60"], "serve").plan().trainer
    assert trainer == replace(starter_settings(), max_steps=60)
    asked = ServeSettings.read(["--model", "some", "--trainer.max-steps", "60"], "serve").plan().trainer
    assert asked == TrainerSettings(max_steps=60)


def test_a_group_is_reached_by_flag_and_by_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEED_TRAINER__EPOCHS", "3")
    trainer = ServeSettings.read(["--trainer.beta", "0.4"], "serve").plan().trainer
    assert (trainer.epochs, trainer.beta) == (3, 0.4)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--port", "0"], "port"),
        (["--quantization", "int3"], "nf4"),
        (["--trainer.beta", "-1"], "beta"),
        (["--min-new-labels", "0"], "min_new_labels"),
        (["--config", "nowhere.toml"], "nowhere.toml"),
        (["--judge.url", "http://localhost:1/v1"], "both url and model"),
        (["--rollout.order", "newest"], "uncertain"),
        (["--batch.slots", "0"], "slots"),
        (["--engine", "vllm"], "either --vllm-url or --vllm-python"),
        (["--vllm-url", "http://localhost:8000"], "add --engine vllm"),
        (["--engine", "vllm", "--vllm-url", "localhost:8000"], "does not begin with http://"),
    ],
)
def test_an_impossible_value_stops_the_start_and_is_named(
    argv: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises((SettingsRefused, SystemExit)) as stopped:
        ServeSettings.read(argv, "serve")
    assert says in str(stopped.value) + capsys.readouterr().err


def test_vllm_servers_are_a_list_however_they_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    urls = ("http://one:8000", "http://two:8000")
    flags = ["--engine", "vllm"]
    for argv in (["--vllm-url", ",".join(urls)], ["--vllm-url", urls[0], "--vllm-url", urls[1]]):
        vllm = ServeSettings.read([*flags, *argv], "serve").vllm()
        assert vllm is not None
        assert vllm.urls == urls
    started = ServeSettings.read(
        [*flags, "--vllm-python", "/venv/bin/python", "--vllm-args", "--max-model-len 4096 --seed 1"], "serve"
    ).vllm()
    assert started is not None
    assert started.arguments == ("--max-model-len", "4096", "--seed", "1")
    monkeypatch.setenv("HEED_ENGINE", "vllm")
    monkeypatch.setenv("HEED_VLLM_URL", '["http://one:8000", "http://two:8000"]')
    from_environment = ServeSettings.read([], "serve").vllm()
    assert from_environment is not None
    assert from_environment.urls == urls


def test_an_unknown_key_in_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "heed.toml").write_text("[trainer]\nbetta = 0.1\n", "utf-8")
    with pytest.raises(SettingsRefused, match=r"trainer\.betta"):
        ServeSettings.read([], "serve")


def test_an_unknown_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEED_MIN_NEW_LABEL", "5")
    with pytest.raises(SettingsRefused, match="HEED_MIN_NEW_LABEL"):
        ServeSettings.read([], "serve")


def test_secrets_are_masked_when_settings_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEED_ADMIN_TOKEN", "s3cret-s3cret")
    assert "s3cret" not in str(ServeSettings.read([], "config").masked())
    monkeypatch.setenv("HEED_JUDGE__KEY", "s3cret-s3cret")
    settings = ServeSettings.read(["--judge.url", "http://localhost:1/v1", "--judge.model", "m"], "config")
    assert settings.judging().key == "s3cret-s3cret"
    assert "s3cret" not in str(settings.masked())
    assert settings.masked()["judge"]["key"] == "set"


def test_the_chips_of_the_chat_are_a_list_of_different_words() -> None:
    assert ServeSettings.read(["--chat.reasons", "Wrong,Too long"], "serve").webs().chat.reasons == (
        "Wrong",
        "Too long",
    )
    assert "Incorrect" in ServeSettings.read([], "serve").webs().chat.reasons
    for wrong, says in (("Wrong,Wrong", "different ones"), ("a" * 81, "1 to 80 characters")):
        with pytest.raises(SettingsRefused, match=says):
            ServeSettings.read(["--chat.reasons", wrong], "serve")
