"""Probe a model: whether it is computed exactly here, and by which path.

A model is probed each time it is loaded: packed passes and the decoder are compared with the model's own forward pass
on each sequence alone, on a few dozen tokens. Where they differ the model takes a slower path that agrees, or is
refused. `python -m training.learner.check FOLDER` prints the verdict.
"""

import itertools
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from training.learner.models.episodes import EpisodeBatch, Episodes, lay_out
from training.learner.models.forward_decoder import Decoder, ForwardDecoder, Recorder, gather_prompts
from training.learner.models.generic_forward import GenericDecoder, Path, logits_and_states, set_path
from training.learner.models.loading import first_line, load_policy, room_of
from training.learner.models.packed_attention import ATTENTION
from training.learner.models.partial_forward import states_at
from training.learner.models.token_outputs import logits_at
from training.learner.runtime.jobdir import BadInput

LONGEST = 40  # tokens of a probe's sequence: several times the width of any convolution
STEPS = 3  # decoded
# Largest difference from the model's own forward pass, as a share of the largest number compared. In bfloat16 two
# orders of the same sums differ by some 1 %; a state that leaks between sequences differs by more than that.
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
PACKED_LAYERS = {"full_attention", "sliding_attention", "attention"}  # kinds of layers that packed passes know
NAMES = {"fast": "exact and fast", "generic": "exact by the generic path", "refused": "refused"}


class Inexact(Exception):
    """A path's numbers are not those of the model's own forward pass on each sequence alone."""


class Probe(NamedTuple):
    """Short sequences of different lengths, two of them with one prompt, and what the model makes of each alone."""

    episodes: Episodes
    batch: EpisodeBatch
    logits: list[Tensor] | None  # of each sequence [t, V]; None: the model has no language model's head
    states: list[Tensor]  # of each sequence [t, E]
    tolerance: float

    @property
    def places(self) -> Tensor:
        return torch.cat([self.batch.decisions, self.batch.last])

    def expected(self, of_sequences: list[Tensor]) -> Tensor:
        """Of sequences [t, *] each, what lies at `places`."""
        starts = [len(prompt) for prompt in self.episodes.prompts]
        decisions = [rows[start - 1 : -1] for rows, start in zip(of_sequences, starts, strict=True)]
        return torch.cat([*decisions, *(rows[-1:] for rows in of_sequences)])

    def compare(self, what: str, found: Tensor, expected: Tensor) -> None:
        """Raises Inexact unless they agree."""
        difference = float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-6))
        if not difference <= self.tolerance:
            raise Inexact(f"{what} differ from the model's own by {difference:.1g} of their size")


@torch.no_grad()
def choose_path(model: Any, where: str) -> Path:
    """Return the fastest path that is exact, and set the model to it. Raises BadInput when there is none."""
    try:
        probe = make_probe(model)
    except Exception as error:  # whatever a model's own code raises: the sentence names it
        raise BadInput(f"{where}: its own forward pass fails on a short text: {describe(error)}") from error
    path = Path() if probe is None else _choose(model, probe, where)
    set_path(model, path)
    if not path.is_fast:
        print(f"{where}: exact by the generic path ({path.scoring} rows, {path.decoding} decoding), which is slow, "
              f"because {path.why}", file=sys.stderr, flush=True)  # fmt: skip
    return path


def _choose(model: Any, probe: Probe, where: str) -> Path:
    own_attention = model.config._attn_implementation
    try:
        model.config._attn_implementation = ATTENTION
        check_scoring(model, probe, "packed")
        check_packed_layers(model, probe)
        check_decoding(model, probe, "packed")
        return Path()
    except Exception as error:  # noqa: BLE001 (code that was not written for packed passes can fail in any way)
        model.config._attn_implementation = own_attention
        why = f"in packed passes {describe(error)}"
    scoring = first_exact(check_scoring, model, probe, ("padded", "alone"), where)
    decoding = "recomputed"
    if probe.logits is not None:
        decoding = first_exact(check_decoding, model, probe, ("cached", "recomputed"), where)
    return Path(scoring, decoding, why)


def first_exact(check: Any, model: Any, probe: Probe, kinds: Sequence[str], where: str) -> str:
    reasons = []
    for kind in kinds:
        try:
            check(model, probe, kind)
            return kind
        except Exception as error:  # noqa: BLE001 (a model's own code)
            reasons.append(f"{kind}: {describe(error)}")
    raise BadInput(f"{where}: no way of computing a {type(model).__name__} here is exact ({'; '.join(reasons)})")


