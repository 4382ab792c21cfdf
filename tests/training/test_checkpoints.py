"""Importing, promoting and rolling back."""

import json
import os
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction

from feedback.errors import Conflict, Invalid
from feedback.models import Comparison, Source
from tests.factories import FAST, add_comparisons, fake_model, random_model
from training import checkpoints
from training.checkpoints import files
from training.models import Checkpoint, Promotion


@pytest.fixture
def import_one(project, tmp_path):
    def make(label, **options):
        return checkpoints.import_checkpoint(project, str(fake_model(tmp_path / label)), label, verdict=FAST, **options)

    return make


def served(project):
    return [str(each) for each in project.checkpoints.filter(is_served=True)]


def test_an_imported_model_is_served_if_requested(project, import_one, manager):
    first = import_one("first")
    assert served(project) == []
    import_one("second", serve=True, actor=manager)
    assert served(project) == ["second"]
    assert first.source.kind == Source.Kind.CHECKPOINT
    promotion = Promotion.objects.get()
    assert (str(promotion.checkpoint), promotion.replaced, promotion.actor) == ("second", None, manager)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_that_lacks_a_part_is_refused(project, tmp_path, missing):
    folder = fake_model(tmp_path / "model")
    (folder / missing).unlink()
    with pytest.raises(Invalid, match=missing.split(".")[-1] if missing != "tokenizer.json" else "tokenizer"):
        checkpoints.import_checkpoint(project, str(folder), "mine")
    assert not Checkpoint.objects.exists()


def test_a_model_with_code_of_its_own_is_refused(project, tmp_path):
    folder = fake_model(tmp_path / "model", auto_map={"AutoModelForCausalLM": "modeling.Model"})
    with pytest.raises(Invalid, match="code of its own"):
        checkpoints.import_checkpoint(project, str(folder), "mine")


def test_a_model_of_another_kind_is_refused(project, tmp_path):
    folder = fake_model(tmp_path / "model", architectures=["BertForMaskedLM"])
    with pytest.raises(Invalid, match="BertForMaskedLM"):
        checkpoints.import_checkpoint(project, str(folder), "mine")


def test_a_config_that_is_not_json_is_refused(project, tmp_path):
    folder = fake_model(tmp_path / "model")
    (folder / "config.json").write_text("{")
    with pytest.raises(Invalid, match="is not JSON"):
        checkpoints.import_checkpoint(project, str(folder), "mine")


@pytest.mark.parametrize("path", ["/nowhere/at/all", "./nowhere", "~nobody/model", "three/part/name", ""])
def test_an_empty_model_path_is_refused(project, path):
    with pytest.raises(Invalid, match="no folder"):
        checkpoints.import_checkpoint(project, path, "mine")


@pytest.mark.parametrize("label", ["", "  ", "round-0007", "x" * 201])
def test_a_label_that_looks_like_a_round_is_refused(project, tmp_path, label):
    with pytest.raises(Invalid, match="label"):
        checkpoints.import_checkpoint(project, str(fake_model(tmp_path / "model")), label)


def test_the_label_of_a_checkpoint_is_unique(import_one, project, tmp_path):
    import_one("mine")
    with pytest.raises(Conflict, match='"mine"'):
        checkpoints.import_checkpoint(project, str(fake_model(tmp_path / "again")), "mine")


@pytest.mark.process
@pytest.mark.usefixtures("forked_programs")
def test_the_command_imports_and_serves(project, tmp_path):
    output = StringIO()
    call_command(
        "import_checkpoint", "support", str(random_model(tmp_path / "model")), label="mine", serve=True, stdout=output
    )
    assert served(project) == ["mine"]
    assert "mine is imported" in output.getvalue() and "exact and fast" in output.getvalue()


@pytest.mark.process
@pytest.mark.usefixtures("forked_programs")
def test_the_command_refuses_a_model_that_does_not_load(project, tmp_path):
    with pytest.raises(CommandError, match="refused: "):
        call_command("import_checkpoint", "support", str(fake_model(tmp_path / "model")), label="mine")
    assert not Checkpoint.objects.exists()


