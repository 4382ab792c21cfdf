"""Probe a model: whether it is computed exactly here, and by which path.

A model is probed each time it is loaded: packed passes and the decoder are compared with the model's own forward pass
on each sequence alone, on a few dozen tokens. Where they differ, the model takes a slower path that agrees, or is
refused. `python -m training.learner.check FOLDER` prints the verdict.
"""

import itertools
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from training.learner.models.context_length import max_positions
from training.learner.models.forward_decoder import Decoder, ForwardDecoder, RecordingLayout, gather_prompts
from training.learner.models.generic_forward import ComputePath, GenericDecoder, logits_and_states, set_path
from training.learner.models.logits import logits_at
from training.learner.models.packed_attention import ATTENTION
from training.learner.models.packing import Episodes, PackedEpisodes, pack_episodes
from training.learner.models.partial_forward import states_at
from training.learner.runtime.jobdir import BadInput, first_line

MAX_LENGTH = 40  # tokens of a probe's sequence: several times the width of any convolution
DECODED_STEPS = 3
# Largest difference from the model's own forward pass, as a share of the largest number compared. In bfloat16 two
# orders of the same sums differ by about 1 %; a state that leaks between sequences differs by more than that.
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
PACKED_LAYERS = {"full_attention", "sliding_attention", "attention"}  # types of layers that packed passes support


class Inexact(Exception):
    """The numbers of a path differ from the model's own forward pass on each sequence alone."""


class Probe(NamedTuple):
    """Short sequences of different lengths, two with the same prompt, and the model's own outputs for each alone."""

    episodes: Episodes
    batch: PackedEpisodes
    logits: list[Tensor] | None  # [t, V] for each sequence; None: the model has no language-model head
    states: list[Tensor]  # [t, E] for each sequence
    tolerance: float

    @property
    def indices(self) -> Tensor:
        """Indices of the packed row that are compared."""
        return torch.cat([self.batch.decisions, self.batch.last])

    def expected(self, outputs: list[Tensor]) -> Tensor:
        """Return the rows of outputs [t, *] of the sequences that correspond to `indices`."""
        starts = [len(prompt) for prompt in self.episodes.prompts]
        decisions = [rows[start - 1 : -1] for rows, start in zip(outputs, starts, strict=True)]
        return torch.cat([*decisions, *(rows[-1:] for rows in outputs)])

    def compare(self, name: str, actual: Tensor, expected: Tensor) -> None:
        """Raise Inexact unless they agree within the tolerance. name: plural subject of the message."""
        difference = float((actual - expected).abs().max() / expected.abs().max().clamp(min=1e-6))
        if not difference <= self.tolerance:
            raise Inexact(f"{name} differ from those of the model's own forward pass by {difference:.1g} of their size")


@torch.no_grad()
def choose_path(model: Any, where: str) -> ComputePath:
    """Return the fastest exact path and set the model to it. Raises BadInput if there is none.

    where: name of the model in messages.
    """
    try:
        probe = make_probe(model)
    except Exception as error:  # a model's own code may raise anything; the message names it
        raise BadInput(f"{where}: its own forward pass fails on a short text: {describe(error)}") from error
    path = ComputePath() if probe is None else _choose(model, probe, where)
    set_path(model, path)
    if not path.is_fast:
        message = f"{where}: exact by the generic path ({path.scoring} rows, {path.decoding} decoding), which is slow, "
        print(f"{message}because {path.why}", file=sys.stderr, flush=True)
    return path


def _choose(model: Any, probe: Probe, where: str) -> ComputePath:
    original_attention = model.config._attn_implementation
    try:
        model.config._attn_implementation = ATTENTION
        check_scoring(model, probe, "packed")
        check_packed_layers(model, probe)
        check_decoding(model, probe, "packed")
        return ComputePath()
    except Exception as error:  # noqa: BLE001 (code that was not written for packed passes may raise anything)
        model.config._attn_implementation = original_attention
        why = f"in packed passes {describe(error)}"
    scoring = first_exact(check_scoring, model, probe, ("padded", "alone"), where)
    decoding = "recomputed"
    if probe.logits is not None:
        decoding = first_exact(check_decoding, model, probe, ("cached", "recomputed"), where)
    return ComputePath(scoring, decoding, why)


def first_exact(check: Any, model: Any, probe: Probe, kinds: Sequence[str], where: str) -> str:
    """Return the first kind that passes the check. Raises BadInput if none does."""
    reasons = []
    for kind in kinds:
        try:
            check(model, probe, kind)
            return kind
        except Exception as error:  # noqa: BLE001 (a model's own code)
            reasons.append(f"{kind}: {describe(error)}")
    raise BadInput(f"{where}: no path is exact for a {type(model).__name__} ({'; '.join(reasons)})")


