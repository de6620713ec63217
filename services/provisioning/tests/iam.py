"""Amazon's rules of who may do what, as far as our policies need them: neither moto nor anything else here has them.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

Policy = Mapping[str, Any]

_NEGATED = {"StringNotEquals", "StringNotLike", "ArnNotLike", "ArnNotEquals"}


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants to do.

    Attributes:
        resource: its ARN; None where it is not known, which is as good as any.
        context: what conditions are about; a list for keys that have several values.
    """

    action: str
    resource: str | None
    context: Mapping[str, str | Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rights:
    """What is said of somebody.

    Attributes:
        role: the policies of the role.
        session: the policy that the session was begun with, if there was one.
        account: the service control policies of the account; None where there are none at all.
    """

    role: Sequence[Policy]
    session: Policy | None = None
    account: Sequence[Policy] | None = None


def allows(rights: Rights, wish: Wish) -> bool:
    """Return whether somebody may: nothing denies it, and each that has a say allows it."""
    having_a_say: list[Sequence[Policy]] = [rights.role]
    if rights.session is not None:
        having_a_say.append([rights.session])
    if rights.account is not None:
        having_a_say.append(rights.account)
    if any(_says(policies, "Deny", wish) for policies in having_a_say):
        return False
    return all(_says(policies, "Allow", wish) for policies in having_a_say)


def trusts(trust: Policy, arn: str, account_id: str) -> bool:
    """Return whether a role may be taken on by somebody; a whole account is named by its root."""
    named = [
        each
        for statement in trust["Statement"]
        if statement["Effect"] == "Allow"
        for each in _list(statement["Principal"]["AWS"])
    ]
    return arn in named or f"arn:aws:iam::{account_id}:root" in named


def _says(policies: Sequence[Policy], effect: str, wish: Wish) -> bool:
    return any(
        statement["Effect"] == effect and _is_about(statement, wish)
        for policy in policies
        for statement in _list(policy["Statement"])
    )


def _is_about(statement: Policy, wish: Wish) -> bool:
    if not any(_like(action.lower(), wish.action.lower()) for action in _list(statement["Action"])):
        return False
    resources = _list(statement["Resource"])
    if wish.resource is not None and not any(_like(resource, wish.resource) for resource in resources):
        return False
    return all(
        _holds(operator, _list(wanted), wish.context.get(key))
        for operator, keys in statement.get("Condition", {}).items()
        for key, wanted in keys.items()
    )


def _holds(operator: str, wanted: Sequence[str], found: str | Sequence[str] | None) -> bool:
    quantifier, _, plain = operator.rpartition(":")
    if plain == "Null":
        return (found is None) == (wanted[0] == "true")
    if quantifier == "ForAllValues":
        return all(_compare(plain, wanted, value) for value in _list(found or []))
    if quantifier:
        raise NotImplementedError(operator)
    if found is None:
        return plain in _NEGATED
    return _compare(plain, wanted, _one(found))


def _compare(operator: str, wanted: Sequence[str], value: str) -> bool:
    match operator:
        case "StringEquals":
            return value in wanted
        case "StringLike":
            return any(_like(each, value) for each in wanted)
        case "ArnNotLike":
            return not any(_like(each, value) for each in wanted)
        case "DateLessThan":
            return any(datetime.fromisoformat(value) < datetime.fromisoformat(each) for each in wanted)
    raise NotImplementedError(operator)


def _like(pattern: str, text: str) -> bool:
    """Compare as Amazon does: an asterisk stands for anything, a question mark for one character."""
    parts = (".*" if each == "*" else "." if each == "?" else re.escape(each) for each in pattern)
    return re.fullmatch("".join(parts), text, re.DOTALL) is not None


def _one(value: str | Sequence[str]) -> str:
    return value if isinstance(value, str) else value[0]


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
