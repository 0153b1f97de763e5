"""Every setting. `env` reads each environment variable by the name of its setting."""

import logging
import secrets
import sys
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from novita_site import __version__, running
from novita_site import env as environment
from novita_site.durations import *  # noqa: F403 - each is a setting
from novita_site.private_files import make_folder

BASE_DIR = Path(__file__).resolve().parent.parent

# `stop_all` needs only these variables. It prints the problems of all others and continues.
IS_STOP = sys.argv[1:2] == ["stop_all"]
NEEDED_TO_STOP = {"NOVITA_API_KEY", "NOVITA_BASE_URL", "CA_BUNDLE", "EGRESS_PROXY_URL", "DATABASE_URL"}

env = environment.read(BASE_DIR)

# What the panel writes. The code's own folder may be read-only.
VAR_DIR = BASE_DIR / env.text("VAR_DIR", "var")
# Addresses of what `manage.py up` started, for commands in other shells.
RUNNING_FILE = VAR_DIR / running.NAME
RUNNING = env.provided
# Whether any of them is in use. If so, this process depends on that `up`.
USES_RUNNING = any(env.text(name) == value for name, value in RUNNING.items())

# --- Addresses and login

HOST = env.host("HOST", "127.0.0.1")
PORT = env.integer("PORT", 3000, 1, 65535)
WEB_WORKERS = env.integer("WEB_WORKERS", 2, 1, 64)
# 16 clients whose requests wait for Novita must not delay /health.
WEB_THREADS = env.integer("WEB_THREADS", 16, 1, 256)
DEBUG = env.flag("DEBUG", default=False)
ALLOWED_HOSTS = env.hosts("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
# The path of the panel on a host that it shares: /panel. `wsgi` takes it off each request's path, Django puts it into
# each address.
PATH_PREFIX = env.path_prefix("PATH_PREFIX")
FORCE_SCRIPT_NAME = PATH_PREFIX or None

LOOPBACK_ONLY = all(environment.is_loopback(host) for host in [HOST, *ALLOWED_HOSTS])
REQUIRE_LOGIN = env.flag("REQUIRE_LOGIN", default=not LOOPBACK_ONLY)
if not REQUIRE_LOGIN and not LOOPBACK_ONLY:
    env.refuse(
        "REQUIRE_LOGIN",
        "without a login, anybody on the network could stop your instances.",
        "Remove it, or set HOST and ALLOWED_HOSTS to names of this machine only.",
    )

SECRET_KEY = env.text("SECRET_KEY")
if not SECRET_KEY and LOOPBACK_ONLY:
    try:
        SECRET_KEY = environment.read_or_make_secret_key(VAR_DIR / "secret-key")
    except OSError as exc:
        SECRET_KEY = secrets.token_urlsafe(48)
        if not IS_STOP:
            cure = "Set SECRET_KEY, or make the folder writable."
            env.refuse("SECRET_KEY", f"a generated key can't be stored in {VAR_DIR} ({exc.strerror}).", cure)
elif not SECRET_KEY:
    SECRET_KEY = secrets.token_urlsafe(48)
    env.refuse(
        "SECRET_KEY",
        "it is required when other machines can reach the service.",
        "Generate one: python3 -c 'import secrets; print(secrets.token_urlsafe(48))'",
    )

# Previous values of SECRET_KEY, with commas between: what they signed or encrypted stays valid.
SECRET_KEY_FALLBACKS = env.names("SECRET_KEY_FALLBACKS", "")

# --- Proxies and single sign-on

# Proxies whose X-Forwarded-For header is trusted. By default none is.
TRUSTED_PROXIES = env.networks("TRUSTED_PROXIES")
# The header by which a proxy marks requests that came over TLS. The proxy must remove it from clients' requests.
SECURE_PROXY_SSL_HEADER = env.header("SECURE_PROXY_SSL_HEADER")
# Acting requests per minute for one user or address. Stops are not counted. 0 means no limit.
API_RATE_LIMIT = env.integer("API_RATE_LIMIT", 600, 0, 1_000_000)

# Single sign-on with OpenID Connect. It is on when all three are set.
OIDC_ISSUER = env.issuer("OIDC_ISSUER")
OIDC_CLIENT_ID = env.text("OIDC_CLIENT_ID")
OIDC_CLIENT_SECRET = env.api_key("OIDC_CLIENT_SECRET")
HAS_SSO = env.has_all("OIDC_ISSUER", "OIDC_CLIENT_ID", "OIDC_CLIENT_SECRET")
# The claim that lists a user's groups, and the role that each group gives.
OIDC_ROLE_CLAIM = env.text("OIDC_ROLE_CLAIM", "groups")
OIDC_ROLES = env.roles("OIDC_ROLES")

# Calls to Novita and to the identity provider: additional certificate authorities (PEM), and a proxy.
CA_BUNDLE = env.certificates("CA_BUNDLE", BASE_DIR)
EGRESS_PROXY_URL = env.proxy_url("EGRESS_PROXY_URL")

# Who may read /metrics: who sends the token, and clients with these addresses.
METRICS_TOKEN = env.api_key("METRICS_TOKEN")
METRICS_ALLOW = env.networks("METRICS_ALLOW")
if 0 < len(METRICS_TOKEN) < 16:
    cure = "Generate one: python3 -c 'import secrets; print(secrets.token_urlsafe(24))'"
    env.refuse("METRICS_TOKEN", "it has less than 16 characters.", cure)

# --- Novita and the inventory

NOVITA_API_KEY = env.api_key("NOVITA_API_KEY")
NOVITA_BASE_URL = env.novita_url("NOVITA_BASE_URL", "https://api.novita.ai")
# A base URL on this machine means the simulator. The dashboard shows it.
IS_SIMULATED = environment.is_loopback(urlsplit(NOVITA_BASE_URL).hostname or "")
NOVITA_PAGE_SIZE = env.integer("NOVITA_PAGE_SIZE", 100, 1, 1000)
NOVITA_CONCURRENCY = env.integer("NOVITA_CONCURRENCY", 8, 1, 64)
NOVITA_CONNECT_TIMEOUT = env.seconds("NOVITA_CONNECT_TIMEOUT", 5, 0.1, 60)
NOVITA_READ_TIMEOUT = env.seconds("NOVITA_READ_TIMEOUT", 20, 0.1, 300)
NOVITA_SYNC_DEADLINE = env.seconds("NOVITA_SYNC_DEADLINE", 240, 1, 3600)
NOVITA_SYNC_ON_STARTUP = env.flag("NOVITA_SYNC_ON_STARTUP", default=True)
NOVITA_SYNC_INTERVAL = env.seconds("NOVITA_SYNC_INTERVAL", 60, 0, 86400)
# How long a stop is verified until its result is final.
NOVITA_STOP_DEADLINE = env.seconds("NOVITA_STOP_DEADLINE", 600, 1, 86400)
NOVITA_STALE_AFTER = env.seconds("NOVITA_STALE_AFTER", 180, 1, 604800)
# Below so many hours of balance at the present burn rate, /health and the page warn.
BALANCE_WARN_HOURS = env.integer("BALANCE_WARN_HOURS", 24, 0, 8760)
# An instance that runs for more days needs attention.
LONG_RUNNING_DAYS = env.integer("LONG_RUNNING_DAYS", 7, 0, 3650)

# --- Policies

# Off: no policy stops anything. Findings are recorded all the same.
POLICIES = env.flag("POLICIES", default=True)
# Within so many minutes after the start of a worker, no policy stops anything: people see first what it finds.
POLICIES_START_MINUTES = env.integer("POLICIES_START_MINUTES", 1 if IS_SIMULATED else 15, 1, 1440)
# The calls for metrics that all workers together send to Novita.
METRICS_CALLS_PER_MINUTE = env.integer("METRICS_CALLS_PER_MINUTE", 60, 0, 6000)

# --- Notifications

# The address of the panel for people, for links in messages.
PUBLIC_URL = env.public_url("PUBLIC_URL")
if PUBLIC_URL and PATH_PREFIX and urlsplit(PUBLIC_URL).path != PATH_PREFIX:
    env.refuse("PUBLIC_URL", f"its path is not {PATH_PREFIX}, which PATH_PREFIX names.", f"End it with {PATH_PREFIX}")
# Services that tell people of events; each may name its events: policy.warning,balance.low|mailtos://…
NOTIFY_URLS = env.services("NOTIFY_URLS")
# The hour (UTC) of the daily summary; -1: none.
NOTIFY_SUMMARY_HOUR = env.integer("NOTIFY_SUMMARY_HOUR", 7, -1, 23)

# --- Retention

# Records are deleted after so many days. What is open or unfinished stays.
KEEP_SYNCS_DAYS = env.integer("KEEP_SYNCS_DAYS", 90, 7, 36500)
KEEP_OPERATIONS_DAYS = env.integer("KEEP_OPERATIONS_DAYS", 400, 7, 36500)
KEEP_ACTIVITY_DAYS = env.integer("KEEP_ACTIVITY_DAYS", 400, 7, 36500)
KEEP_LOGINS_DAYS = env.integer("KEEP_LOGINS_DAYS", 400, 7, 36500)
# The present month and the one before have sums in any case.
KEEP_COSTS_DAYS = env.integer("KEEP_COSTS_DAYS", 400, 62, 36500)
KEEP_FINDINGS_DAYS = env.integer("KEEP_FINDINGS_DAYS", 400, 7, 36500)
KEEP_MESSAGES_DAYS = env.integer("KEEP_MESSAGES_DAYS", 90, 7, 36500)

# --- Webhooks

WEBHOOK_SECRET = env.webhook_secrets("WEBHOOK_SECRET")
WEBHOOK_ALLOWED_HOSTS = env.receivers("WEBHOOK_ALLOWED_HOSTS")
WEBHOOK_ALLOWED_PORTS = env.ports("WEBHOOK_ALLOWED_PORTS", "443,8443")

# --- The log

# `text` for people, `json` for log collectors.
LOG_FORMAT = env.text("LOG_FORMAT", "text")
if LOG_FORMAT not in {"text", "json"}:
    env.refuse("LOG_FORMAT", f"{LOG_FORMAT!r} is not a log format.", "Use text or json.")

# --- Redis and the database

# Only `stop_all` runs with an invalid URL. Nothing listens at this replacement, so it works without Redis.
REDIS_URL = env.redis_url("REDIS_URL", "redis://127.0.0.1:6379/0") or "unix:///dev/null"
HAS_REDIS_URL = bool(env.text("REDIS_URL"))
# Part of every key. Panels of one account share the keys; panels of different accounts on one Redis don't.
ACCOUNT_ID = environment.identify_account(NOVITA_BASE_URL, NOVITA_API_KEY)
REDIS_KEY_TAG = f"{{novita:{ACCOUNT_ID}}}"
CACHES = {
    "default": {
        "BACKEND": "django_redis.cache.RedisCache",
        # A list: a text is split at its commas.
        "LOCATION": [REDIS_URL],
        "OPTIONS": {
            # A request makes at most three calls to Redis, and is answered within 2 s when Redis is silent.
            "SOCKET_CONNECT_TIMEOUT": 0.6,
            "SOCKET_TIMEOUT": 0.6,
            "CONNECTION_POOL_CLASS": "instances.redis_client.Pool",
            "SERIALIZER": "django_redis.serializers.json.JSONSerializer",
        },
    }
}

# A queue in the worker's memory. Due work is stored in the database, where each worker polls for it.
CELERY_BROKER_URL = "memory://localhost"
CELERY_BROKER_TRANSPORT_OPTIONS = {"polling_interval": 0.1}
CELERY_WORKER_ENABLE_REMOTE_CONTROL = False
CELERY_TASK_IGNORE_RESULT = True
# Most tasks wait for Novita or for webhook receivers.
CELERY_WORKER_POOL = "threads"
CELERY_WORKER_CONCURRENCY = 32
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TIMEZONE = "UTC"

DATABASES = {"default": env.database("DATABASE_URL", f"sqlite:///{VAR_DIR / 'db.sqlite3'}")}
if DATABASES["default"].get("ENGINE") == "django.db.backends.sqlite3":
    try:
        make_folder(Path(str(DATABASES["default"]["NAME"])).parent)
    except OSError as exc:
        if not IS_STOP:
            cure = "Use a folder that is writable."
            env.refuse("DATABASE_URL", f"its folder can't be created ({exc.strerror}).", cure)
    if Path(str(DATABASES["default"]["NAME"])).is_dir() and not IS_STOP:
        env.refuse("DATABASE_URL", "it names a folder, not a file.", "Add a file name: sqlite:////folder/db.sqlite3")
    DATABASES["default"]["OPTIONS"] = {
        "timeout": 5,
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }
elif DATABASES["default"]:
    DATABASES["default"] |= {
        "ENGINE": "novita_site.postgresql",
        "CONN_HEALTH_CHECKS": True,
        # These detect a server that vanished without closing its connections. Options in DATABASE_URL override them.
        "OPTIONS": {
            "connect_timeout": 3,
            "tcp_user_timeout": 10_000,
            "keepalives_idle": 30,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            **DATABASES["default"].get("OPTIONS", {}),  # type: ignore[dict-item]  # a dict
        },
    }
# Routes an operation's queries to a database in memory while the real one is unavailable.
DATABASE_ROUTERS = ["instances.fallback.standby.Router"]
# Records that the database could not store are kept here until it can.
FALLBACK_DIR = Path(env.text("FALLBACK_DIR", str(VAR_DIR / "fallback")))
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

env.check(NEEDED_TO_STOP if IS_STOP else None)

# --- Django

INSTALLED_APPS = [
    "novita_site.apps.PanelAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    # runserver leaves the static files to the middleware.
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "rest_framework",
    "knox",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "instances",
]

MIDDLEWARE = [
    "instances.monitoring.requests.count",
    "novita_site.middleware.drop_body",
    "novita_site.middleware.choose_encoding",
    "instances.access.request_ids.bind",
    "instances.access.proxies.find_client_address",
    "novita_site.middleware.add_headers",
    "instances.api.probes.answer_early",
    "novita_site.static_files.Middleware",
    "django.middleware.gzip.GZipMiddleware",
    "instances.api.metrics.answer_early",
    "instances.access.passes.learn",
    "instances.access.origins.refuse_cross_site",
    "novita_site.body.read_body",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "instances.access.visitors.admit_local_owner",
    "instances.access.visitors.RequireLogin",
    "django.contrib.messages.middleware.MessageMiddleware",
]

ROOT_URLCONF = "novita_site.urls"
WSGI_APPLICATION = "novita_site.wsgi.application"
APPEND_SLASH = False
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "dashboard"
LOGOUT_REDIRECT_URL = "login"
DATA_UPLOAD_MAX_MEMORY_SIZE = 64 * 1024
# Connections of one client to one process. Only the limit of the process applies to this machine and trusted proxies.
HTTP_CONNECTIONS_PER_CLIENT = 64

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
                "instances.pages.frame.describe",
            ]
        },
    }
]

