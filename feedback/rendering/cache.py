"""Least-recently-used cache of rendered texts, bounded by characters."""

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock


class TextCache:
    """Thread-safe cache of texts by key. Two threads may compute the same text at the same time."""

    def __init__(self, max_characters: int) -> None:
        self.max_characters = max_characters
        self._texts: OrderedDict[str, str] = OrderedDict()
        self._characters = 0
        self._lock = Lock()

    def get_or_make(self, key: str, make: Callable[[], str]) -> str:
        """Return the text of the key; call `make` if it is missing. A text over the limit is not kept."""
        with self._lock:
            if key in self._texts:
                self._texts.move_to_end(key)
                return self._texts[key]
        text = make()
        with self._lock:
            if key not in self._texts and len(text) <= self.max_characters:
                self._texts[key] = text
                self._characters += len(text)
            while self._characters > self.max_characters:
                self._characters -= len(self._texts.popitem(last=False)[1])
        return text
