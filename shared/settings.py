"""What every service is told from outside: environment variables, read once at the start."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import AliasChoices, AliasPath, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


def settings_of(service: str) -> SettingsConfigDict:
    """Return the configuration of a service's settings class: its own variables begin with ``TENURE_<SERVICE>_``."""
    return SettingsConfigDict(
        env_prefix=f"TENURE_{service.upper()}_", frozen=True, extra="ignore", populate_by_name=True
    )


def common(name: str) -> AliasChoices:
    """Name a setting's variable ``TENURE_<NAME>``, as it is called for every service that has it."""
    return AliasChoices(f"TENURE_{name.upper()}")


class ServiceSettings(BaseSettings):
    """The settings that all six services have; each adds its own in a subclass.

    Attributes:
        database_url: the service's own login to its own database (``TENURE_<SERVICE>_DATABASE_URL``).
        amqp_url: the service's own login to the broker (``TENURE_<SERVICE>_AMQP_URL``).
        common_amqp_url: one login for all services (``TENURE_AMQP_URL``), where nobody made one for each.
        admin_key: the first system administrator's API key (``TENURE_ADMIN_KEY``).
        issuer: who makes the access tokens that are trusted: the URL of the one origin (``TENURE_ISSUER``).
        host: the address to listen on (``TENURE_<SERVICE>_HOST``).
        port: the port to listen on (``TENURE_<SERVICE>_PORT``).
        pool_size: the most database connections this process holds.
        shutdown_seconds: how long a stopping process may take to finish what it has begun.
    """

    database_url: SecretStr
    amqp_url: SecretStr | None = None
    common_amqp_url: SecretStr | None = Field(default=None, validation_alias=common("amqp_url"))
    admin_key: SecretStr = Field(validation_alias=common("admin_key"))
    issuer: str = Field(
        default="http://127.0.0.1:8080", pattern=r"^https?://[^/?#\s]+$", validation_alias=common("issuer")
    )
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    pool_size: int = Field(default=6, ge=2, le=100)
    shutdown_seconds: float = Field(default=10.0, gt=0)
    log_format: Literal["json", "console"] = Field(default="json", validation_alias=common("log_format"))
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", validation_alias=common("log_level")
    )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read the settings from variables that are not this process's own, which still fill in what is missing."""
        prefix = cls.model_config.get("env_prefix", "")
        aliases = {
            variable: name
            for name, field in cls.model_fields.items()
            for variable in _variables(name, field.validation_alias, prefix)
        }
        told: dict[str, Any] = {aliases[name]: value for name, value in environment.items() if name in aliases}
        return cls(**told)

    @model_validator(mode="after")
    def _some_broker(self) -> Self:
        if self.amqp_url is None and self.common_amqp_url is None:
            prefix = self.model_config.get("env_prefix", "TENURE_")
            raise ValueError(f"set {prefix}AMQP_URL (this service's own login) or TENURE_AMQP_URL (one for all)")
        return self

    @property
    def broker_url(self) -> str:
        """The broker login to use: the service's own, else the common one."""
        url = self.amqp_url or self.common_amqp_url
        assert url is not None
        return url.get_secret_value()


class TracingSettings(BaseSettings):
    """Where a process's traces go; nothing is traced where nothing is said.

    Attributes:
        otlp_endpoint: a collector that takes OTLP over HTTP (``OTEL_EXPORTER_OTLP_ENDPOINT``); what else OpenTelemetry
            calls ``OTEL_*`` (headers, sampling, sizes of queues) is what its SDK reads itself.
        otlp_traces_endpoint: the same for traces alone (``OTEL_EXPORTER_OTLP_TRACES_ENDPOINT``).
        file: a file to append to instead, one span a line (``TENURE_TRACES_FILE``).
        is_disabled: the standard switch that silences all of it (``OTEL_SDK_DISABLED``).
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    otlp_endpoint: str | None = Field(default=None, validation_alias=AliasChoices("OTEL_EXPORTER_OTLP_ENDPOINT"))
    otlp_traces_endpoint: str | None = Field(
        default=None, validation_alias=AliasChoices("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    )
    file: Path | None = Field(default=None, validation_alias=common("traces_file"))
    is_disabled: bool = Field(default=False, validation_alias=AliasChoices("OTEL_SDK_DISABLED"))

    @property
    def is_on(self) -> bool:
        """Whether there is anywhere for traces to go; a variable that is set to nothing is not set."""
        goes = self.otlp_endpoint or self.otlp_traces_endpoint or self.file
        return bool(goes) and not self.is_disabled

    @field_validator("file", mode="before")
    @classmethod
    def _nowhere(cls, value: Any) -> Any:
        return value or None


def _variables(name: str, alias: str | AliasPath | AliasChoices | None, prefix: str) -> list[str]:
    if isinstance(alias, AliasChoices):
        return [choice for choice in alias.choices if isinstance(choice, str)]
    return [alias if isinstance(alias, str) else f"{prefix}{name.upper()}"]
