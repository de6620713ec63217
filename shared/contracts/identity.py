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
