"""What the metrics service is told from outside."""

from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from services.metrics.lake.terms import LakeTerms
from shared.settings import ServiceSettings, settings_of


class MetricsSettings(ServiceSettings):
    """The settings of the metrics service.

    Attributes:
        lake: where the data lake is: an absolute folder, or ``s3://bucket/prefix``; empty for none.
        lake_seconds: from the end of a round, in which everything new is written, to the next one.
        lake_days: how long a folder keeps files of usage, amendments and tenants; 0 for ever.
        lake_audit_days: how long it keeps those of the audit trail; 0 for ever.
    """

    model_config = settings_of("metrics")

    lake: str = ""
    lake_seconds: float = Field(default=10.0, ge=1, le=3600)
    lake_days: int = Field(default=0, ge=0, le=36_500)
    lake_audit_days: int = Field(default=0, ge=0, le=36_500)

    @model_validator(mode="after")
    def _lake_is_a_place(self) -> Self:
        if self.lake.startswith("s3://"):
            if not urlsplit(self.lake).netloc:
                raise ValueError("TENURE_METRICS_LAKE names no bucket: s3://bucket/prefix")
            if self.lake_days or self.lake_audit_days:
                raise ValueError("how long a bucket keeps files is said by its lifecycle rules, not by LAKE_DAYS")
        elif self.lake and not Path(self.lake).is_absolute():
            raise ValueError("TENURE_METRICS_LAKE must be an absolute folder or s3://bucket/prefix")
        return self

    def lake_terms(self) -> LakeTerms | None:
        """Return where the lake is and how it is kept; None where there is none."""
        if not self.lake:
            return None
        days = dict.fromkeys(("usage", "amendments", "tenants"), self.lake_days) | {"audit": self.lake_audit_days}
        kept = {stream: most for stream, most in days.items() if most}
        return LakeTerms(place=self.lake, seconds=self.lake_seconds, days=kept)
