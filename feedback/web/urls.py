"""URLs of the pages."""

from django.urls import path

from feedback.web.accounts import urls as accounts
from feedback.web.views import account, audit, data, export, imports, join, project, ranking, review, statistics

urlpatterns = [
    path("", account.home, name="home"),
    *accounts.urlpatterns,
    path("join/<str:key>/", join.join, name="join"),
    path("projects/new/", account.new_project, name="new-project"),
    path("projects/<slug:slug>/rank/", ranking.rank, name="rank"),
    path("projects/<slug:slug>/rank/tour/", ranking.tour, name="rank-tour"),
    path("projects/<slug:slug>/rank/next/", ranking.next_comparison, name="rank-next"),
    path("projects/<slug:slug>/rank/submit/", ranking.submit, name="rank-submit"),
    path("projects/<slug:slug>/rank/skip/", ranking.skip, name="rank-skip"),
    path("projects/<slug:slug>/rank/undo/", ranking.undo, name="rank-undo"),
    path("projects/<slug:slug>/rank/demonstrate/", ranking.demonstrate, name="rank-demonstrate"),
    path("projects/<slug:slug>/rank/renew/", ranking.renew, name="rank-renew"),
    path("projects/<slug:slug>/rank/<int:ranking_id>/revise/", ranking.revise, name="rank-revise"),
    path("projects/<slug:slug>/guidelines/", project.guidelines, name="guidelines"),
    path("projects/<slug:slug>/prompts/", project.prompts, name="prompts"),
    path("projects/<slug:slug>/prompts/inventory/", project.inventory, name="inventory"),
    *(
        path(f"projects/<slug:slug>/data/{name}/", data.data_list, {"name": name}, name=f"data-{name}")
        for name in ("completions", "comparisons", "rankings", "demonstrations", "skips")
    ),
    path("projects/<slug:slug>/data/prompts/<int:prompt_id>/", data.prompt, name="data-prompt"),
    path("projects/<slug:slug>/data/comparisons/<int:comparison_id>/", data.comparison, name="data-comparison"),
    path("projects/<slug:slug>/imports/", imports.page, name="imports"),
    path("projects/<slug:slug>/imports/<int:import_id>/", imports.detail, name="import"),
    path("projects/<slug:slug>/imports/<int:import_id>/map/", imports.choose_map, name="import-map"),
    path("projects/<slug:slug>/imports/<int:import_id>/start/", imports.start, name="start-import"),
    path("projects/<slug:slug>/imports/<int:import_id>/stop/", imports.stop, name="stop-import"),
    path("projects/<slug:slug>/imports/<int:import_id>/report/", imports.report, name="import-report"),
    path("projects/<slug:slug>/imports/<int:import_id>/undo/", project.undo_import, name="undo-import"),
    path("projects/<slug:slug>/export/", export.page, name="export"),
    path("projects/<slug:slug>/export/file/", export.download, name="export-file"),
    path("projects/<slug:slug>/people/", project.people, name="people"),
    path("projects/<slug:slug>/people/invite/", project.invite, name="invite"),
    path("projects/<slug:slug>/people/invite/<int:invitation_id>/revoke/", project.revoke, name="revoke-invitation"),
    path("projects/<slug:slug>/people/<int:user_id>/password/", project.password_link, name="password-link"),
    path("projects/<slug:slug>/people/<int:user_id>/role/", project.change_role, name="change-role"),
    path("projects/<slug:slug>/people/<int:user_id>/remove/", project.remove_member, name="remove-member"),
    path("projects/<slug:slug>/settings/", project.settings, name="project-settings"),
    path("projects/<slug:slug>/audit/", audit.of_project, name="audit"),
    path("audit/", audit.of_site, name="site-audit"),
    path("projects/<slug:slug>/review/", review.disagreements, name="review"),
    path("projects/<slug:slug>/review/decisions/", review.decisions, name="review-decisions"),
    path("projects/<slug:slug>/review/decisions/<int:decision_id>/undo/", review.undo, name="review-undo"),
    path("projects/<slug:slug>/review/flagged/", review.flagged, name="review-flagged"),
    path("projects/<slug:slug>/review/demonstrations/", review.demonstration_list, name="review-demonstrations"),
    path(
        "projects/<slug:slug>/review/demonstrations/<int:demonstration_id>/discard/",
        review.discard_demonstration,
        name="discard-demonstration",
    ),
    path("projects/<slug:slug>/review/<int:comparison_id>/keep/", review.keep, name="review-keep"),
    path("projects/<slug:slug>/review/<int:comparison_id>/", review.case, name="review-case"),
    path("projects/<slug:slug>/review/<int:comparison_id>/adjudicate/", review.adjudicate, name="review-adjudicate"),
    path("projects/<slug:slug>/review/return/", review.return_ranking, name="review-return"),
    path("projects/<slug:slug>/review/discard/", review.discard, name="review-discard"),
    path("projects/<slug:slug>/review/people/", review.persons, name="review-people"),
    path("projects/<slug:slug>/review/people/<int:user_id>/", review.work, name="review-work"),
    path(
        "projects/<slug:slug>/review/people/<int:user_id>/discard/", review.discard_since, name="review-discard-since"
    ),
    path("projects/<slug:slug>/figures/", statistics.everybody, name="figures"),
    path("projects/<slug:slug>/figures/mine/", statistics.mine, name="own-figures"),
]
