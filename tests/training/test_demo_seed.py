"""The demo project is created once: a second start changes nothing."""

import json
import stat
from dataclasses import replace
from datetime import timedelta

import pytest
from django.conf import settings as django_settings
from django.utils import timezone

from feedback.models import AuditEntry, Comparison, Completion, Project, Prompt, User
from tests.factories import FAST, fake_model
from tests.training.tiny import SETTINGS, make_model
from training import checkpoints
from training.demo import base_model, projects, seed
from training.demo.projects import DIALOGUE, SUPPORT
from training.demo.settings import ROUND
from training.learner.runtime.config import SftConfig
from training.learner.runtime.jobdir import JobDirectory
from training.models import Round
from training.rounds.settings import resolve
from training.run_round import process

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("forked_programs")]


@pytest.fixture
def reports(monkeypatch):
    """A demo small enough for a test, and its progress messages."""
    monkeypatch.setattr(projects, "PROMPTS", 30)
    monkeypatch.setattr(projects, "DIALOGUE_PROMPTS", 10)
    sections = {name: SETTINGS[name] for name in ("common", "round")}
    small = [replace(demo, round_of_other_models=sections) for demo in projects.PROJECTS.values()]
    monkeypatch.setattr(seed, "PROJECTS", {demo.slug: demo for demo in small})
    return []


@pytest.fixture
def without_programs(monkeypatch, tmp_path):
    """A base model and completions that cost nothing."""
    monkeypatch.setattr(
        base_model, "train", lambda directory, *given, **settings: fake_model(tmp_path / directory.name)
    )
    monkeypatch.setattr(seed, "write_first_completions", lambda *given: None)
    monkeypatch.setattr(seed, "verdict_on", lambda path: FAST)


def counts():
    return [kind.objects.count() for kind in (Project, Prompt, User, Completion, Comparison, Round)]


@pytest.mark.process
def test_the_first_start_makes_everything_and_the_second_changes_nothing(reports, tmp_path):
    model = str(make_model(tmp_path / "own"))
    accounts = seed.prepare(model=model, report=reports.append)
    made = counts()
    project = Project.objects.get(slug=SUPPORT.slug)
    assert project.prompts.count() == 30
    assert project.comparisons.count() == SETTINGS["round"]["prompts"]
    assert checkpoints.served(project).path == model
    assert project.rounds.get().status == Round.Status.FINISHED
    dialogues = Project.objects.get(slug=DIALOGUE.slug)
    assert dialogues.comparisons.count() == dialogues.prompts.count() == 10
    assert checkpoints.served(dialogues).path == model
    assert seed.prepare(model=model, report=reports.append) == accounts
    assert seed.prepare(report=reports.append) == accounts
    assert counts() == made


@pytest.mark.process
@pytest.mark.parametrize("killed", [pytest.param(False, marks=pytest.mark.full), True], ids=["Ctrl-C", "SIGKILL"])
def test_an_interrupted_first_sampling_is_completed_by_the_next_start(reports, tmp_path, monkeypatch, killed):
    model = str(make_model(tmp_path / "own"))
    with monkeypatch.context() as stopped, pytest.raises(KeyboardInterrupt):
        stopped.setattr(process, "run", press_ctrl_c)
        seed.prepare(model=model, report=reports.append)
    assert Round.objects.get().status == Round.Status.WAITING
    if killed:  # the row is left as its worker wrote it last
        Round.objects.update(status=Round.Status.RUNNING, heartbeat_at=timezone.now() - timedelta(hours=1))
    seed.prepare(model=model, report=reports.append)
    assert Round.objects.get().status == Round.Status.FINISHED
    assert Completion.objects.exists()


def press_ctrl_c(*given):
    raise KeyboardInterrupt


@pytest.mark.slow
def test_the_demo_accounts_can_sign_in_and_only_the_manager_may_use_the_admin_site(reports, without_programs, client):
    for account in seed.prepare(report=reports.append):
        assert client.login(username=account.username, password=account.password)
        user = User.objects.get(username=account.username)
        assert user.is_superuser == (account.role == "manager")
        assert user.memberships.get(project__slug=SUPPORT.slug).role == account.role


@pytest.mark.slow
def test_the_audit_log_names_the_demo(reports, without_programs):
    seed.prepare(report=reports.append)
    by_programs = AuditEntry.objects.filter(actor=None).values_list("actor_name", "via")
    assert {*by_programs} == {("demo", "command")}


@pytest.mark.slow
def test_passwords_differ_between_installations_and_only_the_owner_may_read_their_file(reports, without_programs):
    passwords = {account.password for account in seed.prepare(report=reports.append)}
    assert len(passwords) == 4 and min(map(len, passwords)) >= 12
    file = django_settings.DATA_DIR / "demo" / "accounts.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert set(json.loads(file.read_text()).values()) == passwords


@pytest.mark.slow
def test_a_changed_password_is_not_printed_any_more(reports, without_programs):
    before = {each.username: each for each in seed.prepare(report=reports.append)}
    ben = User.objects.get(username="ben")
    ben.set_password("chosen by Ben himself")
    ben.save()
    User.objects.get(username="rita").delete()
    after = {each.username: each for each in seed.prepare(report=reports.append)}
    assert after["ben"].password == "(the one you chose)"
    assert after["rita"].password != before["rita"].password
    assert (after["anna"], after["max"]) == (before["anna"], before["max"])


@pytest.mark.slow
def test_a_second_start_does_not_reset_a_changed_project(reports, without_programs):
    seed.prepare(report=reports.append)
    Project.objects.filter(slug=SUPPORT.slug).update(name="Ours", guidelines="Be brief.", wanted_rankings=1)
    Prompt.objects.filter(pk=Prompt.objects.first().pk).delete()
    seed.prepare(report=reports.append)
    project = Project.objects.get(slug=SUPPORT.slug)
    assert (project.name, project.guidelines, project.wanted_rankings) == ("Ours", "Be brief.", 1)
    assert project.prompts.count() == 29


@pytest.mark.slow
def test_a_round_accepts_the_settings_of_the_built_in_model(reports, without_programs):
    seed.prepare(report=reports.append)
    project = Project.objects.get(slug=SUPPORT.slug)
    assert project.loop.settings == ROUND
    assert resolve(project.loop.settings, seed=1)["round"]["prompts"] == ROUND["round"]["prompts"]


@pytest.mark.process
def test_an_interrupted_training_of_the_base_model_is_resumed_to_its_end(reports, tmp_path, monkeypatch):
    small = {"model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
             "num_attention_heads": 2, "max_position_embeddings": 256}  # fmt: skip
    settings = SftConfig(architecture=small, vocabulary_size=400, batch_tokens=2048, learning_rate=1e-3)
    monkeypatch.setattr(base_model, "SETTINGS", settings)
    monkeypatch.setattr(base_model, "DEMONSTRATIONS", 60)
    folder = tmp_path / "base"
    folder.mkdir()
    JobDirectory(folder).write_rows("demonstrations.jsonl", iter([]))  # cut short before config.json
    assert base_model.train(folder, reports.append) == folder / "model"
    assert JobDirectory(folder).result()["demonstrations"] == 60
    count = len(reports)
    base_model.train(folder, reports.append)
    assert len(reports) == count  # the second time there is nothing to do, and nothing to say
