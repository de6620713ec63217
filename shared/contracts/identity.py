"""All one can ask of the identity service, and all it tells."""

from collections.abc import Mapping
from datetime import datetime

from shared.contracts.base import INSTALLATION, Ask, Decision, Fact, Part, Refusal, TenantId
from shared.contracts.tenant import UsagePlan


class CreateAdministrators(Ask):
    """Make each e-mail address an administrator of the tenant and invite it.

    Attributes:
        customer_name: shown in the invitation.
        emails: one or more addresses.
        usage_plan: what the tenant's tier lets it ask of applications; nothing is limited where there is none.
        isolation: ``pool``, ``bridge`` or ``silo``; where people are in Amazon Cognito, a silo has a pool of its own.
    """

    customer_name: str
    emails: tuple[str, ...]
    usage_plan: UsagePlan | None = None
    isolation: str | None = None


class RemoveAdministrators(Ask):
    """Remove the tenant's memberships and invitations, its plan, its provider, and users that belong nowhere else."""

    undoes = CreateAdministrators


class AdministratorsCreated(Fact):
    """Every administrator has a membership and an open invitation.

    Attributes:
        user_ids: in the order of the e-mails that were asked for.
    """

    answers = CreateAdministrators

    user_ids: tuple[str, ...]


class AdministratorsRefused(Refusal):
    """No administrator was created; codes ``no_administrators``."""

    answers = CreateAdministrators


class AdministratorsRemoved(Fact):
    """Nobody is a member of the tenant any more."""

    answers = RemoveAdministrators


class AddAdministrators(Ask):
    """Make each e-mail address an administrator of a tenant that has some already, and invite those who are new.

    Attributes:
        customer_name: shown in the invitation.
        emails: one or more addresses.
    """

    customer_name: str
    emails: tuple[str, ...]


class RemoveAddedAdministrators(Ask):
    """Take the memberships, roles and invitations back that were given by that ask, and no others."""

    undoes = AddAdministrators


class AdministratorsAdded(Fact):
    """Each of them is an administrator.

    Attributes:
        user_ids: in the order of the e-mails that were asked for.
    """

    answers = AddAdministrators

    user_ids: tuple[str, ...]


class AdministratorAdditionRefused(Refusal):
    """Nobody was added; codes ``no_administrators``."""

    answers = AddAdministrators


class AddedAdministratorsRemoved(Fact):
    """Nobody is an administrator by that ask any more."""

    answers = RemoveAddedAdministrators


class SetAdministrators(Ask):
    """Make exactly these e-mail addresses the administrators of a tenant; its other users are left alone.

    Attributes:
        customer_name: shown in the invitation.
        emails: one or more addresses.
    """

    customer_name: str
    emails: tuple[str, ...]


class RestoreAdministrators(Ask):
    """Let the tenant have the administrators again that it was found with."""

    undoes = SetAdministrators


class AdministratorsSet(Fact):
    """These and no others are the tenant's administrators.

    Attributes:
        user_ids: in the order of the e-mails that were asked for.
    """

    answers = SetAdministrators

    user_ids: tuple[str, ...]


class AdministratorSettingRefused(Refusal):
    """The administrators stay as they are; codes ``no_administrators``."""

    answers = SetAdministrators


class AdministratorsRestored(Fact):
    """The tenant has no other administrators by that ask any more."""

    answers = RestoreAdministrators


class BlockSignIn(Ask):
    """Let nobody sign in to the tenant any more.

    Attributes:
        reason: why, for those who ask.
    """

    reason: str | None = None


class UnblockSignIn(Ask):
    """Take the block back: who could sign in when it was made can again."""

    undoes = BlockSignIn


class SignInBlocked(Fact):
    """Nobody can sign in to the tenant."""

    answers = BlockSignIn


class SignInUnblocked(Fact):
    """Nobody is kept out by that ask any more."""

    answers = UnblockSignIn


class AllowSignIn(Ask):
    """End the block of a tenant, if there is one."""


class DisallowSignIn(Ask):
    """Put the block back that was found and ended."""

    undoes = AllowSignIn


class SignInAllowed(Fact):
    """The tenant's users can sign in."""

    answers = AllowSignIn


class SignInDisallowed(Fact):
    """The tenant is as blocked as it was found."""

    answers = DisallowSignIn


class PurgeUsers(Ask):
    """Forget the tenant: memberships, invitations, its block and usage, and users that belong nowhere else. Final."""


class UsersPurged(Fact):
    """Nothing of the tenant is left.

    Attributes:
        deleted: how many ``memberships``, ``invitations`` and ``users``.
    """

    answers = PurgeUsers

    deleted: dict[str, int]


class SigningKeyPublished(Fact):
    """Access tokens may be signed with this key from now on, or still are good that were.

    Attributes:
        key_id: the ``kid`` of the tokens' header.
        public_key: a JWK (RFC 7517).
        expires_at: when no token that it has signed is good any more.
    """

    tenant_id: TenantId = INSTALLATION
    key_id: str
    public_key: Mapping[str, str]
    expires_at: datetime


class TenantAccessChanged(Fact):
    """Whoever had access to the tenant has lost it; whether anybody gets it anew is another question.

    Attributes:
        epoch: one more than before; access tokens of an earlier one are void.
        is_blocked: whether nobody has access, by token or API key, until further notice.
        forget_at: the tenant was purged, and this need not be known from then on; None as long as it is there.
    """

    epoch: int
    is_blocked: bool
    forget_at: datetime | None = None


class SessionsRevoked(Fact):
    """These sessions are over, and their access tokens are void.

    Attributes:
        forget_at: when no access token of theirs would be good anyway.
    """

    tenant_id: TenantId = INSTALLATION
    session_ids: tuple[str, ...]
    forget_at: datetime


class ApiKeySecret(Part):
    """What proves an API key.

    Attributes:
        digest: SHA-256 of the whole key, hexadecimal.
        expires_at: proves nothing from then on; None for ever.
    """

    digest: str
    expires_at: datetime | None = None


class ApiKeyChanged(Fact):
    """An API key was issued, rotated or revoked.

    Attributes:
        revision: one more than before; the state of an earlier one is past.
        role: what its holder is.
        scopes: what it may be used for.
        secrets: what proves it; two while it is rotated, none when it is revoked.
        forget_at: it was revoked, and need not be known from then on.
    """

    tenant_id: TenantId = INSTALLATION
    key_id: str
    revision: int
    role: str
    scopes: tuple[str, ...]
    secrets: tuple[ApiKeySecret, ...]
    forget_at: datetime | None = None


class DecisionRecorded(Decision):
    """Somebody has decided something at the identity service."""
