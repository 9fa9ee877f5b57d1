"""The commands about training by hand: what it would need, and a whole model instead of an adapter.

Nothing heavy is imported at the top.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from store.errors import BadValue

if TYPE_CHECKING:
    from trainer.memory import ModelShape, TrainingShape
    from trainer.settings import TrainerSettings

STARTER = Path(__file__).parent / "serving" / "starter"


def estimate(argv: list[str]) -> None:
    """Say how much memory a training would take, line by line, and what to change if it does not fit."""
    parser = argparse.ArgumentParser(prog="app.py estimate", description=estimate.__doc__)
    parser.add_argument("--model", help="a folder or a hub model at hand (default: the starter policy)")
    parser.add_argument("--shape", type=Path, help="a config.json, for a model that is not at hand")
    parser.add_argument("--seq", type=int, default=1024, help="tokens of prompt and answer (default: 1024)")
    parser.add_argument("--batch", type=int, default=2, help="pairs a step of one process (default: 2)")
    parser.add_argument("--prompt", type=int, default=0, help="tokens that both answers share (default: 0)")
    parser.add_argument("--rank", type=int, default=16, help="rank of the adapter (default: 16)")
    parser.add_argument("--quantization", choices=["auto", "none", "nf4"], default="auto")
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--optimizer", default="adamw_torch", help="as --trainer.optimizer")
    parser.add_argument("--no-checkpointing", action="store_true", help="keep all activations")
    parser.add_argument("--finetune", choices=["lora", "full"], default="lora")
    parser.add_argument("--gpu-gib", type=float, help="memory of the GPU (default: the one here, or RAM)")
    args = parser.parse_args(argv)
    from trainer.model_shape import read_shape

    device, available = _find_memory(args.gpu_gib)
    model = read_shape(args.shape or _model_folder(args.model))
    print(tell_plan(model, _training_shape(args, device), available))


def _training_shape(args: argparse.Namespace, device: str) -> TrainingShape:
    from store.fingerprint import resolve_precision
    from trainer.memory import TrainingShape

    wanted = "none" if args.finetune == "full" and args.quantization == "auto" else args.quantization
    quantization, dtype = resolve_precision(wanted, args.dtype, device == "cuda")
    return TrainingShape(
        seq=args.seq,
        batch=args.batch,
        prompt=args.prompt,
        rank=args.rank,
        quantization=quantization,  # type: ignore[arg-type]
        dtype=dtype,  # type: ignore[arg-type]
        optimizer=args.optimizer,
        checkpointing=device == "cuda" and not args.no_checkpointing,
        finetune=args.finetune,
        device=device,  # type: ignore[arg-type]
    )


def tell_plan(model: ModelShape, training: TrainingShape, available: int) -> str:
    """The plan as text: its lines and sum in GiB, whether it fits into `available` bytes, what helps."""
    from trainer.memory import GIB, plan_memory, total_bytes, ways_to_save

    total = total_bytes(model, training)
    lines = [f"{model.name}: {training.batch} pairs of 2 x {training.seq} tokens a step, {training.device}"]
    for line in plan_memory(model, training):
        lines.append(f"  {line.bytes / GIB:8.2f} GiB  {line.name}{' (in a step)' if line.passing else ''}")
    lines.append(f"  {total / GIB:8.2f} GiB  in all (an estimate)")
    lines.append(_tell_head(model, training, total))
    if total <= available:
        return "\n".join([*lines, f"fits into {available / GIB:.1f} GiB"])
    lines.append(f"does not fit into {available / GIB:.1f} GiB; what would help, one after another:")
    for says, changed in ways_to_save(training):
        size = total_bytes(model, changed)
        lines.append(f"  {size / GIB:8.2f} GiB  {says}{', fits' if size <= available else ''}")
        if size <= available:
            return "\n".join(lines)
    return "\n".join(
        [*lines, "none of it is enough: more memory, a smaller model, or a base split over several"]
    )


def _tell_head(model: ModelShape, training: TrainingShape, total: int) -> str:
    """What a step would take with whole logits; on a CPU, that scoring the reference takes no more."""
    from trainer.memory import GIB, answer_logits_bytes, naive_logits_bytes, tile_bytes

    if training.device == "cpu":
        logits = answer_logits_bytes(model, training) / GIB
        return f"  {logits:8.2f} GiB  of it at most for a batch of the reference, before the first step"
    naive = naive_logits_bytes(model, training)
    whole = total + naive - tile_bytes(model, training)
    return (
        f"  {whole / GIB:8.2f} GiB  with whole logits, {naive / GIB:.2f} GiB,"
        " which the fused head never builds"
    )


def _find_memory(gpu_gib: float | None) -> tuple[str, int]:
    """("cuda" or "cpu", bytes): the GPU that was named, the one here, or the host's memory."""
    from trainer.memory import GIB

    if gpu_gib is not None:
        if gpu_gib <= 0:
            raise BadValue(f"--gpu-gib {gpu_gib} must be greater than 0")
        return "cuda", int(gpu_gib * GIB)
    import torch

    if torch.cuda.is_available():
        return "cuda", torch.cuda.get_device_properties(0).total_memory
    return "cpu", os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _model_folder(model: str | None) -> Path:
    if model is None:
        return STARTER
    if Path(model).is_dir():
        return Path(model)
    from trainer.qlora import find_model_folder

    return find_model_folder(model)