@pytest.mark.process
@pytest.mark.usefixtures("forked_programs")
def test_the_check_reports_how_a_model_is_computed_or_why_it_is_refused(tmp_path):
    output = StringIO()
    call_command("check_model", str(random_model(tmp_path / "fast")), stdout=output)
    hybrid = random_model(tmp_path / "hybrid", "lfm2", layer_types=["conv", "full_attention"])
    call_command("check_model", str(hybrid), stdout=output)
    first, second = output.getvalue().splitlines()
    assert first.endswith("fast: exact and fast") and "hybrid: exact by the generic path (" in second
    for folder in (fake_model(tmp_path / "empty"), tmp_path / "none"):
        with pytest.raises(CommandError, match="refused: "):
            call_command("check_model", str(folder))


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"architectures": [1]}, "not a list of names"),
        ({"architectures": "LlamaForCausalLM"}, "not a list of names"),
        ({"architectures": ["T5ForConditionalGeneration"]}, "T5ForConditionalGeneration"),
    ],
)
def test_a_config_of_another_shape_is_refused(project, tmp_path, config, sentence):
    with pytest.raises(Invalid, match=sentence):
        checkpoints.import_checkpoint(project, str(fake_model(tmp_path / "model", **config)), "mine")


def test_a_model_that_reads_images_too_is_taken_for_its_text_model(project, tmp_path):
    config = {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": {}}
    assert checkpoints.import_checkpoint(project, str(fake_model(tmp_path / "model", **config)), "mine").path


def test_deep_nesting_in_a_config_is_refused(project, tmp_path):
    folder = fake_model(tmp_path / "model")
    (folder / "config.json").write_text("[" * 200_000)
    with pytest.raises(Invalid, match="is not JSON"):
        checkpoints.import_checkpoint(project, str(folder), "mine")
    (folder / "config.json").write_text(" " * 2**20 + "{}")
    with pytest.raises(Invalid, match="larger than"):
        checkpoints.import_checkpoint(project, str(folder), "mine")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "notes.txt"])
def test_a_folder_with_a_fifo_is_refused_at_once(project, tmp_path, name):
    folder = fake_model(tmp_path / "model")
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(Invalid, match=f"{name} is not a regular file"):
        checkpoints.import_checkpoint(project, str(folder), "mine")


def test_a_folder_in_the_place_of_a_config_is_refused(project, tmp_path):
    folder = fake_model(tmp_path / "model")
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()
    with pytest.raises(Invalid, match=r"config.json is not a regular file"):
        checkpoints.import_checkpoint(project, str(folder), "mine")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin"])
def test_pickled_weights_beside_safetensors_are_refused(project, tmp_path, name):
    folder = fake_model(tmp_path / "model")
    (folder / name).touch()
    with pytest.raises(Invalid, match=name):
        checkpoints.import_checkpoint(project, str(folder), "mine")


@pytest.mark.parametrize("path", ["x" * 300, "/" + "x" * 300, "/" + "x/" * 3000, "a\0b", "~nobody-here/x"])
def test_a_path_that_no_folder_can_have_is_refused(project, path):
    with pytest.raises(Invalid, match="no folder"):
        checkpoints.import_checkpoint(project, path, "mine", may_fetch=False)


def test_a_web_request_downloads_nothing_from_the_hub(project):
    with pytest.raises(Invalid, match="on the server"):
        checkpoints.import_checkpoint(project, "someone/some-model", "mine", may_fetch=False)


def test_the_command_refuses_with_a_sentence(project):
    with pytest.raises(CommandError, match='no project "other-one"'):
        call_command("import_checkpoint", "other-one", "/nowhere", label="mine")
    with pytest.raises(CommandError, match="no folder /nowhere"):
        call_command("import_checkpoint", "support", "/nowhere", label="mine")


def test_a_promotion_replaces_the_served_checkpoint(project, import_one, manager):
    first, second = import_one("first", serve=True), import_one("second")
    promotion = checkpoints.promote(second, manager)
    assert served(project) == ["second"]
    assert (promotion.replaced, promotion.is_roll_back) == (first, False)


