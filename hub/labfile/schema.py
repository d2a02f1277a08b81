"""The schema of the lab file: frozen, unknown keys refused, every value checked.

``config/lab.yaml`` is the commented example; `hub.labfile.read` reads a file and reports
every problem with its place.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Collection
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, PlainValidator, field_validator, model_validator

from hub.labfile.backup import Backup
from hub.labfile.batch import Batch
from hub.labfile.database import Database
from hub.labfile.fields import Bytes, Duration, Frozen, GroupName, Slug, UserName
from hub.labfile.prices import Prices
from hub.labfile.secrets import Secrets
from hub.labfile.slurm import JobOptions, Partition, Slurm
from hub.labfile.storage import SharedFolder, Storage, seen_by
from hub.labfile.webapps import WebApps

OAUTH_METHODS = ("oidc", "github", "google", "globus", "cilogon", "cognito")
Port = Annotated[int, Field(ge=1, le=65535)]


def _parse_network(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return ipaddress.ip_network(value)
    except ValueError:
        raise ValueError("a network looks like 192.168.1.0/24") from None


Network = Annotated[
    ipaddress.IPv4Network | ipaddress.IPv6Network,
    PlainValidator(_parse_network, json_schema_input_type=str),
]


class Lab(Frozen):
    """How the portal presents itself."""

    name: str = Field("Our lab", min_length=1, max_length=60)
    logo: Path | None = Field(None, description="an SVG or PNG file")
    contact: str | None = Field(
        None, max_length=200, description="whom to ask: a name, an e-mail address or a web address"
    )
    message: str | None = Field(None, max_length=500, description="a line on the home page")


class OAuth(Frozen):
    """Sign-on by somebody else's accounts.

    The client's secret is no setting: it is the file ``oauth_client_secret`` in the
    portal's secrets folder.
    """

    client_id: str = Field(min_length=1)
    issuer: str | None = Field(
        None, description="oidc, cognito: where /.well-known/openid-configuration is found"
    )
    login_service: str | None = Field(None, description="the name on the sign-in button")
    scope: tuple[str, ...] = ("openid", "email", "profile")
    username_claim: str | None = Field(None, description="default: the provider's usual one")
    allow_all: bool = Field(False, description="everybody whom the provider signs in")
    allowed_users: tuple[UserName, ...] = ()
    allowed_groups: tuple[str, ...] = ()
    groups_claim: str | None = Field(None, description="the claim that lists a person's groups")
    allowed_organizations: tuple[str, ...] = Field((), description="github")
    hosted_domains: tuple[str, ...] = Field(
        (), description="the one mail domain: ada@uni.example becomes ada, and may come in"
    )
    allowed_idps: tuple[str, ...] = Field((), description="cilogon: entity ids")

    @model_validator(mode="after")
    def _somebody_is_allowed(self) -> Self:
        if not (
            self.allow_all
            or self.allowed_users
            or self.allowed_groups
            or self.allowed_organizations
            or self.hosted_domains
        ):
            raise ValueError(
                "nobody would be let in: name allowed_users, allowed_groups, "
                "allowed_organizations or hosted_domains, or say allow_all: true"
            )
        return self


class Lockout(Frozen):
    """How often a password may be wrong before logins are refused for a while."""

    failures: int = Field(5, ge=1, le=100)
    wait: Duration = timedelta(minutes=10)


class Authentication(Frozen):
    """Who is let in, and how they prove who they are."""

    method: Literal[
        "auto", "pam", "signup", "owner", "oidc", "github", "google", "globus", "cilogon", "cognito"
    ] = Field(
        "auto",
        description="auto: Unix accounts where the portal runs as root, else its owner alone",
    )
    unix_group: GroupName = Field(
        "labhub", description="pam: members of this Unix group may log in"
    )
    lockout: Lockout = Lockout()
    oauth: OAuth | None = None

    @model_validator(mode="after")
    def _oauth_fits(self) -> Self:
        if self.method in OAUTH_METHODS and self.oauth is None:
            raise ValueError(f"method {self.method} needs the section authentication.oauth")
        if self.method not in OAUTH_METHODS and self.oauth is not None:
            raise ValueError(f"method {self.method} does not use authentication.oauth: remove it")
        if self.method in ("oidc", "cognito") and self.oauth and not self.oauth.issuer:
            raise ValueError(f"method {self.method} needs authentication.oauth.issuer")
        return self

    @property
    def effective_method(self) -> str:
        """The method with ``auto`` resolved for the account that runs the portal."""
        if self.method != "auto":
            return self.method
        return "pam" if os.geteuid() == 0 else "owner"


class Profile(Frozen):
    """One choice on the spawn page: an environment and what a server may use."""

    name: Slug
    title: str = Field(min_length=1, max_length=60)
    description: str = Field("", max_length=300)
    environment: Slug = "notebook"
    cpu: float = Field(1.0, gt=0, le=1024, description="cores")
    memory: Bytes = Field(2 << 30, ge=128 << 20)
    processes: int = Field(512, ge=32, le=100_000, description="processes and threads at once")
    user_namespaces: bool = Field(
        False,
        description="local: programs may make user namespaces, as containers and browsers do;"
        " it opens more of the kernel to them",
    )
    groups: tuple[GroupName, ...] = Field((), description="who may use it; empty: everybody")
    gpus: int = Field(0, ge=0, le=16, description="slurm: graphics cards")
    partitions: tuple[Partition, ...] = Field(
        (), description="slurm: where it may run; empty: in all of slurm.partitions"
    )
    slurm: JobOptions = Field(
        JobOptions(), description="slurm: what its jobs ask for; before slurm.groups and slurm"
    )
    default: bool = False


class App(Frozen):
    """A card on the home page for a web app that the lab already has."""

    name: Slug
    title: str = Field(min_length=1, max_length=60)
    description: str = Field("", max_length=300)
    url: str
    groups: tuple[GroupName, ...] = ()

    @field_validator("url")
    @classmethod
    def _web_address(cls, value: str) -> str:
        if urlsplit(value).scheme not in ("http", "https") or not urlsplit(value).netloc:
            raise ValueError("must be a web address (http:// or https://)")
        return value


class Culling(Frozen):
    """When a server that nobody uses is stopped."""

    idle: Duration | None = Field(timedelta(hours=2), description="null: never")
    max_age: Duration | None = Field(None, description="null: no limit")
    keep_at_most: Duration = Field(
        timedelta(hours=24), description="the longest 'keep running' that a user may set"
    )
    check_every: Duration = timedelta(minutes=1)


class Local(Frozen):
    """The local target: user servers on this machine."""

    hub_port: Port = 8081
    proxy_api_port: Port = 8001
    gate_port: Port = Field(
        8082, description="of the gate before the apps; on 127.0.0.1, on SLURM also on slurm.listen"
    )
    subnet: ipaddress.IPv4Network = Field(
        ipaddress.IPv4Network("10.98.0.0/16"),
        description="addresses for the user servers' own networks",
    )
    allow_networks: tuple[Network, ...] = Field(
        (), description="private networks that user servers may reach, e.g. 192.168.1.0/24"
    )
    max_servers: int = Field(100, ge=1, le=10_000)


class Eks(Frozen):
    """The eks target: each user server is a pod."""

    namespace: Slug = "labhub"
    images: str = Field(description="registry and prefix of the images, without the name")
    home_size: Bytes = Field(20 << 30, ge=1 << 30)
    storage_class: str | None = None
    service_account: str | None = None


class Tls(Frozen):
    """The certificate, where no reverse proxy in front has it."""

    certificate: Path
    key: Path


class Settings(Frozen):
    """The lab file."""

    lab: Lab = Lab()
    url: str = "http://localhost:8000"
    listen: str | None = Field(
        None, description="address:port; default: 127.0.0.1 and the port of url"
    )
    tls: Tls | None = None
    target: Literal["local", "slurm", "eks"] = "local"
    isolation: Literal["subdomain", "path"] = "subdomain"
    authentication: Authentication = Authentication()
    admins: tuple[UserName, ...] = ()
    groups: dict[GroupName, tuple[UserName, ...]] = Field(default_factory=dict)
    profiles: tuple[Profile, ...] = (Profile(name="standard", title="Standard", default=True),)
    named_servers: int = Field(3, ge=0, le=50, description="servers a person may have besides one")
    apps: tuple[App, ...] = ()
    webapps: WebApps = WebApps()
    storage: Storage = Storage()
    database: Database = Database()
    secrets: Secrets = Secrets()
    backup: Backup = Backup()
    culling: Culling = Culling()
    local: Local = Local()
    slurm: Slurm | None = None
    batch: Batch | None = None
    prices: Prices | None = None
    eks: Eks | None = None

    @field_validator("url")
    @classmethod
    def _plain_address(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be like http://localhost:8000 or https://lab.example.org")
        if parts.path.strip("/") or parts.query or parts.fragment or parts.username:
            raise ValueError("must end after the host and port")
        if parts.scheme == "http" and not _is_loopback(parts.hostname):
            raise ValueError("passwords would travel in clear: use https:// (tls, or a proxy)")
        return value.rstrip("/")

    @field_validator("listen")
    @classmethod
    def _address_and_port(cls, value: str | None) -> str | None:
        if value is not None:
            host, _, port = value.rpartition(":")
            ipaddress.ip_address(host.strip("[]"))
            if not port.isdecimal() or not 1 <= int(port) <= 65535:
                raise ValueError("must be like 127.0.0.1:8000")
        return value

    @field_validator("profiles")
    @classmethod
    def _profiles_are_a_choice(cls, value: tuple[Profile, ...]) -> tuple[Profile, ...]:
        names = [p.name for p in value]
        if not names:
            raise ValueError("at least one profile is needed")
        if len(set(names)) < len(names):
            raise ValueError("two profiles have the same name")
        if sum(p.default for p in value) > 1:
            raise ValueError("only one profile can be the default")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.isolation == "subdomain" and _is_address(self.parts.hostname or ""):
            raise ValueError("isolation: subdomain needs a host name in url, not an IP address")
        if self.target == "slurm" and self.slurm is None:
            raise ValueError("target: slurm needs the section slurm")
        if self.target == "eks" and self.eks is None:
            raise ValueError("target: eks needs the section eks")
        for profile in self.profiles:
            known = self.slurm.partitions if self.slurm and self.target == "slurm" else ()
            wrong = [name for name in profile.partitions if name not in known]
            if wrong:
                raise ValueError(
                    f"profile {profile.name} names partitions that are not in slurm.partitions: "
                    + ", ".join(wrong)
                )
            if profile.gpus and self.target != "slurm":
                raise ValueError(
                    f"profile {profile.name} asks for gpus, which target {self.target} cannot give"
                )
        if self.tls and self.parts.scheme != "https":
            raise ValueError("tls is given, but url does not start with https://")
        problem = self.storage.problem(self.target, self.groups)
        if problem:
            raise ValueError(problem)
        groups = set(self.groups)
        if self.authentication.effective_method not in OAUTH_METHODS:
            named = [(f"profile {profile.name}", profile.groups) for profile in self.profiles]
            named += [(f"app {app.name}", app.groups) for app in self.apps]
            named += [(f"storage.shared {one.path}", one.groups) for one in self.storage.shared]
            for what, wanted in (*named, ("webapps", self.webapps.groups)):
                unknown = sorted(set(wanted) - groups)
                if unknown:
                    raise ValueError(f"{what} names groups that do not exist: {', '.join(unknown)}")
        return self

    @property
    def parts(self) -> SplitResult:
        """The public address, split."""
        return urlsplit(self.url)

    @property
    def bind(self) -> tuple[str, int]:
        """Address and port on which the proxy listens."""
        if self.listen:
            host, _, port = self.listen.rpartition(":")
            return host.strip("[]"), int(port)
        if _is_loopback(self.parts.hostname or ""):
            return "127.0.0.1", self.parts.port or (443 if self.parts.scheme == "https" else 80)
        return "127.0.0.1", 8000

    @property
    def shared_folders(self) -> tuple[SharedFolder, ...]:
        """All shared folders, those of groups among them."""
        return self.storage.folders(self.groups)

    def folders_for(self, groups: Collection[str]) -> tuple[SharedFolder, ...]:
        """Return the shared folders that a member of these groups sees."""
        return seen_by(self.shared_folders, groups)

    def groups_of(self, person: str) -> tuple[str, ...]:
        """Return the groups whose member the lab file names this person."""
        return tuple(name for name, members in self.groups.items() if person in members)

    def job_variables(self, person: str) -> dict[str, str]:
        """Return what tells labkit in a person's server where jobs may run, and what they cost."""
        batch = self.batch.variables(person) if self.batch else {}
        return batch | (self.prices.variables() if self.prices else {})

    @property
    def shared_environments(self) -> Path | None:
        """The environments' folder that this lab file names; None: it leaves that to the portal."""
        return self.slurm.environments if self.target == "slurm" and self.slurm else None

    def partitions_of(self, profile: Profile) -> tuple[str, ...]:
        """Return the partitions that a profile may run in, the default first.

        Empty on targets that have none.
        """
        if self.target != "slurm" or self.slurm is None:
            return ()
        own = profile.partitions
        return tuple(dict.fromkeys(p for p in self.slurm.partitions if not own or p in own))

    @property
    def default_profile(self) -> Profile:
        """The profile marked as default, else the first."""
        return next((p for p in self.profiles if p.default), self.profiles[0])


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    if _is_address(host):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost" or host.endswith(".localhost")
