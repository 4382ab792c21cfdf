"""The page of ratings and its files, against figures computed independently from the export."""

import csv
import io
import itertools
import json
import math
import re

import numpy as np
import pytest
from scipy import optimize, stats

from feedback import imports
from feedback.quality.ratings import Coefficient
from feedback.reports import source_ratings
from tests.factories import URL, add_work, client_of, membership, person, rank_by_position, rows_of
from tests.feedback.rating_worlds import log_probabilities
from tests.training.rated_rounds import RESULTS, make_rounds, rank_rounds
from training.over_optimisation import Finding, RoundPoint
from training.web import rating_rows
from training.web.views.ratings import CSV_COLUMNS

PAGE = "/projects/support/ratings/"

pytestmark = pytest.mark.django_db


@pytest.fixture
def rated(project, base):
    """Three rounds and 120 rankings by seven annotators."""
    members = [membership(person(project, f"p{n}", "annotator"), project) for n in range(7)]
    checkpoints = make_rounds(project, base)
    rank_rounds(project, members, checkpoints, 120)
    return checkpoints


@pytest.fixture
def text_of(client, manager):
    """Return the text of a page, without markup."""
    client.force_login(manager)

    def read(address):
        response = client.get(address)
        assert response.status_code == 200
        return " ".join(re.sub(r"<[^>]+>", " ", response.content.decode()).split())

    return read


def preferences_of(lines):
    """Pairs of sources from lines of the export: (first, second, sign, prompt, annotator)."""
    pairs = []
    for line in lines:
        for i, j in itertools.combinations(range(len(line["ranks"])), 2):
            sign = int(np.sign(line["ranks"][j] - line["ranks"][i]))
            pairs.append((line["sources"][i], line["sources"][j], sign, line["prompt_id"], line["annotator"]))
    return pairs


def independent_ratings(pairs, names):
    """Ratings and their standard errors by a search, and by derivatives taken by finite differences.

    Two-way clustered sandwich of Cameron, Gelbach and Miller (2011), written out from the paper.
    """
    first = np.array([names.index(pair[0]) for pair in pairs])
    second = np.array([names.index(pair[1]) for pair in pairs])
    outcome = np.array([pair[2] + 1 for pair in pairs])
    clusters = [np.unique(labels, return_inverse=True)[1] for labels in zip(*[pair[3:] for pair in pairs], strict=True)]

    def log_likelihoods(parameters):
        theta = np.append(parameters[:-1], -parameters[:-1].sum())  # mean 0
        logs = log_probabilities(theta[first] - theta[second], np.exp(parameters[-1]))
        return logs[outcome, np.arange(len(outcome))]

    size = len(names)
    best = optimize.minimize(
        lambda parameters: -log_likelihoods(parameters).sum(), np.zeros(size), method="BFGS", options={"gtol": 1e-6}
    ).x

    def scores(parameters):
        steps = 1e-5 * np.eye(size)
        return np.array([(log_likelihoods(parameters + s) - log_likelihoods(parameters - s)) / 2e-5 for s in steps]).T

    steps = 1e-4 * np.eye(size)
    hessian = np.array([(scores(best + s) - scores(best - s)).sum(axis=0) / 2e-4 for s in steps])
    inverse = np.linalg.inv(-(hessian + hessian.T) / 2)
    at_best, total = scores(best), np.zeros((size, size))
    both = np.unique(clusters[0] * 10**6 + clusters[1], return_inverse=True)[1]
    for sign, cluster in ((1, clusters[0]), (1, clusters[1]), (-1, both)):
        count = cluster.max() + 1
        sums = np.array([at_best[cluster == one].sum(axis=0) for one in range(count)])
        total += sign * count / (count - 1) * inverse @ sums.T @ sums @ inverse
    contrast = np.vstack([np.eye(size)[:-1], [*[-1] * (size - 1), 0]])  # the last rating follows from the others
    values = np.append(best[:-1], -best[:-1].sum())
    degrees = min(cluster.max() for cluster in clusters)
    return values, contrast @ total @ contrast.T, stats.t.ppf(0.975, degrees)


def digits_of(value, digits=2):
    return f"{value:z.{digits}f}"  # z: no sign before a zero, as on the page


@pytest.mark.slow
def test_the_figures_of_the_page_are_those_computed_from_the_export(rated, manager, text_of):
    lines = rows_of(client_of(manager).get(f"{URL}/preferences?format=rankings"))
    names = sorted({source for line in lines for source in line["sources"]})
    pairs = preferences_of(lines)
    values, covariance, quantile = independent_ratings(pairs, names)
    page, body = text_of(PAGE), json.loads(client_body(text_of, "ratings.json"))
    for row in body["ratings"]:
        index = names.index(row["source"])
        margin = quantile * math.sqrt(covariance[index, index])
        expected = (values[index], values[index] - margin, values[index] + margin)
        assert (row["value"], row["low"], row["high"]) == pytest.approx(expected, abs=1e-4)
        assert row["rankings"] == sum(row["source"] in line["sources"] for line in lines)
        assert f"{row['source']}" in page
        assert f"{digits_of(row['value'])} {digits_of(row['low'])} to {digits_of(row['high'])}" in page
    root = names.index("base")
    for number, (kl, gain) in enumerate(RESULTS, start=1):
        index = names.index(f"round-000{number}")
        difference = values[index] - values[root]
        variance = covariance[index, index] + covariance[root, root] - 2 * covariance[index, root]
        margin = quantile * math.sqrt(variance)
        point = body["rounds"][number - 1]
        figures = [point["rating"][name] for name in ("value", "low", "high")]
        assert figures == pytest.approx([difference, difference - margin, difference + margin], abs=1e-4)
        wins = [1 / (1 + math.exp(-figure)) for figure in figures]
        row = f"Round {number} {digits_of(kl[0])} {digits_of(kl[1])} to {digits_of(kl[2])} {digits_of(gain[0])}"
        assert row in page
        assert f"{wins[0] * 100:.0f} % {wins[1] * 100:.0f}–{wins[2] * 100:.0f}" in page
    for rate in body["win_rates"]:
        scores = [
            (sign if first == rate["source"] else -sign) / 2 + 0.5
            for first, second, sign, _, _ in pairs
            if {first, second} == {rate["source"], rate["other"]}
        ]
        assert (rate["value"], rate["wins"] + rate["ties"] + rate["losses"]) == (
            pytest.approx(np.mean(scores)),
            len(scores),
        )