def describe(error: Exception) -> str:
    return str(error) if isinstance(error, Inexact) else f"{type(error).__name__}: {first_line(error)}"


def make_probe(model: Any) -> Probe | None:
    """None where there is no room for one, or the weights hold numbers that are not finite, which the programs tell.

    Raises Inexact when the model is not causal.
    """
    longest = min(LONGEST, room_of(model.config) or LONGEST)
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
        lay_out(episodes, model.device),
        [row[0] for row in alone] if has_head else None,
        [row[-1] for row in alone],
        TOLERANCES.get(model.dtype, 5e-2),
    )
    prefix = read_sequence(model, episodes.sequences()[0][:half], has_head)[-1]
    probe.compare("the states of a text's beginning, read without its end,", prefix, probe.states[0][:half])
    return probe


def read_sequence(model: Any, sequence: Sequence[int], has_head: bool) -> list[Tensor]:
    """By the model's own forward pass, alone: logits [t, V] if it has a head for them, and states [t, E]."""
    tokens = torch.tensor([list(sequence)], device=model.device)
    if not has_head:
        return [model.base_model(input_ids=tokens, use_cache=False).last_hidden_state[0]]
    return [part[0] for part in logits_and_states(model, model.base_model, input_ids=tokens)]


def check_scoring(model: Any, probe: Probe, scoring: str) -> None:
    set_path(model, Path(scoring))
    states = states_at(model, probe.batch, probe.places)
    probe.compare(f"{scoring} hidden states", states, probe.expected(probe.states))
    if probe.logits is not None:
        logits = logits_at(model, probe.batch, probe.places)
        probe.compare(f"{scoring} logits", logits, probe.expected(probe.logits))


def check_packed_layers(model: Any, probe: Probe) -> None:
    """Raises Inexact for layers that a short text would not tell from the known kinds: windows are longer than it."""
    config = model.config.get_text_config()
    recorder = Recorder(probe.batch.layout)
    states_at(model, probe.batch._replace(layout=recorder), probe.places)  # type: ignore[arg-type]
    windows = {layer: rules.window for layer, (_, _, rules) in recorder.layers.items()}
    if len(windows) != config.num_hidden_layers:
        raise Inexact(f"{len(windows)} of {config.num_hidden_layers} layers have the attention known here, and they")
    window = getattr(config, "sliding_window", None)
    for layer, kind in enumerate(getattr(config, "layer_types", None) or []):
        if kind not in PACKED_LAYERS:
            raise Inexact(f'layers of the kind "{kind}", which are not known here,')
        if windows[layer] != (window if kind == "sliding_attention" else None):
            raise Inexact(f"the sliding windows of layer {layer} ({windows[layer]}, {kind} of {window} in the config)")
    if getattr(config, "attention_chunk_size", None) is not None:
        raise Inexact("layers with chunked attention, which is not known here,")


def check_decoding(model: Any, probe: Probe, decoding: str) -> None:
    """Reads the prompts, then some tokens of the completions one by one."""
    if probe.logits is None:
        return
    prompts, completions = probe.episodes
    decoder: Decoder
    if decoding == "packed":
        decoder = ForwardDecoder(model, gather_prompts(prompts, model.device), STEPS)
    else:
        decoder = GenericDecoder(model, prompts, decoding)
    found = [decoder.read_prompts()]
    steps = min(STEPS, *map(len, completions))
    for step in range(steps):
        found.append(decoder.read(torch.tensor([tokens[step] for tokens in completions], device=model.device)))
    expected = [
        torch.stack([rows[len(prompt) - 1 + step] for rows, prompt in zip(probe.logits, prompts, strict=True)])
        for step in range(steps + 1)
    ]
    for number, (one, other) in enumerate(itertools.zip_longest(found, expected)):
        probe.compare(f"{decoding} decoding's logits after {number} steps", one, other)


def verdict_on(folder: str) -> dict[str, str]:
    """Return what `training.learner.check` prints of a language model's folder."""
    from training.learner.models.generic_forward import path_of

    try:
        model, _ = load_policy(folder)
    except BadInput as error:
        return {"verdict": "refused", "scoring": "", "decoding": "", "why": str(error)}
    return {"verdict": "fast" if path_of(model).is_fast else "generic"} | path_of(model)._asdict()
