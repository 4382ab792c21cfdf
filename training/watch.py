"""Versions of what pages that change show: each is read by one small prepared statement.

A page polls its version and fetches its content only when the version differs. A version has two parts: the *state*,
which is shown soon, such as the stage of a round, and the *progress*, such as its step, which may be shown later on a
page that nobody touches.
"""

from typing import NamedTuple

from feedback import statements
from training.checkpoints import checks
from training.models import Checkpoint, Round
from training.workers import rows

ACTIVE = ", ".join(f"'{status}'" for status in Round.ACTIVE)
FIRST_LIVE = f"statement_timestamp() - interval '{rows.DEAD_AFTER.total_seconds()} s'"
FIRST_CHECKED = f"statement_timestamp() - interval '{checks.LOST_AFTER.total_seconds()} s'"
# What the page Machines says, but for figures and times. A waiting round says why it waits, so it has the same state.
MACHINES_STATE = f"""
    concat_ws(';',
        (SELECT string_agg(concat_ws(' ', id, started_at, stopped_at,
                heartbeat_at >= {FIRST_LIVE}), ',' ORDER BY id)
            FROM training_worker),
        (SELECT string_agg(concat_ws(' ', id, status, stage, worker), ',' ORDER BY id)
            FROM training_round WHERE status IN ({ACTIVE})),
        (SELECT string_agg(concat_ws(' ', id, check_worker,
                check_heartbeat_at >= {FIRST_CHECKED}), ',' ORDER BY id)
            FROM training_checkpoint WHERE verdict = '{Checkpoint.Verdict.WAITING}'))"""
ROUND_STATE = f"""
    concat_ws(' ', round.id, status, stage, attempt, cancel_requested_at,
        CASE WHEN status = '{Round.Status.WAITING}' THEN {MACHINES_STATE} END)"""
LAST_STEP = """
    (SELECT max(step) FROM training_metric AS line WHERE line.round_id = round.id AND line.job = round.stage)"""

STATEMENTS = {
    "machines": f"SELECT {MACHINES_STATE}, (SELECT max(heartbeat_at) FROM training_worker)::text WHERE %s > 0",
    "round": f"""
        SELECT {ROUND_STATE}, concat_ws(' ', {LAST_STEP}, md5(log_tail),
            (SELECT max(sample.id) FROM training_sampleatstep AS sample WHERE sample.round_id = round.id))
        FROM training_round AS round WHERE round.id = %s""",
    "loop": f"""
        SELECT {ROUND_STATE}, {LAST_STEP}::text FROM training_round AS round
        WHERE project_id = %s AND status IN ({ACTIVE})""",
    "checks": f"""
        SELECT concat_ws(';', string_agg(concat_ws(' ', id, verdict, check_heartbeat_at IS NULL), ',' ORDER BY id),
            {MACHINES_STATE}), ''
        FROM training_checkpoint WHERE project_id = %s""",
    "trial": """
        SELECT ended_at::text, (
            SELECT concat_ws(' ', count(*), max(ranking.id))
            FROM feedback_ranking AS ranking JOIN feedback_comparison AS comparison ON comparison.id = comparison_id
            WHERE trial_id = trial.id)
        FROM feedback_trial AS trial WHERE id = %s""",
}


class Version(NamedTuple):
    state: str
    progress: str


def version_of(kind: str, pk: int) -> Version:
    """Return the version of a page; an empty one if what it shows is not there any more.

    kind: a key of STATEMENTS. pk: of the round or trial, or of the project of a loop or of checks; any for machines.
    """
    (row,) = statements.run(STATEMENTS[kind], [pk]) or (("", ""),)
    return Version(row[0] or "", row[1] or "")
