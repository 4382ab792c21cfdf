"""Migrations run forwards and backwards, and remove everything they made."""

import psycopg
import pytest

from tests.config.test_postgres import using
from tests.config.test_setup import manage

pytestmark = pytest.mark.process

LEFT_BEHIND = """
SELECT 'table ' || relname FROM pg_class WHERE relname LIKE 'feedback\\_%' OR relname LIKE 'training\\_%'
UNION ALL SELECT 'function ' || proname FROM pg_proc WHERE proname LIKE 'accord\\_%'
"""


def test_the_tables_can_be_removed_and_made_again(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    with using(folder) as address:
        for target in ([], ["feedback", "zero"], []):
            status, output = manage("migrate", *target, "--data", str(folder), "--verbosity", "0")
            assert status == 0, output
            with psycopg.connect(address) as connection:
                left = sorted(name for (name,) in connection.execute(LEFT_BEHIND))
            if target:
                assert left == []
            else:
                assert {"function accord_are_dense", "function accord_give_back", "table feedback_ranking"} <= set(left)
