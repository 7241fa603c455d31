"""A conversation in text: a line comes in, the answer goes out token by token."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ..errors import FlexError
from ..models.sampling import Sampling
from .conversation import GenerationResult, TextSession, Turns

EXIT = ("/exit", "/quit")
CLEAR = "/clear"
_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class Chat:
    """What was said stays in the KV cache; lines are separated by line breaks.

    Raises:
        UsageError: FX703, one of `sampling` out of range.
    """

    def __init__(self, session: TextSession, max_new_tokens: int, **sampling: Any) -> None:
        Sampling(**sampling)
        self._session = session
        self._max_new_tokens = max_new_tokens
        self._sampling = sampling
        self.conversation: Turns = session.conversation()

    def run(
        self, lines: Iterable[str], show: Callable[[str], None], refuse: Callable[[FlexError], None]
    ) -> None:
        """Answer line after line, up to the end or one of `EXIT`; `CLEAR` forgets what was said.

        A line that is refused (`refuse` is told why) changes nothing. Control-C ends an answer only.
        """
        for line in lines:
            text = line.rstrip("\r\n")
            match text.strip():
                case "":
                    continue
                case word if word in EXIT:
                    break
                case word if word == CLEAR:
                    self.conversation = self._session.conversation()
                    continue
                case _:
                    pass
            try:
                self.answer(text, show)
            except FlexError as error:
                refuse(error)
                continue
            except KeyboardInterrupt:
                pass
            show("\n")

    def answer(self, line: str, show: Callable[[str], None]) -> GenerationResult:
        """Continue all that was said and this line; `show` gets the pieces of the text as they come.

        Raises:
            UsageError: FX701, there is no room left in the context.
        """
        stream = TextStream(self._session.decode, show)
        result = self.conversation.send(
            self._turn(line), self._max_new_tokens, stream.token, **self._sampling
        )
        stream.end()
        return result

    def _turn(self, line: str) -> list[int]:
        """The tokens of a line; only the first one begins a text."""
        if not self.conversation.said:
            return self._session.encode(line)
        return self._session.encode("\n" + line, special_tokens=False)


class TextStream:
    """Tokens in, pieces of text out, each once it ends a whole character."""

    def __init__(self, decode: Callable[[list[int]], str], show: Callable[[str], None]) -> None:
        self._decode = decode
        self._show = show
        self._tokens: list[int] = []
        self._shown = ""

    def token(self, token: int) -> None:
        """The next token."""
        self._tokens.append(token)
        text = self._decode(self._tokens)
        if not text.endswith(_UNFINISHED):
            self._emit(text)

    def end(self) -> None:
        """No more tokens come: show what is left."""
        self._emit(self._decode(self._tokens))

    def _emit(self, text: str) -> None:
        if len(text) > len(self._shown):
            self._show(text[len(self._shown) :])
            self._shown = text


__all__ = ["CLEAR", "EXIT", "Chat", "TextStream"]
