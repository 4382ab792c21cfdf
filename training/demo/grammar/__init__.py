"""Grammar of the demo: messages of customers to a shop, and replies of its support."""

from training.demo.grammar.messages import Message, message, messages
from training.demo.grammar.replies import Traits, demonstrations, draw_traits, reply
from training.demo.grammar.vocabulary import Vocabulary, vocabulary

__all__ = [
    "Message",
    "Traits",
    "Vocabulary",
    "demonstrations",
    "draw_traits",
    "message",
    "messages",
    "reply",
    "vocabulary",
]
