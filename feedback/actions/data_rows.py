"""Changing and deleting single prompts, completions and comparisons.

What an annotator has worked on stays, and what something refers to. Deletions take the locks of the undo of an import,
so that no import uses a row that is being deleted.
"""

from collections.abc import Mapping
from typing import Any

from django.db import connection, transaction
from django.db.models import QuerySet
from django.utils.translation import gettext as _

from feedback import audit, validation
from feedback.errors import Conflict, NotFound
from feedback.imports.undo import LOCK_CLASS, delete_rows
from feedback.models import Comparison, Completion, Demonstration, Project, Prompt
from feedback.queue.worked_on import reasons_to_keep


@transaction.atomic
def change_prompt(project: Project, prompt_id: int, changes: Mapping[str, Any]) -> None:
    """Replace the `references` or the `metadata` of a prompt. Raises NotFound or Invalid."""
    prompt = _one(Prompt.objects.filter(project=project).select_for_update(no_key=True), prompt_id, "prompt")
    before = audit.values_of(prompt, ["references", "metadata"])
    if "references" in changes:
        prompt.references = [validation.filled_text(text, _("A reference answer")) for text in changes["references"]]
    if "metadata" in changes:
        prompt.metadata = validation.json_object(changes["metadata"], "metadata")
    prompt.save(update_fields=["references", "metadata"])
    after = audit.values_of(prompt, ["references", "metadata"])
    audit.record("prompt.change", project, prompt, name=f"prompt {prompt.pk}", before=before, after=after)


@transaction.atomic
def change_comparison(project: Project, comparison_id: int, changes: Mapping[str, int]) -> None:
    """Set the `priority` or the `wanted_rankings` of a comparison. Raises NotFound or Conflict."""
    rows = Comparison.objects.filter(project=project).select_for_update(of=("self",))
    comparison = _one(rows, comparison_id, "comparison")
    before = audit.values_of(comparison, ["priority", "wanted_rankings"])
    if "wanted_rankings" in changes:
        _set_wanted_rankings(comparison, changes["wanted_rankings"])
    comparison.priority = changes.get("priority", comparison.priority)
    comparison.save(update_fields=["priority", "wanted_rankings", "open_slots"])
    name, after = f"comparison {comparison.pk}", audit.values_of(comparison, ["priority", "wanted_rankings"])
    audit.record("comparison.change", project, comparison, name=name, before=before, after=after)


def _set_wanted_rankings(comparison: Comparison, wanted: int) -> None:
    if comparison.gold_ranks is not None or comparison.trial_id is not None or comparison.adjudicated_at is not None:
        raise Conflict(_("Gold, comparisons of a trial and adjudicated ones have no number of rankings to change."))
    taken = comparison.wanted_rankings - comparison.open_slots  # live rankings and leases
    if wanted < taken:
        raise Conflict(
            _("This comparison has %(taken)s rankings or annotators at work: it cannot want fewer.") % {"taken": taken}
        )
    comparison.wanted_rankings, comparison.open_slots = wanted, wanted - taken


@transaction.atomic
def delete_comparison(project: Project, comparison_id: int) -> None:
    """Delete a comparison that nobody has worked on. Raises NotFound, or Conflict with the reason why it stays."""
    _exclude_imports(project)
    rows = Comparison.objects.filter(project=project, pk=comparison_id)
    comparison = _one(rows, comparison_id, "comparison")
    if comparison.trial_id is not None:
        raise Conflict(_("This comparison belongs to a trial and stays: end the trial."))
    for _pk, reason in list(reasons_to_keep(rows)):
        if reason:
            raise Conflict(_reasons()[reason])
    values = audit.values_of(comparison, ["prompt", "size"])
    audit.record("comparison.delete", project, comparison, name=f"comparison {comparison_id}", before=values)
    delete_rows("comparisons", [comparison_id])


@transaction.atomic
def delete_completion(project: Project, completion_id: int) -> None:
    """Delete a completion that no comparison shows and that is no demonstration. Raises NotFound or Conflict."""
    _exclude_imports(project)
    completion = _one(Completion.objects.filter(source__project=project), completion_id, "completion")
    if completion.items.exists():
        raise Conflict(_("A comparison shows this completion, so it stays: delete the comparison first."))
    if Demonstration.objects.filter(completion=completion).exists():
        raise Conflict(_("This completion is a demonstration and stays: discard the demonstration."))
    values = audit.values_of(completion, ["prompt", "source"])
    audit.record("completion.delete", project, completion, name=f"completion {completion_id}", before=values)
    delete_rows("completions", [completion_id])


@transaction.atomic
def delete_prompt(project: Project, prompt_id: int) -> None:
    """Delete a prompt without completions. Raises NotFound or Conflict."""
    _exclude_imports(project)
    prompt = _one(Prompt.objects.filter(project=project), prompt_id, "prompt")
    if prompt.completions.exists():
        raise Conflict(_("This prompt has completions, so it stays: delete them first."))
    values = audit.values_of(prompt, ["split"])
    audit.record("prompt.delete", project, prompt, name=f"prompt {prompt_id}", before=values)
    delete_rows("prompts", [prompt_id])


def _exclude_imports(project: Project) -> None:
    """Lock as the undo of an import does: the project first, then the imports."""
    Project.objects.select_for_update(no_key=True).get(pk=project.pk)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [LOCK_CLASS, project.pk])


def _one(rows: QuerySet[Any], pk: int, kind: str) -> Any:
    row = rows.filter(pk=pk).first()
    if row is None:
        sentences = {
            "prompt": _("There is no such prompt in this project."),
            "completion": _("There is no such completion in this project."),
            "comparison": _("There is no such comparison in this project."),
        }
        raise NotFound(sentences[kind])
    return row


def _reasons() -> dict[str, str]:
    return {
        "ranked": _("This comparison was ranked, so it stays: discard its rankings instead."),
        "skipped": _("This comparison was skipped, so it stays."),
        "answered": _("Somebody has written an answer to this comparison, so it stays."),
        "held": _("An annotator has this comparison on a page: try again later."),
    }
