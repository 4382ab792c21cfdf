"""Curves of a round's metrics: thinned in the database, without losing an extreme."""

import json
import math
import random

import pytest
from django.db import connection

from tests.factories import URL, client_of
from tests.lengths import length
from training import curves
from training.models import Metric

pytestmark = pytest.mark.slow

STEPS = length(100_000, 5_000)


def write(round_, job: str, series: dict[str, list[float]]) -> None:
    rows = [
        Metric(round=round_, job=job, step=step, values=dict(zip(series, values, strict=True)))
        for step, values in enumerate(zip(*series.values(), strict=True), 1)
    ]
    Metric.objects.bulk_create(rows)


def of(round_, names, **options):
    found = curves.thinned(round_, names, curves.last_id(round_), **options)
    return {(curve["job"], curve["metric"]): curve for curve in found}


def test_a_short_curve_is_whole(waiting):
    write(waiting, "policy", {"reward": [0.5, -1.25, 3.0]})
    (curve,) = curves.thinned(waiting, {"policy": ["reward", "kl"]}, curves.last_id(waiting))
    assert (curve["job"], curve["metric"]) == ("policy", "reward")
    assert (curve["steps"], curve["values"], curve["means"]) == ([1, 2, 3], [0.5, -1.25, 3.0], [])


def test_thinning_keeps_the_extremes_of_every_column_and_both_ends(waiting):
    draw = random.Random(3)
    values = [draw.gauss(0, 1) for _ in range(1000)]
    values[517], values[518] = 40.0, -40.0
    write(waiting, "policy", {"reward": values})
    curve = of(waiting, {"policy": ["reward"]}, columns=25)["policy", "reward"]
    kept = dict(zip(curve["steps"], curve["values"], strict=True))
    assert list(kept) == sorted(kept) and len(kept) <= 2 * 25 + 2
    assert all(kept[step] == pytest.approx(values[step - 1], rel=1e-5) for step in kept)
    assert {1, 1000} <= set(kept)
    for begin in range(0, 1000, 40):
        column = values[begin : begin + 40]
        in_column = [value for step, value in kept.items() if begin < step <= begin + 40]
        assert min(in_column) == pytest.approx(min(column), rel=1e-5)
        assert max(in_column) == pytest.approx(max(column), rel=1e-5)
    assert [count for _step, _mean, count in curve["means"]] == [40] * 25
    expected = [math.fsum(values[begin : begin + 40]) / 40 for begin in range(0, 1000, 40)]
    assert [mean for _step, mean, _count in curve["means"]] == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_a_range_of_steps_is_read_more_finely(waiting):
    write(waiting, "policy", {"reward": [math.sin(step) for step in range(1000)]})
    curve = of(waiting, {"policy": ["reward"]}, columns=25, span=curves.Span(301, 340))["policy", "reward"]
    assert curve["steps"] == list(range(301, 341)) and curve["means"] == []


def test_values_that_few_steps_have_are_kept(waiting):
    rows = [{"loss": 1.0} | ({"held_out_loss": step / 1000} if step % 250 == 0 else {}) for step in range(1, 1001)]
    Metric.objects.bulk_create(
        Metric(round=waiting, job="reward", step=step, values=values) for step, values in enumerate(rows, 1)
    )
    held_out = of(waiting, {"reward": ["loss", "held_out_loss"]}, columns=10)["reward", "held_out_loss"]
    assert (held_out["steps"], held_out["values"]) == ([250, 500, 750, 1000], [0.25, 0.5, 0.75, 1.0])


