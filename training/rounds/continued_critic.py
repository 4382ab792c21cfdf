"""The critic that a round continues, if its settings say so and the round of its base kept one of the same kind."""

from pathlib import Path

from django.utils.translation import gettext as _

from training.models import Checkpoint, Round
from training.rounds import settings as round_settings


def critic_to_continue(round_: Round) -> str:
    """Return the folder of the critic that the round's critic continues; "" if it is new.

    It is that of the round that made the base, so a separate critic has the base's architecture, and a shared one, a
    head, was trained on the base's trunk.
    """
    folder = critic_folder(round_.base)
    wanted = round_settings.completed(round_.settings)["round"]["critic_start"] == "last"
    if not wanted or not folder.is_dir() or kind_of(maker_of(round_.base)) != kind_of(round_):
        return ""
    return str(folder)


def critic_folder(checkpoint: Checkpoint) -> Path:
    """Return the folder of the critic that the program that made a checkpoint kept; there need not be one."""
    return Path(checkpoint.path).with_name("critic")


def maker_of(checkpoint: Checkpoint) -> Round | None:
    """Return the round that made the checkpoint; None for an imported one."""
    return Round.objects.filter(checkpoint=checkpoint).first()


def kind_of(round_: Round | None) -> str:
    """Return the kind of critic that a round trains, or "" if it trains none."""
    settings = round_settings.completed(round_.settings) if round_ else {}
    return str(settings.get("ppo", {}).get("critic", ""))


def sentence(round_: Round) -> str:
    """Return a sentence on where the critic started; "" if the round does not ask for the last one."""
    start = round_.results.get("policy", {}).get("critic_start")
    if start is None or round_settings.completed(round_.settings)["round"]["critic_start"] != "last":
        return ""
    if start == "critic_model":
        return _("Its critic continues that of %(base)s.") % {"base": round_.base}
    return _("Its critic is new, as %(base)s has none of this kind to continue.") % {"base": round_.base}