STATIC_URL = f"{PATH_PREFIX}/static/"
# Static files are served from the packages' folders, so a deployment needs no collectstatic.
WHITENOISE_USE_FINDERS = True
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "novita_site.static_files.Storage"},
}
WHITENOISE_AUTOREFRESH = DEBUG
# This would allow other sites to use our fonts. There are none.
WHITENOISE_ALLOW_ALL_ORIGINS = False

USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en-us"
USE_I18N = False

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]

# --- Browser security

# middleware.add_headers sends these with every answer.
SECURE_HSTS_SECONDS = 0 if LOOPBACK_ONLY else 365 * 86400
# Cookies are shared by all ports of a host. The name keeps two installations on one host apart.
# The path is part of it: a browser sends a cookie of `/` to `/panel/`, too, where it would hide the one of that path.
_installation = environment.name_installation(SECRET_KEY, SECRET_KEY_FALLBACKS) + PATH_PREFIX.replace("/", "_")
SESSION_COOKIE_NAME = f"sessionid_{_installation}"
CSRF_COOKIE_NAME = f"csrftoken_{_installation}"
# Set by the dashboard's script: the next page comes without the rows, which the script has.
SCRIPT_COOKIE_NAME = f"script_{_installation}"
MESSAGES_COOKIE_NAME = f"messages_{_installation}"
# For the panel alone, not for its neighbours on a shared host.
SESSION_COOKIE_PATH = CSRF_COOKIE_PATH = PATH_PREFIX or "/"
MESSAGE_STORAGE = "novita_site.messages.Messages"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = 12 * 3600
# Behind a proxy that ends TLS without a header, our own forms must not look like those of another site.
CSRF_TRUSTED_ORIGINS = [f"https://{host}" for host in ALLOWED_HOSTS if host != "*"]
SILENCED_SYSTEM_CHECKS = [
    "security.W001",  # middleware.add_headers sends the headers of SecurityMiddleware, and the one of the next class
    "security.W002",
    "security.W008",  # the proxy redirects to TLS; a redirect here would loop behind a proxy without a header
    "security.W012",  # middleware.add_headers marks cookies Secure when the request came over TLS
    "security.W016",
]
CSRF_FAILURE_VIEW = "instances.answers.csrf_failure"
DEFAULT_EXCEPTION_REPORTER_FILTER = "novita_site.debug.ReportFilter"

