"""Celery's broker: its options, and its tables in the database."""

import socket

import pytest
from django.db import connection
from pgmq.base import PGMQConfig
from psycopg.conninfo import conninfo_to_dict

from config.runtime import broker
from config.runtime.errors import SetupError

ADDRESSES = [
    "postgresql://postgres@/accord?host=/tmp/a%20folder/socket",
    "postgresql://user:p%27a%20%5Css@db.example.org:6543/my%20db?sslmode=verify-full&sslrootcert=/etc/ca%20file.pem",
    "postgresql:///accord",
    "host=db.example.org dbname=accord user=accord password='it''s'".replace("''", "\\'"),
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_pgmqs_client_connects_to_the_database_of_the_address(address):
    connects_to = PGMQConfig(conn_string=broker.pgmq_conninfo(address)).dsn
    assert {name: value for name, value in conninfo_to_dict(connects_to).items() if value} == conninfo_to_dict(address)


@pytest.mark.parametrize("url", ["sqs://", "pgmq://elsewhere/db", "redis://", "redis", ""])
def test_an_unsupported_broker_stops_the_start(url):
    with pytest.raises(SetupError, match="CELERY_BROKER_URL"):
        broker.transport_options(url, "")


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_broker_that_does_not_answer_stops_the_start(scheme):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound but not listening: refused, and nobody else gets the port
        url = f"{scheme}://user:hidden-word@127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(SetupError, match=r"127\.0\.0\.1.*CELERY_BROKER_URL.*reached") as caught:
            broker.check(url)
    assert "hidden-word" not in str(caught.value)


@pytest.mark.parametrize("url", ["", "pgmq://", "sqs://"])
def test_queues_in_the_database_need_no_check_of_a_broker(url):
    broker.check(url)


def test_a_migration_creates_the_brokers_tables(db):
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('pgmq.meta') IS NOT NULL, to_regproc('pgmq.create') IS NOT NULL")
        assert cursor.fetchone() == (True, True)


def test_installing_again_changes_nothing(db):
    broker.install()
    broker.install()
