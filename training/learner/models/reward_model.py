"""The reward model: a policy's trunk, a scalar head, and an ensemble of heads that says how sure it is.

On disk it is an ordinary sequence classifier (`AutoModelForSequenceClassification`, one label, safetensors), whose raw
score plain transformers computes alike. For kinds that transformers has no sequence classifier of (Cohere, Granite,
OLMoE, …) the folder has the same form: `AutoModel` loads its trunk, and the head is the weight `score.weight`.

Beside it lie the shift and scale that make scores comparable and the lengths it was trained with (in config.json), and
the ensemble (in ensemble.safetensors). Scores are read at the last real token, found by length: nothing is masked by
token id, so a pad token that is also the end token changes nothing. (Plain transformers finds the last token by
`pad_token_id`; where that is the end token the folder says so by having none, and plain batches hold one sequence.)

The head starts at zero: every score is 0, the loss exactly ln 2 and the accuracy one half. Huang et al. («The N+
implementation details of RLHF with PPO», 2024) start it at deviation 1/sqrt(d+1), so that first scores are small; with
it they still differ by about 1 for no reason. A linear head has no symmetry to break: zero is the limit of that intent.

The ensemble (Osband et al. 2018, «Randomized prior functions for deep reinforcement learning»; 2021, «Epistemic neural
networks» for the stopped gradient): member m scores x at s(x) + (w_m + p_m − mean over members)·sg[h(x)], with h the
trunk's last hidden state, p_m fixed and random with deviation 1/sqrt(d+1), w_m learned from 0 on rankings weighted by a
bootstrap of their prompts. So the members' mean is s itself, and the trunk learns as it would without them.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from training.learner.models.generic_forward import shares_prompts
from training.learner.models.loading import is_scalar_folder, load_scalar_model, load_tokenizer, save_model
from training.learner.models.lora import Base, Shape, load_scoring_role, own_head_role
from training.learner.models.oom_retry import MicroBatches
from training.learner.models.packed_attention import apart, attention_slots, batches_within
from training.learner.models.packing import PromptGroup, pack
from training.learner.models.partial_forward import states_at
from training.learner.runtime.jobdir import BadInput

ENSEMBLE_FILE = "ensemble.safetensors"


class Scores(NamedTuple):
    """Normalised scores of N completions, float32."""

    mean: Tensor  # [N]
    deviation: Tensor  # [N], between the members of the ensemble; zeros without one


class Ensemble(nn.Module):
    """H linear heads around the main one; see the module."""

    prior: Tensor

    def __init__(self, heads: int, width: int, seed: int = 0, prior_scale: float = 1.0) -> None:
        super().__init__()
        drawn = torch.randn(heads, width, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("prior", drawn * (prior_scale / (width + 1) ** 0.5))
        self.learned = nn.Parameter(torch.zeros(heads, width))

    def forward(self, features: Tensor) -> Tensor:
        """What each member adds to the score: [N, H] from features [N, d], whose gradient is stopped."""
        weight = self.learned + self.prior
        return F.linear(features.detach().float(), weight - weight.mean(0))


class Longest(NamedTuple):
    """What a reward model reads of a prompt (its end) and of a completion (its beginning), at most."""

    prompt: int  # tokens
    completion: int  # tokens, the end of turn included


class RewardModel(nn.Module):
    """A scalar model with its ensemble and normalisation. Raw scores are in nats; normalised ones have no unit."""

    def __init__(self, network: PreTrainedModel, ensemble: Ensemble | None) -> None:
        super().__init__()
        if not isinstance(getattr(network, "score", None), nn.Linear):
            raise BadInput(f"a {type(network).__name__} cannot score: it has no linear head named score")
        self.network = network
        self.ensemble = ensemble

    @property
    def head(self) -> nn.Linear:
        return cast(nn.Linear, self.network.score)

    @property
    def shift(self) -> float:
        """The mean raw score of the samples that scores are normalised on."""
        return float(getattr(self.network.config, "reward_shift", 0.0))

    @property
    def scale(self) -> float:
        """The deviation of their raw scores."""
        return float(getattr(self.network.config, "reward_scale", 1.0))

    @property
    def longest(self) -> Longest | None:
        """What it was trained to read; None where its folder does not say."""
        lengths = getattr(self.network.config, "reward_longest", None)
        return None if lengths is None else Longest(*lengths)

    def features(self, groups: Sequence[PromptGroup]) -> Tensor:
        """[N, d]: the trunk's last hidden state at each completion's last token, in the order of the groups."""
        batch = pack(groups, self.network.device)
        return states_at(self.network, batch, batch.last)

    def raw_scores(self, features: Tensor) -> Tensor:
        """[N] float32 from features [N, d]. In float32 always: a score is a small difference of large numbers."""
        with torch.autocast(features.device.type, enabled=False):
            bias = None if self.head.bias is None else self.head.bias.float()
            return F.linear(features.float(), self.head.weight.float(), bias)[:, 0]

    def normalised(self, raw: Tensor) -> Tensor:
        """Of raw scores: mean 0 and deviation 1 on the samples that scores are normalised on."""
        return (raw - self.shift) / self.scale

    def members(self, features: Tensor) -> Tensor:
        """[N, H] float32: the raw scores of the ensemble's members; their gradient reaches the ensemble alone."""
        with torch.autocast(features.device.type, enabled=False):
            own = self.raw_scores(features).detach()[:, None]
            return own if self.ensemble is None else own + self.ensemble(features)


