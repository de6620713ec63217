"""Environments on Amazon's infrastructure; see [docs/aws.md](../../../../docs/aws.md)."""

from services.provisioning.drivers.aws.calls import NoAnswerError, RefusedCallError
from services.provisioning.drivers.aws.driver import AwsDriver, open_aws
from services.provisioning.drivers.aws.terms import AwsTerms, PoolTerms, SiloTerms, Waits

__all__ = [
    "AwsDriver",
    "AwsTerms",
    "NoAnswerError",
    "PoolTerms",
    "RefusedCallError",
    "SiloTerms",
    "Waits",
    "open_aws",
]
