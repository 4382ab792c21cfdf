"""Requests to endpoints: attempts, waits, addresses, keys. The stand-in answers on loopback."""

import ipaddress
import socket
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx2
import pytest

from config.runtime.environment import read_networks
from config.runtime.errors import SetupError
from config.runtime.hosts import PRIVATE_NETWORKS, default_endpoint_networks
from feedback.encryption import decrypt, encrypt
from feedback.errors import Invalid
from tests.training.stand_in import MODEL, stand_in
from training.endpoints.addresses import checked_url, target_of
from training.endpoints.client import Client, EndpointFailed, Stopped, read_completion, retry_after

KEY = "sk-hidden-0123456789"
ASK = [{"role": "user", "content": "Hi"}]
LOOPBACK = [ipaddress.ip_network("127.0.0.0/8")]


@pytest.fixture(autouse=True)
def _loopback_is_allowed(settings, monkeypatch):
    settings.ENDPOINT_NETWORKS = LOOPBACK
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def server():
    with stand_in() as state:
        yield state


@pytest.fixture
def endpoint(server):
    """The echo without faults, and nothing asked yet."""
    server.faults.clear()
    server.asked.clear()
    server.keys.clear()
    return server


def client_of(endpoint, waits=None, **values):
    """A client that notes its waits and does not wait."""
    noted = [] if waits is None else waits
    return Client(endpoint.url, KEY, MODEL, **{"timeout": 300.0, "retries": 3, **values}, wait=noted.append)


def ask(client):
    return client.complete(ASK, {"temperature": 0.5}, 7)


def test_a_completion_has_its_text_model_finish_reason_and_tokens(endpoint):
    written = ask(client_of(endpoint))
    assert (written.text, written.model, written.finish_reason) == ("Hi!", "tiny-chat-v1", "stop")
    assert (written.prompt_tokens, written.completion_tokens) == (3, 2)
    assert endpoint.asked == [{"model": MODEL, "messages": ASK, "temperature": 0.5, "max_tokens": 7}]
    assert endpoint.keys == [f"Bearer {KEY}"]
    assert client_of(endpoint).models() == ["other", MODEL]


@pytest.mark.parametrize("fault", [429, 500, 503, "broken JSON", "cut off", "empty"])
def test_a_failure_that_may_pass_is_tried_again_after_growing_waits(endpoint, fault):
    endpoint.faults = [fault, fault, fault]
    waits = []
    assert ask(client_of(endpoint, waits)).text == "Hi!"
    assert len(endpoint.asked) == 4
    assert len(waits) == 3 and all(low <= wait <= 2 * low for wait, low in zip(waits, (0.5, 1, 2), strict=True))


@pytest.mark.parametrize(("fault", "is_final"), [(400, False), (401, True), (404, True), (302, True)])
def test_a_refusal_is_not_tried_again_and_no_message_has_the_key(endpoint, fault, is_final):
    endpoint.faults = [fault]
    with pytest.raises(EndpointFailed) as failed:
        ask(client_of(endpoint))
    assert len(endpoint.asked) == 1
    assert str(fault) in failed.value.message and KEY not in failed.value.message
    assert failed.value.is_final == is_final


def test_the_last_attempt_tells_what_went_wrong(endpoint):
    endpoint.faults = [500] * 4
    with pytest.raises(EndpointFailed, match="status 500"):
        ask(client_of(endpoint))
    assert len(endpoint.asked) == 4


def test_retry_after_is_waited_for_by_all_requests_to_the_endpoint(endpoint):
    endpoint.faults = [(429, {"Retry-After": "40"})]
    waits = []
    client = client_of(endpoint, waits)
    ask(client)
    assert waits[0] == 40
    waits.clear()
    ask(client)  # another thread's request
    assert 30 < waits[0] <= 40


@pytest.mark.full
def test_retry_after_may_be_a_date_and_a_long_one_ends_the_attempts(endpoint):
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert 60 < retry_after(httpx2.Headers({"Retry-After": date})) <= 90
    assert retry_after(httpx2.Headers({"Retry-After": "soon"})) is None
    endpoint.faults = [(503, {"Retry-After": "100000"})]
    with pytest.raises(EndpointFailed, match="503"):
        ask(client_of(endpoint))
    assert len(endpoint.asked) == 1


def test_a_slow_answer_is_given_up(endpoint):
    endpoint.faults = ["slow"]
    endpoint.gate.clear()
    with pytest.raises(EndpointFailed, match=r"within 0\.05 seconds"):
        ask(client_of(endpoint, timeout=0.05, retries=0))
    endpoint.gate.set()


def test_a_stop_ends_the_wait_between_two_attempts(endpoint):
    endpoint.faults = [(429, {"Retry-After": "300"})]
    client = Client(endpoint.url, KEY, MODEL, 300.0, 3)
    ended = []

    def ask_until_stopped():
        with pytest.raises(Stopped):
            ask(client)
        ended.append(True)

    thread = threading.Thread(target=ask_until_stopped)
    thread.start()
    while not endpoint.asked:
        thread.join(0.01)
    client.close()
    thread.join(300)
    assert ended


@pytest.mark.full
def test_a_model_that_wants_another_name_of_the_limit_gets_it(endpoint):
    class Client2(Client):
        def _json(self, method, path, body=None):
            if "max_tokens" in body:
                raise EndpointFailed("Use 'max_completion_tokens' instead.", is_temporary=False)
            return super()._json(method, path, body)

    client = Client2(endpoint.url, KEY, MODEL, 300.0, 0)
    assert ask(client).text == ask(client).text == "Hi!"
    assert [body["max_completion_tokens"] for body in endpoint.asked] == [7, 7]


