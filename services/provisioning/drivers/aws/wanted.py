"""What tiers and products say for this driver, as it is read."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from services.provisioning.drivers.port import Environment

_DOMAIN = re.compile(r"(?=.{4,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]")


class UnusableParametersError(Exception):
    """Nothing can be made of the parameters; the text is a sentence for people."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, alias_generator=to_camel)


class Quota(_Part):
    """How much of something an account may have.

    Attributes:
        service: Amazon's name, such as ``ses``.
        code: of the quota, such as ``L-804C8AE8``.
    """

    service: str = Field(pattern=r"^[a-z0-9-]{1,63}$")
    code: str = Field(pattern=r"^[A-Za-z0-9-]{1,128}$")
    value: float = Field(gt=0, strict=False)


class _Parameters(_Part):
    organizational_unit_id: str | None = Field(default=None, pattern=r"^ou-[a-z0-9]{4,32}-[a-z0-9]{8,32}$")
    mail_domain: str | None = None
    quotas: list[Quota] = Field(default_factory=list, max_length=20)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an account is to be like.

    Attributes:
        organizational_unit_id: where it is to be; None where the installation says so.
        mail_domain: what it sends mail from; None where it sends none.
    """

    organizational_unit_id: str | None
    mail_domain: str | None
    quotas: Sequence[Quota]


def wanted_of(environment: Environment) -> Wanted:
    """Return what an environment's tier and products say; of what others make of their words nothing is read.

    Raises:
        UnusableParametersError: it is not what it should be.
    """
    try:
        given = _Parameters.model_validate(dict(environment.parameters))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(each) for each in first["loc"])
        raise UnusableParametersError(f"The parameter `{place}` is wrong: {first['msg']}.") from None
    return Wanted(given.organizational_unit_id, _domain(given.mail_domain, environment), given.quotas)


def _domain(template: str | None, environment: Environment) -> str | None:
    if template is None:
        return None
    domain = template.replace("{tenantId}", environment.owner.lower())
    if environment.product is not None:
        domain = domain.replace("{product}", environment.product)
    if not _DOMAIN.fullmatch(domain):
        raise UnusableParametersError(f"The parameter `mailDomain` makes no domain for this tenant: {domain[:100]}.")
    return domain


def products_of(parameters: Sequence[Mapping[str, Any]], path: str) -> dict[str, str]:
    """Return the versions of products as parameters below a path have them."""
    return {each["Name"].removeprefix(path): each["Value"] for each in parameters}
