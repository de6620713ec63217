"""What the provisioning service is told from outside."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, SecretStr, StringConstraints, field_validator, model_validator
from pydantic_settings import NoDecode

from services.provisioning.aws_settings import AwsSettings
from services.provisioning.drivers.webhook import Keys
from services.provisioning.drivers.webhook.driver import check_url
from shared.settings import settings_of

Region = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]


class ProvisioningSettings(AwsSettings):
    """The settings of the provisioning service, besides those of the AWS driver.

    Attributes:
        application_database_url: a login that owns the database in which pooled tenants live and may make roles
            (``TENURE_APPLICATION_DATABASE_URL``).
        regions: where environments can be, separated by commas, the default first (``TENURE_REGIONS``).
        export_lifetime_days: how long an export of a tenant's data can be fetched.
        application_migrations: folders of the application's own migrations, applied after ours wherever tenants are,
            separated by colons (``TENURE_APPLICATION_MIGRATIONS``).
        script: the program of the script driver, an absolute path; None for an installation without.
        script_timeout_seconds: how long a run of it may take.
        script_pass: which of our own variables it gets besides ``PATH``, ``HOME`` and ``LANG``, separated by commas.
        script_folder: where each environment has a folder of its own; None for a new one in every run.
        webhook_url: who is asked by the webhook driver; None for an installation without.
        webhook_secrets: what questions and callbacks are signed with, separated by commas, the newest first.
        webhook_timeout_seconds: how long an answer may take.
        webhook_patience_seconds: how long a callback may take.
        webhook_plain: whether the URL may begin with ``http://`` off this machine.
    """

    model_config = settings_of("provisioning")

    application_database_url: SecretStr = Field(validation_alias="TENURE_APPLICATION_DATABASE_URL")
    regions: Annotated[tuple[Region, ...], NoDecode] = Field(
        default=("local", "eu-central", "us-east"), min_length=1, validation_alias="TENURE_REGIONS"
    )
    export_lifetime_days: int = Field(default=30, ge=1, le=3650)
    application_migrations: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(), validation_alias="TENURE_APPLICATION_MIGRATIONS"
    )
    script: Path | None = None
    script_timeout_seconds: int = Field(default=900, ge=1, le=86_400)
    script_pass: Annotated[tuple[str, ...], NoDecode] = ()
    script_folder: Path | None = None
    webhook_url: str | None = None
    webhook_secrets: SecretStr | None = None
    webhook_timeout_seconds: float = Field(default=30, ge=1, le=300)
    webhook_patience_seconds: int = Field(default=3600, ge=60, le=86_400)
    webhook_plain: bool = False

    @field_validator("regions", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [region.strip() for region in value.split(",")] if isinstance(value, str) else value

    @field_validator("script_pass", mode="before")
    @classmethod
    def _split_names(cls, value: object) -> object:
        return _parts(value, ",")

    @field_validator("application_migrations", mode="before")
    @classmethod
    def _split_folders(cls, value: object) -> object:
        return _parts(value, ":")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.webhook_url is not None:
            check_url(self.webhook_url, may_be_plain=self.webhook_plain)
            if self.webhook_secrets is None:
                raise ValueError("TENURE_PROVISIONING_WEBHOOK_URL needs TENURE_PROVISIONING_WEBHOOK_SECRETS")
        if self.webhook_secrets is not None:
            Keys.of(self.webhook_secrets.get_secret_value())
        return self


def _parts(value: object, separator: str) -> object:
    """Split what comes from the environment as one text; nothing is no parts."""
    if not isinstance(value, str):
        return value
    return [part.strip() for part in value.split(separator) if part.strip()]
