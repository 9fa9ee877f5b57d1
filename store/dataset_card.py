"""The card of an exported dataset: the header the hub and `datasets` read, and what a person should know."""

from __future__ import annotations

from typing import Any

from store.exchange import KINDS, count_by

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_TRAINERS = {"preference": "DPOTrainer", "unpaired": "KTOTrainer"}


def write_card(rows: list[dict[str, Any]], guidelines_version: int | None) -> str:
    """README.md of the dataset folder; `guidelines_version` None when annotators had no guidelines."""
    from huggingface_hub import DatasetCardData

    size = next((name for most, name in _SIZES if len(rows) < most), "1M<n<10M")
    configs = [{"config_name": kind, "data_files": files} for kind in KINDS if (files := _files(rows, kind))]
    header = DatasetCardData(
        license="other",
        license_name="to-be-chosen",
        size_categories=[size],
        tags=["preference", "dpo", "kto", "trl", "heed"],
        configs=configs,
    )
    return f"---\n{header.to_yaml()}\n---\n\n{_body(rows, guidelines_version)}"


def _files(rows: list[dict[str, Any]], kind: str) -> list[dict[str, str]]:
    splits = {row["split"] for row in rows if row["format"] == kind}
    return [
        {"split": split, "path": f"{kind}/{split}.parquet"}
        for split in ("train", "holdout")
        if split in splits
    ]


def _body(rows: list[dict[str, Any]], guidelines_version: int | None) -> str:
    lines = ["# Labels exported from Heed", ""]
    lines += ["| Configuration | For | Train | Holdout |", "| --- | --- | --- | --- |"]
    for kind in KINDS:
        counts = count_by([row for row in rows if row["format"] == kind], "split")
        lines.append(
            f"| {kind} | {_TRAINERS[kind]} | {counts.get('train', 0)} | {counts.get('holdout', 0)} |"
        )
    lines += ["", "| Source | Labels |", "| --- | --- |"]
    lines += [
        f"| {source.replace('|', ' ')} | {count} |" for source, count in count_by(rows, "source").items()
    ]
    guidelines = f"version {guidelines_version}" if guidelines_version is not None else "none were written"
    people = {name for row in rows for name in row["annotators"]}
    times = sorted(row["created_at"] for row in rows)
    lines += [
        "",
        f"Guidelines of the annotators: {guidelines}. Annotators: {len(people)}, by pseudonym.",
        f"Labels from {times[0]} to {times[-1]}.",
        "",
        "The columns are TRL's (`prompt`, `chosen`, `rejected`; `prompt`, `completion`, `label`). Beside",
        "them: `strength` 1 to 3, `weight` in training, `probability` that chosen is better where several",
        "people judged, `annotators`, the policy versions that wrote the answers, `created_at`, `source`",
        "(`human`, or what an import, a judge model or synthetic data stamped), `split` by prompt,",
        "`active_ms` of the person.",
        "",
        "Choose a licence before you share this: the header says `to-be-chosen`.",
        "",
    ]
    return "\n".join(lines)
