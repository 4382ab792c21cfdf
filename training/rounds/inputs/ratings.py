"""ratings.jsonl: the ratings of completions up to the round's cut-off, for attributes with enough of them."""

from collections import defaultdict
from collections.abc import Iterator
from statistics import fmean
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db import connection
from django.db.models import QuerySet
from django.utils.translation import gettext as _

from feedback.errors import Invalid
from feedback.export import ranking_record
from feedback.models import ComparisonItem, Completion, Project, Ranking
from training.models import Round
from training.rounds import settings as round_settings
from training.rounds.inputs import needs, rows
from training.rounds.inputs.rankings import learnable, trainable_rankings
from training.rounds.recipes.description import RATINGS, Job, Recipe, Sections

PAGE_SIZE = 1000  # rankings or completions of one query
COUNTED = "rated_completions."  # and the attribute's name: key of a count of the snapshot

People = dict[int, list[int]]  # annotator to that person's ratings of one completion for one attribute


@rows(RATINGS)
def ratings(round_: Round, job: Job, counts: dict[str, int]) -> Iterator[dict[str, Any]]:
    """Yield the rated completions, and count those of training prompts by attribute.

    Attributes with fewer than the round's `min_rated_completions` are counted and left out.
    """
    counting = ranking_record.counting(round_.project, round_.cutoff).filter(learnable(round_.project))
    by_completion = people_by_completion(counting)
    counted = training_counts(counting)
    counts |= {f"{COUNTED}{name}": count for name, count in counted.items()}
    least = round_settings.completed(round_.settings)["round"]["min_rated_completions"]
    enough = {name for name, count in counted.items() if count >= least}
    ids = [pk for pk, attributes in by_completion.items() if enough & attributes.keys()]
    for begin in range(0, len(ids), PAGE_SIZE):
        batch = ids[begin : begin + PAGE_SIZE]
        completions = Completion.objects.select_related("prompt").in_bulk(batch)
        for completion in (completions[pk] for pk in batch if pk in completions):
            attributes = by_completion[completion.pk].items()
            yield {
                "prompt_id": completion.prompt_id,
                "split": completion.prompt.split,
                "messages": completion.prompt.messages,
                "completion_id": completion.pk,
                "completion": completion.text,
                **({"turns": completion.turns} if completion.turns else {}),
                "ratings": {name: summary(people) for name, people in attributes if name in enough},
            }


def summary(people: People) -> dict[str, Any]:
    """Return the mean rating, the number of raters, and the average rating of each of them."""
    values = [fmean(ratings) for _annotator, ratings in sorted(people.items())]
    return {"mean": fmean(values), "raters": len(values), "values": values}


def people_by_completion(rankings: QuerySet[Ranking]) -> dict[int, dict[str, People]]:
    """Return the ratings of every rated completion by attribute and person, in the order of completions."""
    by_completion: dict[int, dict[str, People]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    selected = rankings.exclude(ratings={}).order_by("pk").values_list("pk", "comparison_id", "annotator_id", "ratings")
    after = 0
    while page := list(selected.filter(pk__gt=after)[:PAGE_SIZE]):
        completions = completions_of([comparison for _pk, comparison, *_rest in page])
        for _pk, comparison, annotator, attributes in page:
            for name, values in attributes.items():
                for completion, value in zip(completions[comparison], values, strict=True):
                    if value is not None:
                        by_completion[completion][name][annotator].append(value)
        after = page[-1][0]
    return dict(sorted(by_completion.items()))


def completions_of(comparisons: list[int]) -> dict[int, list[int]]:
    """Return the completion ids of each comparison, in order of position."""
    ids: dict[int, list[int]] = defaultdict(list)
    items = ComparisonItem.objects.filter(comparison_id__in=comparisons).order_by("comparison_id", "position")
    for comparison, completion in items.values_list("comparison_id", "completion_id"):
        ids[comparison].append(completion)
    return ids


# Counted in the database, because the console asks for it at each view and a start while the project is locked.
COUNTS = """
    SELECT attribute.key, count(DISTINCT item.completion_id) FILTER (WHERE prompt.split = 'train')
    FROM feedback_ranking ranking
    CROSS JOIN jsonb_each(ranking.ratings) attribute
    CROSS JOIN jsonb_array_elements(attribute.value) WITH ORDINALITY rating (value, place)
    JOIN feedback_comparisonitem item ON item.comparison_id = ranking.comparison_id AND item.position = rating.place - 1
    JOIN feedback_prompt prompt ON prompt.id = item.prompt_id
    WHERE ranking.id IN ({rankings}) AND rating.value <> 'null'
    GROUP BY attribute.key ORDER BY attribute.key"""


def training_counts(rankings: QuerySet[Ranking]) -> dict[str, int]:
    """Return the number of rated completions of training prompts by attribute, in alphabetical order."""
    try:
        selected, parameters = rankings.exclude(ratings={}).order_by().values("pk").query.sql_with_params()
    except EmptyResultSet:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(COUNTS.format(rankings=selected), parameters)
        return dict(cursor.fetchall())


@needs(RATINGS)
def check_ratings(project: Project, recipe: Recipe, settings: Sections) -> None:
    """Raise Invalid if a reward term is an attribute that the round's reward model will not have."""
    wanted = recipe.rewarded_attributes(settings)
    if not wanted:
        return
    counts = training_counts(trainable_rankings(project))
    least = settings["round"]["min_rated_completions"]
    enough = [name for name, count in counts.items() if count >= least]
    for name in wanted:
        if name not in enough:
            raise Invalid(
                _(
                    'The reward term attribute cannot use "%(name)s": it has ratings of %(count)s completions of '
                    "training prompts, and min_rated_completions asks for %(least)s. "
                    "Attributes with enough: %(enough)s."
                )
                % {"name": name, "count": counts.get(name, 0), "least": least, "enough": ", ".join(enough) or "–"}
            )
    if not settings["reward"]["attribute_weight"]:
        raise Invalid(_("attribute_weight is 0, so the reward model learns no attribute: set it above 0."))
