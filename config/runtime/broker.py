"""Celery's broker: queues in the database (PGMQ) unless CELERY_BROKER_URL names Redis or RabbitMQ.

PGMQ is plain SQL in the schema `pgmq`; it needs no extension and no other service.
"""

from typing import Any

from django.conf import settings
from django.db import connection
from psycopg.conninfo import conninfo_to_dict

from config.runtime.errors import SetupError

# Seconds until a message that was not acknowledged is delivered again: the delay of a killed worker's small tasks.
# A round may take far longer. Its second delivery finds the row claimed and ends at once.
VISIBILITY_TIMEOUT = 1800
# Kombu requires a host in the address but does not use it: the connection is made with `conn_string`.
DATABASE_BROKER = "pgmq://localhost"
CONNECT_TIMEOUT = 10  # seconds


def address(url: str) -> str:
    """Return the broker's address for Celery: `pgmq://` stands for the database."""
    return DATABASE_BROKER if url == "pgmq://" else url


def transport_options(broker_url: str, database_url: str) -> dict[str, Any]:
    """Return Celery's options for the broker. Raises SetupError for a kind of broker that is not supported."""
    scheme, _, rest = broker_url.partition("://")
    if broker_url == DATABASE_BROKER:
        return {
            "conn_string": pgmq_conninfo(database_url),
            "init_extension": False,  # `install` runs the SQL; the server may not have the extension
            "visibility_timeout": VISIBILITY_TIMEOUT,
            "use_notify": True,
            "wait_time_seconds": 0,  # notifications make long polling inside the server needless
            "polling_interval": 5,  # seconds: the delay after a lost notification
            "pool_size": 4,
        }
    if scheme in ("redis", "rediss") and rest:
        return {"visibility_timeout": VISIBILITY_TIMEOUT}
    if scheme in ("amqp", "amqps"):
        return {}
    raise SetupError(
        f'CELERY_BROKER_URL starts with "{scheme}": use pgmq:// (the database), redis://HOST/0 or amqp://HOST.'
    )


def check(url: str) -> None:
    """Raise SetupError unless Redis or RabbitMQ accepts a connection; the message contains no password.

    Without this check the pages would work, but rounds and background work would wait without an error message.
    """
    from kombu import Connection
    from kombu.exceptions import OperationalError

    if url.partition("://")[0] not in ("redis", "rediss", "amqp", "amqps"):
        return  # the database, or an address that the settings refuse
    connection = Connection(url, connect_timeout=CONNECT_TIMEOUT)
    try:
        connection.ensure_connection(max_retries=1, interval_start=0, timeout=CONNECT_TIMEOUT)
    except (OperationalError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1].strip() if str(error).strip() else type(error).__name__
        raise SetupError(f"the broker {connection.as_uri()} (CELERY_BROKER_URL) cannot be reached: {reason}") from error
    finally:
        connection.release()


def pgmq_conninfo(url: str) -> str:
    """Return the connection string for PGMQ's client that describes the same connection as `url`.

    The client supports five fields, replaces missing ones by its defaults, and joins the values without quoting. So
    each value is quoted for libpq beforehand, also an empty one, which leaves the default to libpq. Other options
    (sslmode) are appended to the database's name.
    """
    parts = {name: str(value) for name, value in conninfo_to_dict(url).items()}
    fields = {name: libpq(parts.pop(name, "")) for name in ("host", "port", "user", "password")}
    database = [libpq(parts.pop("dbname", "")), *(f"{name}={libpq(value)}" for name, value in parts.items())]
    fields["dbname"] = " ".join(database)
    return " ".join(f"{name}={libpq(value)}" for name, value in fields.items())


def libpq(value: str) -> str:
    """Quote a value for a connection string of libpq."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def install() -> None:
    """Create PGMQ's tables and functions in the database if it is the broker and they do not exist."""
    if not settings.CELERY_BROKER_URL.startswith("pgmq:"):
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('pgmq.meta') IS NOT NULL")
        if cursor.fetchone()[0]:
            return
        from pgmq.install import get_embedded_install_sql

        # One process at a time: two that migrate at once would both see no tables and run the SQL twice.
        cursor.execute("SELECT pg_advisory_lock(hashtext('accord.pgmq'))")
        try:
            cursor.execute("SELECT to_regclass('pgmq.meta') IS NOT NULL")
            if not cursor.fetchone()[0]:
                cursor.connection.execute(get_embedded_install_sql())
        finally:
            cursor.execute("SELECT pg_advisory_unlock(hashtext('accord.pgmq'))")