@pytest.mark.parametrize(
    "answer",
    [None, [], {}, {"choices": []}, {"choices": [{"message": None}]}, {"choices": [{"message": {"content": 3}}]}],
)
def test_an_answer_without_a_completion_is_a_failure(answer):
    with pytest.raises(EndpointFailed):
        read_completion(answer, MODEL, 0.1)


def test_tokens_that_are_not_counted_stay_unknown():
    answer = {"choices": [{"message": {"content": "a\0b"}}], "usage": {"prompt_tokens": -1, "completion_tokens": True}}
    written = read_completion(answer, MODEL, 0.1)
    assert (written.text, written.model, written.prompt_tokens, written.completion_tokens) == ("ab", MODEL, None, None)


def resolving_to(monkeypatch, *addresses):
    entries = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *more, **options: entries if host == "model.example.org" else real(host, *more, **options),
    )


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "192.168.1.9", "169.254.169.254", "0.0.0.0", "::1", "fd00::1", "fe80::1"),
        *("64:ff9b::7f00:1", "2002:7f00:1::"),  # which gateways translate to 127.0.0.1
    ],
)
def test_an_address_that_is_not_public_is_refused_unless_its_network_is_named(settings, monkeypatch, address):
    settings.ENDPOINT_NETWORKS = []
    resolving_to(monkeypatch, "93.184.216.34", address)  # one of several addresses is enough
    with pytest.raises(Invalid, match="ACCORD_ENDPOINT_NETWORKS"):
        target_of("https://model.example.org/v1", has_key=True)
    settings.ENDPOINT_NETWORKS = [ipaddress.ip_network(address)]
    assert target_of("https://model.example.org/v1", has_key=True).server_name == "model.example.org"


def test_an_ipv4_address_in_ipv6_notation_is_checked_as_ipv4(settings):
    settings.ENDPOINT_NETWORKS = []
    with pytest.raises(Invalid, match="no public address"):
        target_of("http://[::ffff:127.0.0.1]:8000/v1", has_key=False)


def test_the_request_goes_to_the_address_that_was_checked_with_the_name_of_the_host(endpoint, monkeypatch):
    resolving_to(monkeypatch, "127.0.0.1")
    port = endpoint.url.split(":")[2].split("/")[0]
    endpoint.hosts.clear()
    assert ask(Client(f"http://model.example.org:{port}/v1", KEY, MODEL, 300.0, 0)).text == "Hi!"
    assert endpoint.hosts == [f"model.example.org:{port}"]


def test_a_key_goes_to_public_addresses_over_tls_only(monkeypatch):
    resolving_to(monkeypatch, "93.184.216.34")
    assert target_of("http://model.example.org/v1", has_key=False).base_url == "http://93.184.216.34/v1"
    with pytest.raises(Invalid, match="without encryption"):
        target_of("http://model.example.org/v1", has_key=True)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://host/v1",
        "http://",
        "http://ann:pass@host/v1",
        "http://host/v1?x=1",
        "http://host:x/v1",
        "a b",
        "http://[x",
    ],
)
def test_an_address_that_is_none_is_refused_without_its_password(url):
    with pytest.raises(Invalid) as refused:
        checked_url(url)
    assert "pass@" not in refused.value.message


def test_the_usual_forms_of_an_address_are_one():
    forms = ["http://host:8000/v1", " http://host:8000/v1/ ", "http://host:8000/v1/chat/completions"]
    assert {checked_url(form) for form in forms} == {"http://host:8000/v1"}


def test_networks_are_private_by_default_only_where_one_person_can_reach_the_site(monkeypatch):
    assert default_endpoint_networks(True, "127.0.0.1", "") == ["private"]
    for case in [(False, "127.0.0.1", ""), (True, "0.0.0.0", ""), (True, "", "https://accord.example.org")]:
        assert default_endpoint_networks(*case) == ["none"]

    def read(text, default=("none",)):
        monkeypatch.setenv("ACCORD_ENDPOINT_NETWORKS", text)
        return [str(network) for network in read_networks("ACCORD_ENDPOINT_NETWORKS", [*default], PRIVATE_NETWORKS)]

    assert read("") == read("none", ["private"]) == []
    assert read("192.168.1.0/24, fd00::/8") == ["192.168.1.0/24", "fd00::/8"]
    assert read("", ["private"]) == read("private") and "127.0.0.0/8" in read("private")
    assert not any("169.254" in network for network in read("private"))
    with pytest.raises(SetupError, match="/24, or private"):
        read("my lan")


def test_an_encrypted_key_can_only_be_read_with_its_secret_key_and_purpose(settings):
    text = encrypt(KEY, "endpoint key")
    assert KEY not in text and text != encrypt(KEY, "endpoint key")
    assert decrypt(text, "endpoint key") == KEY
    assert decrypt(text, "another purpose") is None
    middle = len(text) // 2  # the last characters have bits that mean nothing
    changed = text[:middle] + ("A" if text[middle] != "A" else "B") + text[middle + 1 :]
    assert decrypt(changed, "endpoint key") is None
    settings.SECRET_KEY = "another secret key, long enough for the tests"
    assert decrypt(text, "endpoint key") is None
