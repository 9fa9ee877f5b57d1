"""Drawing tokens: distribution, nucleus, and independence of a row from its company."""

from __future__ import annotations

import torch

from serving.request import Request
from serving.sampling import keep_nucleus, likeliest, pick_tokens
from store.records import Sampling


def request(**sampling: float) -> Request:
    return Request("v1", [1, 2], Sampling(**sampling), 16)  # type: ignore[arg-type]


def test_temperature_zero_takes_the_likeliest_token() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, 0.0, 1.0]])
    assert pick_tokens(logits, [request(temperature=0), request(temperature=0)]).tolist() == [1, 0]


def test_tokens_are_drawn_in_proportion_to_the_tempered_softmax() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]])
    for temperature in (0.7, 1.0, 2.0):
        drawn = request(temperature=temperature, seed=5)
        tokens = torch.cat([pick_tokens(logits, [drawn]) for _ in range(4000)])
        shares = tokens.bincount(minlength=4) / 4000
        assert torch.allclose(shares, (logits[0] / temperature).softmax(-1), atol=0.03)


def test_a_draw_depends_on_the_seed_and_not_on_the_company() -> None:
    torch.manual_seed(0)
    logits = torch.randn(6, 50)
    alone = [request(temperature=1, seed=seed, top_p=0.8 if seed % 2 else 1.0) for seed in range(6)]
    together = [request(temperature=1, seed=seed, top_p=0.8 if seed % 2 else 1.0) for seed in range(6)]
    for _ in range(20):
        one_by_one = [pick_tokens(logits[row : row + 1], [alone[row]]).item() for row in range(6)]
        assert pick_tokens(logits, together).tolist() == one_by_one


def test_the_nucleus_is_the_smallest_set_that_holds_top_p() -> None:
    probabilities = torch.tensor([[0.1, 0.5, 0.15, 0.25]])
    kept = keep_nucleus(probabilities, torch.tensor([[0.7]]))
    assert (kept[0] > 0).tolist() == [False, True, False, True]
    assert torch.equal(keep_nucleus(probabilities, torch.tensor([[1.0]])), probabilities)
    assert (keep_nucleus(probabilities, torch.tensor([[0.01]])) > 0).sum() == 1


def test_a_token_outside_the_nucleus_is_never_drawn() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0, 9.0]])
    drawn = request(temperature=1, top_p=0.5, seed=1)
    assert {pick_tokens(logits, [drawn]).item() for _ in range(200)} == {3}


def test_who_asks_gets_the_likeliest_tokens_with_their_log_probs() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    asked = [Request("v1", [1], Sampling(), 4, top_logprobs=number) for number in (2, 1, None)]
    first, second, third = likeliest(logits, logits.logsumexp(-1), asked)
    assert [token_id for token_id, _ in first] == [1, 2]
    assert torch.tensor([logprob for _, logprob in first]).allclose(logits[0].log_softmax(-1)[[1, 2]])
    assert [token_id for token_id, _ in second] == [0]
    assert third == ()