def test_a_page_view_of_a_hundred_thousand_steps_costs_kilobytes(waiting):
    names = curves.names_of(waiting)
    metrics = {job: dict.fromkeys(wanted, 0.0) for job, wanted in names.items()}
    with connection.cursor() as cursor:
        for job, values in metrics.items():
            cursor.execute(
                """INSERT INTO training_metric (round_id, job, step, values)
                SELECT %s, %s, step, (SELECT jsonb_object_agg(name, sin(step * length(name)) * 1.2345678)
                    FROM unnest(%s::text[]) name) FROM generate_series(1, %s) step""",
                [waiting.pk, job, list(values), STEPS if job == "policy" else 100],
            )
    found = curves.thinned(waiting, names, curves.last_id(waiting), columns=150)
    assert {(curve["job"], curve["metric"]) for curve in found} == {
        (job, name) for job, wanted in names.items() for name in wanted
    }
    assert len(json.dumps(found, separators=(",", ":"))) < 250_000


def test_the_api_returns_the_thinned_curves_of_the_page_and_then_newer_values(waiting, manager):
    api = client_of(manager)
    write(waiting, "policy", {"reward": [math.sin(step) for step in range(500)], "kl": [1 / 3] * 500})
    answer = api.get(f"{URL}/rounds/1/curves", {"points": 22}).data
    assert (answer["is_whole"], answer["ended"], answer["after"]) == (True, False, curves.last_id(waiting))
    shown = of(waiting, curves.names_of(waiting), columns=10)
    got = {(curve["job"], curve["metric"]): (curve["steps"], curve["values"]) for curve in answer["curves"]}
    assert got == {place: (curve["steps"], curve["values"]) for place, curve in shown.items()}
    assert all(len(steps) <= 22 for steps, _values in got.values()) and got["policy", "kl"][1][0] == 0.333333
    Metric.objects.create(round=waiting, job="policy", step=501, values={"reward": 2.5, "total": 9})
    newer = api.get(f"{URL}/rounds/1/curves", {"after": answer["after"]}).data
    assert newer["curves"] == [{"job": "policy", "metric": "reward", "steps": [501], "values": [2.5]}]
    assert newer["is_whole"] is False
    assert api.get(f"{URL}/rounds/1/curves", {"after": newer["after"]}).data == {**newer, "curves": []}


def test_the_api_reads_a_range_of_one_jobs_curves_and_whole_ones_after_too_many_steps(waiting, manager, monkeypatch):
    api = client_of(manager)
    write(waiting, "policy", {"kl": [0.5] * 9})
    write(waiting, "reward", {"loss": [0.5] * 9})
    part = api.get(f"{URL}/rounds/1/curves", {"job": "policy", "first": 4, "last": 6}).data["curves"]
    assert [(curve["job"], curve["steps"]) for curve in part] == [("policy", [4, 5, 6])]
    monkeypatch.setattr(curves, "MAX_NEW_LINES", 5)
    assert api.get(f"{URL}/rounds/1/curves", {"after": 0}).data["is_whole"]
    assert api.get(f"{URL}/rounds/1/curves", {"job": "dpo"}).status_code == 404
    for query in ({"points": 3}, {"points": 10**6}, {"after": 1, "first": 2}, {"steps": 5}):
        assert api.get(f"{URL}/rounds/1/curves", query).status_code == 400


@pytest.mark.parametrize(
    ("result", "level", "sentence"),
    [
        (None, (None, None, None), "not known before this stage ends"),
        ({"kl": 1.0}, (None, None, None), "not known"),
        ({"best_objective": None, "best_objective_at_least": 0.25}, (0.25, None, None), "at least 0.25, on"),
        (
            {"best_objective": 1.23456789, "best_objective_low": 1.1, "best_objective_high": 1.36},
            (1.23457, 1.1, 1.36),
            "1.23 (1.1 to 1.36), on",
        ),
    ],
)
def test_the_best_attainable_objective_is_a_level_of_its_chart(waiting, result, level, sentence):
    waiting.results = {} if result is None else {"policy": result}
    (found,) = curves.levels_of(waiting)
    assert (found["job"], found["metrics"]) == ("policy", "objective")
    assert (found["value"], found["low"], found["high"]) == level
    assert f"Best attainable: {sentence}" in found["sentence"]
