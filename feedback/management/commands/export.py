"""`manage.py export PROJECT --format FORMAT > FILE`: write a project's rankings."""

import hashlib
from argparse import ArgumentParser, BooleanOptionalAction
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any

from django.core.management.base import BaseCommand, CommandError

from feedback.errors import AccordError
from feedback.export.files import KINDS
from feedback.export.formats import registry
from feedback.management import find_project
from feedback.reports import preference_export

OPTIONS = ("format", "after", "until", "split", "weights", "reliability_as_of", "include_flagged", "ties", "aggregated")
FILE_OPTIONS = ("file", "gzip")


class Command(BaseCommand):
    help = "Write a project's rankings to standard output, and the cursor and the file's SHA-256 to standard error."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="Slug of the project.")
        parser.add_argument(
            "--format",
            choices=registry.names(),
            default=preference_export.DEFAULT_FORMAT,
            help=f"Default: {preference_export.DEFAULT_FORMAT}. One line is, by format: {registry.descriptions()}",
        )
        parser.add_argument(
            "--after", type=int, default=0, help="Cursor of an earlier export: write only later rankings."
        )
        parser.add_argument(
            "--until", type=int, default=None, help="Cursor of an earlier export: write the rankings as they were then."
        )
        parser.add_argument("--split", choices=preference_export.SPLITS, default=None, help=registry.split_default())
        parser.add_argument(
            "--weights",
            choices=preference_export.WEIGHTS,
            default=None,
            help="Weight of a ranking; resample repeats rankings instead. Default: the project's setting.",
        )
        parser.add_argument(
            "--reliability-as-of",
            type=int,
            default=None,
            help="Use the reliability report of this moment, as standard error names it. Default: the latest report.",
        )
        parser.add_argument(
            "--include-flagged",
            action="store_true",
            help='Write rankings with a flag that means "not for training", too.',
        )
        parser.add_argument(
            "--ties",
            choices=preference_export.TIES,
            default=None,
            help="Write ties as rows, or omit them. Default: the format's.",
        )
        parser.add_argument(
            "--aggregated", action="store_true", help="One ranking a comparison: the votes of its annotators."
        )
        parser.add_argument(
            "--file",
            choices=KINDS,
            default="jsonl",
            help="Kind of file. csv and parquet: formats whose columns have fixed types.",
        )
        parser.add_argument("--gzip", action="store_true", help="Compress JSON Lines or CSV.")
        parser.add_argument("--output", type=Path, help="Write to this file instead of standard output.")
        _add_filters(parser)

    def handle(self, *, project: str, after: int, until: int | None, **options: Any) -> None:
        for name, cursor in (("after", after), ("until", until or 0)):
            if cursor < 0:
                raise CommandError(f"--{name} is {cursor}, but a cursor is at least 0.")
        options |= {"after": after, "until": until}
        known = {name: options[name] for name in (*OPTIONS, *FILE_OPTIONS, *preference_export.FILTERS)}
        try:
            exported = preference_export.export(find_project(project), **preference_export.choices_of(known))
        except AccordError as error:
            raise CommandError(error.message) from error
        sha256 = self._write(exported.content(), options["output"])
        self.stderr.write(f"cursor {exported.cursor}")
        self.stderr.write(f"sha256 {sha256}")
        if exported.report:
            self.stderr.write(f"reliability as of {exported.report.until}")

    def _write(self, content: Iterator[bytes], path: Path | None) -> str:
        """Write the file and return its SHA-256 in hexadecimal."""
        digest = hashlib.sha256()
        try:
            with path.open("wb") if path else nullcontext() as file:
                for chunk in content:
                    digest.update(chunk)
                    self._write_chunk(chunk, file)
        except OSError as error:
            raise CommandError(f"{path or 'standard output'} cannot be written: {error.strerror}.") from error
        return digest.hexdigest()

    def _write_chunk(self, chunk: bytes, file: IO[bytes] | None) -> None:
        binary = file or getattr(self.stdout, "buffer", None)
        if binary is not None:
            binary.write(chunk)
        else:  # a caller of the command has put a stream of text in place of standard output
            self.stdout.write(chunk.decode(), ending="")


def _add_filters(parser: ArgumentParser) -> None:
    """Add an option for each field of `export_filters.Filters`."""
    parser.add_argument("--annotator", default="", help="Only rankings of this person: username or pseudonym.")
    parser.add_argument("--source", default="", help="Only comparisons with a completion of this source.")
    parser.add_argument("--round", type=int, help="Only comparisons with a completion that this round wrote.")
    parser.add_argument("--tag", default="", help='Only prompts whose metadata has this tag in "tags".')
    parser.add_argument(
        "--imported", action=BooleanOptionalAction, help="Only imported rankings, or only those that were made here."
    )
    parser.add_argument(
        "--min-agreement",
        type=_share,
        help="Only comparisons whose annotators agree at least this much, 0 to 1; two or more must have ranked.",
    )
    parser.add_argument("--min-reliability", type=_share, help="Only annotators of at least this reliability, 0 to 1.")


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError(text)
    return value
