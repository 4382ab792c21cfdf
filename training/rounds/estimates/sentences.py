"""Estimates in words: durations, sizes, and how far an estimate was off."""

from django.utils.translation import gettext as _

from training.models import Round
from training.rounds.estimates import Estimate, peak_memory, took


def duration(seconds: float) -> str:
    """Return a duration in the largest unit that fits, such as "12 min"."""
    if seconds < 100:
        return _("%(n)s s") % {"n": f"{max(seconds, 1):.0f}"}
    if seconds < 100 * 60:
        return _("%(n)s min") % {"n": f"{seconds / 60:.0f}"}
    return _("%(n)s h") % {"n": f"{seconds / 3600:.1f}"}


def size(gb: float) -> str:
    """Return a size in the largest unit that fits, such as "600 MB"."""
    if gb < 0.0009995:
        return f"{1e6 * gb:.0f} kB"
    return f"{1000 * gb:.0f} MB" if gb < 0.9995 else f"{gb:.1f} GB"


def difference(estimated: float, measured: float) -> str:
    """Return by how much a measured value differs from its estimate, in percent."""
    percent = round(100 * (measured / estimated - 1))
    return f"{percent:+d} %".replace("-", "−") if percent else "±0 %"


def sentences_of(round_: Round) -> str:
    """Return what was estimated when the round started and, once it has ended, how far that was off."""
    estimate = Estimate.from_json(round_.estimate)
    if estimate is None:
        return ""
    has_finished = round_.status == Round.Status.FINISHED
    sentences = [_time_sentence(estimate, took(round_) if has_finished else None)]
    peak = peak_memory(round_) if has_finished else None
    # The memory of a GPU is not compared with that of the machine.
    sentences.append(_memory_sentence(estimate, peak[0] if peak and peak[1] == estimate.is_gpu_memory else None))
    return " ".join(filter(None, sentences))


def _time_sentence(estimate: Estimate, seconds: float | None) -> str:
    if estimate.seconds is None:
        return _("It took %(took)s; no estimate was known.") % {"took": duration(seconds)} if seconds else ""
    values = {"estimated": duration(estimate.seconds)}
    if not seconds:
        return _("Estimated time: %(estimated)s.") % values
    values |= {"took": duration(seconds), "off": difference(estimate.seconds, seconds)}
    return _("Estimated time %(estimated)s, took %(took)s (%(off)s).") % values


def _memory_sentence(estimate: Estimate, gb: float | None) -> str:
    if estimate.memory_gb is None:
        return _("It needed %(gb)s of memory.") % {"gb": size(gb)} if gb else ""
    values = {"estimated": size(estimate.memory_gb)}
    if not gb:
        return _("Estimated memory: %(estimated)s.") % values
    values |= {"gb": size(gb), "off": difference(estimate.memory_gb, gb)}
    return _("Estimated memory %(estimated)s, needed %(gb)s (%(off)s).") % values