# --- The API

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "instances.access.visitors.BearerAuthentication",
        "instances.access.visitors.LocalOwnerAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["instances.access.roles.RoleRequired"],
    "DEFAULT_PARSER_CLASSES": ["instances.api.parsers.StrictJsonParser"],
    "DEFAULT_RENDERER_CLASSES": [
        "instances.api.renderers.JSONRenderer",
        "instances.api.renderers.SafeFormsRenderer",
    ],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "instances.answers.answer",
    "VIEW_NAME_FUNCTION": "instances.api.renderers.name_view",
    "URL_FORMAT_OVERRIDE": "format",
}

# Tokens for scripts (knox): stored as hashes, shown once. Its own table would remain unused, and refer to the users.
MIGRATION_MODULES = {"knox": None}
KNOX_TOKEN_MODEL = "instances.Token"  # noqa: S105 - a model
REST_KNOX = {
    "TOKEN_MODEL": KNOX_TOKEN_MODEL,
    "AUTH_HEADER_PREFIX": "Bearer",
    # Secret scanners recognize a leaked token by this prefix.
    "TOKEN_PREFIX": "nvp_",
    "TOKEN_TTL": timedelta(days=90),
}

AUTHENTICATION_BACKENDS = ["instances.access.visitors.PasswordBackend"]

