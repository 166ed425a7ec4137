"""What people declare: sites and pairs, as frozen documents of one versioned format.

The same document arrives as YAML, as JSON over the API and from the Pulumi provider. It names secrets, it never holds
them. It knows nothing of stores, transports or databases.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_validator, model_validator

from farshore_schema.quantities import Duration, Size, seconds

FORMAT: Literal["farshore/v1"] = "farshore/v1"

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,61}[a-z0-9]$|^[a-z]$", examples=["orders"])]
SecretRef = Annotated[
    str,
    Field(
        pattern=r"^(env:[A-Za-z_][A-Za-z0-9_]{0,127}|file:/.{1,1023})$",
        description="Where the agent finds the secret: env:NAME or file:/absolute/path; never the value itself.",
        examples=["env:TOKYO_ADMIN_PASSWORD", "file:/etc/farshore/tokyo.password"],
    ),
]


class Document(BaseModel):
    """A frozen value with no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Credential(Document):
    """A database login. The password is a reference that only the agent using it resolves."""

    user: Annotated[str, Field(min_length=1, max_length=32)]
    password: SecretRef


class Tls(Document):
    """How the connection to a server is protected."""

    mode: Literal["required", "verify_ca", "verify_identity", "disabled"] = "required"
    ca_file: Annotated[str, Field(pattern=r"^/")] | None = None

    @model_validator(mode="after")
    def _verification_needs_a_ca(self) -> "Tls":
        if self.mode in ("verify_ca", "verify_identity") and self.ca_file is None:
            raise ValueError(f'tls mode "{self.mode}" needs ca_file, the certificate authority to verify against')
        return self


class MySQLEndpoint(Document):
    """How one site's MySQL server is reached, and with which accounts (R6)."""

    site: Name
    host: Annotated[str, Field(min_length=1, max_length=255)]
    port: Annotated[int, Field(ge=1, le=65535)] = 3306
    admin: Credential  # used only by this site's own gateway
    replication: Credential  # used only by the peer's gateway
    tls: Tls = Tls()


class JournalSettings(Document):
    """How long a site keeps the journal of what it received."""

    keep: Duration = "7d"
    keep_bytes: Size = "50GiB"


class Site(Document):
    """A place that can be lost as a whole."""

    version: Literal["farshore/v1"] = FORMAT
    kind: Literal["Site"] = "Site"
    name: Name
    description: Annotated[str, Field(max_length=500)] = ""


class MySQLPair(Document):
    """One whole MySQL server protected between two sites (R1)."""

    version: Literal["farshore/v1"] = FORMAT
    kind: Literal["MySQLPair"] = "MySQLPair"
    name: Name
    description: Annotated[str, Field(max_length=500)] = ""
    site_a: MySQLEndpoint
    site_b: MySQLEndpoint
    primary_site: Name | None = None
    mode: Literal["async"] = "async"
    on_existing_data: Literal["refuse", "overwrite"] = "refuse"
    on_gap: Literal["stop", "reseed"] = "stop"
    seed_ddl: Literal["block", "retry"] = "block"
    seed_workers: Annotated[int, Field(ge=1, le=32)] = 2
    standby_durability: Literal["auto", "full", "relaxed"] = "auto"
    drain_timeout: Duration = "30s"
    journal: JournalSettings = JournalSettings()
    allow_unverified_version: bool = False
    acknowledge_epoch: Annotated[int, Field(ge=0)] | None = None

    @field_validator("drain_timeout")
    @classmethod
    def _drain_timeout_is_bounded(cls, value: str) -> str:
        if not 1 <= seconds(value) <= 3600:
            raise ValueError('drain_timeout must lie between "1s" and "1h"')
        return value

    @model_validator(mode="after")
    def _sites_differ(self) -> "MySQLPair":
        if self.site_a.site == self.site_b.site:
            raise ValueError(f'site_a and site_b both name "{self.site_a.site}"; a pair spans two sites')
        if self.primary_site is not None and self.primary_site not in (self.site_a.site, self.site_b.site):
            raise ValueError(
                f'primary_site "{self.primary_site}" is neither "{self.site_a.site}" nor "{self.site_b.site}"'
            )
        if (
            self.site_a.admin.user == self.site_b.admin.user
            or self.site_a.replication.user == self.site_b.replication.user
        ):
            raise ValueError(
                "accounts replicate: the two sites' admin (and replication) users must have different names"
            )
        return self


AnyDocument = Annotated[Site | MySQLPair, Field(discriminator="kind")]
DOCUMENT: TypeAdapter[Site | MySQLPair] = TypeAdapter(AnyDocument)
