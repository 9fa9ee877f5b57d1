"""The trainers' losses against the library's own trainers: same rows, same adapter, same numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from datasets import Dataset
from trl import DPOConfig, KTOConfig, KTOTrainer
from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference

from tests.trainer.conftest import rating_rows
from tests.trainer.test_dpo import StockTrainer, prepared, train
from trainer.dpo import build_pair_trainer
from trainer.invariants import expected_rating_loss
from trainer.kto import build_rating_trainer, rating_dataset
from trainer.library import shared_arguments
from trainer.pair_trainer import PairTrainer
from trainer.preferences import prepare_ratings
from trainer.qlora import start_policy
from trainer.settings import LossName

ANSWERS = ("chosen_ids", "rejected_ids")
LIBRARY = {
    "sigmoid": "sigmoid",
    "ipo": "ipo",
    "hinge": "hinge",
    "robust": "robust",
    "exo": "exo_pair",
    "apo_zero": "apo_zero",
    "apo_down": "apo_down",
    "aot": "aot",
    "sigmoid_norm": "sigmoid_norm",
}
SMOOTHED = ("robust", "exo", "aot")  # where the library's label_smoothing acts


@pytest.fixture
def told(settings):
    return replace(settings, learning_rate=5e-3, epochs=4, label_smoothing=0.0)


def stock_trainer(base, rows, settings, folder, **config):
    arguments = shared_arguments(settings, folder, settings.learning_rate, settings.epochs, len(rows))
    start = start_policy(base.model, settings, None)
    columns = ("prompt_ids", *ANSWERS)
    return StockTrainer(
        model=start.model,
        args=DPOConfig(**arguments | {"precompute_ref_log_probs": False} | config),
        train_dataset=Dataset.from_list([{name: list(getattr(r, name)) for name in columns} for r in rows]),
        processing_class=base.tokenizer,
        peft_config=start.peft_config,
    )


def losses_of(history):
    return [line["loss"] for line in history if "loss" in line]


# One with a reference sum and one with a mean; that each loss and gradient is the library's is shown below.
QUICK = ("ipo", "sigmoid")


@pytest.mark.parametrize(
    "loss", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in sorted(LIBRARY)]
)
def test_several_steps_have_the_librarys_losses(loss, base, told, tmp_path):
    smoothing = 0.1 if loss in SMOOTHED else 0.0
    told = replace(told, loss=loss, label_smoothing=smoothing)
    rows = prepared(base, 8)
    stock = stock_trainer(base, rows, told, tmp_path, loss_type=LIBRARY[loss], label_smoothing=smoothing)
    stock.train()
    stock.model.unload()
    _, ours = train(base, rows, told, tmp_path)
    theirs = losses_of(stock.state.log_history)
    assert len(theirs) == 4
    assert max(theirs) - min(theirs) > 1e-3, "four steps that change nothing would prove nothing"
    assert losses_of(ours) == pytest.approx(theirs, abs=1e-5, rel=1e-5)


# One batch under one trained-looking adapter, computed by both.


def shake(model):
    """Give the adapter a B as if it had been trained, the same for every model of this shape."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if "lora_" in name and "default" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


def shaken(base, settings, folder, rows):
    trainer = build_pair_trainer(
        start_policy(base.model, settings, None), base.tokenizer, rows, settings, folder
    )
    shake(trainer.model)
    return trainer


def loss_of(trainer, rows):
    return trainer.compute_loss(trainer.model, trainer.data_collator(rows))


def answer_logits(model, row, answer):
    ids = torch.tensor([[*row["prompt_ids"], *row[answer]]])
    with torch.no_grad():
        return model(input_ids=ids).logits[0, len(row["prompt_ids"]) - 1 : -1].log_softmax(-1)


def test_wpo_weighs_as_the_librarys_does_but_for_the_scale(base, told, tmp_path):
    told = replace(told, loss="sigmoid", wpo=True)
    rows = prepared(base, 6)
    ours = shaken(base, told, tmp_path, rows)
    batch = list(ours.train_dataset)
    found = loss_of(ours, batch).item()
    weights = []
    for row in batch:
        parts = []
        for answer in ANSWERS:
            logps = answer_logits(ours.model, row, answer)
            chosen = logps.gather(1, torch.tensor(row[answer])[:, None])[:, 0]
            parts.append((chosen - logps.exp().square().sum(1).log()).mean())
        weights.append(torch.stack(parts).sum().exp().item())
    ours.model.unload()
    stock = stock_trainer(base, rows, told, tmp_path, use_weighting=True)
    shake(stock.model)
    theirs = loss_of(stock, list(stock.train_dataset)).item()
    assert max(weights) > 1.2 * min(weights), "equal weights would prove nothing"
    assert found * sum(weights) / len(weights) == pytest.approx(theirs, rel=1e-5)


