"""Malformed files, made from good ones by a seeded random generator: refused with a sentence, never half stored."""

import gzip
import json
import random

import pytest

from feedback.imports import uploads
from feedback.models import Completion, Import, Prompt, Ranking
from tests.factories import URL, client_of

pytestmark = [pytest.mark.slow, pytest.mark.django_db]

FILES = 40  # of one seed: a test is one transaction
SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.full) for seed in range(1, 125))]  # 5,000 files
GOOD = [
    {"prompt": "Why?", "chosen": "Because.", "rejected": "No."},
    {"prompt": [{"role": "user", "content": "Hi"}], "completion": [{"role": "assistant", "content": "y"}], "label": 1},
    {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"},
    {"messages": [{"role": "user", "content": "x"}], "completions": ["a", {"text": "b", "source": "m"}]},
    {"instruction": "x", "input": "", "chosen": "a", "rejected": "b"},
    {"prompt": "x", "responses": ["a", "b"], "ranking": [1, 2], "annotator": "p"},
    {"conversation_a": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}],
     "conversation_b": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "z"}],
     "winner": "model_a", "judge": "j", "model_a": "m", "model_b": "n", "question_id": "1"},
    {"input": {"messages": [{"role": "user", "content": "x"}]},
     "preferred_output": [{"role": "assistant", "content": "a"}],
     "non_preferred_output": [{"role": "assistant", "content": "b"}]},
]  # fmt: skip
ODD = [
    None,
    True,
    0,
    -1,
    1e308,
    10**30,
    "",
    " ",
    "\x00",
    "\ud800",
    "=1",
    [],
    [[]],
    {},
    {"role": 3},
    ["a"] * 12,
    "[",
    "{}",
]


def damaged(value: object, chance: random.Random) -> object:
    """Return a copy of a row with some of its values replaced, removed or nested."""
    if chance.random() < 0.12:
        return chance.choice([*ODD, [value], {"text": value}])
    if isinstance(value, dict):
        kept = {name: damaged(item, chance) for name, item in value.items() if chance.random() > 0.06}
        return kept | ({chance.choice(list(value)): chance.choice(ODD)} if value and chance.random() < 0.1 else {})
    return [damaged(item, chance) for item in value] if isinstance(value, list) else value


def malformed(chance: random.Random) -> bytes:
    """Return a file with damaged rows, and sometimes with damaged bytes."""
    rows = [damaged(chance.choice(GOOD), chance) for _ in range(chance.randint(1, 4))]
    text = "\n".join(json.dumps(row) for row in rows) if chance.random() < 0.7 else json.dumps(rows)
    content = text.encode()
    if chance.random() < 0.1:
        content = b"prompt,chosen,rejected\n" + chance.choice([b'"a,b', b"a,b,c,d\n", b"\xff,a,b\n", b"a,b\r\n"])
    if chance.random() < 0.25 and content:
        at = chance.randrange(len(content))
        content = content[:at] + bytes(chance.choices(range(256), k=chance.randint(0, 4))) + content[at + 1 :]
    if chance.random() < 0.1:
        content = gzip.compress(content)
        content = content[: chance.randint(2, len(content))]
    return content


@pytest.fixture(autouse=True)
def _own_folder(settings, tmp_path):
    settings.DATA_DIR = tmp_path


@pytest.mark.parametrize("seed", SEEDS)
def test_malformed_files_are_refused_with_a_sentence_and_leave_nothing_half_stored(project, manager, seed):
    chance = random.Random(seed)
    api = client_of(manager)
    api.raise_request_exception = False
    for number in range(FILES):
        content, strict = malformed(chance), chance.random() < 0.5
        before = _stored()
        answer = api.post(f"{URL}/imports?strict={str(strict).lower()}", content, content_type="text/plain")
        assert answer.status_code in (201, 400), (number, content, answer.content)
        if answer.status_code == 400:
            assert answer.json()["message"] and _stored() == before, (number, content)
            continue
        made, report = answer.json(), answer.json()["report"]
        assert all(error["reason"] for error in report["errors"]), (number, content)
        if made["state"] == "failed":
            assert report["stopped"] and (not strict or _stored() == before), (number, content)
        else:
            assert not (strict and report["errors"]), (number, content)
            assert report["rows"] == report["imported"] + report["unchanged"] + report["error_count"], (number, content)
    assert not Import.objects.exclude(state__in=["finished", "failed"]).exists()
    assert list(uploads.folder().iterdir()) == []


def _stored() -> list[int]:
    return [model.objects.count() for model in (Prompt, Completion, Ranking)]
