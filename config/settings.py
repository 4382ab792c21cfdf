"""All settings, and the only code that reads the environment. docs/operations.md lists the variables.

A bad value raises SetupError with a sentence that names it.
"""

import secrets
from pathlib import Path
from typing import Any

from config.runtime import broker, hosts
from config.runtime.environment import (
    read_boolean,
    read_choice,
    read_endpoint,
    read_gpus,
    read_integer,
    read_key,
    read_list,
    read_networks,
    read_text,
    read_url,
)
from config.runtime.errors import SetupError
from config.runtime.mail import read_mail_server
from config.runtime.single_sign_on import allauth_providers, read_single_sign_on

BASE_DIR = Path(__file__).resolve().parent.parent
DATA_DIR = Path(read_text("ACCORD_DATA", default=str(BASE_DIR / "var"))).resolve()

DEBUG = read_boolean("DEBUG", default=False)
DATABASE_URL = read_text("DATABASE_URL")
EMBEDDED_DATABASE = read_boolean("ACCORD_EMBEDDED_DATABASE", default=False)


def _secret_key() -> str:
    key = read_text("SECRET_KEY", default="")
    if key:
        if not DEBUG and len(key) < 32:
            raise SetupError("SECRET_KEY has fewer than 32 characters and could be guessed: set a long random one.")
        return key
    if not (EMBEDDED_DATABASE or DEBUG):
        raise SetupError(
            "SECRET_KEY is not set: with DATABASE_URL, every process needs the same long random text "
            "(python3 -c 'import secrets; print(secrets.token_urlsafe(50))')."
        )
    # One machine and one data folder: a random key is kept beside the data.
    path = DATA_DIR / "secret_key"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{secrets.token_hex(4)}")
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_urlsafe(50))
        draft.rename(path)
    try:
        key = path.read_text().strip()
    except OSError as error:
        raise SetupError(
            f"{path} cannot be read ({error.strerror}): with Accord stopped, change the owner of the data folder to "
            f"the user that runs it (chown -R), or copy it again with cp -a."
        ) from error
    if len(key) < 32:
        raise SetupError(
            f"{path} is empty or cut off: restore it from a backup, or delete it to get a new key (everybody must then "
            f"sign in again)."
        )
    return key


SECRET_KEY = _secret_key()
PUBLIC_URL = read_url("ACCORD_URL", default="")
# ACCORD_HOST is the value of `--host`, set by config/runtime/services.py.
ALLOWED_HOSTS = read_list("ALLOWED_HOSTS", default=hosts.default_allowed_hosts(read_text("ACCORD_HOST"), PUBLIC_URL))
if "*" in ALLOWED_HOSTS and not DEBUG:
    raise SetupError('ALLOWED_HOSTS is "*", which lets anyone forge links in our pages: list the host names.')
CSRF_TRUSTED_ORIGINS = [PUBLIC_URL] if PUBLIC_URL else []
CSRF_FAILURE_VIEW = "feedback.web.unsent_forms.csrf_failure"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = PUBLIC_URL.startswith("https://")
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if SESSION_COOKIE_SECURE else None
# Redirect plain requests to https, except /healthz, which is answered before (config.runtime.health).
SECURE_SSL_REDIRECT = SESSION_COOKIE_SECURE
SECURE_SSL_HOST = PUBLIC_URL.partition("://")[2] or None
SECURE_HSTS_SECONDS = 31_536_000 if SESSION_COOKIE_SECURE else 0
X_FRAME_OPTIONS = "DENY"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
# Completions are untrusted text. If markup passes the sanitiser, the browser still runs and loads nothing.
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'none'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "font-src": ["'self'"],
        "connect-src": ["'self'"],
        "manifest-src": ["'self'"],
        "form-action": ["'self'"],
        "frame-ancestors": ["'none'"],
        "base-uri": ["'none'"],
    }
}

INSTALLED_APPS = [
    "config",
    "feedback",
    "training",
    "config.admin_site.AuditedAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.humanize",
    "django.contrib.messages",
    "django.contrib.postgres",
    "django.contrib.sessions",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.usersessions",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.openid_connect",
    "allauth.socialaccount.providers.github",
    "config.static.Assets",
    "csp",
    "django_htmx",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "rest_framework",
]
MIDDLEWARE = [
    "config.runtime.health.HealthMiddleware",
    "training.web.watch.WatchMiddleware",
    "config.request_ids.RequestIdMiddleware",
    "config.responses.ResponseMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "feedback.web.body_limits.BodyLimitMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "feedback.web.accounts.preferences.PreferencesMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "feedback.audit.AuditMiddleware",
    "feedback.web.unsent_forms.UnsentFormsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "feedback.errors.AccordErrorMiddleware",
    "feedback.archive.ArchiveMiddleware",
]
ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
WEB_WORKERS = read_integer("WEB_WORKERS", default=2, minimum=1)
WEB_THREADS = read_integer("WEB_THREADS", default=4, minimum=1)
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    },
    {
        "BACKEND": "django.template.backends.jinja2.Jinja2",
        "DIRS": [BASE_DIR / "templates"],
        "OPTIONS": {"environment": "feedback.rendering.jinja.environment"},
    },
]