# Single sign-on by mozilla-django-oidc, with the changes in `instances.access.sso`.
if HAS_SSO:
    AUTHENTICATION_BACKENDS.append("instances.access.sso.Backend")
    OIDC_AUTHENTICATION_CALLBACK_URL = "sso_callback"
    OIDC_RP_SCOPES = "openid profile email"
    OIDC_USE_PKCE = True

API_DESCRIPTION = """The inventory of a team's GPU instances at Novita.ai, and actions on them.

## Costs

Amounts are in USD with at most five decimals. A price or cost that isn't known is null and counted, never 0.

The figures over time come from a ledger of what synchronizations observed. They are exact where a state was seen last,
or where Novita tells the second of a start or stop, at the prices that were seen. `gapSeconds` were not observed and
count as neither running nor stopped; `inferredSeconds` follow from Novita's times of the last start and stop;
`unpricedSeconds` were charged at a price that isn't known, and the cost leaves them out.

They can be wrong where Novita's rules are not known: when exactly charging begins, when a price changed, several
changes between two synchronizations, and volumes and traffic, which only the bill has.
"""
SPECTACULAR_SETTINGS = {
    "TITLE": "Novita panel API",
    "DESCRIPTION": API_DESCRIPTION,
    "VERSION": __version__,
    # In 3.1, null is a type of its own; in 3.0, `nullable` says nothing about a reference.
    "OAS_VERSION": "3.1.0",
    "SERVERS": [{"url": PATH_PREFIX or "/"}],
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "SERVE_PERMISSIONS": ["instances.access.roles.RoleRequired"],
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "ENUM_NAME_OVERRIDES": {
        "UpDownEnum": ["up", "down"],
        "UpDownUnknownEnum": ["up", "down", "unknown"],
        "ActionEnum": "instances.instance.ACTION_NAMES",
        "OperationStateEnum": "instances.models.Operation.State",
        "TargetStateEnum": "instances.models.Target.State",
    },
    "PREPROCESSING_HOOKS": ["instances.api.urls.drop_optional_slash"],
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "instances.api.description.polish",
    ],
    "AUTHENTICATION_WHITELIST": [
        "instances.access.visitors.BearerAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    # The local owner needs neither.
    "SECURITY": [] if REQUIRE_LOGIN else [{}],
}

