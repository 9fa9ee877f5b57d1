"""Token ids to text as they come, and the iterators that callers hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from queue import Empty

from serving.request import Request
from store.records import Chunk, TokenLogprob

PLACE_S = 0.3  # whoever waits longer than this is told the place in the queue
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


class StopSearch:
    """Passes text on until one of the stop texts appears; what may be the beginning of one is held back."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""
        self.has_stopped = False

    def add(self, text: str, is_last: bool = False) -> str:
        """What is certain to belong to the answer."""
        text = self._held + text
        found = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if found:
            self.has_stopped, self._held = True, ""
            return text[: min(found)]
        keep = 0 if is_last else max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that `stop` begins with."""
    return next(
        (size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0
    )


class AnswerStream(Iterator[Chunk]):
    """The chunks of one request. Closing or dropping it cancels the request; a finished one ignores that.

    `place` says when it is its turn, None once it is being answered; `decode` gives one token's text.
    """

    def __init__(
        self,
        request: Request,
        text: TextStream,
        decode: Callable[[Sequence[int]], str],
        place: Callable[[], int | None],
        num_left_out: int = 0,
    ) -> None:
        self._request = request
        self._text = text
        self._decode = decode
        self._find_place = place
        self._num_left_out = num_left_out
        self._stops = StopSearch(request.sampling.stop)
        self._num_read = 0  # tokens of the answer so far
        self._logprobs: list[TokenLogprob] = []  # read, and not handed out yet
        self._place: int | None = None
        self._has_ended = False

    def __next__(self) -> Chunk:
        while not self._has_ended:
            try:
                update = self._request.updates.get(timeout=self._patience())
            except Empty:
                place = self._find_place()
                if place is not None and place != self._place:
                    self._place = place
                    return Chunk("", self._request.version, place=place)
                continue
            if update is None:
                return self._last_chunk()
            if isinstance(update, Exception):
                self._has_ended = True
                raise update
            text = self._read(update)
            if self._stops.has_stopped:
                return self._last_chunk(text)
            if text:
                return Chunk(text, self._request.version, logprobs=self._take_logprobs())
        raise StopIteration

    def close(self) -> None:
        """Cancel at the next step. Reading on gives what was written so far and a last chunk, `cancelled`."""
        self._request.is_cancelled = True

    def __del__(self) -> None:
        self.close()

    def _patience(self) -> float | None:
        """How long to wait for tokens before looking at the queue; nobody watches background work."""
        is_watched = self._num_read == 0 and not self._request.background
        return PLACE_S if is_watched else None

    def _read(self, token_ids: Sequence[int]) -> str:
        """The text that these tokens make certain; it ends with the token that completes a stop text."""
        if not self._request.sampling.stop:
            self._note(len(token_ids))
            return self._text.add(token_ids)
        text = ""
        for token_id in token_ids:
            self._note(1)
            text += self._stops.add(self._text.add((token_id,)))
            if self._stops.has_stopped:
                break
        return text

    def _note(self, number: int) -> None:
        request, start = self._request, self._num_read
        self._num_read += number
        if request.top_logprobs is None:
            return
        for place in range(start, self._num_read):
            top = tuple((self._decode((token_id,)), logprob) for token_id, logprob in request.tops[place])
            text = self._decode((request.token_ids[place],))
            self._logprobs.append(TokenLogprob(text, request.logprobs[place], top))

    def _take_logprobs(self) -> tuple[TokenLogprob, ...]:
        taken, self._logprobs = tuple(self._logprobs), []
        return taken

    def _last_chunk(self, text: str = "") -> Chunk:
        """The end. What the model wrote after a stop text is not part of the answer."""
        self._has_ended = True
        request = self._request
        reason = request.finish_reason
        if self._stops.has_stopped:
            request.ends_as, request.is_cancelled, reason = "stop", True, "stop"
        else:
            text = self._stops.add(self._text.add((), is_last=True), is_last=True)
        if self._stops.has_stopped:  # completed by what had been held back as half a character
            reason = "stop"
        assert reason is not None
        return Chunk(
            text=text,
            version=request.version,
            finish_reason=reason,
            token_ids=tuple(request.token_ids[: self._num_read]),
            logprob_sum=sum(request.logprobs[: self._num_read]),
            num_prompt_tokens=len(request.prompt_ids),
            num_left_out=self._num_left_out,
            logprobs=self._take_logprobs(),
        )


class HeldStream(Iterator[Chunk]):
    """Passes chunks on and releases the version once: at the end, on an error, when closed or dropped."""

    def __init__(self, chunks: Iterator[Chunk], release: Callable[[], None]) -> None:
        self._chunks = chunks
        self._releases = [release]  # popped once, by whichever thread comes first: the reader or who closes

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
        try:
            release = self._releases.pop()
        except IndexError:
            return
        release()