def as_library_batch(rows, pad):
    """The batch of the experimental trainers: each answer behind its prompt, padded at the right."""
    batch = {}
    for side in ("chosen", "rejected"):
        lines = [(row["prompt_ids"], row[f"{side}_ids"]) for row in rows]
        width = max(len(p) + len(a) for p, a in lines)

        def fill(make, filler, lines=lines, width=width):
            return torch.tensor([(line := make(p, a)) + [filler] * (width - len(line)) for p, a in lines])

        batch[f"{side}_input_ids"] = fill(lambda p, a: [*p, *a], pad)
        batch[f"{side}_attention_mask"] = fill(lambda p, a: [1] * (len(p) + len(a)), 0)
        batch[f"{side}_labels"] = fill(lambda p, a: [-100] * len(p) + list(a), -100)
    return batch


def experimental(trainer_class, config, base, model, folder):
    text = [{"prompt": "what is", "chosen": "thing1", "rejected": "thing2"}]
    return trainer_class(
        model=model,
        args=config(
            output_dir=str(folder),
            use_cpu=True,
            bf16=False,
            report_to="none",
            max_length=64,
            activation_checkpointing=False,
        ),
        train_dataset=Dataset.from_list(text),
        processing_class=base.tokenizer,
    )


@pytest.fixture
def silence(monkeypatch):
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")


@pytest.mark.usefixtures("silence")
def test_simpo_is_the_librarys(base, told, tmp_path):
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    told = replace(told, loss="simpo", beta=2.0, simpo_gamma=0.8)
    ours = shaken(base, told, tmp_path, prepared(base, 8))
    rows = list(ours.train_dataset)
    library = experimental(CPOTrainer, CPOConfig, base, ours.model, tmp_path)
    library.loss_type, library.cpo_alpha, library.beta, library.simpo_gamma = "simpo", 0.0, 2.0, 0.8
    theirs, metrics = library.get_batch_loss_metrics(ours.model, as_library_batch(rows, 0))
    assert loss_of(ours, rows).item() == pytest.approx(theirs.item(), abs=1e-5)
    assert ours._metrics["eval"]["rewards/chosen"] == pytest.approx([metrics["rewards/chosen"]], abs=1e-5)


@pytest.mark.usefixtures("silence")
def test_orpo_is_the_librarys_but_for_the_prompt_in_its_likelihood_term(base, told, tmp_path):
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    told = replace(told, loss="orpo", orpo_weight=0.4, sft_weight=1.0)
    ours = shaken(base, told, tmp_path, prepared(base, 8))
    rows = list(ours.train_dataset)
    library = experimental(ORPOTrainer, ORPOConfig, base, ours.model, tmp_path)
    library.beta = 0.4  # its name for the paper's lambda
    theirs, metrics = library.get_batch_loss_metrics(ours.model, as_library_batch(rows, 0))
    # The paper's likelihood is the answer's; the library adds the prompt's, which no label is about.
    answers = [
        -answer_logits(ours.model, row, "chosen_ids")
        .gather(1, torch.tensor(row["chosen_ids"])[:, None])
        .mean()
        for row in rows
    ]
    likelihood = torch.stack(answers).mean().item()
    odds_ratio = theirs.item() - metrics["nll_loss"]
    assert odds_ratio > 0.1
    assert loss_of(ours, rows).item() == pytest.approx(likelihood + odds_ratio, abs=1e-5)


@pytest.mark.parametrize(("loss", "needs_reference"), [("simpo", False), ("orpo", False), ("cdpo", True)])
def test_a_loss_without_a_reference_never_computes_one(
    loss, needs_reference, base, told, tmp_path, monkeypatch
):
    asked = []
    compute = PairTrainer.compute_ref_log_probs
    monkeypatch.setattr(PairTrainer, "compute_ref_log_probs", lambda *args: asked.append(1) or compute(*args))
    told = replace(told, loss=loss, sft_weight=1.0, epochs=1)
    _, history = train(base, prepared(base, 8), told, tmp_path)
    assert len(losses_of(history)) == 1
    assert bool(asked) is needs_reference