def _database() -> dict[str, Any]:
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    try:
        parts: dict[str, Any] = conninfo_to_dict(DATABASE_URL)
    except ProgrammingError as error:
        raise SetupError(f"DATABASE_URL is not a PostgreSQL address ({str(error).strip()}).") from error
    names = {"dbname": "NAME", "user": "USER", "password": "PASSWORD", "host": "HOST", "port": "PORT"}
    return {
        "ENGINE": "config.database",
        **{django: str(parts.pop(libpq, "")) for libpq, django in names.items()},
        "CONN_MAX_AGE": 600,
        "CONN_HEALTH_CHECKS": True,
        # Statements are prepared from the second execution on, if values are sent separately: feedback/statements.py.
        "OPTIONS": {"prepare_threshold": 1} | parts,
    }


DATABASES = {"default": _database()} if DATABASE_URL else {}
# Counts of wrong passwords and codes, shared by all web processes. Nothing else is cached.
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.db.DatabaseCache",
        "LOCATION": "accord_cache",  # made by a migration
        "OPTIONS": {"MAX_ENTRIES": 100_000},  # beyond it old counts are dropped
    }
}

AUTH_USER_MODEL = "feedback.User"
AUTHENTICATION_BACKENDS = ["feedback.api.authentication.Sessions"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        *("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator"),
        "NumericPasswordValidator",
    )
] + [{"NAME": "feedback.web.passwords.DistinctCharactersValidator"}]
PASSWORD_RESET_TIMEOUT = 24 * 60 * 60  # seconds that a link for a new password lasts
PASSWORD_HASHERS = ["feedback.web.passwords.LimitedHasher"] + [
    f"django.contrib.auth.hashers.{name}PasswordHasher" for name in ("PBKDF2SHA1", "Argon2", "BCryptSHA256", "Scrypt")
]
LOGIN_URL = "sign-in"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "sign-in"
# Accounts: django-allauth. docs/operations.md has the limits.
# Of the API, for all processes together; 0: no limit. A simulation or a benchmark sends up to 300 a second.
API_REQUESTS_PER_MINUTE = read_integer("API_REQUESTS_PER_MINUTE", default=30_000)
API_REQUESTS_PER_MINUTE_AND_ADDRESS = read_integer("API_REQUESTS_PER_MINUTE_AND_ADDRESS", default=60_000)
TRUSTED_PROXIES = read_integer("ACCORD_PROXIES", default=0)
ACCOUNT_ADAPTER = "feedback.web.accounts.adapter.AccountAdapter"
ACCOUNT_LOGIN_METHODS = {"username"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "password1*"]
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_EMAIL_UNKNOWN_ACCOUNTS = False  # no mail to strangers
ACCOUNT_EMAIL_SUBJECT_PREFIX = ""
ACCOUNT_LOGIN_ON_PASSWORD_RESET = True  # after the second factor, if there is one
ACCOUNT_PASSWORD_RESET_TOKEN_GENERATOR = "django.contrib.auth.tokens.PasswordResetTokenGenerator"
ACCOUNT_RATE_LIMITS = {
    "login": None,  # an office of many people has one address
    "login_failed": "20/m/ip,20/m/key",
    "login_failed_in_known_browser": "20/m/key",
}
ACCOUNT_FORMS = {
    "reset_password": "feedback.web.accounts.forms.ResetPasswordForm",
    "reset_password_from_key": "feedback.web.accounts.forms.ResetPasswordKeyForm",
    "reauthenticate": "feedback.web.accounts.forms.ReauthenticateForm",
}
SECOND_FACTOR = read_choice("ACCORD_SECOND_FACTOR", ("OPTIONAL", "MANAGERS"), default="OPTIONAL")
MFA_ADAPTER = "feedback.web.accounts.second_factor.SecondFactorAdapter"
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_PASSKEY_LOGIN_ENABLED = True
MFA_ALLOW_UNVERIFIED_EMAIL = True  # accounts come from invitations, not from mail
MFA_TOTP_ISSUER = "Accord"
MFA_WEBAUTHN_ALLOW_INSECURE_ORIGIN = not SESSION_COOKIE_SECURE  # browsers allow it for localhost alone
MFA_FORMS = {
    "authenticate": "feedback.web.accounts.forms.AuthenticateForm",
    "reauthenticate": "feedback.web.accounts.forms.ReauthenticateByCodeForm",
    "activate_totp": "feedback.web.accounts.forms.ActivateTOTPForm",
    "add_webauthn": "feedback.web.accounts.forms.AddWebAuthnForm",
}
SINGLE_SIGN_ON = read_single_sign_on("ACCORD_SSO_FILE", read_text("ACCORD_SSO_FILE"))
SOCIALACCOUNT_PROVIDERS = allauth_providers(SINGLE_SIGN_ON)
SOCIALACCOUNT_ADAPTER = "feedback.web.accounts.single_sign_on.SingleSignOnAdapter"
SOCIALACCOUNT_LOGIN_ON_GET = True  # a form's redirect to another site would break our policy for forms
SOCIALACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_DEFAULT_HTTP_PROTOCOL = "https" if SESSION_COOKIE_SECURE else "http"
MAIL_SERVER = read_mail_server("ACCORD_MAIL_URL", read_text("ACCORD_MAIL_URL"))
HAS_MAIL = MAIL_SERVER is not None
DEFAULT_FROM_EMAIL = read_text("ACCORD_MAIL_FROM", default="accord@localhost")
EMAIL_BACKEND = f"django.core.mail.backends.{MAIL_SERVER.backend if MAIL_SERVER else 'dummy'}.EmailBackend"
EMAIL_TIMEOUT = 20  # seconds
if MAIL_SERVER:
    EMAIL_HOST, EMAIL_PORT = MAIL_SERVER.host, MAIL_SERVER.port
    EMAIL_HOST_USER, EMAIL_HOST_PASSWORD = MAIL_SERVER.user, MAIL_SERVER.password
    EMAIL_USE_TLS, EMAIL_USE_SSL = MAIL_SERVER.starts_tls, MAIL_SERVER.is_tls
