"""Constraints on comparisons, leases and rankings that Django's own constraints cannot express."""

from django.db import migrations

from feedback import sql

ORDERS = """
ALTER TABLE feedback_ranking
    ADD CONSTRAINT ranking_ranks CHECK (cardinality(ranks) = size AND accord_are_dense(ranks) IS TRUE),
    ADD CONSTRAINT ranking_display_order
        CHECK (cardinality(display_order) = size AND accord_is_permutation(display_order) IS TRUE);
ALTER TABLE feedback_lease
    ADD CONSTRAINT lease_display_order
        CHECK (cardinality(display_order) = size AND accord_is_permutation(display_order) IS TRUE);
"""
NO_ORDERS = """
ALTER TABLE feedback_ranking DROP CONSTRAINT ranking_ranks, DROP CONSTRAINT ranking_display_order;
ALTER TABLE feedback_lease DROP CONSTRAINT lease_display_order;
"""

# Composite foreign keys: what belongs together is of one project, one prompt and one size.
BELONGING = """
ALTER TABLE feedback_prompt ADD CONSTRAINT prompt_in_project UNIQUE (id, project_id);
ALTER TABLE feedback_completion ADD CONSTRAINT completion_of_prompt UNIQUE (id, prompt_id, digest);
ALTER TABLE feedback_comparison
    ADD CONSTRAINT comparison_of_prompt UNIQUE (id, prompt_id),
    ADD CONSTRAINT comparison_sized UNIQUE (id, project_id, size),
    ADD CONSTRAINT comparison_prompt_in_project FOREIGN KEY (prompt_id, project_id)
        REFERENCES feedback_prompt (id, project_id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE feedback_comparisonitem
    ADD CONSTRAINT item_comparison_of_prompt FOREIGN KEY (comparison_id, prompt_id)
        REFERENCES feedback_comparison (id, prompt_id) DEFERRABLE INITIALLY DEFERRED,
    ADD CONSTRAINT item_completion_of_prompt FOREIGN KEY (completion_id, prompt_id, digest)
        REFERENCES feedback_completion (id, prompt_id, digest) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE feedback_lease
    ADD CONSTRAINT lease_comparison_sized FOREIGN KEY (comparison_id, project_id, size)
        REFERENCES feedback_comparison (id, project_id, size) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE feedback_ranking
    ADD CONSTRAINT ranking_comparison_sized FOREIGN KEY (comparison_id, project_id, size)
        REFERENCES feedback_comparison (id, project_id, size) DEFERRABLE INITIALLY DEFERRED;
"""
NOT_BELONGING = """
ALTER TABLE feedback_ranking DROP CONSTRAINT ranking_comparison_sized;
ALTER TABLE feedback_lease DROP CONSTRAINT lease_comparison_sized;
ALTER TABLE feedback_comparisonitem
    DROP CONSTRAINT item_comparison_of_prompt, DROP CONSTRAINT item_completion_of_prompt;
ALTER TABLE feedback_comparison
    DROP CONSTRAINT comparison_prompt_in_project,
    DROP CONSTRAINT comparison_sized,
    DROP CONSTRAINT comparison_of_prompt;
ALTER TABLE feedback_completion DROP CONSTRAINT completion_of_prompt;
ALTER TABLE feedback_prompt DROP CONSTRAINT prompt_in_project;
"""


class Migration(migrations.Migration):
    dependencies = [("feedback", "0001_initial")]

    operations = [
        sql.load("orders"),
        migrations.RunSQL(ORDERS, NO_ORDERS),
        migrations.RunSQL(BELONGING, NOT_BELONGING),
        sql.load("whole_comparisons", "2bbb82e8ac2c"),
    ]
