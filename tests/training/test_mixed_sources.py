"""Mixtures of sources: shares of comparisons, what a round stores, and what people see of it."""

import ipaddress
from collections import Counter

import pytest

from feedback import imports
from feedback.errors import Conflict, Invalid
from feedback.models import Comparison, ComparisonItem, Prompt, Source
from feedback.queue.blinding import display_order
from tests.factories import FAST, fake_model
from training import checkpoints
from training.endpoints import records
from training.learner.runtime.jobdir import BadInput
from training.models import Round
from training.rounds import inputs, lifecycle, results
from training.rounds.sources import compositions, most_of, read_sources
from training.rounds.start import settings_of_repeat, start_round, start_sampling
from training.run_round import jobs

MIXTURE = {"new": 2, "served": 1, "endpoint:x": 1}
WORDS = ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliet", "kilo"]


@pytest.fixture
def endpoint(project, settings):
    settings.ENDPOINT_NETWORKS = [ipaddress.ip_network("127.0.0.0/8")]
    values = {"name": "x", "url": "http://127.0.0.1:9/v1", "model": "tiny", "key": "sk-hidden"}
    return records.create(project, values, None)


@pytest.mark.parametrize(
    ("mixture", "size"),
    [
        (MIXTURE, 4),
        (MIXTURE, 2),
        (MIXTURE, 3),
        ({"new": 1, "served": 1, "checkpoint:a": 1, "endpoint:x": 1}, 2),
        ({"new": 7, "endpoint:x": 2, "endpoint:y": 1}, 2),
        ({"new": 1, "served": 1}, 9),
    ],
)
def test_the_shares_of_a_thousand_comparisons_are_those_of_the_setting(mixture, size):
    sources = read_sources(mixture)
    made = compositions(range(1000), sources, size, seed=3)
    shares = Counter()
    for counts in made.values():
        assert sum(counts.values()) == size
        assert all(counts[source.key] <= most_of(source, sources, size) for source in sources)
        shares.update(counts)
    for source in sources:
        wanted = 1000 * size * source.count / sum(mixture.values())
        assert shares[source.key] == pytest.approx(wanted, abs=len(sources))
    if sum(mixture.values()) == size:
        assert all(dict(counts) == mixture for counts in made.values())


def test_every_pair_of_equal_sources_is_compared():
    sources = read_sources({"new": 1, "served": 1, "checkpoint:a": 1, "endpoint:x": 1})
    made = compositions(range(600), sources, 2, seed=1)
    pairs = Counter(tuple(key for key, count in counts.items() if count) for counts in made.values())
    assert len(pairs) == 6 and min(pairs.values()) > 60


@pytest.mark.parametrize(
    ("mixture", "message"),
    [
        ({"served": 1}, '"new"'),
        ({"new": 1, "other": 1}, "'other'"),
        ({"new": 1, "endpoint:": 1}, "'endpoint:'"),
        ({"new": 0}, "whole number"),
        ({"new": True}, "whole number"),
        ({"new": 1.5}, "whole number"),
        ({"new": {"count": 1, "temperature": -1}}, "temperature"),
        ({"new": {"count": 1, "temperature": "hot"}}, "temperature"),
        ({"new": {"count": 1, "top_k": 1}}, "'top_k'"),
        ({"new": 1} | {f"endpoint:{n}": 1 for n in range(9)}, "at most 9"),
    ],
)
def test_a_mixture_that_cannot_be_used_is_refused(mixture, message):
    with pytest.raises(BadInput, match=message):
        read_sources(mixture)


@pytest.mark.slow
def test_each_source_has_its_job_with_its_number_temperature_and_prompts(project, base, rankings, manager, endpoint):
    mixture = {**MIXTURE, "endpoint:x": {"count": 1, "temperature": 0.3}}
    started = start_round(project, manager, {"round": {"sources": mixture, "spare_completions": 1}})
    described = {job.name: job for job in started.jobs if job.stage.name == "samples"}
    assert list(described) == ["samples", "source_1", "source_2", "baseline"]
    assert [described[name].settings["completions_per_prompt"] for name in described] == [3, 2, 2, 1]
    assert started.settings["round"]["sources"]["served"] == {"count": 1, "checkpoint": "base"}
    assert jobs.models(started, described["source_1"])["model"] == base.path
    config = jobs.JobDirectory(jobs.fill(started, described["source_2"])).config()
    assert config == {
        "endpoint": "x", "completions_per_prompt": 2, "temperature": 0.3, "top_p": 1.0, "max_completion_tokens": 256
    }  # fmt: skip
    assert not any("hidden" in file.read_text() for file in jobs.directory_of(started).rglob("*.json*"))
    rows = list(inputs.ROWS["prompts_to_answer"](started, described["source_1"], {}))
    assert len(rows) == 20 and {row["compared"] for row in rows} == {1}
    repeated = settings_of_repeat(started)["round"]["sources"]
    assert repeated == mixture  # a repeat names the checkpoint that is served then


@pytest.mark.full
@pytest.mark.slow
def test_a_mixture_of_what_is_not_there_starts_no_round(project, base, comparisons, endpoint):
    def refused(sources):
        with pytest.raises((Invalid, Conflict)) as caught:
            start_sampling(project, None, {"round": {"sources": sources}})
        return caught.value.message

    assert 'no endpoint "y"' in refused({"new": 1, "endpoint:y": 1})
    assert 'no checkpoint "y"' in refused({"new": 1, "checkpoint:y": 1})
    user = {"name": "dialogue", "user": "script", "lines": ["Why?"]}
    with pytest.raises(Invalid, match="answers once"):
        start_sampling(project, None, {"round": {"sources": {"new": 1, "endpoint:x": 1}}, "ppo": {"environment": user}})
    started = start_sampling(project, None, {"round": {"sources": {"new": 1, "endpoint:x": 1}}})
    with pytest.raises(Conflict, match="uses this endpoint"):
        records.remove(endpoint)
    lifecycle.request_cancel(started)


