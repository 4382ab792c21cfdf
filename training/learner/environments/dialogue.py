"""The environment dialogue: a simulated user answers the policy, by a script, a checkpoint or an HTTP endpoint."""

import json
import os
import urllib.error
import urllib.request
from typing import Annotated, Any, Literal

from training.learner.environments import EnvironmentContext, Row, Step, environment
from training.learner.runtime.jobdir import BadInput, TrainingFailed

TIMEOUT = 60.0  # seconds that an endpoint may take for an answer
KEY = "ACCORD_SIMULATED_USER_KEY"  # environment variable with the endpoint's key, which is in no file
SWAPPED = {"user": "assistant", "assistant": "user"}


@environment("dialogue")
class Dialogue:
    """A user who answers `turns` − 1 times; the dialogue ends after the policy's last turn.

    - user "script": the user says the `lines` in turn, or those of the prompt's own `"user_turns": ["...", ...]`. The
      dialogue ends earlier when no line is left.
    - user "checkpoint": the model in the folder `model` writes the user's messages. It reads the dialogue with the
      roles swapped, after the system message `instruction`.
    - user "endpoint": the same, by `POST <url>/chat/completions` of an OpenAI-compatible server with this `model`. Its
      key, if it needs one, is in the environment variable ACCORD_SIMULATED_USER_KEY.

    The dialogue ends when the user's message contains `end_word`.
    """

    def __init__(
        self,
        context: EnvironmentContext,
        user: Literal["script", "checkpoint", "endpoint"] = "script",
        turns: Annotated[int, {"low": 1, "high": 64}] = 2,
        lines: list[str] | None = None,
        model: str = "",
        url: str = "",
        instruction: str = "You are the customer. Answer the assistant.",
        end_word: str = "",
    ) -> None:
        if user == "checkpoint" and not model:
            raise BadInput('the environment dialogue with user "checkpoint" needs the setting model, a folder')
        if user == "endpoint" and not (url and model):
            raise BadInput('the environment dialogue with user "endpoint" needs the settings url and model')
        self.user, self.turns, self.lines, self.end_word = user, turns, lines or [], end_word
        self.model, self.url, self.instruction = model, url, instruction
        self.write = context.load_writer(model) if user == "checkpoint" else None

    def reset(self, *, seed: int | None = None, options: Row | None = None) -> tuple[str, dict[str, Any]]:
        """Begin with the messages of the prompt."""
        row = options or {}
        self.seed, self.answered = seed or 0, 0
        self.messages = [*row.get("messages", [])]
        self.script = row.get("user_turns", self.lines)
        if not isinstance(self.script, list) or not all(isinstance(line, str) for line in self.script):
            raise BadInput("user_turns must be a list of texts")
        return (self.messages[-1]["content"] if self.messages else ""), {"messages": [*self.messages]}

    def step(self, action: str) -> Step:
        """Let the user answer, or end the dialogue."""
        self.messages.append({"role": "assistant", "content": action})
        self.answered += 1
        if self.answered >= self.turns or (self.user == "script" and self.answered > len(self.script)):
            return "", 0.0, True, False, {}
        reply = self._next_line()
        if not reply.strip() or (self.end_word and self.end_word in reply):
            return "", 0.0, True, False, {}
        self.messages.append({"role": "user", "content": reply})
        return reply, 0.0, False, False, {}

    def _next_line(self) -> str:
        if self.user == "script":
            return str(self.script[self.answered - 1])
        turns = [message for message in self.messages if message["role"] in SWAPPED]
        swapped = [{**message, "role": SWAPPED[message["role"]]} for message in turns]
        read = [{"role": "system", "content": self.instruction}, *swapped] if self.instruction else swapped
        number = self.seed + self.answered
        return self.write(read, number) if self.write is not None else ask_endpoint(self.url, self.model, read, number)


def ask_endpoint(url: str, model: str, messages: list[dict[str, str]], seed: int) -> str:
    """Return the answer of an OpenAI-compatible chat endpoint. Raises TrainingFailed if it gives none."""
    key = os.environ.get(KEY, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise BadInput(f"{KEY} has characters that no key has: write it again")
    body = {"model": model, "messages": messages, "seed": seed % 2**31}
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(f"{url.rstrip('/')}/chat/completions", json.dumps(body).encode(), headers)
    try:
        with urllib.request.build_opener(NoRedirects).open(request, timeout=TIMEOUT) as response:
            answer = json.load(response)["choices"][0]["message"]["content"]
        if not isinstance(answer, str):
            raise ValueError("its message has no text")
        return answer
    except (OSError, ValueError, KeyError, IndexError, TypeError, urllib.error.URLError) as error:
        # A server may repeat the key in its answer. The chain of exceptions would be printed with it.
        reason = str(error).replace(key, "…") if key else str(error)
        raise TrainingFailed(f"the simulated user at {url} gave no answer: {reason}") from None


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """Handler that follows no redirect: the request with the key would be sent to another address."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None