def fine_tune(argv: list[str]) -> None:
    """Train a whole small model on the pairs, without an adapter; writes a folder for `serve --model`."""
    parser = argparse.ArgumentParser(
        prog="app.py fine-tune",
        description=fine_tune.__doc__,
        epilog="What comes of it is a base model: it is served alone and not swapped in as a version.",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--snapshot", type=Path, help="the snapshot folder of a round")
    source.add_argument("--data", type=Path, help="a data folder, of which a snapshot is taken")
    parser.add_argument("--out", type=Path, required=True, help="the new model folder")
    parser.add_argument("--model", help="the base model (default: the starter policy)")
    parser.add_argument("--chat-template", help="for a model without one, as for serve")
    for name in ("beta", "learning-rate", "sft-weight"):
        parser.add_argument(f"--{name}", type=float, help=f"as --trainer.{name}")
    for name in ("epochs", "batch-size", "max-length", "max-steps", "seed"):
        parser.add_argument(f"--{name}", type=int, help=f"as --trainer.{name}")
    parser.add_argument("--optimizer", help="as --trainer.optimizer")
    args = parser.parse_args(argv)
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: idle threads must not spin
    from trainer.settings import BaseModel
    from trainer.whole import train_whole

    base = BaseModel(args.model or str(STARTER), args.chat_template, quantization="none", dtype="float32")
    with _snapshot(args) as snapshot:
        report = train_whole(base, snapshot, _whole_settings(args), args.out)
    print(json.dumps(asdict(report), indent=2))
    print(f"{args.out} can be served: python app.py serve --model {args.out}")


def _whole_settings(args: argparse.Namespace) -> TrainerSettings:
    """A whole model wants a hundredth of an adapter's rate."""
    from trainer.settings import TrainerSettings, starter_settings

    suited = TrainerSettings() if args.model else starter_settings()
    suited = replace(suited, learning_rate=suited.learning_rate / 100)
    asked = {name: value for name, value in vars(args).items() if value is not None and hasattr(suited, name)}
    return replace(suited, **asked)


@contextlib.contextmanager
def _snapshot(args: argparse.Namespace) -> Iterator[Path]:
    if args.snapshot is not None:
        if not (args.snapshot / "pairs.parquet").is_file():
            raise BadValue(
                f"{args.snapshot} holds no pairs.parquet; a round's directory has a snapshot/ folder"
            )
        yield args.snapshot
        return
    from store.database import Store
    from store.snapshots import write_snapshot

    with tempfile.TemporaryDirectory() as scratch, contextlib.closing(Store.open(args.data)) as store:
        write_snapshot(store, Path(scratch) / "snapshot")
        yield Path(scratch) / "snapshot"


TRAINING_COMMANDS: dict[str, Callable[[list[str]], None]] = {"estimate": estimate, "fine-tune": fine_tune}
