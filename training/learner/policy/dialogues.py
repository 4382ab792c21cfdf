"""Sampling of episodes: the policy and an environment take turns. With the environment single_turn it is one turn.

The tokens of an episode are a prompt, the policy's first turn, the environment's answer as the chat template renders
it, the policy's second turn, and so on. Earlier turns stay the tokens that were sampled. A training pass reads the
whole episode once; only the policy's tokens are learned.

An episode that its environment or a cut-off turn ends is *terminated*. One that a limit outside of it ends, because no
further turn fits into the models' positions, is *truncated* (Towers et al. 2024, "Gymnasium").
"""

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import torch
from transformers import PreTrainedModel

from training.learner.environments import Environment, EnvironmentContext, make_environment, turns_of
from training.learner.models.loading import computing_in, load_frozen_policy
from training.learner.models.packing import Episodes, Turn
from training.learner.models.token_outputs import RewardTrunkCritic, is_separate_critic
from training.learner.policy.rollout import TrainingContext
from training.learner.reward_terms import Answer
from training.learner.rewards.reading import Scoring, max_lengths_of
from training.learner.rewards.reward_function import longest_written, same_tokens
from training.learner.runtime.config import PpoConfig, Sampling
from training.learner.runtime.jobdir import BadInput
from training.learner.sampling.sampler import Completion, max_positions, sample, sampling_params_for
from training.learner.text.messages import (
    Messages,
    Prompt,
    check_messages,
    decode_completion,
    encode_prompt,
    encode_reply,
    encode_turns,
    share,
)

# Turn t of episode n has the random numbers of n + t·TURN_NUMBERS: no other completion has that number.
TURN_NUMBERS = 2**48
PARALLEL_STEPS = 16  # environments that answer at the same time: a simulated user may be a server


@dataclass(frozen=True)
class EpisodeContext:
    """The parts of a run that an episode needs besides the policy that writes it."""

    settings: PpoConfig | Sampling
    tokenizer: Any
    new_environment: Callable[[], Environment]
    models: Sequence[PreTrainedModel]  # that read the tokens of an episode
    scoring: Scoring | None  # the reward model, which reads its text, and its tokenizer

    @classmethod
    def of(cls, context: TrainingContext) -> Self:
        models = [context.policy, context.reference]
        if is_separate_critic(context.critic):
            models.append(context.critic)
        if isinstance(context.critic, RewardTrunkCritic):
            models.append(context.critic.trunk)
        return cls(context.settings, context.tokenizer, context.new_environment, models, context.scoring)

    @functools.cached_property
    def scores_own_tokens(self) -> bool:
        """True if the reward model has the policy's tokenizer. Kept: a comparison reads both vocabularies."""
        return self.scoring is not None and same_tokens(self.scoring[1], self.tokenizer)


class Dialogue:
    """One episode while it is played."""

    def __init__(self, context: EpisodeContext, prompt: Prompt, number: int) -> None:
        self.context, self.row, self.number = context, prompt.row, number
        self.environment: Environment = context.new_environment()
        observation, info = self.environment.reset(seed=number, options=prompt.row)
        self.opening: Messages = info.get("messages", [{"role": "user", "content": observation}])
        self.prompt = prompt.tokens
        if self.opening != prompt.row.get("messages"):
            settings = context.settings
            self.prompt = encode_prompt(
                context.tokenizer, check_messages(self.opening), settings.max_prompt_tokens, settings.overlong_prompts
            )
        self.messages: Messages = []  # after the opening: the policy's turns, and the answers in between
        self.completion: list[int] = []  # their tokens
        self.turns: list[Turn] = []
        self.log_probs: list[float] = []  # of the policy's tokens
        self.answer: Answer | None = None  # the last turn
        self.is_over = False
        self.unanswered: list[int] | None = None  # see Episodes

    @property
    def tokens(self) -> list[int]:
        return [*self.prompt, *self.completion]

    @property
    def is_truncated(self) -> bool:
        """Return whether a limit outside of the dialogue ended it."""
        return self.unanswered is not None

    def take(self, completion: Completion) -> None:
        """Add a turn of the policy, and the environment's answer to it."""
        tokenizer, before = self.context.tokenizer, self.tokens
        text = decode_completion(tokenizer, completion.tokens)
        history = [*self.opening, *self.messages]
        self.messages = [*self.messages, {"role": "assistant", "content": text}]
        turns = self.messages if len(self.messages) > 1 else ()
        row = {**self.row, "messages": history}
        self.answer = Answer(row, before, completion.tokens, text, completion.finished, turns)
        observation, reward, terminated, truncated, _ = self.environment.step(text)
        start = len(self.completion)
        self.completion += completion.tokens
        self.turns.append(Turn(start, len(self.completion), check_reward(reward)))
        self.log_probs += completion.log_probs
        # A turn that was cut off has no end-of-turn token, so nothing can follow it.
        self.is_over = terminated or not completion.finished
        if self.is_over:
            return
        reply = encode_reply(tokenizer, history, observation)
        messages = [*self.messages, {"role": "user", "content": observation}]
        if not truncated and self._has_room_for(reply, messages):
            self.completion += reply
            self.messages = messages
        else:
            self.is_over = True
            self.unanswered = reply if self._can_be_read(reply) else []

    def _can_be_read(self, reply: Sequence[int]) -> bool:
        """Return whether all models that read the policy's tokens have positions for this reply."""
        rooms = [max_positions(model.config) for model in self.context.models]
        return all(room is None or len(self.tokens) + len(reply) <= room for room in rooms)

    def _has_room_for(self, reply: Sequence[int], messages: Messages) -> bool:
        """Return whether one more turn fits into the positions of all models after the reply, the last message."""
        settings = self.context.settings
        needed = [
            (model, len(self.tokens) + len(reply) + settings.max_completion_tokens) for model in self.context.models
        ]
        if self.context.scoring is not None:
            model, tokenizer = self.context.scoring
            longest = max_lengths_of(model, settings)
            prompt = encode_prompt(tokenizer, self.opening, longest.prompt)
            read = encode_turns(tokenizer, self.opening, messages, longest.completion)
            written = longest_written(model, settings, has_same_tokens=self.context.scores_own_tokens)
            needed.append((model.network, len(prompt) + len(read.tokens) + written))
        rooms = [(max_positions(model.config), tokens) for model, tokens in needed]
        return all(room is None or tokens <= room for room, tokens in rooms)