def test_the_served_checkpoint_cannot_be_promoted_again(import_one):
    first = import_one("first", serve=True)
    with pytest.raises(Conflict, match="served already"):
        checkpoints.promote(first, None)
    assert Promotion.objects.count() == 1


def test_the_database_holds_one_served_checkpoint_a_project(import_one):
    import_one("first", serve=True)
    with pytest.raises(IntegrityError), transaction.atomic():
        Checkpoint.objects.filter(pk=import_one("second").pk).update(is_served=True)


def test_roll_backs_go_back_step_by_step(project, import_one, manager):
    for label in ("first", "second", "third"):
        import_one(label, serve=True)
    checkpoints.roll_back(project, manager)
    assert served(project) == ["second"]
    checkpoints.roll_back(project, manager)
    assert served(project) == ["first"]
    with pytest.raises(Conflict, match="nothing to roll back"):
        checkpoints.roll_back(project, manager)
    assert served(project) == ["first"]


def test_after_a_roll_back_a_promotion_can_be_rolled_back_again(project, import_one):
    import_one("first", serve=True)
    import_one("second", serve=True)
    checkpoints.roll_back(project, None)
    third = import_one("third", serve=True)
    assert str(checkpoints.served_before(project)) == "first"
    checkpoints.roll_back(project, None)
    assert served(project) == ["first"]
    assert not Checkpoint.objects.get(pk=third.pk).is_served


def test_a_roll_back_without_an_earlier_checkpoint_is_refused(project):
    with pytest.raises(Conflict, match="nothing to roll back"):
        checkpoints.roll_back(project, None)


def test_rolling_back_one_project_leaves_the_others(project, import_one, stranger, tmp_path):
    from feedback.models import Project

    other = Project.objects.get(slug="other")
    checkpoints.import_checkpoint(other, str(fake_model(tmp_path / "theirs")), "theirs", serve=True, verdict=FAST)
    import_one("first", serve=True)
    import_one("second", serve=True)
    checkpoints.roll_back(project, None)
    assert served(other) == ["theirs"]


def test_comparisons_of_the_promoted_checkpoint_are_ranked_first(project, import_one, comparisons):
    imported = Comparison.objects.filter(pk__in=comparisons)
    newer = Comparison.objects.filter(pk__in=add_comparisons(project, "second", 2, offset=100))
    second = import_one("second")
    newest = Comparison.objects.filter(pk__in=add_comparisons(project, "third", 2, offset=200))
    third = import_one("third", serve=True)

    def priorities(queryset):
        return set(queryset.values_list("priority", flat=True))

    assert (priorities(imported), priorities(newer), priorities(newest)) == ({0}, {0}, {1})
    checkpoints.promote(second, None)
    assert (priorities(imported), priorities(newer), priorities(newest)) == ({0}, {2}, {1})
    checkpoints.roll_back(project, None)
    assert (priorities(imported), priorities(newer), priorities(newest)) == ({0}, {2}, {3})
    assert third.source.name == "third"


def test_a_folder_stays_named_in_full(import_one, tmp_path):
    assert import_one("mine").path == str((tmp_path / "mine").resolve())
    assert json.loads((tmp_path / "mine" / "config.json").read_text())["model_type"] == "llama"


@pytest.mark.parametrize(
    ("config", "positions"),
    [
        ({"max_position_embeddings": 512}, 512),
        ({"n_positions": 1024}, 1024),
        ({"text_config": {"max_position_embeddings": 8192}}, 8192),
        ({"max_position_embeddings": None, "text_config": None}, None),
        ({}, None),
    ],
)
def test_the_context_length_is_read_from_the_configuration(tmp_path, config, positions):
    assert files.positions_of(str(fake_model(tmp_path / "model", **config))) == positions


def test_a_model_that_is_not_here_has_no_known_positions(tmp_path):
    assert files.positions_of(str(tmp_path)) is None
