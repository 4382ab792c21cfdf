"""What was made of texts, kept in memory by their digests: the least recently used goes first."""

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock


class TextCache:
    """Texts by key, up to a number of characters in all. For threads; a text may be made twice at the same time."""

    def __init__(self, most_characters: int) -> None:
        self.most_characters = most_characters
        self._texts: OrderedDict[str, str] = OrderedDict()
        self._characters = 0
        self._lock = Lock()

    def get_or_make(self, key: str, make: Callable[[], str]) -> str:
        with self._lock:
            if key in self._texts:
                self._texts.move_to_end(key)
                return self._texts[key]
        text = make()
        with self._lock:
            if key not in self._texts and len(text) <= self.most_characters:
                self._texts[key] = text
                self._characters += len(text)
            while self._characters > self.most_characters:
                self._characters -= len(self._texts.popitem(last=False)[1])
        return text
