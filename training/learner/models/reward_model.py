"""Reward model: a policy's trunk, a scalar head, and an ensemble of heads that estimates the uncertainty of a score.

On disk it is an ordinary sequence classifier (`AutoModelForSequenceClassification`, one label, safetensors), whose raw
score plain transformers computes too. Where transformers has no sequence classifier for an architecture (Cohere,
Granite, OLMoE, …), the folder has the same form: `AutoModel` loads its trunk, and the head is the weight
`score.weight`.

config.json also holds the shift and scale that make scores comparable, and the lengths used in training.
ensemble.safetensors holds the ensemble. Scores are read at the last real token, found by length: nothing is masked by
token id, so the pad token may also be the EOS token. (Plain transformers finds the last token by `pad_token_id`. Where
that is the EOS token, the folder is saved without one, and plain batches must hold one sequence.)

The head starts at zero: all scores are 0, the loss is ln 2 and the accuracy one half. Huang et al. ("The N+
implementation details of RLHF with PPO", 2024) start it with deviation 1/sqrt(d+1) to get small first scores, which
still differ by about 1 at random. A linear head has no symmetry to break, so zero is the limit of that intent.

The ensemble (Osband et al. 2018, "Randomized prior functions for deep reinforcement learning"; 2021, "Epistemic neural
networks" for the stopped gradient): member m scores x at s(x) + (w_m + p_m − mean over members)·sg[h(x)], where h is
the trunk's last hidden state, p_m is fixed and random with deviation prior_scale/sqrt(d+1), and w_m is learned from 0
on rankings weighted by a bootstrap of their prompts. So the mean of the members is s, and the trunk learns as it would
without them. At a scale of 1 the deviation after 50 to 100 rankings is that of the priors, which says nothing about the
error of s; hence 0.1.

attributes.safetensors holds the heads of rated attributes, if there are any (`attribute_heads`).
"""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from training.learner.models.attribute_heads import AttributeHeads
from training.learner.models.frozen import hold_frozen
from training.learner.models.generic_forward import shares_prompts
from training.learner.models.loading import is_scalar_folder, load_scalar_model, load_tokenizer
from training.learner.models.lora import LoraConfig, SharedBase, classifier_view, load_scoring_view
from training.learner.models.oom_retry import MicroBatches
from training.learner.models.packed_attention import unshared
from training.learner.models.packing import PromptGroup, pack_groups
from training.learner.models.partial_forward import states_at
from training.learner.models.saving import save_model
from training.learner.models.slot_budget import attention_slots, batches_within
from training.learner.runtime.jobdir import BadInput

ENSEMBLE_FILE = "ensemble.safetensors"


class Scores(NamedTuple):
    """Normalised scores of N completions, float32."""

    mean: Tensor  # [N]
    deviation: Tensor  # [N], standard deviation between the members of the ensemble; zeros without one

    def lower_bound(self, pessimism: float) -> Tensor:
        """Return mean − pessimism·deviation, [N].

        The lower bound of an ensemble keeps a policy from completions whose scores are uncertain (Coste et al. 2024,
        "Reward model ensembles help mitigate overoptimization", who subtract the variance; the deviation has the
        score's own unit, as in the lower confidence bounds of Rashidinejad et al. 2021).
        """
        return self.mean - pessimism * self.deviation