def describe(error: Exception) -> str:
    return str(error) if isinstance(error, Inexact) else f"{type(error).__name__}: {first_line(error)}"


def make_probe(model: Any) -> Probe | None:
    """Return a probe, or None if the model has too few positions or gives numbers that are not finite.

    The programs report numbers that are not finite themselves. Raises Inexact if the model is not causal.
    """
    longest = min(MAX_LENGTH, max_positions(model.config) or MAX_LENGTH)
    if longest < 4:
        return None
    vocabulary = model.get_input_embeddings().weight.shape[0]
    tokens = [(7 * i * i + 3 * i + 1) % min(vocabulary, 1000) for i in range(3 * longest)]
    prompt, half, short = tokens[: longest // 2], longest - longest // 2, max(longest // 4, 1)
    ends = tokens[longest:]
    episodes = Episodes([prompt, prompt, tokens[5:7]], [ends[:half], ends[half : half + short], ends[3 : 3 + short]])
    has_head = model.get_output_embeddings() is not None
    alone = [read_sequence(model, sequence, has_head) for sequence in episodes.sequences()]
    if not all(bool(part.isfinite().all()) for row in alone for part in row):
        return None
    probe = Probe(
        episodes,
        pack_episodes(episodes, model.device),
        [row[0] for row in alone] if has_head else None,
        [row[-1] for row in alone],
        TOLERANCES.get(model.dtype, 5e-2),
    )
    prefix = read_sequence(model, episodes.sequences()[0][:half], has_head)[-1]
    probe.compare("hidden states of a prefix without the tokens after it", prefix, probe.states[0][:half])
    return probe


def read_sequence(model: Any, sequence: Sequence[int], has_head: bool) -> list[Tensor]:
    """Return the outputs of the model's own forward pass: logits [t, V] if it has a head, and states [t, E]."""
    tokens = torch.tensor([list(sequence)], device=model.device)
    if not has_head:
        return [model.base_model(input_ids=tokens, use_cache=False).last_hidden_state[0]]
    return [part[0] for part in logits_and_states(model, model.base_model, input_ids=tokens)]


def check_scoring(model: Any, probe: Probe, scoring: str) -> None:
    """Raise Inexact if hidden states or logits differ."""
    set_path(model, ComputePath(scoring))
    states = states_at(model, probe.batch, probe.indices)
    probe.compare(f"{scoring} hidden states", states, probe.expected(probe.states))
    if probe.logits is not None:
        logits = logits_at(model, probe.batch, probe.indices)
        probe.compare(f"{scoring} logits", logits, probe.expected(probe.logits))


def check_packed_layers(model: Any, probe: Probe) -> None:
    """Raise Inexact for unsupported layers that a short text does not reveal, such as long sliding windows.

    Their outputs agree with full attention until a text is longer than the window.
    """
    config = model.config.get_text_config()
    recorder = RecordingLayout(probe.batch.layout)
    states_at(model, probe.batch._replace(layout=recorder), probe.indices)  # type: ignore[arg-type]
    windows = {layer: rules.window for layer, (_, _, rules) in recorder.layers.items()}
    if len(windows) != config.num_hidden_layers:
        raise Inexact(f"only {len(windows)} of {config.num_hidden_layers} layers use the supported attention")
    window = getattr(config, "sliding_window", None)
    for layer, kind in enumerate(getattr(config, "layer_types", None) or []):
        if kind not in PACKED_LAYERS:
            raise Inexact(f'layers of the type "{kind}" are not supported')
        if windows[layer] != (window if kind == "sliding_attention" else None):
            raise Inexact(f"layer {layer} has the window {windows[layer]}, but the config has {kind} of {window}")
    if getattr(config, "attention_chunk_size", None) is not None:
        raise Inexact("chunked attention is not supported")


def check_decoding(model: Any, probe: Probe, decoding: str) -> None:
    """Raise Inexact if the logits after the prompts, or after some decoded tokens, differ."""
    if probe.logits is None:
        return
    prompts, completions = probe.episodes.prompts, probe.episodes.completions
    decoder: Decoder
    if decoding == "packed":
        decoder = ForwardDecoder(model, gather_prompts(prompts, model.device), DECODED_STEPS)
    else:
        decoder = GenericDecoder(model, prompts, decoding)
    actual = [decoder.read_prompts()]
    steps = min(DECODED_STEPS, *map(len, completions))
    for step in range(steps):
        actual.append(decoder.read(torch.tensor([tokens[step] for tokens in completions], device=model.device)))
    expected = [
        torch.stack([rows[len(prompt) - 1 + step] for rows, prompt in zip(probe.logits, prompts, strict=True)])
        for step in range(steps + 1)
    ]
    for number, (logits, own_logits) in enumerate(itertools.zip_longest(actual, expected)):
        probe.compare(f"logits of {decoding} decoding after {number} steps", logits, own_logits)
