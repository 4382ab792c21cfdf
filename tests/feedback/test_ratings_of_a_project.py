"""The rankings of a project that the ratings of its sources use."""

import itertools
import math

import numpy as np
import pytest

from feedback import imports
from feedback.models import Completion, Ranking
from feedback.quality import ratings
from feedback.quality.ratings import (
    ranked_sources,
)
from tests.factories import adjudicate, membership, person, rank_by_position, rank_next
from tests.feedback.rating_worlds import ranking


@pytest.mark.django_db
class TestProject:
    def test_one_query_reads_the_sources_of_all_live_rankings(self, ann, project, work, django_assert_num_queries):
        work(6, size=3)
        for _ in range(6):
            rank_next(ann)
        with django_assert_num_queries(1):
            result = ratings.rate(project)
        assert (result.prompts, result.annotators, result.preferences) == (6, 1, 18)
        expected = np.zeros((3, 3), int)
        for row in Ranking.objects.prefetch_related("comparison__items__completion"):
            sources = [item.completion.source_id for item in row.comparison.items.order_by("position")]
            for i, j in itertools.permutations(range(3), 2):
                one, other = result.sources.index(sources[i]), result.sources.index(sources[j])
                expected[one, other] += row.ranks[i] < row.ranks[j]
        assert result.wins == expected.tolist()

    def test_a_flag_that_means_not_for_training_does_not_take_a_ranking_out(self, ann, project, work):
        project.flags = ["off topic"]
        project.save()
        work(1)
        rank_next(ann, flags=["off topic"])
        assert ratings.rate(project).preferences == 1

    def test_gold_is_left_out(self, ann, project):
        completions = [{"text": text, "source": text} for text in ("good", "bad")]
        (ids,) = imports.add_prompts(project, [{"prompt": "gold", "completions": completions}]).completion_ids
        imports.add_gold(project, [{"completion_ids": ids, "ranks": [1, 2]}])
        project.qualification_items = 1
        project.save()
        assert rank_next(ann).comparison.gold_ranks == [1, 2]
        assert ratings.rate(project).preferences == 0

    def test_extra_rankings_on_disagreement_are_left_out(self, project, work):
        project.extra_rankings = 1
        project.save()
        work(1, wanted_rankings=2)
        members = [membership(person(project, name, "annotator"), project) for name in ("a", "b", "c")]
        for member, ranks in zip(members, ([1, 2], [2, 1], [1, 2]), strict=True):
            rank_by_position(member, ranks)
        assert Ranking.objects.filter(reason="disagreement").count() == 1
        result = ratings.rate(project)
        assert (result.preferences, result.wins) == (2, [[0, 1], [1, 0]])

    def test_an_overruled_ranking_is_rated_and_the_adjudication_is_not(self, ann, mona, project, work):
        (comparison,) = work(1)
        rank_by_position(ann, [1, 2])
        adjudicate(mona, comparison, [2, 1])
        first, second = comparison.items.order_by("position").values_list("completion__source_id", flat=True)
        (row,) = ranked_sources.read(project)
        assert (row.annotator_id, list(row.ranks), list(row.sources)) == (ann.user_id, [1, 2], [first, second])

    def test_the_style_of_a_completion_is_the_logarithm_of_its_length(
        self, ann, project, work, django_assert_num_queries
    ):
        (comparison,) = work(1, size=3)
        Completion.objects.filter(items__comparison=comparison, items__position=1).update(text="")
        rank_next(ann)
        with django_assert_num_queries(1):
            (row,) = ranked_sources.read(project, with_style=True)
        lengths = comparison.items.order_by("position").values_list("completion__text", flat=True)
        assert list(row.style[0]) == pytest.approx([math.log(len(text) + 1) for text in lengths])
        assert row.style[0][1] == 0

    def test_the_style_of_a_completion_counts_its_markdown(self, ann, project, work):
        texts = [
            "# Title\n\n## Part\ntext # no heading\n    # code\n- one\n  * two\n3. three\n1.5 is no item\n",
            "plain **bold** and __bold__ but 2 ** 3 and snake__case\n-no item\n#no heading",
        ]
        (comparison,) = work(1)
        for position, text in enumerate(texts):
            Completion.objects.filter(items__comparison=comparison, items__position=position).update(text=text)
        rank_next(ann)
        (row,) = ranked_sources.read(project, with_style=True)
        counts = {
            name: [round(math.exp(value) - 1) for value in values]
            for name, values in zip(ranked_sources.STYLE_NAMES, row.style, strict=True)
        }
        assert counts == {
            "log_length": [len(text) for text in texts],
            "log_headings": [2, 0],
            "log_list_items": [3, 0],
            "log_bold": [0, 2],
        }

    def test_formatting_in_which_few_pairs_differ_is_left_out(self):
        rows = [
            ranking(0, 1, 1 if n % 3 else -1, prompt=n, style=[[n % 5, 0], [float(n < 40), 0], [0, 0], [0, 0]])
            for n in range(90)
        ]
        often = ratings.rate_rankings(rows, ranked_sources.STYLE_NAMES)
        assert [one.value is None for one in often.style] == [False, False, True, True]
        first = [row._replace(style=[*row.style[:1], [float(n == 1), 0], *row.style[2:]]) for n, row in enumerate(rows)]
        rare = ratings.rate_rankings(first, ranked_sources.STYLE_NAMES)
        alone = ratings.rate_rankings([row._replace(style=row.style[:1]) for row in rows], ["log_length"])
        assert [one.value is None for one in rare.style] == [False, True, True, True]
        assert rare.ratings == alone.ratings
