"""What the provisioning service is told of Amazon's infrastructure; an installation without any has no such driver."""

from datetime import timedelta
from typing import Self

from pydantic import Field, model_validator

from services.provisioning.drivers.aws import AwsTerms, PoolTerms, SiloTerms
from services.provisioning.mail import Limits
from shared.settings import ServiceSettings

_POOL = ("aws_pool_table", "aws_pool_bucket", "aws_pool_role_arn")
_SILO = (
    "aws_management_role_arn",
    "aws_mail_prefix",
    "aws_mail_domain",
    "aws_organizational_unit_id",
    "aws_topic_arn",
)
_ROLE = r"^arn:aws:iam::\d{12}:role/\S+$"


class AwsSettings(ServiceSettings):
    """The settings of the AWS driver; see `services.provisioning.drivers.aws.terms` for what each one means.

    Attributes:
        aws_region: Amazon's name of the region; with it there is the driver, without it there is none.
        aws_endpoint_url: what is asked instead of Amazon's own endpoints.
        aws_pool_table: of DynamoDB; the three of the pool belong together.
        aws_pool_bucket: of S3.
        aws_pool_role_arn: whose sessions tenants are lent.
        aws_management_role_arn: in the organization's management account; the five of silos belong together.
        aws_mail_prefix: what the address of each account begins with.
        aws_mail_domain: where the mail of the accounts arrives.
        aws_organizational_unit_id: where accounts are whose tier names no other one.
        aws_topic_arn: the SNS topic that hears of all mails of all tenants.
        aws_network: the addresses of each account's own network.
        aws_mail_queue_url: the SQS queue that is subscribed to that topic; without it nothing is made of mails.
        aws_mail_hours: how far back is looked at what came of a tenant's mails.
        aws_mail_bounce_limit: per cent of what it sends that may bounce for good before its sending is paused.
        aws_mail_complaint_limit: per cent of what it sends that somebody may complain about before.
        aws_mail_least_sends: fewer sends count as so many.
    """

    aws_region: str | None = Field(default=None, pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")
    aws_endpoint_url: str | None = Field(default=None, pattern=r"^https?://\S+$")
    aws_pool_table: str | None = None
    aws_pool_bucket: str | None = None
    aws_pool_role_arn: str | None = Field(default=None, pattern=_ROLE)
    aws_management_role_arn: str | None = Field(default=None, pattern=_ROLE)
    aws_mail_prefix: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._-]{1,20}$")
    aws_mail_domain: str | None = Field(default=None, pattern=r"^[a-z0-9.-]{1,40}$")
    aws_organizational_unit_id: str | None = Field(default=None, pattern=r"^ou-[a-z0-9-]+$")
    aws_topic_arn: str | None = Field(default=None, pattern=r"^arn:aws:sns:\S+$")
    aws_network: str = "10.0.0.0/16"
    aws_mail_queue_url: str | None = Field(default=None, pattern=r"^https?://\S+$")
    aws_mail_hours: int = Field(default=24, ge=1, le=168)
    aws_mail_bounce_limit: float = Field(default=8.0, gt=0, le=100)
    aws_mail_complaint_limit: float = Field(default=0.4, gt=0, le=100)
    aws_mail_least_sends: int = Field(default=500, ge=1)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        for names in (_POOL, _SILO):
            missing = [name for name in names if getattr(self, name) is None]
            if missing and len(missing) < len(names):
                raise ValueError(f"{', '.join(_variable(name) for name in missing)} must be set too")
        has_any = any(getattr(self, name) is not None for name in (*_POOL, *_SILO))
        if has_any != (self.aws_region is not None):
            raise ValueError(f"{_variable('aws_region')} is set together with those of a pool, of silos, or of both")
        if self.aws_mail_queue_url is not None and self.aws_topic_arn is None:
            raise ValueError(f"{_variable('aws_mail_queue_url')} needs {_variable('aws_topic_arn')}")
        return self

    def aws_terms(self) -> AwsTerms | None:
        """Return where environments are made; None where the installation has nothing there."""
        if self.aws_region is None:
            return None
        return AwsTerms(
            installation=self.issuer,
            region=self.aws_region,
            endpoint_url=self.aws_endpoint_url,
            pool=None if self.aws_pool_table is None else PoolTerms(**self._given(_POOL, "aws_pool_")),
            silo=None if self.aws_topic_arn is None else self._silo(),
        )

    def mail_limits(self) -> Limits:
        """Return what may come of a tenant's mails before its sending is paused."""
        return Limits(
            window=timedelta(hours=self.aws_mail_hours),
            bounces=self.aws_mail_bounce_limit,
            complaints=self.aws_mail_complaint_limit,
            least_sends=self.aws_mail_least_sends,
        )

    def _silo(self) -> SiloTerms:
        return SiloTerms(**self._given(_SILO, "aws_"), network=self.aws_network)

    def _given(self, names: tuple[str, ...], prefix: str) -> dict[str, str]:
        return {name.removeprefix(prefix): getattr(self, name) for name in names}


def _variable(name: str) -> str:
    return f"TENURE_PROVISIONING_{name.upper()}"