class Ensemble(nn.Module):
    """H linear heads around the main one, see the module's docstring."""

    prior: Tensor

    def __init__(self, heads: int, width: int, seed: int = 0, prior_scale: float = 0.1) -> None:
        super().__init__()
        noise = torch.randn(heads, width, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("prior", noise * (prior_scale / (width + 1) ** 0.5))
        self.learned = nn.Parameter(torch.zeros(heads, width))

    def forward(self, features: Tensor) -> Tensor:
        """Return what each member adds to the score, [N, H], for features [N, d], whose gradient is stopped."""
        weight = self.learned + self.prior
        return F.linear(features.detach().float(), weight - weight.mean(0))


class MaxLengths(NamedTuple):
    """Token limits: a reward model reads the end of the prompt and the beginning of the completion."""

    prompt: int
    completion: int  # end-of-turn token included


class RewardModel(nn.Module):
    """Scalar model with its ensemble and normalisation. Raw scores are in nats; normalised scores have no unit."""

    def __init__(
        self, network: PreTrainedModel, ensemble: Ensemble | None, attributes: AttributeHeads | None = None
    ) -> None:
        super().__init__()
        if not isinstance(getattr(network, "score", None), nn.Linear):
            raise BadInput(f'a {type(network).__name__} cannot score: it has no linear head named "score"')
        self.network = network
        self.ensemble = ensemble
        self.attributes = attributes
        self.mark_head: nn.Linear | None = None  # of marked tokens, in training only (preferences/marks.py)

    @property
    def head(self) -> nn.Linear:
        return cast(nn.Linear, self.network.score)

    @property
    def shift(self) -> float:
        """Mean raw score of the reference samples."""
        return float(getattr(self.network.config, "reward_shift", 0.0))

    @property
    def scale(self) -> float:
        """Standard deviation of the raw scores of the reference samples."""
        return float(getattr(self.network.config, "reward_scale", 1.0))

    @property
    def raw_anchor(self) -> float | None:
        """Raw score that separates good completions from bad ones; None if it has not been learned."""
        return getattr(self.network.config, "reward_anchor", None)

    @property
    def max_lengths(self) -> MaxLengths | None:
        """Limits in training; None if its folder has no record of them."""
        lengths = getattr(self.network.config, "reward_longest", None)
        return None if lengths is None else MaxLengths(*lengths)

    def features(self, groups: Sequence[PromptGroup]) -> Tensor:
        """Return the trunk's last hidden state at each completion's last token, [N, d], in the order of the groups."""
        batch = pack_groups(groups, self.network.device)
        return states_at(self.network, batch, batch.last)

    def text_features(self, groups: Sequence[PromptGroup]) -> Tensor:
        """Return for each completion the features and, beside them, the mean last hidden state of its tokens, [N, 2d].

        float32, in the order of the groups.
        """
        batch = pack_groups(groups, self.network.device)
        spans = [completion for group in batch.layout.spans for completion in group.completions]
        tokens = torch.tensor([index for span in spans for index in span]).to(batch.last)
        states = states_at(self.network, batch, torch.cat([batch.last, tokens])).float()
        means = [part.mean(0) for part in states[len(spans) :].split([len(span) for span in spans])]
        return torch.cat([states[: len(spans)], torch.stack(means)], dim=1)

    def features_and_states(
        self, groups: Sequence[PromptGroup], tokens: Sequence[tuple[int, int, int]]
    ) -> tuple[Tensor, Tensor]:
        """Return the features [N, d], and the last hidden states [M, d] at tokens of completions.

        tokens: M triples of the indices of a group, of its completion and of the completion's token.
        """
        batch = pack_groups(groups, self.network.device)
        spans = batch.layout.spans
        indices = torch.tensor([spans[group].completions[place][token] for group, place, token in tokens])
        states = states_at(self.network, batch, torch.cat([batch.last, indices.to(batch.last)]))
        return states[: len(batch.last)], states[len(batch.last) :]

    def raw_scores(self, features: Tensor) -> Tensor:
        """Return raw scores [N] for features [N, d].

        Always in float32, since a score is a small difference of large numbers.
        """
        with torch.autocast(features.device.type, enabled=False):
            bias = None if self.head.bias is None else self.head.bias.float()
            return F.linear(features.float(), self.head.weight.float(), bias)[:, 0]

    def normalised(self, raw: Tensor) -> Tensor:
        """Shift and scale raw scores, so that the reference samples have mean 0 and deviation 1."""
        return (raw - self.shift) / self.scale

    def scores(self, features: Tensor) -> Scores:
        """Return the normalised scores for features [N, d]."""
        return self.scores_from(self.raw_scores(features), self.members(features))

    def scores_from(self, raw: Tensor, members: Tensor) -> Scores:
        """Return the normalised scores for raw scores [N] and those of the ensemble's members [N, H]."""
        deviation = members.std(1) if members.shape[1] > 1 else torch.zeros_like(raw)
        return Scores(self.normalised(raw), deviation / self.scale)

    def members(self, features: Tensor) -> Tensor:
        """Return the raw scores of the ensemble's members, [N, H] float32; their gradient reaches the ensemble only."""
        with torch.autocast(features.device.type, enabled=False):
            mean = self.raw_scores(features).detach()[:, None]
            return mean if self.ensemble is None else mean + self.ensemble(features)


def new_reward_model(
    path: str,
    heads: int,
    seed: int,
    prior_scale: float = 0.1,
    adapter: LoraConfig | None = None,
    dtype: str = "float32",
) -> RewardModel:
    """Return a reward model on the trunk in a policy's folder, or continue from a reward model's folder.

    Weights are float32; with `adapter` they are frozen and an adapter learns. dtype: the computing dtype, see
    `hold_frozen`. Raises BadInput if the folder cannot be loaded or its architecture cannot score.
    """
    network = load_scalar_model(path)
    if adapter is not None:
        network = classifier_view(SharedBase(network, path, dtype), "reward", adapter, seed)
    model = RewardModel(network, None)
    if (Path(path) / ENSEMBLE_FILE).is_file():
        model.ensemble = _load_ensemble(Path(path), model.network)
    elif heads > 1:
        model.ensemble = Ensemble(heads, model.head.in_features, seed, prior_scale).to(model.network.device)
    return model


def load_reward_model(path: str, dtype: str = "float32", base: SharedBase | None = None) -> tuple[RewardModel, Any]:
    """Load a trained reward model, frozen, and its tokenizer. dtype: the computing dtype, see `hold_frozen`.

    Any classifier with one label loads; without a record, shift and scale are 0 and 1. A model that was trained as an
    adapter on `base` shares its weights. Raises BadInput if the folder has no reward model.
    """
    tokenizer = load_tokenizer(path)
    if not is_scalar_folder(path):
        raise BadInput(f"{path} is not a reward model: it is not a sequence classifier")
    view = None if base is None else load_scoring_view(base, "reward", path)
    network: Any = hold_frozen(load_scalar_model(path), dtype) if view is None else view
    ensemble = _load_ensemble(Path(path), network) if (Path(path) / ENSEMBLE_FILE).is_file() else None
    attributes = AttributeHeads.load(Path(path))
    if attributes is not None:
        attributes.to(network.device)
    return RewardModel(network, ensemble, attributes).requires_grad_(False), tokenizer


def _load_ensemble(folder: Path, network: PreTrainedModel) -> Ensemble:
    tensors = load_file(folder / ENSEMBLE_FILE)
    ensemble = Ensemble(*tensors["prior"].shape)
    ensemble.load_state_dict(tensors)
    return ensemble.to(network.device)


def save_reward_model(model: RewardModel, tokenizer: Any, folder: Path) -> None:
    """Write a Hugging Face folder, with the ensemble and the attribute heads in it."""
    config = model.network.config
    if config.pad_token_id is not None and config.pad_token_id == tokenizer.eos_token_id:
        config.pad_token_id = None
    save_model(model.network, tokenizer, folder)
    if model.ensemble is not None:
        save_file({name: part.contiguous().cpu() for name, part in model.ensemble.state_dict().items()},
                  folder / ENSEMBLE_FILE, metadata={"format": "pt"})  # fmt: skip
    if model.attributes is not None:
        model.attributes.save(folder)


def set_normalisation(model: RewardModel, raw: Tensor) -> None:
    """Set shift and scale to the mean and standard deviation of these raw scores of the reference samples.

    If all scores are equal, the scale is 1.
    """
    deviation = float(raw.double().std(correction=0))
    model.network.config.reward_shift = float(raw.double().mean())
    model.network.config.reward_scale = deviation if deviation > 0 else 1.0


def raw_scores_of_groups(model: RewardModel, groups: Sequence[PromptGroup], token_budget: int) -> tuple[Tensor, Tensor]:
    """Return raw scores [N] and those of the ensemble's members [N, H], on the CPU; without an ensemble, H = 1.

    token_budget: see `outputs_of_groups`.
    """
    if not groups:
        return torch.zeros(0), torch.zeros(0, 1)
    raw, members = outputs_of_groups(
        model, groups, token_budget, lambda features: (model.raw_scores(features), model.members(features))
    )
    return raw, members


def attribute_predictions(model: RewardModel, groups: Sequence[PromptGroup], token_budget: int = 16384) -> Tensor:
    """Return predicted standardised ratings [N, A] of all completions, on the CPU; see `attribute_heads`.

    token_budget: see `outputs_of_groups`.
    """
    heads = model.attributes
    if heads is None:
        return torch.zeros(sum(len(group.completions) for group in groups), 0)
    if not groups:
        return torch.zeros(0, len(heads.names))
    return outputs_of_groups(model, groups, token_budget, lambda features: (heads(features),))[0]


@torch.no_grad()
def outputs_of_groups(
    model: RewardModel,
    groups: Sequence[PromptGroup],
    token_budget: int,
    outputs: Callable[[Tensor], tuple[Tensor, ...]],
    features_of: Callable[[Sequence[PromptGroup]], Tensor] | None = None,
) -> list[Tensor]:
    """Return what `outputs` makes of the features [n, d] of all N completions, in order, on the CPU.

    outputs: from features to tensors [n, ...]. features_of: by default `model.features`. token_budget: maximum of
    attention slots in one forward pass (a group is never divided); reduced when memory runs out.
    """
    items = [[group.sizes if shares_prompts(model.network) else unshared(group.sizes)] for group in groups]

    def pass_over(budget: int) -> list[Tensor]:
        batches = batches_within(items, budget)
        features = [(features_of or model.features)([groups[index] for index in batch]) for batch in batches]
        columns = [torch.cat(parts).cpu() for parts in zip(*map(outputs, features), strict=True)]
        order = _order_of_completions(groups, batches)
        return [torch.empty_like(column).index_copy(0, order, column) for column in columns]

    return MicroBatches(token_budget).attempt([attention_slots(sizes) for sizes in items], pass_over)


def _order_of_completions(groups: Sequence[PromptGroup], batches: Sequence[Sequence[int]]) -> Tensor:
    """Return, for each completion in the order of the batches, its index in the order of the groups, [N]."""
    counts = [len(group.completions) for group in groups]
    firsts = [0, *itertools.accumulate(counts)]
    return torch.tensor([firsts[i] + j for batch in batches for i in batch for j in range(counts[i])])


def score_groups(model: RewardModel, groups: Sequence[PromptGroup], token_budget: int = 16384) -> Scores:
    """Return normalised scores of all completions, in order. A shared prompt is computed once."""
    return model.scores_from(*raw_scores_of_groups(model, groups, token_budget))


def score(
    model: RewardModel, sequences: Sequence[Sequence[int]], token_budget: int = 16384, pessimism: float = 0.0
) -> Tensor:
    """Return normalised scores [N] of sequences (prompt and completion), each read at its last token."""
    groups = [PromptGroup((), (tuple(sequence),)) for sequence in sequences]
    return score_groups(model, groups, token_budget).lower_bound(pessimism)
