"""Token ids to text as they come, and the iterators that callers hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from serving.batching import Request
from store.records import Chunk

HALF_CHARACTER = "\ufffd"  # what a decoder shows for bytes that are no character (yet)


class TextStream:
    """Decodes a growing token list piece by piece; the pieces join to what decoding all of it at once gives.

    A piece is decoded together with the tokens of the piece before it, because a token's text may depend on
    its left neighbour, and is held back while it ends inside a UTF-8 character.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._context = 0  # where the previous piece begins
        self._told = 0  # where the next piece begins

    def add(self, token_ids: Sequence[int], is_last: bool = False) -> str:
        """The text that has become certain with these tokens; with `is_last`, all that is left."""
        self._ids.extend(token_ids)
        if self._told == len(self._ids):
            return ""
        before = self._decode(self._ids[self._context : self._told])
        text = self._decode(self._ids[self._context :])
        if len(text) <= len(before) or (text.endswith(HALF_CHARACTER) and not is_last):
            return ""
        self._context, self._told = self._told, len(self._ids)
        return text[len(before) :]


class AnswerStream(Iterator[Chunk]):
    """The chunks of one request. Closing or dropping it cancels the request; a finished one ignores that."""

    def __init__(self, request: Request, version: str, text: TextStream) -> None:
        self._request = request
        self._version = version
        self._text = text
        self._has_ended = False

    def __next__(self) -> Chunk:
        while not self._has_ended:
            update = self._request.updates.get()
            if update is None:
                return self._last_chunk()
            if isinstance(update, Exception):
                self._has_ended = True
                raise update
            text = self._text.add(update)
            if text:
                return Chunk(text, self._version)
        raise StopIteration

    def close(self) -> None:
        """Cancel at the next step. Reading on gives what was written so far and a last chunk, `cancelled`."""
        self._request.is_cancelled = True

    def __del__(self) -> None:
        self.close()

    def _last_chunk(self) -> Chunk:
        self._has_ended = True
        request = self._request
        assert request.finish_reason is not None
        return Chunk(
            text=self._text.add((), is_last=True),
            version=self._version,
            finish_reason=request.finish_reason,
            token_ids=tuple(request.token_ids),
            logprob_sum=request.logprob_sum,
            num_prompt_tokens=len(request.prompt_ids),
        )


class HeldStream(Iterator[Chunk]):
    """Passes chunks on and releases the version once: at the end, on an error, when closed or dropped."""

    def __init__(self, chunks: Iterator[Chunk], release: Callable[[], None]) -> None:
        self._chunks = chunks
        self._release: Callable[[], None] | None = release

    def __next__(self) -> Chunk:
        try:
            chunk = next(self._chunks)
        except BaseException:
            self._let_go()
            raise
        if chunk.finish_reason is not None:
            self._let_go()
        return chunk

    def close(self) -> None:
        """Cancel the request. Reading on gives what was written so far and a last chunk, `cancelled`."""
        close = getattr(self._chunks, "close", None)
        if close is not None:
            close()
        self._let_go()

    def __del__(self) -> None:
        self.close()

    def _let_go(self) -> None:
        release, self._release = self._release, None
        if release is not None:
            release()
