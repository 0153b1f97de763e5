"""The only reader of the environment.

Each variable is read by name and checked. All invalid values are reported at once, each with its variable and a valid
value. A secret's value is never printed. An empty variable counts as unset.
"""

import base64
import hashlib
import hmac
import ipaddress
import os
import re
import secrets
import ssl
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import dj_database_url
from django.core.exceptions import ImproperlyConfigured
from dotenv import dotenv_values

from novita_site import redis_urls, running
from novita_site.private_files import make_folder
from novita_site.redis_urls import without_password
from novita_site.roles import ROLES

TRUE_WORDS = {"1", "true", "yes", "on"}
FALSE_WORDS = {"0", "false", "no", "off"}
PEM_CERTIFICATE = re.compile("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
# The events of EventKind, which can't be imported before the settings; a test compares them.
EVENT_KINDS = {
    *("operation.finished", "operation.failed", "sync.failing", "sync.recovered", "data.stale", "balance.low"),
    *("policy.warning", "policy.stop", "outside.change", "spot.reclaim", "daily.summary"),
}
MAKE_WEBHOOK_KEY = (
    "python3 -c \"import base64, secrets; print('whsec_' + base64.b64encode(secrets.token_bytes(32)).decode())\""
)


class InvalidSettings(ImproperlyConfigured):
    """The environment contains invalid values; the message has a line for each."""


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address can only mean this machine."""
    name = host.strip("[]").lower()
    if name.lstrip(".") == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class Env:
    """Reads variables by type, and collects all problems until `check()`.

    `provided` has what a running `up` provides. Each variable in `values` overrides it.
    """

    def __init__(self, values: Mapping[str, str | None], provided: Mapping[str, str | None] | None = None) -> None:
        self.provided: Mapping[str, str | None] = provided or {}
        values = {**self.provided, **values}
        self._values = {name: value.strip() for name, value in values.items() if value and value.strip()}
        self._problems: list[tuple[str, str]] = []

    def refuse(self, name: str, problem: str, cure: str) -> None:
        self._problems.append((name, f"{name}: {problem} {cure}"))

    def check(self, needed: Collection[str] | None = None) -> None:
        """Raise InvalidSettings when anything that was read so far was wrong.

        With `needed`, only those variables count; the problems of the others are printed.
        """
        if any(needed is None or name in needed for name, _ in self._problems):
            raise InvalidSettings("\n".join(line for _, line in self._problems))
        for _, line in self._problems:
            sys.stderr.write(f"{line} This command runs without it.\n")

    def text(self, name: str, default: str = "") -> str:
        return self._values.get(name, default)

    def names(self, name: str, default: str) -> list[str]:
        """Read a comma-separated list."""
        return [part.strip() for part in self.text(name, default).split(",") if part.strip()]

    def flag(self, name: str, *, default: bool) -> bool:
        word = self.text(name).lower()
        if not word:
            return default
        if word not in TRUE_WORDS | FALSE_WORDS:
            self.refuse(name, f"{self.text(name)!r} is not a boolean.", "Use 1 or 0.")
        return word in TRUE_WORDS

    def integer(self, name: str, default: int, minimum: int, maximum: int) -> int:
        return int(self._number(name, default, minimum, maximum, r"\d{1,9}", "a whole number"))

    def seconds(self, name: str, default: float, minimum: float, maximum: float) -> float:
        return self._number(name, default, minimum, maximum, r"\d{1,9}(\.\d{1,6})?", "a number of seconds")

    def _number(self, name: str, default: float, minimum: float, maximum: float, pattern: str, kind: str) -> float:
        text = self.text(name, str(default))
        if not re.fullmatch(pattern, text, re.ASCII) or not minimum <= float(text) <= maximum:
            self.refuse(name, f"{text!r} is not {kind} from {minimum:g} to {maximum:g}.", f"Use {default:g}.")
            return default
        return float(text)

    def host(self, name: str, default: str) -> str:
        """Read the name or address to listen on."""
        host = self.text(name, default).strip("[]")
        if not _is_name(host) and not _is_ipv6(host):
            self.refuse(name, f"{host!r} is not a host name or address.", f"Use {default}.")
        return host

    def hosts(self, name: str, default: str) -> list[str]:
        """Read the host names of requests in Django's format: no scheme, no port, IPv6 in brackets."""
        hosts = self.names(name, default)
        for host in hosts or [self.text(name)]:
            is_ipv6 = host[:1] + host[-1:] == "[]" and _is_ipv6(host[1:-1])
            if host != "*" and not _is_name(host) and not is_ipv6:
                self.refuse(name, f"{host!r} is not a host name or address.", f"Use {default}.")
        return hosts

    def path_prefix(self, name: str) -> str:
        """Read the path that the panel is served under, without a slash at its end. "" means the whole host."""
        prefix = self.text(name).rstrip("/")
        if not re.fullmatch(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*", prefix):
            self.refuse(name, f"{self.text(name)!r} is not a path.", "Use the path alone: /panel")
            return ""
        return prefix

    def networks(self, name: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
        """Read a comma-separated list of addresses and networks."""
        networks = []
        for text in self.names(name, ""):
            try:
                networks.append(ipaddress.ip_network(text))
            except ValueError:
                self.refuse(name, f"{text!r} is not an address or a network.", "Use 10.0.0.5 or 10.0.0.0/8.")
        return networks

    def has_all(self, *names: str) -> bool:
        """Tell whether variables that need each other are set; a part of them is refused."""
        missing = [name for name in names if not self.text(name)]
        if len(missing) < len(names):
            for name in missing:
                self.refuse(name, "it is not set, but settings that need it are.", f"Set {', '.join(names)}, or none.")
        return not missing

    def issuer(self, name: str) -> str:
        """Read the base URL of an OpenID provider, without a slash at its end. "" when it isn't set."""
        return self.novita_url(name, "https://login.example.com") if self.text(name) else ""

    def roles(self, name: str) -> dict[str, str]:
        """Read which role each name of a claim gives."""
        roles: dict[str, str] = {}
        for pair in self.names(name, ""):
            # From its end: a name of a directory's group holds such signs itself.
            group, _, role = (part.strip() for part in pair.rpartition("="))
            if not group or role not in ROLES or group in roles:
                cure = f"Use panel-admins=admin,research=operator; roles are {', '.join(ROLES)}."
                self.refuse(name, f"{pair!r} doesn't map a name to one role.", cure)
            roles[group] = role
        return roles

    def header(self, name: str) -> tuple[str, str] | None:
        """Read a header and its value, in Django's format: `X-Forwarded-Proto: https`. None when it isn't set."""
        match = re.fullmatch(r"(?:HTTP_)?([A-Za-z0-9_-]+)\s*[:,=]\s*([!-~]+)", self.text(name))
        if self.text(name) and not match:
            self.refuse(name, f"{self.text(name)!r} is not a header with a value.", "Use X-Forwarded-Proto: https")
        return (f"HTTP_{match[1].upper().replace('-', '_')}", match[2]) if match else None

    def api_key(self, name: str) -> str:
        """Read a key that goes into an HTTP header. "" when it isn't set."""
        key = self.text(name)
        # requests puts a header value that it refuses into its exception, and so into the log.
        if not re.fullmatch(r"[!-~]*", key):
            self.refuse(name, "the key contains spaces or non-ASCII characters.", "Copy it again.")
            return ""
        return key

    def webhook_secrets(self, name: str) -> list[str]:
        """Read the keys that sign webhooks, as the Standard Webhooks specification writes them. [] when none is set."""
        keys = self.names(name, "")
        if not all(_is_webhook_secret(key) for key in keys):
            self.refuse(
                name,
                "each secret is whsec_ and the base64 of 24 to 64 bytes; a comma stands between two.",
                f"Make one: {MAKE_WEBHOOK_KEY}",
            )
            return []
        return keys

    def receivers(self, name: str) -> list[str]:
        """Read names and addresses, as a URL's host is compared with them: in lower case, IPv6 without brackets."""
        hosts = [host.lower() for host in self.names(name, "")]
        for host in hosts:
            if not _is_name(host) and not _is_ipv6(host.strip("[]")):
                self.refuse(name, f"{host!r} is not a host name or address.", "Use hooks.example.com or 10.0.0.5.")
        return [host.strip("[]") for host in hosts]

    def ports(self, name: str, default: str) -> list[int]:
        words = self.names(name, default)
        for word in words or [self.text(name)]:
            if not re.fullmatch(r"\d{1,5}", word, re.ASCII) or not 1 <= int(word) <= 65535:
                self.refuse(name, f"{word!r} is not a port from 1 to 65535.", f"Use {default}.")
                return []
        return [int(word) for word in words]

    def public_url(self, name: str) -> str:
        """Read the address that people open the panel by, without a slash at its end. "" when it isn't set."""
        url = self.text(name).rstrip("/")
        if url and not re.fullmatch(r"https?://[A-Za-z0-9.-]+(:\d{1,5})?(/[!-~]*)?", url):
            self.refuse(name, f"{without_password(url)!r} is not a web address.", "Use https://panel.example.com")
        return url

    def services(self, name: str) -> list[tuple[str, frozenset[str]]]:
        """Read the URLs of services, with spaces between them; events may stand before one: balance.low,test|slack://…

        The URLs contain secrets, so a refusal names an entry by its number.
        """
        if not self.text(name):
            return []
        import apprise  # Takes 0.2 s, which only those pay who use it.

        found = []
        for number, entry in enumerate(self.text(name).split(), 1):
            kinds, bar, url = entry.rpartition("|")
            scheme = url.partition("://")[0]
            wrong = [kind for kind in kinds.split(",") if kind not in EVENT_KINDS] if bar else []
            if wrong:
                known = ", ".join(sorted(EVENT_KINDS))
                self.refuse(name, f"entry {number} names an unknown event.", f"Events are: {known}.")
            elif "://" not in url or not re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme) or not apprise.Apprise().add(url):
                self.refuse(
                    name, f"entry {number} is not the URL of a service that Apprise knows.", "See docs/settings.md."
                )
            found.append((url, frozenset(kinds.split(",")) if bar else frozenset()))
        return found

    def novita_url(self, name: str, default: str) -> str:
        """Read the base URL that the key is sent to: https, or http on this machine. No slash at its end."""
        url = self.text(name, default).rstrip("/")
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname or "", parts.port
        except ValueError:
            self.refuse(name, "it is not a URL.", f"Use {default}.")
            return default
        is_safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))
        is_host = _is_name(host) or _is_ipv6(host)
        if not is_host or not is_safe or parts.username is not None or parts.query or parts.fragment:
            self.refuse(
                name,
                f"{without_password(url)!r} is neither an https:// URL nor an http:// URL of this machine; "
                "the API key is sent there.",
                f"Use {default}.",
            )
        return url

    def certificates(self, name: str, root: Path) -> str:
        """Read a file's certificates, as one PEM text. "" when it isn't set. A relative path begins at `root`."""
        if not self.text(name):
            return ""
        path = root / self.text(name)
        cure = "Name a PEM file with the certificate of your private authority."
        try:
            text = path.read_text(encoding="ascii", errors="replace")
        except OSError as exc:
            self.refuse(name, f"{str(path)!r} can't be read ({exc.strerror}).", cure)
            return ""
        pem = "\n".join(PEM_CERTIFICATE.findall(text))
        try:
            if not pem:
                raise ssl.SSLError
            ssl.create_default_context(cadata=pem)
        except (ssl.SSLError, ValueError):
            self.refuse(name, f"{str(path)!r} contains no usable certificate.", cure)
            return ""
        return pem

    def proxy_url(self, name: str) -> str:
        """Read the URL of an HTTP proxy, which may hold a user and a password. "" when it isn't set."""
        url = self.text(name).rstrip("/")
        cure = "Use http://proxy.example.com:3128, or http://user:password@…, with % signs for special characters."
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            self.refuse(name, "it is not a URL.", cure)
            return ""
        is_host = _is_name(host) or _is_ipv6(host)
        is_proxy = parts.scheme in {"http", "https"} and is_host and port
        if re.search(r"\s|%(?![0-9A-Fa-f]{2})|[\ud800-\udfff]", url):
            self.refuse(name, "it holds a blank, a % without two hex digits, or bytes that are no UTF-8.", cure)
            return ""
        if url and (not is_proxy or parts.path or parts.query or parts.fragment):
            self.refuse(name, f"{without_password(url)!r} is not the address and port of an HTTP proxy.", cure)
        return url

    def redis_url(self, name: str, default: str) -> str:
        """Read the URL of a Redis or of its sentinels. "" when it is refused."""
        url = self.text(name, default)
        if problem := redis_urls.find_problem(url, default):
            self.refuse(name, *problem)
            return ""
        return url

    def database(self, name: str, default: str) -> dict[str, object]:
        """Read a database URL as an entry of Django's DATABASES."""
        try:
            config = dict(dj_database_url.parse(self.text(name, default), conn_max_age=60))
        except Exception as exc:  # The library raises KeyError, ValueError and classes of its own.
            self.refuse(name, f"it is not a database URL ({type(exc).__name__}).", "Use postgres://user@host/name.")
            return {}
        if config["ENGINE"] not in {"django.db.backends.sqlite3", "django.db.backends.postgresql"}:
            self.refuse(name, "only SQLite and PostgreSQL are supported.", "Use postgres://user@host/name.")
        options = config.get("OPTIONS", {})
        timeout = options.get("connect_timeout", 1) if isinstance(options, dict) else 1
        if "postgresql" in str(config["ENGINE"]) and not (isinstance(timeout, int) and timeout > 0):
            self.refuse(name, "its connect_timeout is not a whole number of seconds.", "Use connect_timeout=3.")
        return config