SESSION_ENGINE = "feedback.web.sessions"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_AGE = 14 * 24 * 3600

LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("zh-hans", "简体中文")]
LOCALE_PATHS = [BASE_DIR / "config" / "locale"]
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

STATIC_URL = "static/"
STATIC_ROOT = DATA_DIR / "static"
_PACKAGES = BASE_DIR / "static" / "node_modules"
STATICFILES_DIRS = [
    ("accord", BASE_DIR / "static" / "accord"),
    ("htmx", _PACKAGES / "htmx.org" / "dist"),
    ("diff", _PACKAGES / "diff" / "libesm"),
    ("katex", _PACKAGES / "katex" / "dist"),
    ("uplot", _PACKAGES / "uplot" / "dist"),
]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "config.static.AssetStorage"},
}
DATA_UPLOAD_MAX_MEMORY_SIZE = 64 * 1024 * 1024
MAX_IMPORT_FILE_SIZE = 4 * 1024**3  # bytes; of a file to import, which is stored on the disk and read as a stream
# Bytes of a body without the token or session of an account. It is as large because a form that arrives after its
# session ended is kept, and guidelines are long.
MAX_ANONYMOUS_BODY_SIZE = 1024 * 1024

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "feedback.api.authentication.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": [
        "rest_framework.permissions.IsAuthenticated",
        "feedback.api.scopes.HasScope",
        "feedback.api.strict.KnownParameters",
        "feedback.api.strict.KnownBody",
    ],
    "DEFAULT_THROTTLE_CLASSES": ["feedback.api.throttles.RequestThrottle"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "feedback.api.negotiation.IgnoreAcceptHeader",
    "DEFAULT_PARSER_CLASSES": ["feedback.api.parsers.JsonParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "feedback.api.errors.api_exception_handler",
    "URL_FORMAT_OVERRIDE": None,  # ?format= names the export format
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Accord",
    "DESCRIPTION": "The human-feedback loop around a language model.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.1",
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "feedback.api.schema.complete",
    ],
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "ENUM_NAME_OVERRIDES": {"InvitationState": "feedback.actions.invitations.State"},
}

