"""What of a long conversation still fits the model's context: the oldest messages go. Knows no tokenizer."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

from store.errors import BadValue
from store.records import Message

ANSWER_SHARE = 4  # an answer is promised at most a quarter of the context


def fit_messages(
    messages: Sequence[Message],
    count_ids: Callable[[Sequence[Message]], list[int]],
    context_length: int,
    max_tokens: int,
) -> tuple[list[int], int]:
    """The prompt's token ids, as `count_ids` renders what is kept, and how many messages were left out.

    Room for min(`max_tokens`, a quarter of the context) answer tokens is kept by leaving out the oldest
    messages, so that the first one kept is the user's; system messages and the last one always stay. When
    they alone leave less room than that, the answer gets what is left of it. Raises BadValue when that is
    nothing.
    """
    room = min(max_tokens, context_length // ANSWER_SHARE)
    whole = count_ids(messages)
    if len(whole) + room <= context_length:
        return whole, 0
    droppable = [place for place, message in enumerate(messages[:-1]) if message["role"] != "system"]
    cuts = [num for num, place in enumerate(droppable) if num and messages[place]["role"] == "user"]
    cuts += [len(droppable)] if droppable else []

    def render(num_left_out: int) -> list[int]:
        gone = set(droppable[:num_left_out])
        return count_ids([message for place, message in enumerate(messages) if place not in gone])

    # Tokenizing is the cost, and what is shorter never has more tokens: bisect instead of trying every cut.
    first = bisect_left(cuts, True, key=lambda num: len(render(num)) + room <= context_length)
    num_left_out = cuts[min(first, len(cuts) - 1)] if cuts else 0
    ids = render(num_left_out)
    if len(ids) >= context_length:
        raise BadValue(
            f"the prompt has {len(ids)} tokens and the model's context holds {context_length}, answer"
            f" included{', without all earlier messages' if num_left_out else ''}; shorten the last message"
        )
    return ids, num_left_out
