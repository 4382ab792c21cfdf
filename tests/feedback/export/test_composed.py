"""Lines that PostgreSQL composes: those of the format's function, byte for byte."""

import json
from uuid import uuid4

import pytest

from feedback import imports
from feedback.actions import rankings
from feedback.export import composed, files, formats, ranking_record
from feedback.models import Prompt, Ranking
from feedback.reports import preference_export
from tests.factories import add_work, adjudicate, rank_next

pytestmark = pytest.mark.django_db
HOSTILE = "".join(map(chr, range(1, 160))) + '"\\/</script>\u2028\ufeff\ufffd\U0001f9d1\u200d %s {} \\u0000 素'
DIALOGUE = [
    {"role": "assistant", "content": HOSTILE},
    {"role": "user", "content": "\\"},
    {"role": "assistant", "content": ""},
]


@pytest.fixture
def record(ann, mona, project):
    """Rankings with all that a line depends on: texts, dialogues, ties, strength, settled, external ids, splits."""
    messages = [{"role": "system", "content": HOSTILE}, {"role": "user", "content": "Prime?"}]
    completions = [
        {"turns": DIALOGUE, "source": f'a"{HOSTILE[40:90]}'},
        {"text": HOSTILE, "source": "b\\"},
        {"text": " 7\n", "source": "c"},
    ]
    row = {"messages": messages, "external_id": 'q-"1', "completions": completions}
    imports.add_prompts(project, [row, {"prompt": "Pair?", "completions": completions[1:]}], compare=True)
    add_work(project, 4, size=4)
    made = []
    while ranking := rank_next(ann, seconds=0.5):
        made.append(ranking)
    Ranking.objects.filter(size=2).update(strength=3)
    for ranking in made[:3]:
        ranks = [2, 1, 2, 3][: ranking.size]
        rankings.revise_ranking(ann, ranking.pk, ranks, idempotency_key=uuid4(), seconds=1.0)
    adjudicate(mona, made[4].comparison, list(range(made[4].size, 0, -1)))
    Prompt.objects.filter(pk=made[5].comparison.prompt_id).update(split="held_out")
    return {ann.user_id: 0.81}


def written(project, name, **options):
    """The lines of the format's function."""
    return b"".join(files.encoded(formats.lines(project, name, **options), "jsonl", None))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(composed.STATEMENTS))
def test_composed_lines_are_those_of_the_format(record, project, name, monkeypatch):
    until = ranking_record.sequence_cutoff(project)
    for choice in ({}, {"split": "train"}, {"reliability": record}, {"reliability": {}}, {"include_flagged": True}):
        expected = written(project, name, until=until, **choice)
        assert b"".join(composed.composed(project, name, until, **choice)) == expected
    assert len(expected.splitlines()) > 6
    assert HOSTILE in [message["content"] for line in expected.splitlines() for message in _messages(json.loads(line))]
    monkeypatch.setattr(composed, "PAGE_SIZE", 1)
    monkeypatch.setattr(composed, "CHUNK", 1)
    assert b"".join(composed.composed(project, name, until, include_flagged=True)) == expected


def _messages(line):
    return [message for name in ("completion", "chosen", "rejected") for message in line.get(name, [])]


@pytest.mark.slow
def test_an_export_from_the_beginning_is_composed_and_others_are_written(record, project, monkeypatch):
    monkeypatch.setattr(composed, "composed", lambda *arguments, **choice: iter([b"composed"]))
    export = preference_export.export
    assert b"".join(export(project, "trl").content()) == b"composed"
    assert b"".join(export(project, "kto", until=3, split="all").content()) == b"composed"
    for options in ({"after": 1}, {"file": "parquet"}, {"ties": "rows"}, {"aggregated": True}, {"weights": "resample"}):
        assert b"".join(export(project, "trl", **options).content()) != b"composed"
    assert b"".join(export(project, "hh").content()) != b"composed"
