"""The first administrator by environment variables."""

import pytest

from config.runtime.errors import SetupError
from config.runtime.first_administrator import make_first_administrator
from feedback.actions.tokens import find_token
from feedback.models import User

PASSWORD, KEY = "correct horse battery", "acc_" + "k3y" * 12
pytestmark = pytest.mark.django_db


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """Set the variables; a text is written into a file whose path is the variable's value."""

    def set_variables(name="ada", password=PASSWORD, key=None):
        monkeypatch.setenv("ACCORD_ADMIN", name)
        for variable, text in (("ACCORD_ADMIN_PASSWORD_FILE", password), ("ACCORD_ADMIN_TOKEN_FILE", key)):
            if text is not None:
                path = tmp_path / variable
                path.write_text(text + "\n")
                monkeypatch.setenv(variable, str(path))

    return set_variables


def test_the_account_and_its_token_are_made_at_the_first_start_only(environment):
    said = []
    environment(key=KEY)
    make_first_administrator(said.append)
    ada = User.objects.get()
    assert (ada.username, ada.is_staff, ada.is_superuser) == ("ada", True, True)
    assert ada.check_password(PASSWORD)
    assert find_token(KEY).user == ada
    assert said == ['made the first administrator "ada", with an API token']
    environment(name="eve")
    make_first_administrator(said.append)
    assert User.objects.count() == 1 and len(said) == 1


def test_without_the_variables_nothing_is_made():
    make_first_administrator(print)
    assert not User.objects.exists()


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"password": None}, "needs a password"),
        ({"password": "1234"}, "too short"),
        ({"name": "no blanks"}, "valid username"),
        ({"key": "short"}, "could be guessed"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_with_a_sentence(environment, variables, said):
    environment(**variables)
    with pytest.raises(SetupError, match=said):
        make_first_administrator(print)
    assert not User.objects.exists()


def test_a_missing_file_is_named(environment, monkeypatch, tmp_path):
    environment()
    monkeypatch.setenv("ACCORD_ADMIN_PASSWORD_FILE", str(tmp_path / "none"))
    with pytest.raises(SetupError, match="ACCORD_ADMIN_PASSWORD_FILE cannot be read"):
        make_first_administrator(print)