def check_reward(reward: Any) -> float:
    """Return the reward as a float. Raises BadInput if the environment gave no number."""
    try:
        return float(reward)
    except (TypeError, ValueError) as error:
        raise BadInput(f"step() of the environment must give a number as reward, not {reward!r:.80}") from error


@torch.no_grad()
def sample_episodes(
    context: TrainingContext, model: PreTrainedModel, prompts: Sequence[Prompt], numbers: Sequence[int]
) -> tuple[Episodes, list[Answer]]:
    """Return one episode of each prompt, sampled from `model`, and the last turn of each.

    numbers: select the random numbers.
    """
    mine = share(range(len(prompts)), context.processes.rank, context.processes.count)
    tools = EpisodeContext.of(context)
    dialogues = [Dialogue(tools, prompts[i], numbers[i]) for i in mine]
    play(dialogues, [numbers[i] for i in mine], functools.partial(sample_turns, context, model))
    played = [(one.prompt, one.completion, one.turns, one.unanswered, one.answer) for one in dialogues]
    *columns, answers = zip(*context.processes.gather(played), strict=True)
    return as_episodes_of(context.settings, *map(list, columns)), list(answers)


def play(
    dialogues: Sequence[Dialogue],
    numbers: Sequence[int],
    write: Callable[[list[list[int]], list[int]], list[Completion]],
) -> None:
    """Play dialogues to their ends. `write` returns the next turn after each of some token sequences.

    numbers: select the random numbers, which `write` gets for each turn.
    """
    going, turn = list(zip(numbers, dialogues, strict=True)), 0
    while going:
        selected = [number + turn * TURN_NUMBERS for number, _ in going]
        completions = write([dialogue.tokens for _, dialogue in going], selected)
        take_turns([dialogue for _, dialogue in going], completions)
        going, turn = [(number, dialogue) for number, dialogue in going if not dialogue.is_over], turn + 1


def episodes_of(dialogues: Sequence[Dialogue], settings: PpoConfig | Sampling) -> Episodes:
    """Return the episodes of dialogues that are over."""
    columns = zip(*((one.prompt, one.completion, one.turns, one.unanswered) for one in dialogues), strict=True)
    return as_episodes_of(settings, *map(list, columns))


def as_episodes_of(settings: PpoConfig | Sampling, *columns: list[Any]) -> Episodes:
    """Return the episodes with these fields, of which a single turn has the first two alone."""
    return Episodes(*columns[:2]) if is_single(settings) else Episodes(*columns)


def turns_to_fit(settings: PpoConfig | Sampling, policy: Any, model: Any) -> int:
    """Return the number of turns for which a model that reads the policy's episodes must have positions.

    One, if it has as many positions as the policy. With fewer it would end dialogues that the policy has room for, so
    it must fit all turns of the policy.
    """
    room, of_model = max_positions(policy.config), max_positions(model.config)
    has_fewer = of_model is not None and (room is None or of_model < room)
    return turns_of(settings.environment) if has_fewer else 1


def is_single(settings: PpoConfig | Sampling) -> bool:
    """Return whether every episode is one turn."""
    return bool(settings.environment["name"] == "single_turn")


def sample_turns(
    context: TrainingContext, model: PreTrainedModel, texts: Sequence[Sequence[int]], numbers: Sequence[int]
) -> list[Completion]:
    """Return the next turn after each of these token sequences."""
    with computing_in(context.settings.dtype):
        return context.sampling_rows.attempt(
            [1] * len(texts), lambda rows: sample(model, texts, numbers, context.params, batch=rows)
        )


def take_turns(dialogues: Sequence[Dialogue], completions: Sequence[Completion]) -> None:
    """Let all environments answer; those of a user behind a server at the same time."""
    if dialogues[0].context.settings.environment.get("user") != "endpoint":
        for dialogue, completion in zip(dialogues, completions, strict=True):
            dialogue.take(completion)
        return
    with ThreadPoolExecutor(PARALLEL_STEPS) as pool:
        list(pool.map(Dialogue.take, dialogues, completions))


def environment_factory(settings: PpoConfig | Sampling) -> Callable[[], Environment]:
    """Return a function that makes the environment of an episode. Raises BadInput if it cannot be made."""
    tools = EnvironmentContext(functools.cache(functools.partial(load_writer, settings)))
    make = functools.partial(make_environment, settings.environment, tools)
    make()
    return make


def load_writer(settings: PpoConfig | Sampling, path: str) -> Callable[[Messages, int], str]:
    """Load a checkpoint; return a function that writes its answer to messages. Raises BadInput if it cannot."""
    model, tokenizer = load_frozen_policy(path, settings.dtype)
    params = sampling_params_for(model, tokenizer, settings.max_completion_tokens, 1.0, 1.0, settings.seed)

    def write(messages: Messages, number: int) -> str:
        prompt = encode_prompt(tokenizer, messages, settings.max_prompt_tokens)
        with computing_in(settings.dtype):
            (completion,) = sample(model, [prompt], [number], params, batch=1)
        return decode_completion(tokenizer, completion.tokens)

    return write
