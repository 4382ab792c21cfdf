"""The files of checkpoints: their sizes, and their removal from the disk.

Sizes are measured when the files are written, by the worker that wrote them, and stored with the checkpoint: no page
walks through folders. Parts of the sizes, in bytes:

    model          the policy
    reward_model   the reward model of its round
    critic         the critic that its round kept
    other          what else its round keeps to load: models of earlier jobs, saved states
    shared         files of these with hard links elsewhere, which are in no other part: deleting them frees nothing

The files of an imported model are not Accord's: they are measured, and never deleted. The record of a round (its input
files, metrics, results and log) is no file of its checkpoint, and stays.

A deletion is first marked in the database, with the folders (`retirement.delete_files`). A worker removes them
afterwards. If it is killed in between, the next one goes on.
"""

import logging
import os
import shutil
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from celery import current_app
from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet

from training import paths
from training.models import SHARED, Checkpoint

SETTLE_FILES = "training.tasks.settle_checkpoint_files"
NAMES = ("model", "critic", "state")  # folders of a job directory whose files belong to the checkpoint of its round
SEND_AGAIN_AFTER = 60  # seconds: the beat sends the message again, and an older one is worth nothing

logger = logging.getLogger(__name__)


def folders_of(checkpoint: Checkpoint) -> dict[str, list[Path]]:
    """Return the folders of a checkpoint by part. Those of a round are in its directory, which lists one level only."""
    model = Path(checkpoint.path)
    if not is_in_a_round(checkpoint):
        return {"model": [model]}
    round_folder, critic = model.parent.parent, model.with_name("critic")
    reward = [Path(checkpoint.reward_model_path)] if checkpoint.reward_model_path else []
    known = {model, critic, *reward}
    other = sorted(folder for name in NAMES for folder in round_folder.glob(f"*/{name}") if folder not in known)
    return {"model": [model], "reward_model": reward, "critic": [critic], "other": other}


def is_in_a_round(checkpoint: Checkpoint) -> bool:
    """Return whether its files are in the directory of the round that made it, so that they are Accord's."""
    rounds, model = settings.DATA_DIR / "rounds", Path(checkpoint.path)
    # rounds / project / number / job / model
    is_below = model.is_relative_to(rounds) and len(model.relative_to(rounds).parts) == 4
    return checkpoint.kind == Checkpoint.Kind.ROUND and is_below and ".." not in model.parts


def measure(checkpoint: Checkpoint) -> None:
    """Store the sizes of a checkpoint's files. A file that vanishes meanwhile is not counted."""
    sizes = sizes_of(folders_of(checkpoint), follows_links=checkpoint.kind == Checkpoint.Kind.IMPORTED)
    Checkpoint.objects.filter(pk=checkpoint.pk, files_deleted_at__isnull=True).update(file_sizes=sizes)


def sizes_of(folders: dict[str, list[Path]], *, follows_links: bool = False) -> dict[str, int]:
    """Return the bytes of the files of each part, those with hard links elsewhere in the part `shared`.

    Several names of one file count once. follows_links: count the files that symbolic links of the folders name, as in
    the hub's cache, and no subfolders.
    """
    links: dict[tuple[int, int], int] = defaultdict(int)  # names seen of each file
    first: dict[tuple[int, int], tuple[str, os.stat_result]] = {}
    for part, of_part in folders.items():
        for status in _statuses(of_part, follows_links):
            file = (status.st_dev, status.st_ino)
            links[file] += 1
            first.setdefault(file, (part, status))
    sizes = dict.fromkeys((*folders, SHARED), 0)
    for file, (part, status) in first.items():
        is_shared = not follows_links and links[file] < status.st_nlink
        sizes[SHARED if is_shared else part] += status.st_size
    return sizes


def _statuses(folders: Iterable[Path], follows_links: bool) -> Iterator[os.stat_result]:
    for folder in folders:
        for parent, subfolders, names in os.walk(folder):
            if follows_links:
                subfolders.clear()
            for name in names:
                try:
                    status = os.stat(os.path.join(parent, name), follow_symlinks=follows_links)
                except OSError:  # it has vanished, or its link leads nowhere
                    continue
                if stat.S_ISREG(status.st_mode):
                    yield status


def send() -> None:
    """Send the message that lets a worker of the queue `gpu`, whose host wrote the files, settle them; on commit."""

    def send_message() -> None:
        current_app.send_task(SETTLE_FILES, expires=SEND_AGAIN_AFTER)

    transaction.on_commit(send_message, robust=True)


def send_unsettled() -> bool:
    """Send the message if there are files to remove or to measure. Return whether there are."""
    is_unsettled = _marked().exists() or _unmeasured().exists()
    if is_unsettled:
        send()
    return is_unsettled


def settle() -> None:
    """Remove the files of all deletions, and measure the files that nobody has measured."""
    for checkpoint in _marked():
        remove(checkpoint)
    for checkpoint in _unmeasured():
        measure(checkpoint)


def _marked() -> QuerySet[Checkpoint]:
    return Checkpoint.objects.exclude(folders_to_remove=[])


def _unmeasured() -> QuerySet[Checkpoint]:
    return Checkpoint.objects.filter(file_sizes__isnull=True, files_deleted_at__isnull=True)


def remove(checkpoint: Checkpoint) -> None:
    """Remove the folders that the checkpoint's deletion marked. Those that are gone already are no error.

    A folder that cannot be removed stays marked: the next message tries it again.
    """
    left = [folder for folder in checkpoint.folders_to_remove if not _is_removed(folder)]
    Checkpoint.objects.filter(pk=checkpoint.pk).update(folders_to_remove=left)


def _is_removed(folder: str) -> bool:
    path = Path(paths.in_full(folder))
    if not path.is_relative_to(settings.DATA_DIR / "rounds") or ".." in path.parts:
        logger.error("%s is not below the data folder's rounds, so it is not removed", path)
        return False
    try:
        if path.is_symlink():
            path.unlink()
        elif path.exists():
            shutil.rmtree(path)
    except FileNotFoundError:  # another worker was faster
        return not path.exists()
    except OSError as error:
        logger.warning("%s could not be removed (%s): it is tried again", path, error.strerror)
        return False
    return True