@pytest.mark.slow
def test_any_checkpoint_writes_completions_as_a_source(project, base, comparisons, tmp_path):
    other = checkpoints.import_checkpoint(project, str(fake_model(tmp_path / "other")), "other", verdict=FAST)
    started = start_sampling(project, None, {"round": {"sources": {"new": 1, "served": 1}}}, other)
    assert started.base == other and started.settings["round"]["sources"]["served"]["checkpoint"] == "base"
    lifecycle.request_cancel(started)
    named = start_sampling(project, None, {"round": {"sources": {"new": 1, "checkpoint:other": 1}}})
    (job,) = [job for job in named.jobs if job.source == "checkpoint:other"]
    assert jobs.models(named, job)["model"] == other.path
    with pytest.raises(Conflict):
        checkpoints.retire(other, None)


def finished(round_, texts):
    """End a round of a mixture with so many distinct texts of each source for each prompt."""
    outcome = results.Outcome("/models/new" if round_.learns else "", "", [], [])
    rows, wanted = {}, {}
    for job in (job for job in round_.jobs if job.source):
        rows[job.source] = []
        for row in inputs.ROWS["prompts_to_answer"](round_, job, {}):
            if row["compared"]:
                wanted.setdefault(row["prompt_id"], {})[job.source] = row["compared"]
            for number in range(job.settings["completions_per_prompt"]):
                text = texts(job.source, row["prompt_id"], number)
                rows[job.source].append({"prompt_id": row["prompt_id"], "text": text, "sampling": {}})
    new = rows.pop("new")
    outcome = results.replace(outcome, samples=new, mixed=rows, wanted=wanted)
    lifecycle.finish(lifecycle.claim(round_.pk, "gpu-1:100"), outcome)
    return Round.objects.get(pk=round_.pk)


def different(source, prompt_id, number):
    chosen = [WORDS[(prompt_id * 7 + number * 5 + place * len(source)) % len(WORDS)] for place in range(4)]
    return f"{source} {number} {' '.join(chosen)} {prompt_id}"


@pytest.mark.full
@pytest.mark.slow
def test_a_thousand_comparisons_of_real_rounds_have_the_shares_of_the_setting(project, base, endpoint, annotator):
    imports.add_prompts(project, [{"prompt": f"Prompt {number}"} for number in range(1000)])
    changes = {"round": {"sources": MIXTURE, "prompts": 1000, "comparison_size": 2}}
    done = finished(start_sampling(project, None, changes), different)
    assert done.results["comparisons"] == {"near_duplicates": 0, "smaller": 0, "dropped": 0}
    assert Comparison.objects.filter(project=project, size=2).count() == 1000
    items = ComparisonItem.objects.filter(comparison__project=project)
    shares = Counter(items.values_list("completion__text", flat=True).iterator())
    by_source = Counter()
    for text, count in shares.items():
        by_source[text.split()[0]] += count
    for key, count in MIXTURE.items():
        assert by_source[key] == pytest.approx(2000 * count / 4, rel=0.02)


@pytest.mark.slow
def test_a_near_duplicate_of_another_source_gives_way_to_a_spare_completion(project, base, comparisons, endpoint):
    prompts = set(Prompt.objects.filter(project=project).values_list("pk", flat=True))
    changes = {"round": {"sources": MIXTURE, "spare_completions": 1}}
    started = start_sampling(project, None, changes)
    before = set(Comparison.objects.values_list("pk", flat=True))

    def texts(source, prompt_id, number):
        return "The same." if number == 0 else different(source, prompt_id, number)

    done = finished(started, texts)
    new = Comparison.objects.exclude(pk__in=before)
    assert {comparison.prompt_id for comparison in new} == prompts
    sources = Counter()
    for comparison in new:
        assert len(set(comparison.texts())) == 4
        sources.update(text.split()[0] for text in comparison.texts())
    assert done.results["comparisons"] == {"near_duplicates": 2 * len(prompts), "smaller": 0, "dropped": 0}
    # The first text is of the source whose turn it is: no source always yields.
    firsts = [comparison.items.get(completion__text="The same.").completion.source.name for comparison in new]
    assert set(firsts) == {"base", "endpoint:x"}


@pytest.mark.full
@pytest.mark.slow
def test_annotators_learn_nothing_of_the_sources(project, base, comparisons, endpoint, client, annotator):
    changes = {"round": {"sources": {"new": 1, "endpoint:x": 1}, "comparison_size": 2}}
    finished(start_sampling(project, None, changes), lambda source, pk, n: f"{'ab'[source == 'new']} {pk} text")
    new = Comparison.objects.filter(items__completion__source=endpoint.source)
    first = Counter()
    for comparison in new:
        kinds = [item.completion.source.kind for item in comparison.items.order_by("position")]
        first.update(kinds[display_order(project, comparison.pk, person, 2)[0]] for person in range(1, 31))
    assert 0.4 < first[Source.Kind.ENDPOINT] / first.total() < 0.6
    client.force_login(annotator)
    page = client.get("/projects/support/rank/").content.decode()
    assert "endpoint" not in page and "base" not in page
