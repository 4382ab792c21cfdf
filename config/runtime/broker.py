"""Celery's broker: queues in the database itself (PGMQ) unless CELERY_BROKER_URL names Redis or RabbitMQ.

PGMQ is plain SQL, installed once into the schema `pgmq`; it needs no extension and no other service.
"""

from typing import Any

from django.conf import settings
from django.db import connection
from psycopg.conninfo import conninfo_to_dict

from config.runtime.errors import SetupError

# Seconds after which a message that was not acknowledged is delivered again. A round may take far longer: its second
# delivery finds the row claimed and ends at once, so this only says how soon a killed worker's small tasks come back.
REDELIVERY = 1800


# Kombu wants a host in the address, and uses none of it: the connection is made with `conn_string`.
ITSELF = "pgmq://localhost"


def address(given: str) -> str:
    """The broker's address as Celery is told it: `pgmq://` stands for the database itself."""
    return ITSELF if given == "pgmq://" else given


def transport_options(broker_url: str, database_url: str) -> dict[str, Any]:
    """What Celery needs to know about its broker. Raises SetupError for a kind that we do not run on."""
    scheme, _, rest = broker_url.partition("://")
    if broker_url == ITSELF:
        return {
            "conn_string": pgmq_conninfo(database_url),
            "init_extension": False,  # the SQL is ours to install; the server may not know the extension
            "visibility_timeout": REDELIVERY,
            "use_notify": True,
            "wait_time_seconds": 0,  # with notifications nothing has to poll inside the server
            "polling_interval": 5,  # seconds; only a lost notification waits that long
            "pool_size": 4,
        }
    if scheme in ("redis", "rediss") and rest:
        return {"visibility_timeout": REDELIVERY}
    if scheme in ("amqp", "amqps"):
        return {}
    raise SetupError(
        f"CELERY_BROKER_URL starts with «{scheme}»: use pgmq:// (the database itself), redis://… or amqp://…."
    )


def pgmq_conninfo(url: str) -> str:
    """The address for PGMQ's client, which knows five fields, fills in defaults of its own, and quotes nothing.

    So each value goes in already quoted for libpq (an empty one too, which leaves it to libpq), and every other option
    (sslmode, …) rides behind the database's name: what the client pastes together is then what `url` describes.
    """
    parts = {name: str(value) for name, value in conninfo_to_dict(url).items()}
    fields = {name: libpq(parts.pop(name, "")) for name in ("host", "port", "user", "password")}
    database = [libpq(parts.pop("dbname", "")), *(f"{name}={libpq(value)}" for name, value in parts.items())]
    fields["dbname"] = " ".join(database)
    return " ".join(f"{name}={libpq(value)}" for name, value in fields.items())


def libpq(value: str) -> str:
    """A value as libpq's connection strings quote it."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def install() -> None:
    """Put PGMQ's tables and functions into the database, if it is the broker and they are not there yet."""
    if not settings.CELERY_BROKER_URL.startswith("pgmq:"):
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('pgmq.meta') IS NOT NULL")
        if cursor.fetchone()[0]:
            return
        from pgmq.install import get_embedded_install_sql

        # One process at a time: two workers that migrate at once would both find nothing.
        cursor.execute("SELECT pg_advisory_lock(hashtext('accord.pgmq'))")
        try:
            cursor.execute("SELECT to_regclass('pgmq.meta') IS NOT NULL")
            if not cursor.fetchone()[0]:
                cursor.connection.execute(get_embedded_install_sql())
        finally:
            cursor.execute("SELECT pg_advisory_unlock(hashtext('accord.pgmq'))")