def new_reward_model(
    path: str, heads: int, seed: int, prior_scale: float = 1.0, adapter: Shape | None = None
) -> RewardModel:
    """A reward model on the trunk of a policy's folder (or a reward model's, whose head and ensemble it keeps).

    Weights are float32; with an adapter they are frozen, and it learns in their place. Raises BadInput when the folder
    cannot be loaded or its kind of model cannot score.
    """
    network = load_scalar_model(path)
    if adapter is not None:
        network = own_head_role(Base(network, path), "reward", adapter, seed)
    model = RewardModel(network, None)
    if (Path(path) / ENSEMBLE_FILE).is_file():
        model.ensemble = _load_ensemble(Path(path), model.network)
    elif heads > 1:
        model.ensemble = Ensemble(heads, model.head.in_features, seed, prior_scale).to(model.network.device)
    return model


def load_reward_model(path: str, dtype: str = "float32", base: Base | None = None) -> tuple[RewardModel, Any]:
    """A trained reward model and its tokenizer, frozen. Any one-label classifier loads; normalisation is then 0 and 1.

    One that was trained as an adapter on `base` needs no weights of its own. Raises BadInput when there is none.
    """
    tokenizer = load_tokenizer(path)
    if not is_scalar_folder(path):
        raise BadInput(f"{path} is no reward model: it has no head that scores")
    role = None if base is None else load_scoring_role(base, "reward", path)
    network: Any = load_scalar_model(path, dtype) if role is None else role
    ensemble = _load_ensemble(Path(path), network) if (Path(path) / ENSEMBLE_FILE).is_file() else None
    return RewardModel(network, ensemble).requires_grad_(False), tokenizer


def _load_ensemble(folder: Path, network: PreTrainedModel) -> Ensemble:
    tensors = load_file(folder / ENSEMBLE_FILE)
    ensemble = Ensemble(*tensors["prior"].shape)
    ensemble.load_state_dict(tensors)
    return ensemble.to(network.device)


def save_reward_model(model: RewardModel, tokenizer: Any, folder: Path) -> None:
    """A Hugging Face folder, with the ensemble beside it."""
    config = model.network.config
    if config.pad_token_id is not None and config.pad_token_id == tokenizer.eos_token_id:
        config.pad_token_id = None
    save_model(model.network, tokenizer, folder)
    if model.ensemble is not None:
        save_file({name: part.contiguous().cpu() for name, part in model.ensemble.state_dict().items()},
                  folder / ENSEMBLE_FILE, metadata={"format": "pt"})  # fmt: skip


def set_normalisation(model: RewardModel, raw: Tensor) -> None:
    """From now on scores are (raw − mean) / deviation of these raw scores, one of each reference sample.

    Samples that all score the same (or a single one) leave the scale at 1.
    """
    deviation = float(raw.double().std(correction=0))
    model.network.config.reward_shift = float(raw.double().mean())
    model.network.config.reward_scale = deviation if deviation > 0 else 1.0


@torch.no_grad()
def raw_scores_of_groups(model: RewardModel, groups: Sequence[PromptGroup], token_budget: int) -> tuple[Tensor, Tensor]:
    """Raw scores [N] and those of the ensemble's members [N, H] (without one: [N, 1], the same), on the CPU.

    token_budget: slots that attention holds in one forward pass, at most (a group is never divided); fewer where
    memory runs out.
    """
    items = [[group.sizes if shares_prompts(model.network) else apart(group.sizes)] for group in groups]
    if not groups:
        return torch.zeros(0), torch.zeros(0, 1)

    def pass_over(budget: int) -> tuple[Tensor, Tensor]:
        batches = batches_within(items, budget)
        features = [model.features([groups[index] for index in batch]) for batch in batches]
        raw = torch.cat([model.raw_scores(part) for part in features]).cpu()
        members = torch.cat([model.members(part) for part in features]).cpu()
        order = _order_of_completions(groups, batches)
        return torch.empty_like(raw).index_copy(0, order, raw), torch.empty_like(members).index_copy(0, order, members)

    return MicroBatches(token_budget).attempt([attention_slots(sizes) for sizes in items], pass_over)


def _order_of_completions(groups: Sequence[PromptGroup], batches: Sequence[Sequence[int]]) -> Tensor:
    """[N]: the number, in the groups' order, of each completion in the batches' order."""
    counts = [len(group.completions) for group in groups]
    firsts = [0, *itertools.accumulate(counts)]
    return torch.tensor([firsts[i] + j for batch in batches for i in batch for j in range(counts[i])])


def score_groups(model: RewardModel, groups: Sequence[PromptGroup], token_budget: int = 16384) -> Scores:
    """Normalised scores of every completion, in order; what is computed of a prompt is computed once."""
    raw, members = raw_scores_of_groups(model, groups, token_budget)
    deviation = members.std(1) if members.shape[1] > 1 else torch.zeros_like(raw)
    return Scores(model.normalised(raw), deviation / model.scale)


def score(model: RewardModel, sequences: Sequence[Sequence[int]], token_budget: int = 16384) -> Tensor:
    """[N] float32: normalised scores of prompt-and-completion sequences, each read at its last token."""
    return score_groups(model, [PromptGroup((), (tuple(sequence),)) for sequence in sequences], token_budget).mean
