"""`manage.py load PROJECT FILE`: import prompts, completions and judgements from a file of any known format."""

import json
import sys
from argparse import ArgumentParser, BooleanOptionalAction
from dataclasses import asdict
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from feedback import audit
from feedback.actions import members
from feedback.actions.projects import EDITABLE
from feedback.errors import AccordError, Invalid
from feedback.imports import Target, load, maps
from feedback.imports.files import RowFile
from feedback.imports.maps import recognition
from feedback.imports.maps.description import Map, as_values, read_toml
from feedback.imports.stream import first_rows
from feedback.management import find_project
from feedback.models import Import, Membership, Project, User

MAX_PRINTED = 20  # errors


class Command(BaseCommand):
    help = (
        "Import a file: JSON Lines, a JSON array, CSV, TSV or Parquet, also with gzip or zstd. The format is "
        "recognised; the same file again changes nothing."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="Slug of the project.")
        parser.add_argument("file", type=Path)
        parser.add_argument(
            "--map",
            default=None,
            help="The format, if it is not to be recognised: a file of TOML (its name ends with .toml), or one of "
            + ", ".join(maps.shipped())
            + ".",
        )
        parser.add_argument(
            "--create", action="store_true", help="Make the project if there is none; administrators manage it."
        )
        parser.add_argument(
            "--json", type=Path, default=None, help="Write the report to this file; -: standard output."
        )
        parser.add_argument("--strict", action="store_true", help="Import nothing if a row cannot be imported.")
        parser.add_argument(
            "--stop-at-error", action="store_true", help="Stop at the first row that cannot be imported."
        )
        parser.add_argument(
            "--judge",
            default="",
            help="Name of the imported person for judgements that name nobody. Default: the map's.",
        )
        parser.add_argument(
            "--compare",
            action=BooleanOptionalAction,
            default=True,
            help="Make a comparison for annotators of the completions of rows without a judgement (default).",
        )
        parser.add_argument(
            "--again", action="store_true", help="Make such a comparison even where the same completions have one."
        )

    @audit.acting("load", audit.Via.COMMAND)
    def handle(self, *, project: str, file: Path, **options: Any) -> None:
        known = None if options["create"] else find_project(project)
        try:
            rows = RowFile(file)
            made = self._map(rows, options["map"])
            target = known or self._make(project)  # after the file has been recognised: a typing error makes none
            with transaction.atomic():
                record = Import.objects.create(
                    project=target, how=Import.How.COMMAND, file_name=file.name[:200], map=as_values(made)
                )
                audit.record("import.start", target, record, after={"file": record.file_name})
            to = Target(
                target, record, made, compare=options["compare"], again=options["again"], judge=options["judge"]
            )
            report = self._load(rows, to, strict=options["strict"], stop_at_error=options["stop_at_error"])
        except OSError as error:
            raise CommandError(f"{file} cannot be read: {error.strerror}.") from error
        except AccordError as error:
            raise CommandError(error.message) from error
        self._print(project, record, made, report, options["json"])
        if report["stopped"]:
            raise CommandError(report["stopped"])
        if report["error_count"] and not report["imported"] and not report["unchanged"]:
            raise CommandError("No row could be imported.")

    def _make(self, slug: str) -> Project:
        """Return the project with this slug, a new one if there is none. All active superusers become its managers."""
        if (known := Project.objects.filter(slug=slug).first()) is not None:
            return known
        project = Project(slug=slug, name=slug)
        try:
            project.full_clean()
        except ValidationError as error:
            raise CommandError(f'"{slug}" cannot be a project\'s address: {" ".join(error.messages)}') from error
        administrators = list(User.objects.filter(is_superuser=True, is_active=True).order_by("pk"))
        with transaction.atomic():
            project.save()
            audit.record("project.create", project, project, after=audit.values_of(project, EDITABLE))
            for user in administrators:
                members.add_member(project, user.username, Membership.Role.MANAGER)
        managers = ", ".join(map(str, administrators)) or "nobody yet: add a manager in /admin/"
        self.stderr.write(f'made the project "{slug}"; its managers: {managers}')
        return project

    def _map(self, file: RowFile, name: str | None) -> Map:
        if name is None:
            return recognition.must_recognise(first_rows(file))
        return read_toml(Path(name).read_text("utf-8")) if name.endswith(".toml") else maps.find(name)

    def _load(self, file: RowFile, target: Target, *, strict: bool, stop_at_error: bool) -> dict[str, Any]:
        try:
            report = asdict(load(file, target, strict=strict, stop_at_error=stop_at_error))
        except Invalid:
            if not any(target.record.counts.values()) or strict:
                Import.objects.filter(pk=target.record.pk).delete()
            raise
        if not any(target.record.counts.values()):
            target.record.delete()
        return report

    def _print(self, project: str, record: Import, made: Map, report: dict[str, Any], path: Path | None) -> None:
        report = {"map": made.name, "import_id": record.pk, **report}
        for error in report["errors"][:MAX_PRINTED]:
            where = f' "{error["field"]}" ({error["value"]})' if error["field"] else ""
            self.stderr.write(f"line {error['line']}:{where} {error['reason']}")
        if str(path) == "-":
            json.dump(report, sys.stdout, ensure_ascii=False, indent=2)
            return
        if path is not None:
            path.write_text(json.dumps(report, ensure_ascii=False, indent=2) + "\n", "utf-8")
        counts = ", ".join(f"{count} {kind}" for kind, count in record.counts.items() if count) or "nothing new"
        self.stdout.write(
            f"{made.title}: {report['rows']} rows, {report['imported']} imported, {report['unchanged']} unchanged, "
            f"{report['error_count']} with errors ({counts})."
        )
        for kind, count in report["left_out"].items():
            self.stdout.write(f"{count} times left out: {kind}.")
        if record.pk is not None:
            self.stdout.write(f"Undo it with: manage.py undo_import {project} {record.pk}")
