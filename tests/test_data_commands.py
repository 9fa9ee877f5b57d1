"""The offline commands on data: what they print, what they write, and how they end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from app import main
from store.database import Store
from store.exchange import export_labels
from tests.running import ROOT
from tests.trainer.labelled import judge_pairs

FIXTURES = ROOT / "tests" / "store" / "formats" / "fixtures"


@pytest.fixture
def data(tmp_path: Path) -> str:
    return str(tmp_path / "data")


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_an_import_says_what_it_did(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["import", str(FIXTURES / "orca-dpo.jsonl"), "--data", data])
    assert capsys.readouterr().out.splitlines() == [
        "orca-dpo: 2 labels added, 0 were known",
        "1 left out: a tie teaches nothing",
    ]
    main(["import", str(FIXTURES / "orca-dpo.jsonl"), "--data", data])
    assert "0 labels added, 2 were known" in capsys.readouterr().out


def test_a_preview_touches_no_data(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["import", str(FIXTURES / "argilla.json"), "--preview", "--data", data])
    shown = capsys.readouterr().out
    assert shown.startswith("argilla: 3 of the first 3 rows have fields, responses")
    assert "2 pair\n1 left out: a response that was not submitted" in shown
    assert not Path(data).exists()


def test_bad_rows_land_in_the_reject_file(
    tmp_path: Path, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = tmp_path / "labels.jsonl"
    good, bad = '{"prompt": "a", "chosen": "b", "rejected": "c"}', '{"prompt": "a", "chosen": 5}'
    labels.write_text(f"{good}\n{bad}\n", "utf-8")
    assert "line 2: field 'chosen' must be text" in refusal(["import", str(labels), "--data", data], capsys)
    rejects = tmp_path / "rejects.jsonl"
    main(["import", str(labels), "--skip-bad", str(rejects), "--data", data])
    assert f"1 rows could not be read; they are in {rejects}" in capsys.readouterr().out
    [rejected] = [json.loads(line) for line in rejects.read_text("utf-8").splitlines()]
    assert (rejected["place"], rejected["field"]) == (2, "chosen")
    assert json.loads(rejected["raw"]) == {"prompt": "a", "chosen": 5}
    again = refusal(["import", str(labels), "--skip-bad", str(rejects), "--data", data], capsys)
    assert "cannot be made: File exists" in again


def test_an_export_is_of_the_kind_its_name_says(
    tmp_path: Path, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["import", str(FIXTURES / "open-webui.json"), "--data", data])
    store = Store.open(Path(data))
    judge_pairs(store, 2)
    store.close()
    capsys.readouterr()
    out = tmp_path / "labels.parquet"
    main(["export", str(out), "--data", data])
    paths = [tmp_path / f"labels-{kind}.parquet" for kind in ("preference", "unpaired")]
    assert capsys.readouterr().out.splitlines() == [
        f"3 labels written to {paths[0]}",
        f"2 labels written to {paths[1]}",
    ]
    assert [pq.read_metadata(path).num_rows for path in paths] == [3, 2]
    main(["export", str(tmp_path / "mine.csv"), "--source", "human", "--data", data])
    assert capsys.readouterr().out == f"2 labels written to {tmp_path / 'mine-preference.csv'}\n"
    main(["export", str(tmp_path / "set"), "--format", "dataset", "--data", data])
    assert (tmp_path / "set" / "README.md").exists()
    assert "is there already" in refusal(
        ["export", str(tmp_path / "set"), "--format", "dataset", "--data", data], capsys
    )
    with pytest.raises(SystemExit):
        main(["export", str(out), "--since", "yesterday", "--data", data])


def test_validate_ends_with_1_when_something_is_bad(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = "Answer {} is this one.", "Answer {} I have forgotten by now."
    rows = [
        {
            "prompt": f"Question {n}?",
            "chosen": answers[n % 2].format(n),
            "rejected": answers[n % 2 - 1].format(n),
        }
        for n in range(120)
    ]
    labels = tmp_path / "labels.jsonl"
    labels.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    main(["validate", str(labels)])
    assert "120 pairs, 0 ratings: ok" in capsys.readouterr().out
    for row in rows:
        row["chosen"] = ""
    labels.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    with pytest.raises(SystemExit) as ended:
        main(["validate", str(labels)])
    assert ended.value.code == 1
    assert "bad   empty better answers" in capsys.readouterr().out


def test_a_file_of_prompts_has_nothing_to_validate(capsys: pytest.CaptureFixture[str]) -> None:
    assert "holds prompts" in refusal(["validate", str(FIXTURES / "prompts.txt")], capsys)


def test_a_folder_of_data_is_imported_by_its_name_and_split(tmp_path: Path, data: str) -> None:
    folder = tmp_path / "some" / "set"
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_bytes((FIXTURES / "shp.jsonl").read_bytes())
    done = _run(["import", "some/set", "--split", "train", "--data", data], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "shp: 2 labels added" in done.stdout
    store = Store.open(Path(data))
    assert len(list(export_labels(store))) == 2
    store.close()


def test_a_dataset_that_cannot_be_had_is_refused_with_a_sentence(tmp_path: Path, data: str) -> None:
    done = _run(["import", "nobody/nothing", "--split", "train", "--data", data], tmp_path)
    assert done.returncode == 2
    assert "the dataset 'nobody/nothing' could not be loaded" in done.stderr
    assert "Traceback" not in done.stderr
    assert not Path(data).exists()


def _run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """In a process of its own: `datasets` keeps its cache where it stood when it was first imported."""
    return subprocess.run(
        [sys.executable, str(ROOT / "app.py"), *arguments],
        cwd=folder,
        env=os.environ | {"HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