# --- The log: one line an event, on standard error

# Python's own warnings, too: Celery has one for who runs it as root.
logging.captureWarnings(capture=True)
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {
        "request_id": {"()": "novita_site.log.RequestIdFilter"},
        "only_exceptions": {"()": "novita_site.log.OnlyExceptions"},
        "no_debug": {"()": "novita_site.debug.NoDebugFilter"},
        "outages_once": {"()": "instances.outages.LoggedOnce"},
        "once_a_minute": {"()": "novita_site.log.OnceAMinute", "seconds": 60},
    },
    "formatters": {
        "line": {
            "()": "novita_site.log.LineFormatter",
            "format": "%(asctime)s %(levelname)s %(name)s [%(request_id)s] %(message)s",
        },
        "json": {"()": "novita_site.log.JsonFormatter"},
    },
    "handlers": {
        "stderr": {
            "class": "logging.StreamHandler",
            "formatter": "json" if LOG_FORMAT == "json" else "line",
            "filters": ["request_id", "outages_once", "once_a_minute"],
        },
    },
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {
        "instances": {"level": "INFO"},
        "novita_site": {"level": "INFO"},
        "django": {"handlers": [], "level": "WARNING", "propagate": True},
        "django.request": {"filters": ["only_exceptions"]},
        "urllib3.connectionpool": {"filters": ["no_debug"]},
        # It has a handler of its own until this takes it away.
        "gunicorn.error": {"handlers": [], "level": "WARNING", "propagate": True},
    },
}
