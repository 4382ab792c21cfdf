"""The reward model that a round continues, if its settings say so and no full training is due."""

from django.utils.translation import gettext as _

from training.models import Checkpoint, Round
from training.rounds import settings as round_settings


def reward_model_to_continue(round_: Round) -> str:
    """Return the folder of the reward model that the round's training continues; "" if it starts from the base.

    It is the reward model of the round that made the base, so it has the base's ancestors, whatever was served since.
    """
    settings = round_settings.completed(round_.settings)["round"]
    every = settings["full_reward_every"]
    if settings["reward_start"] != "last" or (every and continued_rounds(round_.base, every) >= every - 1):
        return ""
    return round_.base.reward_model_path


def continued_rounds(checkpoint: Checkpoint, most: int) -> int:
    """Return how many rounds in a row, at most `most`, continued a reward model, up to the checkpoint's own round."""
    count, made = 0, _round_of(checkpoint)
    while made is not None and has_continued(made) and count < most:
        count, made = count + 1, _round_of(made.base)
    return count


def has_continued(round_: Round) -> bool:
    """Return whether the finished training of the round's reward model continued an earlier one."""
    return bool(round_.results.get("reward", {}).get("start") == "last_reward_model")


def _round_of(checkpoint: Checkpoint) -> Round | None:
    return Round.objects.select_related("base").filter(checkpoint=checkpoint).first()


def sentence(round_: Round) -> str:
    """Return a sentence on where the reward model's training started; "" if the round does not ask for the last one."""
    if "reward" not in round_.results or round_settings.completed(round_.settings)["round"]["reward_start"] != "last":
        return ""
    if has_continued(round_):
        return _("Its reward model continues that of %(base)s.") % {"base": round_.base}
    if round_.base.reward_model_path:
        return _("Its reward model starts from the base, as a full training was due.")
    return _("Its reward model starts from the base, which has none to continue.")
