"""Each export format, imported again into another project, gives the same rankings by as many people."""

from collections import Counter
from io import StringIO

import pytest
from django.core.management import call_command

from feedback import imports
from feedback.export import ranking_record
from feedback.export.formats import FORMATS
from feedback.models import Project
from tests.factories import rank_next

pytestmark = pytest.mark.django_db

CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hello! How can I help?"},
    {"role": "user", "content": "Cancel my order."},
]
ROWS = [
    {"prompt": "Name a prime.", "completions": ["7", "A number\n\nwith two lines", "4"]},
    {"messages": CONVERSATION, "completions": ["It is cancelled.", "No.", "Which one?"]},
    {"prompt": 'Quotes " and, commas\nin lines?', "completions": ["Ja – “so” 😀", "", "…"]},
]
# Formats of pairs cannot say that three completions were ranked together; they come back as pairs.
OF_PAIRS = {"trl", "trl-implicit", "trl-standard", "hh", "openai-dpo", "arena"}
WITHOUT_TIES = OF_PAIRS - {"arena"}
NO_TIES = {"argilla"}  # whose lists cannot express one; such rankings are left out
NAMES_NOBODY = {"openai-dpo"}  # two people's opinions of one comparison cannot be told apart
# Prompts of several messages come back as one text.
AS_TEXT = {"trl-standard", "argilla", "label-studio"}


def prompt_of(row, as_text):
    if not as_text or len(row["messages"]) == 1:
        return tuple((message["role"], message["content"]) for message in row["messages"])
    speakers = {"system": "System", "user": "Human", "assistant": "Assistant"}
    turns = "".join(f"\n\n{speakers[message['role']]}: {message['content']}" for message in row["messages"])
    return (("user", f"{turns}\n\nAssistant: "),)


def orders_of(project, name):
    """Return who ranked what how: as sets of completions from the best to the worst, or as pairs."""
    found = Counter()
    for row in ranking_record.rankings(project):
        who = None if name in NAMES_NOBODY else row["annotator"]
        prompt = prompt_of(row, name in AS_TEXT)
        ranked = sorted(zip(row["ranks"], row["completions"], strict=True))
        if name not in OF_PAIRS:
            steps = sorted({rank for rank, _text in ranked})
            found[who, prompt, *(tuple(text for rank, text in ranked if rank == step) for step in steps)] += 1
            continue
        for place, (rank, text) in enumerate(ranked):
            for other_rank, other in ranked[place + 1 :]:
                if rank < other_rank:
                    found[who, prompt, text, other] += 1
                elif name not in WITHOUT_TIES:
                    found[who, prompt, "tie", *sorted((text, other))] += 1
    return found


def without_names(orders):
    """Replace pseudonyms, which differ between projects, by what they ranked."""
    by_person = {}
    for (who, *order), count in orders.items():
        by_person.setdefault(who, Counter())[tuple(order)] += count
    return sorted(tuple(sorted(each.items())) for each in by_person.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(FORMATS) - {"kto"}))
def test_an_export_that_is_imported_again_gives_the_same_rankings(project, ann, cole, tmp_path, name):
    project.wanted_rankings = 2
    project.save()
    imports.add_prompts(project, ROWS, compare=True)
    second = ([1, 2, 3], [3, 2, 1], [2, 1, 3]) if name in NO_TIES else ([1, 2, 2], [3, 2, 1], [1, 1, 1])
    for ranks in ([2, 1, 3], [1, 3, 2], [1, 2, 3]):
        assert rank_next(ann, ranks)
    for ranks in second if name not in NAMES_NOBODY else ():
        assert rank_next(cole, ranks)
    before = without_names(orders_of(project, name))
    file = tmp_path / f"{name}.jsonl"
    with file.open("w") as out:
        call_command("export", "support", "--format", name, "--split", "all", stdout=out, stderr=StringIO())
    other = Project.objects.create(slug="other", name="Another project")
    call_command("load", "other", str(file), stdout=StringIO(), stderr=StringIO())
    assert without_names(orders_of(other, name)) == before
