"""The people of one tenant in a pool of users, its own or one that tenants share."""

import secrets
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import structlog

from services.identity.passwords import normalised
from services.identity.providers.cognito.calls import SECONDS, Calls, RefusedCallError, in_time
from services.identity.providers.cognito.terms import CognitoTerms, UserPool
from services.identity.providers.id_tokens import IdTokens, InvalidIdTokenError
from services.identity.providers.port import Password, Proof, Recognised
from shared.http import FieldError, Problem

log = structlog.get_logger(__name__)

TENANT = "custom:tenantId"
"""The attribute that says whose an account is, and the claim that repeats it in the ID token."""

_IS_NOBODY = frozenset(
    {"NotAuthorizedException", "PasswordResetRequiredException", "UserNotConfirmedException", "UserNotFoundException"}
)
_IS_GONE = frozenset({"ResourceNotFoundException", "UserNotFoundException"})
_IS_NO_PASSWORD = frozenset(
    {"InvalidParameterException", "InvalidPasswordException", "PasswordHistoryPolicyViolationException"}
)


class CognitoProvider:
    """Keeps accounts that nobody can use but through us, each under the name of the tenant and the user.

    Somebody who is in several tenants has an account for each of them, also where the tenants share a pool.

    Args:
        pool: where the accounts are.
    """

    def __init__(self, calls: Calls, terms: CognitoTerms, tokens: IdTokens, *, tenant_id: str, pool: UserPool) -> None:
        self._calls = calls
        self._terms = terms
        self._tokens = tokens
        self._tenant_id = tenant_id
        self._pool = pool

    def subject_of(self, user_id: UUID) -> str:
        """Return what a user of ours is called in the pool, whether it has an account or not."""
        return f"{self._tenant_id}.{user_id}"

    async def recognise(self, proof: Proof) -> Recognised | None:
        """See `port.IdentityProvider.recognise`; whoever would have to do more than type a password is not recognised.

        Believed is what the pool signs, not that it was asked: an account of another tenant opens nothing here.
        """
        if not isinstance(proof, Password) or not proof.text:
            return None
        # Each nobody has a name of its own: Cognito locks one that was tried often, and then answers otherwise.
        subject = self.subject_of(proof.user_id) if proof.user_id else f"{self._tenant_id}.{secrets.token_hex(16)}"
        async with in_time(SECONDS):
            token = await self._token(subject, proof.text)
            return None if token is None else await self._bearer(token, subject)

    async def enrol(self, user_id: UUID, email: str, password: str) -> None:
        """See `port.Directory.enrol`.

        Raises:
            Problem: 422 that names the field, where the pool takes no such password; and see `recognise`.
            ProviderUnavailableError: see `port.Directory.enrol`.
        """
        subject = self.subject_of(user_id)
        async with in_time(SECONDS):
            await self._put_account(subject, email)
            await self._set_password(subject, password)

    async def forget(self, user_id: UUID) -> None:
        """See `port.Directory.forget`; nobody is left in a pool that is gone."""
        try:
            await self._call("admin_delete_user", Username=self.subject_of(user_id))
        except RefusedCallError as refusal:
            if refusal.code not in _IS_GONE:
                raise

    async def _token(self, subject: str, password: str) -> str | None:
        """Return the ID token that a password gets; None where it gets none."""
        try:
            answer = await self._call(
                "admin_initiate_auth",
                ClientId=self._pool.client_id,
                AuthFlow="ADMIN_USER_PASSWORD_AUTH",
                AuthParameters={"USERNAME": subject, "PASSWORD": normalised(password)},
            )
        except RefusedCallError as refusal:
            if refusal.code in _IS_NOBODY:
                return None
            raise
        if challenge := answer.get("ChallengeName"):
            self._warn("asked for more than a password", subject, reason=challenge)
            return None
        token: str = answer["AuthenticationResult"]["IdToken"]
        return token

    async def _bearer(self, token: str, subject: str) -> Recognised | None:
        pool_id = self._pool.pool_id
        try:
            claims = await self._tokens.verify(
                token,
                keys_url=self._terms.keys_url_of(pool_id),
                issuer=self._terms.issuer_of(pool_id),
                audience=self._pool.client_id,
            )
        except InvalidIdTokenError as error:
            self._warn("ID token is not to be trusted", subject, reason=str(error))
            return None
        if wrong := self._wrong(claims, subject):
            self._warn("ID token says something else", subject, reason=wrong)
            return None
        return Recognised(subject, claims["email"])

    def _wrong(self, claims: Mapping[str, Any], subject: str) -> str:
        """Return which claims are not what they have to be."""
        said = {
            "token_use": claims.get("token_use") == "id",
            TENANT: claims.get(TENANT) == self._tenant_id,
            "cognito:username": claims.get("cognito:username") == subject,
            "email": isinstance(claims.get("email"), str),
            "email_verified": claims.get("email_verified") in (True, "true"),
        }
        return ", ".join(name for name, is_right in said.items() if not is_right)

    async def _put_account(self, subject: str, email: str) -> None:
        """Make an account that has this address; until it is given a password nobody knows the one that it has."""
        address = [{"Name": "email", "Value": email}, {"Name": "email_verified", "Value": "true"}]
        tenant = {"Name": TENANT, "Value": self._tenant_id}
        try:
            await self._call(
                "admin_create_user", Username=subject, UserAttributes=[*address, tenant], MessageAction="SUPPRESS"
            )
        except RefusedCallError as refusal:
            if refusal.code != "UsernameExistsException":
                raise
            await self._call("admin_update_user_attributes", Username=subject, UserAttributes=address)

    async def _set_password(self, subject: str, password: str) -> None:
        try:
            await self._call("admin_set_user_password", Username=subject, Password=normalised(password), Permanent=True)
        except RefusedCallError as refusal:
            if refusal.code not in _IS_NO_PASSWORD:
                raise
            reason = refusal.sentence or "Amazon Cognito does not take this password."
            error = FieldError("/password", reason)
            raise Problem(422, code="weak_password", detail=reason, errors=[error]) from None

    async def _call(self, operation: str, /, **parameters: Any) -> Mapping[str, Any]:
        return await self._calls.call(operation, UserPoolId=self._pool.pool_id, **parameters)

    def _warn(self, event: str, subject: str, *, reason: str) -> None:
        log.warning(event, action="cognito_not_recognised", tenant_id=self._tenant_id, subject=subject, reason=reason)
