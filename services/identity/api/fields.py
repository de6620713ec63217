"""The fields of OAuth's forms, and what may stand in them."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

_LONGEST = 2000

Word = Annotated[str, StringConstraints(max_length=_LONGEST, pattern=r"^[ -~]*$")]
"""ASCII that can be printed, as RFC 6749 (appendix A) has it."""

Secret = Annotated[str, StringConstraints(max_length=_LONGEST)]
Scope = Annotated[str, StringConstraints(max_length=1000, pattern=r"^[!#-\[\]-~]+( [!#-\[\]-~]+)*$")]
Tenant = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Challenge = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{43}$")]
Verifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._~-]{43,128}$")]


class Fields(BaseModel):
    """A form; what is not known is ignored, as RFC 6749 (3.1) wants it."""

    model_config = ConfigDict(frozen=True, extra="ignore")
