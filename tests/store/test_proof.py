"""The log-prob fingerprint: what it holds, and when two of them are the same policy's."""

from __future__ import annotations

import json

import pytest

from store.errors import BadValue
from store.proof import TOLERANCES, Proof, ProofRow, check_proof

ASKED = {"role": "user", "content": "Hello?"}
ROWS = (
    ProofRow(({"role": "user", "content": "Hello?"},), (5, 6, 7, 8), -12.0),
    ProofRow(({"role": "user", "content": "Why?"},), (9,), -3.0),
)


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_a_difference_counts_by_token_and_in_the_worst_row(dtype: str) -> None:
    proof, allowed = Proof(dtype, ROWS), TOLERANCES[dtype]
    assert check_proof(proof, [-12.0 - 3.9 * allowed, -3.0 + 0.9 * allowed]) is None
    for sums in ([-12.0 - 4.1 * allowed, -3.0], [-12.0, -3.0 + 1.1 * allowed], [-12.0, float("nan")]):
        problem = check_proof(proof, sums)
        assert problem is not None
        assert problem.endswith(f"nats a token (allowed: {allowed:g})")


def test_a_proof_comes_back_from_a_manifest_as_it_was() -> None:
    proof = Proof("bfloat16", ROWS)
    assert Proof.from_json(json.loads(json.dumps(proof.as_json()))) == proof


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {"dtype": "float32"},
        {"dtype": "float32", "rows": []},
        {"dtype": "int3", "rows": [{"messages": [ASKED], "answer_ids": [1], "logprob_sum": -1.0}]},
        {"dtype": ["float32"], "rows": [{"messages": [ASKED], "answer_ids": [1], "logprob_sum": -1.0}]},
    ],
)
def test_what_is_no_proof_is_refused(value: object) -> None:
    with pytest.raises(BadValue, match="proof"):
        Proof.from_json(value)


@pytest.mark.parametrize(
    "facts",
    [
        {"answer_ids": []},
        {"answer_ids": "12"},
        {"answer_ids": [-1]},
        {"answer_ids": [True]},
        {"logprob_sum": float("nan")},
        {"logprob_sum": 10**400},
        {"messages": []},
        {"messages": ["hello"]},
        {"messages": [["role", "content"]]},
        {"messages": [{"role": "user", "content": None}]},
        {"messages": [{"role": "user", "content": "\ud800"}]},
        {"messages": [{"role": "user"}]},
    ],
)
def test_a_row_that_no_engine_could_score_is_refused(facts: dict[str, object]) -> None:
    row = {"messages": [ASKED], "answer_ids": [1], "logprob_sum": -1.0}
    assert Proof.from_json({"dtype": "float32", "rows": [row]}).rows
    with pytest.raises(BadValue, match="proof"):
        Proof.from_json({"dtype": "float32", "rows": [row | facts]})
