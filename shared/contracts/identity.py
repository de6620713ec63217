"""All one can ask of the identity service, and all it tells."""

from shared.contracts.base import Ask, Fact, Refusal


class CreateAdministrators(Ask):
    """Make each e-mail address an administrator of the tenant and invite it.

    Attributes:
        customer_name: shown in the invitation.
        emails: one or more addresses.
    """

    customer_name: str
    emails: tuple[str, ...]


class RemoveAdministrators(Ask):
    """Remove the tenant's memberships and invitations, and users that belong nowhere else."""

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
    """Forget the tenant: memberships, invitations, its block, and users that belong nowhere else. Final."""


class UsersPurged(Fact):
    """Nothing of the tenant is left.

    Attributes:
        deleted: how many ``memberships``, ``invitations`` and ``users``.
    """

    answers = PurgeUsers

    deleted: dict[str, int]