CELERY_BROKER_URL = broker.address(read_text("CELERY_BROKER_URL", default="pgmq://"))
CELERY_BROKER_TRANSPORT_OPTIONS = broker.transport_options(CELERY_BROKER_URL, DATABASE_URL)
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_DEFAULT_QUEUE = "default"
CELERY_TASK_ACKS_LATE = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_TIMEZONE = "UTC"
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_WORKER_ENABLE_REMOTE_CONTROL = False  # PGMQ cannot broadcast; heartbeats in the database replace it
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TASK_ROUTES = {
    f"training.tasks.{name}": {"queue": "gpu"} for name in ("run_round", "check_checkpoint", "settle_checkpoint_files")
}
# Seconds between runs. Messages expire, so that a worker that was stopped for a day does not find a backlog.
CELERY_BEAT_SCHEDULE = {
    "sweep-lost-rounds": {"task": "training.tasks.sweep_lost_rounds", "schedule": 10, "options": {"expires": 30}},
    "send-waiting-rounds": {"task": "training.tasks.send_waiting_rounds", "schedule": 10, "options": {"expires": 30}},
    "send-waiting-checks": {"task": "training.tasks.send_waiting_checks", "schedule": 10, "options": {"expires": 30}},
    "send-unsettled-files": {"task": "training.tasks.send_unsettled_files", "schedule": 60, "options": {"expires": 60}},
    "start-due-rounds": {"task": "training.tasks.start_due_rounds", "schedule": 15, "options": {"expires": 30}},
    "settle-trials": {"task": "training.tasks.settle_trials", "schedule": 5, "options": {"expires": 30}},
    "deliver-webhooks": {"task": "training.tasks.deliver_webhooks", "schedule": 5, "options": {"expires": 10}},
    "run-imports": {"task": "training.tasks.run_imports", "schedule": 5, "options": {"expires": 10}},
    "estimate-reliability": {
        "task": "training.tasks.estimate_reliability",
        "schedule": 600,
        "options": {"expires": 600},
    },
    "count-quality": {"task": "training.tasks.count_quality", "schedule": 30, "options": {"expires": 30}},
    "rate-sources": {"task": "training.tasks.rate_sources", "schedule": 30, "options": {"expires": 30}},
    "delete-idempotent-responses": {
        "task": "training.tasks.delete_idempotent_responses",
        "schedule": 3600,
        "options": {"expires": 3600},
    },
    "delete-webhook-deliveries": {
        "task": "training.tasks.delete_webhook_deliveries",
        "schedule": 3600,
        "options": {"expires": 3600},
    },
    "clear-sessions": {"task": "training.tasks.clear_sessions", "schedule": 3600, "options": {"expires": 3600}},
    "delete-ended-workers": {
        "task": "training.tasks.delete_ended_workers",
        "schedule": 3600,
        "options": {"expires": 3600},
    },
    "sweep-leases": {"task": "training.tasks.sweep_leases", "schedule": 60, "options": {"expires": 120}},
}

# An OpenAI-compatible server that can be the simulated user of a round's dialogues (training/rounds/simulated_user.py).
SIMULATED_USER_URL = read_endpoint("ACCORD_SIMULATED_USER_URL")
SIMULATED_USER_MODEL = read_text("ACCORD_SIMULATED_USER_MODEL")
SIMULATED_USER_KEY = read_key("ACCORD_SIMULATED_USER_KEY")
if SIMULATED_USER_URL and not SIMULATED_USER_MODEL:
    raise SetupError("ACCORD_SIMULATED_USER_URL is set: set ACCORD_SIMULATED_USER_MODEL, the name of its model, too.")

# Networks besides the public internet where the endpoints of projects may be (training/endpoints/addresses.py).
ENDPOINT_NETWORKS = read_networks(
    "ACCORD_ENDPOINT_NETWORKS",
    hosts.default_endpoint_networks(EMBEDDED_DATABASE, read_text("ACCORD_HOST"), PUBLIC_URL),
    hosts.PRIVATE_NETWORKS,
)
# Networks besides the public internet that webhooks may post to (feedback/webhooks/addresses.py).
WEBHOOK_NETWORKS = read_networks("ACCORD_WEBHOOK_NETWORKS", [], hosts.PRIVATE_NETWORKS)

# The GPUs that CUDA shows to programs; None: all of them. Only the page Machines reads this.
VISIBLE_GPUS = read_gpus("CUDA_VISIBLE_DEVICES")

LOG_LEVEL = read_choice("LOG_LEVEL", ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"), default="INFO")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name}{request_id}: {message}", "style": "{"}},
    "filters": {"request_id": {"()": "config.request_ids.AddRequestId"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["request_id"]}},
    "root": {"handlers": ["console"], "level": LOG_LEVEL},
    # These log each request that we send, and the simulation sends thousands.
    "loggers": {name: {"level": "WARNING"} for name in ("httpcore", "httpx", "httpx2")},
}