def client_body(text_of, name):
    return text_of(f"/projects/support/{name}")


@pytest.mark.slow
def test_slices_style_and_files_show_the_figures_of_the_reports(rated, project, manager, text_of):
    lines = rows_of(client_of(manager).get(f"{URL}/preferences?format=rankings"))
    topics = dict(project.prompts.values_list("pk", "metadata__topic"))
    scores = {"parcels": [], "billing": []}
    for line in lines:
        if set(line["sources"]) == {"base", "round-0002"}:
            ((first, _, sign, prompt_id, _),) = preferences_of([line])
            scores[topics[prompt_id]].append((sign if first == "round-0002" else -sign) / 2 + 0.5)
    page = text_of(f"{PAGE}?source=round-0002&other=base")
    for topic, values in scores.items():
        assert f"topic: {topic} {100 * np.mean(values):.0f} %" in page

    styled = text_of(f"{PAGE}?style=on")
    assert "controlled for style" not in page and "controlled for style" in styled
    assert "one twice as long wins" in page and "one twice as long wins" in styled
    body = json.loads(client_body(text_of, "ratings.json?style=on"))
    best = next(row for row in body["ratings"] if row["source"] == "round-0002")
    assert f"{digits_of(best['value'])} {digits_of(best['low'])} to {digits_of(best['high'])}" in styled
    assert body["style"][0]["name"] == "log_length" and body["style"][0]["low"] is not None
    assert client_of(manager).get(f"{URL}/ratings/rounds?style=true").json() == body["rounds"]


def test_a_source_that_met_no_other_is_shown_as_such(project, manager, annotator, client, text_of):
    completions = [{"text": text, "source": "alone"} for text in ("one", "two")]
    imports.add_prompts(project, [{"prompt": "alone", "completions": completions}], compare=True)
    rank_by_position(membership(annotator, project), [1, 2])
    assert "alone – not compared with the others yet 1" in text_of(PAGE)
    response = client.get("/projects/support/ratings.csv")
    assert "attachment" in response["Content-Disposition"]
    (row,) = csv.DictReader(io.StringIO(response.content.decode()))
    assert row == dict(zip(CSV_COLUMNS, ["alone", "import", "", "disconnected", *[""] * 3, "1", *"000"], strict=True))


def test_the_csv_has_the_ratings(project, ann_and_work, client, manager):
    client.force_login(manager)
    rows = list(csv.DictReader(io.StringIO(client.get("/projects/support/ratings.csv").content.decode())))
    assert [(row["source"], row["wins"], row["losses"]) for row in rows] == [
        ("source-0", "6", "3"),
        ("source-1", "3", "6"),
    ]
    assert float(rows[0]["rating"]) == pytest.approx(math.log(2) / 2)


@pytest.fixture
def ann_and_work(project, annotator):
    """Nine rankings of two sources."""
    add_work(project, 9)
    for n in range(9):
        rank_by_position(membership(annotator, project), [2, 1] if n % 3 == 0 else [1, 2])


def test_a_round_whose_rating_falls_is_said_in_a_sentence():
    gain, rise = Coefficient("gain", 0.3, 0.1, 0.5), Coefficient("rise", -math.log(3), -math.log(9), -math.log(1.5))
    falls, flat, rises = (
        RoundPoint(n, n, "", None, gain, None, None, rise, finding)
        for n, finding in enumerate((Finding.FALLS, Finding.FLAT, Finding.RISES), start=1)
    )
    first, second = rating_rows.finding_sentences([falls, flat, rises])
    assert first.startswith(
        "Round 1 is over-optimised: the reward model's score rises by 0.30, but people's rating falls"
    )
    assert first.endswith("its completions win 25 % (10 % to 40 %) against those it started from.")
    assert second.startswith("Round 2 may be over-optimised")


def test_without_rankings_the_page_says_what_to_do(project, text_of):
    assert "Nothing to rate yet" in text_of(PAGE)


def test_a_long_record_without_stored_ratings_is_explained(project, annotator, text_of, monkeypatch):
    add_work(project, 1)
    rank_by_position(membership(annotator, project), [1, 2])
    monkeypatch.setattr(source_ratings, "MAX_COMPUTED_BY_READER", 0)
    assert "A worker is computing the ratings" in text_of(PAGE)
    source_ratings.take_snapshot(project)
    assert "won every preference" in text_of(PAGE)


def test_the_page_takes_no_post(client, manager):
    client.force_login(manager)
    assert client.post(PAGE).status_code == 405