def read(root: Path) -> Env:
    """Read the environment; below it the file `.env` in `root`, and below that the settings of a running `up`."""
    own = {**dotenv_values(root / ".env"), **os.environ}
    return Env(own, running.read(root / Env(own).text("VAR_DIR", "var") / running.NAME))


def read_or_make_secret_key(path: Path) -> str:
    """Return the key in the file `path`. The first call creates the file, readable by its owner only."""
    make_folder(path.parent)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    if not path.exists():
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_urlsafe(48), encoding="ascii")
        try:
            # A link appears whole or not at all: of several processes at a first start one wins, and all read its key.
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text(encoding="ascii").strip()


def name_installation(key: str, fallbacks: Sequence[str]) -> str:
    """Return a short name that depends on the oldest key: a new key changes no cookie's name, and so ends no login."""
    return hmac.new([key, *fallbacks][-1].encode(), b"cookie names", "sha256").hexdigest()[:8]


def identify_account(base_url: str, api_key: str) -> str:
    """Return a short name for a Novita account. It reveals nothing of the key, and ignores how the URL is spelled."""
    parts = urlsplit(base_url.strip())
    host = (parts.hostname or "").rstrip(".")
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    address = f"{parts.scheme}://{host}:{port}{parts.path.rstrip('/')}"
    return hashlib.sha256(f"{address}\n{api_key.strip()}".encode()).hexdigest()[:10]


def _is_webhook_secret(text: str) -> bool:
    try:
        key = base64.b64decode(text.removeprefix("whsec_"), validate=True)
    except ValueError:
        return False
    return text.startswith("whsec_") and 24 <= len(key) <= 64


def _is_name(host: str) -> bool:
    return bool(re.fullmatch(r"[A-Za-z0-9_.-]+", host))


def _is_ipv6(host: str) -> bool:
    try:
        return bool(ipaddress.IPv6Address(host))
    except ValueError:
        return False