# What a weight means, through the whole trainer: loss and gradient.


def loss_and_gradient(trainer, rows):
    trainer.model.zero_grad()
    loss = loss_of(trainer, rows) * len(rows)
    loss.backward()
    gradients = [p.grad.flatten() for _, p in sorted(trainer.model.named_parameters()) if p.grad is not None]
    return loss.item(), torch.cat(gradients)


@pytest.fixture
def weighing(base, told, tmp_path):
    return shaken(base, replace(told, wpo=True), tmp_path, prepared(base, 5))


def changed_settings(told, loss):
    return replace(told, loss=loss, label_smoothing=0.1, sft_weight=0.5)


@pytest.mark.parametrize("wpo", [False, True])
def test_weights_of_zero_and_two_are_no_row_and_two_rows_in_every_loss(weighing, told, wpo):
    rows = [row | {"flip": 0.1 + 0.05 * n} for n, row in enumerate(weighing.train_dataset)]
    first, others = rows[0], rows[1:]
    for loss in LossName.__args__:
        if wpo and loss == "aot":
            continue
        weighing.loss_settings = replace(changed_settings(told, loss), wpo=wpo)
        for weight, same in ((0.0, others), (2.0, [first, *rows])):
            here, slope = loss_and_gradient(weighing, [first | {"weight": weight}, *others])
            there, same_slope = loss_and_gradient(weighing, same)
            assert here == pytest.approx(there, rel=1e-5), loss
            assert torch.allclose(slope, same_slope, rtol=1e-3, atol=1e-4 * same_slope.abs().max()), loss


# Ratings.


@pytest.mark.parametrize("rating_loss", ["kto", "apo_zero_unpaired"])
def test_ratings_have_the_librarys_losses_and_the_papers(rating_loss, base, settings, tmp_path):
    told = replace(settings, rating_loss=rating_loss, kto_learning_rate=5e-3, kto_batch_size=8, kto_epochs=2)
    ratings = prepare_ratings(rating_rows(16, 16), base.tokenizer, 256, 8, 0)
    start = start_policy(base.model, told, None)
    ours = build_rating_trainer(start, base.tokenizer, ratings, told, tmp_path)
    assert ("KL_completion_ids" in ours.train_dataset.column_names) is (rating_loss == "kto")
    ours.train()
    rows = list(ours.train_dataset)[:8]
    found = ours.compute_loss(ours.model.eval(), ours.data_collator(rows)).item()
    plain = [plain_logp(ours.model, None), plain_logp(ours.model, "base")]
    assert found == pytest.approx(expected_rating_loss(told, (1.0, 1.0))(rows, *plain), abs=1e-5)
    assert found < 0.49, "at the start any loss of ratings is one half"
    ours.model.unload()

    class StockRatings(KTOTrainer):
        def _prepare_dataset(self, dataset, *_args, **_kwargs):
            return dataset

    arguments = shared_arguments(told, tmp_path, 5e-3, 2, 8)
    start = start_policy(base.model, told, None)
    stock = StockRatings(
        model=start.model,
        args=KTOConfig(**arguments, loss_type=rating_loss, train_sampling_strategy="sequential"),
        train_dataset=rating_dataset(ratings, 8, rating_loss).remove_columns("weight"),
        data_collator=DataCollatorForUnpairedPreference(base.tokenizer.pad_token_id),
        processing_class=base.tokenizer,
        peft_config=start.peft_config,
    )
    stock.train()
    theirs = losses_of(stock.state.log_history)
    assert len(theirs) == 8
    assert losses_of(ours.state.log_history) == pytest.approx(theirs, abs=1e-5)


def plain_logp(model, adapter):
    def logp(prompt, answer):
        row = {"prompt_ids": prompt, "answer": answer}
        if adapter == "base":
            with model.disable_adapter():
                logps = answer_logits(model, row, "answer")
        else:
            logps = answer_logits(model, row, "answer")
        return logps.gather(1, torch.tensor(answer)[:, None]).sum().item()

    return logp
