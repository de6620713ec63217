import logging
import traceback
from collections.abc import AsyncIterator, Mapping
from typing import Any
from uuid import UUID, uuid4

import pytest
from structlog.testing import capture_logs

from services.identity.providers.cognito import (
    Cognito,
    CognitoProvider,
    CognitoTerms,
    MisconfiguredError,
    UserPool,
    calls,
    pools,
)
from services.identity.providers.id_tokens import InvalidIdTokenError
from services.identity.providers.port import Password, ProviderUnavailableError, Recognised
from services.identity.tests.amazon import FLOWS, SHARED_CLIENT, SHARED_POOL, Amazon, open_cognito
from shared.http import FieldError, Problem
from shared.testing.amazon import REGION

ANNA = UUID("0198aaaa-0000-7000-8000-000000000001")
EMAIL = "anna@example.org"
PASSWORD, NEXT_PASSWORD = "a-long-password", "the-next-long-password"
PROOF = Password(ANNA, PASSWORD)


@pytest.fixture
def shared(amazon: Amazon) -> UserPool:
    """The pool that an operator has made."""
    return amazon.shared_pool()


@pytest.fixture
async def cognito(amazon: Amazon, shared: UserPool) -> AsyncIterator[Cognito]:
    async with open_cognito(amazon.terms(shared)) as cognito:
        yield cognito


@pytest.fixture
def provider(cognito: Cognito) -> CognitoProvider:
    """The people of the tenant t1 in the shared pool."""
    return people_of(cognito, "t1")


def people_of(cognito: Cognito, tenant_id: str, own: UserPool | None = None) -> CognitoProvider:
    pool_id, client_id = (None, None) if own is None else (own.pool_id, own.client_id)
    provider = cognito.directory(tenant_id, pool_id=pool_id, client_id=client_id)
    assert provider is not None
    return provider


def put_account(amazon: Amazon, pool: UserPool, name: str, **attributes: str) -> None:
    """Make an account as an operator can."""
    ids = {"UserPoolId": pool.pool_id, "Username": name}
    listed = [{"Name": key.replace("tenantId", "custom:tenantId"), "Value": attributes[key]} for key in attributes]
    amazon.client.admin_create_user(**ids, UserAttributes=listed, MessageAction="SUPPRESS")
    amazon.client.admin_set_user_password(**ids, Password=PASSWORD, Permanent=True)


class TestAccounts:
    async def test_an_account_says_whose_it_is_and_that_the_address_is_verified(
        self, amazon: Amazon, shared: UserPool, provider: CognitoProvider
    ) -> None:
        await provider.enrol(ANNA, EMAIL, PASSWORD)

        account = amazon.client.admin_get_user(UserPoolId=shared.pool_id, Username=f"t1.{ANNA}")
        said = {each["Name"]: each["Value"] for each in account["UserAttributes"]}
        assert account["UserStatus"] == "CONFIRMED"
        assert (said["custom:tenantId"], said["email"], said["email_verified"]) == ("t1", EMAIL, "true")

    async def test_its_name_is_known_before_it_is_made(self, provider: CognitoProvider) -> None:
        await provider.enrol(ANNA, EMAIL, PASSWORD)

        assert await provider.recognise(PROOF) == Recognised(provider.subject_of(ANNA), EMAIL)

    async def test_somebody_in_two_tenants_has_two_passwords(self, cognito: Cognito) -> None:
        one, other = people_of(cognito, "t1"), people_of(cognito, "t2")
        await one.enrol(ANNA, EMAIL, PASSWORD)
        await other.enrol(ANNA, EMAIL, NEXT_PASSWORD)

        assert await one.recognise(PROOF) is not None
        assert await other.recognise(PROOF) is None
        assert await other.recognise(Password(ANNA, NEXT_PASSWORD)) is not None

    async def test_who_leaves_one_tenant_stays_in_the_other(self, cognito: Cognito) -> None:
        one, other = people_of(cognito, "t1"), people_of(cognito, "t2")
        await one.enrol(ANNA, EMAIL, PASSWORD)
        await other.enrol(ANNA, EMAIL, PASSWORD)
        await one.forget(ANNA)

        assert await one.recognise(PROOF) is None
        assert await other.recognise(PROOF) is not None

    async def test_who_enrols_again_has_the_address_of_now(self, provider: CognitoProvider) -> None:
        await provider.enrol(ANNA, "ann@example.org", PASSWORD)
        await provider.enrol(ANNA, EMAIL, PASSWORD)

        assert await provider.recognise(PROOF) == Recognised(provider.subject_of(ANNA), EMAIL)

    async def test_an_enrolment_that_was_cut_short_can_be_asked_for_again(
        self, amazon: Amazon, provider: CognitoProvider
    ) -> None:
        with amazon.refusing("AdminSetUserPassword", "InternalErrorException"), pytest.raises(ProviderUnavailableError):
            await provider.enrol(ANNA, EMAIL, PASSWORD)
        assert await provider.recognise(PROOF) is None

        await provider.enrol(ANNA, EMAIL, PASSWORD)
        assert await provider.recognise(PROOF) is not None

    async def test_an_answer_that_was_lost_is_asked_for_again(self, amazon: Amazon, provider: CognitoProvider) -> None:
        with amazon.losing_answers("AdminCreateUser", times=1):
            await provider.enrol(ANNA, EMAIL, PASSWORD)

        assert amazon.asked.count("AdminCreateUser") == 2
        assert await provider.recognise(PROOF) is not None

    async def test_what_the_policy_refuses_is_said_in_its_words(
        self, amazon: Amazon, provider: CognitoProvider
    ) -> None:
        await provider.enrol(ANNA, EMAIL, PASSWORD)
        sentence = "Password did not conform with policy: Password must have symbol characters"

        with (
            amazon.refusing("AdminSetUserPassword", "InvalidPasswordException", sentence),
            pytest.raises(Problem) as caught,
        ):
            await provider.enrol(ANNA, EMAIL, NEXT_PASSWORD)

        problem = caught.value
        assert (problem.status, problem.code, problem.detail) == (422, "weak_password", sentence)
        assert problem.errors == (FieldError("/password", sentence),)
        assert await provider.recognise(PROOF) is not None

    @pytest.mark.parametrize("code", ["InvalidParameterException", "PasswordHistoryPolicyViolationException"])
    async def test_a_password_that_is_none_there_is_refused_likewise(
        self, amazon: Amazon, provider: CognitoProvider, code: str
    ) -> None:
        with amazon.refusing("AdminSetUserPassword", code), pytest.raises(Problem, match="does not take this password"):
            await provider.enrol(ANNA, EMAIL, " a-long-password")

    async def test_nobody_is_left_in_a_pool_that_is_gone(
        self, amazon: Amazon, shared: UserPool, provider: CognitoProvider
    ) -> None:
        amazon.client.delete_user_pool(UserPoolId=shared.pool_id)
        amazon.asked.clear()

        await provider.forget(ANNA)

        assert amazon.asked == ["AdminDeleteUser"]


class TestRecognition:
    async def test_a_password_of_another_tenants_account_opens_nothing(self, cognito: Cognito) -> None:
        await people_of(cognito, "t1").enrol(ANNA, EMAIL, PASSWORD)

        assert await people_of(cognito, "t2").recognise(PROOF) is None

    async def test_an_account_with_the_mark_of_another_tenant_opens_nothing(
        self, amazon: Amazon, shared: UserPool, cognito: Cognito
    ) -> None:
        put_account(amazon, shared, f"t2.{ANNA}", email=EMAIL, email_verified="true", tenantId="t1")

        with capture_logs() as lines:
            assert await people_of(cognito, "t2").recognise(PROOF) is None

        (line,) = lines
        assert (line["action"], line["tenant_id"]) == ("cognito_not_recognised", "t2")
        assert line["reason"] == "custom:tenantId"

    async def test_an_account_that_an_operator_has_made_is_as_good(
        self, amazon: Amazon, shared: UserPool, provider: CognitoProvider
    ) -> None:
        put_account(amazon, shared, f"t1.{ANNA}", email=EMAIL, email_verified="true", tenantId="t1")

        assert await provider.recognise(PROOF) is not None

    @pytest.mark.parametrize(
        ("attributes", "missing"),
        [
            ({"email": EMAIL, "email_verified": "true"}, "custom:tenantId"),
            ({"email": EMAIL, "email_verified": "false", "tenantId": "t1"}, "email_verified"),
            ({"email": EMAIL, "tenantId": "t1"}, "email_verified"),
            ({"email_verified": "true", "tenantId": "t1"}, "email"),
        ],
    )
    async def test_an_account_without_all_that_it_needs_opens_nothing(
        self, amazon: Amazon, shared: UserPool, provider: CognitoProvider, attributes: Mapping[str, str], missing: str
    ) -> None:
        put_account(amazon, shared, f"t1.{ANNA}", **attributes)

        with capture_logs() as lines:
            assert await provider.recognise(PROOF) is None
        assert [line["reason"] for line in lines] == [missing]

    @pytest.mark.parametrize("wrong", [{"token_use": "access"}, {"cognito:username": f"t1.{uuid4()}"}])
    async def test_a_token_for_something_or_somebody_else_is_not_believed(
        self, provider: CognitoProvider, wrong: Mapping[str, str]
    ) -> None:
        await provider.enrol(ANNA, EMAIL, PASSWORD)
        verify = provider._tokens.verify

        async def altered(token: str, **terms: Any) -> Mapping[str, Any]:
            return {**await verify(token, **terms), **wrong}

        provider._tokens.verify = altered  # type: ignore[method-assign]
        with capture_logs() as lines:
            assert await provider.recognise(PROOF) is None
        assert [line["reason"] for line in lines] == list(wrong)

    async def test_a_token_is_verified_with_the_terms_of_its_pool(
        self, amazon: Amazon, shared: UserPool, provider: CognitoProvider
    ) -> None:
        await provider.enrol(ANNA, EMAIL, PASSWORD)
        asked: dict[str, str] = {}

        async def refuse(_token: str, **terms: str) -> Mapping[str, Any]:
            asked.update(terms)
            raise InvalidIdTokenError("its key is not known")

        provider._tokens.verify = refuse  # type: ignore[assignment, method-assign]
        with capture_logs() as lines:
            assert await provider.recognise(PROOF) is None

        assert asked == {
            "issuer": f"https://cognito-idp.{REGION}.amazonaws.com/{shared.pool_id}",
            "audience": shared.client_id,
            "keys_url": f"{amazon.url}/{shared.pool_id}/.well-known/jwks.json",
        }
        assert [line["reason"] for line in lines] == ["its key is not known"]

    async def test_who_has_to_do_more_than_type_a_password_is_not_recognised(
        self, amazon: Amazon, shared: UserPool, provider: CognitoProvider
    ) -> None:
        await provider.enrol(ANNA, EMAIL, PASSWORD)
        amazon.client.admin_set_user_password(
            UserPoolId=shared.pool_id, Username=f"t1.{ANNA}", Password=PASSWORD, Permanent=False
        )

        with capture_logs() as lines:
            assert await provider.recognise(PROOF) is None
        assert [line["reason"] for line in lines] == ["NEW_PASSWORD_REQUIRED"]

    async def test_who_was_disabled_by_an_operator_is_not_recognised(
        self, amazon: Amazon, shared: UserPool, provider: CognitoProvider
    ) -> None:
        await provider.enrol(ANNA, EMAIL, PASSWORD)
        amazon.client.admin_disable_user(UserPoolId=shared.pool_id, Username=f"t1.{ANNA}")

        assert await provider.recognise(PROOF) is None

    @pytest.mark.parametrize(
        "code",
        [
            "NotAuthorizedException",
            "PasswordResetRequiredException",
            "UserNotConfirmedException",
            "UserNotFoundException",
        ],
    )
    async def test_whoever_cannot_sign_in_is_nobody(self, amazon: Amazon, provider: CognitoProvider, code: str) -> None:
        with amazon.refusing("AdminInitiateAuth", code):
            assert await provider.recognise(PROOF) is None

    async def test_for_an_address_that_is_nobodys_cognito_is_asked_all_the_same(
        self, amazon: Amazon, provider: CognitoProvider
    ) -> None:
        amazon.asked.clear()

        assert await provider.recognise(Password(None, PASSWORD)) is None
        assert amazon.asked == ["AdminInitiateAuth"]

    async def test_what_cognito_takes_for_no_password_it_is_not_asked_about(
        self, amazon: Amazon, provider: CognitoProvider
    ) -> None:
        amazon.asked.clear()

        assert await provider.recognise(Password(ANNA, "")) is None
        assert amazon.asked == []


class TestOutages:
    @pytest.mark.parametrize("code", ["TooManyRequestsException", "InternalErrorException", "AccessDeniedException"])
    async def test_a_refusal_says_nothing_about_the_proof(
        self, amazon: Amazon, provider: CognitoProvider, code: str
    ) -> None:
        with amazon.refusing("*", code, "said too much"):
            for work in (provider.recognise(PROOF), provider.enrol(ANNA, EMAIL, PASSWORD), provider.forget(ANNA)):
                with pytest.raises(ProviderUnavailableError, match=rf"^admin_\w+: {code}$"):
                    await work

    async def test_a_flow_that_is_not_allowed_is_the_operators_fault_and_nobody_elses(
        self, amazon: Amazon, provider: CognitoProvider
    ) -> None:
        with (
            amazon.refusing("AdminInitiateAuth", "InvalidParameterException"),
            pytest.raises(ProviderUnavailableError, match="InvalidParameterException"),
        ):
            await provider.recognise(PROOF)

    async def test_who_is_throttled_tries_once_more(self, amazon: Amazon, provider: CognitoProvider) -> None:
        amazon.asked.clear()
        with amazon.refusing("*", "TooManyRequestsException"), pytest.raises(ProviderUnavailableError):
            await provider.recognise(PROOF)

        assert amazon.asked == ["AdminInitiateAuth"] * 2

    async def test_a_pool_that_is_gone_recognises_nobody(
        self, amazon: Amazon, shared: UserPool, provider: CognitoProvider
    ) -> None:
        amazon.client.delete_user_pool(UserPoolId=shared.pool_id)

        with pytest.raises(ProviderUnavailableError, match="ResourceNotFoundException"):
            await provider.recognise(PROOF)

    async def test_nothing_waits_for_an_endpoint_that_cannot_be_reached(
        self, amazon: Amazon, cognito: Cognito, provider: CognitoProvider
    ) -> None:
        with amazon.away():
            for work in (
                provider.recognise(PROOF),
                provider.enrol(ANNA, EMAIL, PASSWORD),
                provider.forget(ANNA),
                cognito.pools.open("t1", is_begun=False),
                cognito.pools.close("t1", None),
                cognito.check_shared(),
            ):
                with pytest.raises(ProviderUnavailableError, match="EndpointConnectionError"):
                    await work

    async def test_an_endpoint_that_does_not_answer_is_not_waited_for(
        self, amazon: Amazon, provider: CognitoProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await provider.enrol(ANNA, EMAIL, PASSWORD)
        monkeypatch.setattr(calls, "SECONDS", 0.1)

        with amazon.hanging(), pytest.raises(ProviderUnavailableError, match="in time"):
            await provider.recognise(PROOF)

    async def test_without_credentials_nothing_can_be_asked(
        self, amazon: Amazon, shared: UserPool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
        monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")

        async with open_cognito(amazon.terms(shared)) as cognito:
            with pytest.raises(ProviderUnavailableError, match="NoCredentialsError"):
                await people_of(cognito, "t1").recognise(PROOF)

    async def test_a_password_is_never_logged(
        self, amazon: Amazon, provider: CognitoProvider, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        said = []
        with capture_logs() as lines:
            await provider.enrol(ANNA, EMAIL, PASSWORD)
            await provider.recognise(PROOF)
            await provider.recognise(Password(ANNA, NEXT_PASSWORD))
            for code in ("TooManyRequestsException", "InvalidParameterException"):
                with amazon.refusing("*", code), pytest.raises(ProviderUnavailableError) as caught:
                    await provider.recognise(PROOF)
                said.append("".join(traceback.format_exception(caught.value)))

        text = f"{caplog.text} {lines} {said} {PROOF}"
        assert PASSWORD not in text
        assert NEXT_PASSWORD not in text


class TestPools:
    async def test_nobody_but_us_makes_accounts_in_a_tenants_pool(self, amazon: Amazon, cognito: Cognito) -> None:
        pool = await cognito.pools.open("t1", is_begun=False)

        ids = {"UserPoolId": pool.pool_id}
        made = amazon.client.describe_user_pool(**ids)["UserPool"]
        client = amazon.client.describe_user_pool_client(**ids, ClientId=pool.client_id)["UserPoolClient"]
        assert made["Name"] == "tenure-t1"
        assert made["UserPoolTags"]["tenure:tenant"] == "t1"
        assert made["AdminCreateUserConfig"]["AllowAdminCreateUserOnly"] is True
        assert made["AccountRecoverySetting"]["RecoveryMechanisms"] == [{"Name": "admin_only", "Priority": 1}]
        assert made["Policies"]["PasswordPolicy"]["MinimumLength"] == 12
        assert [each["Mutable"] for each in made["SchemaAttributes"] if each["Name"] == "custom:tenantId"] == [False]
        assert client["ExplicitAuthFlows"] == FLOWS
        assert client["PreventUserExistenceErrors"] == "ENABLED"
        assert "ClientSecret" not in client

    async def test_a_tenants_pool_could_be_shared_as_well(self, amazon: Amazon, cognito: Cognito) -> None:
        pool = await cognito.pools.open("t1", is_begun=False)

        async with open_cognito(amazon.terms(pool)) as other:
            await other.check_shared()

    async def test_a_pool_that_was_begun_is_found_and_not_made_twice(self, amazon: Amazon, cognito: Cognito) -> None:
        made = await cognito.pools.open("t1", is_begun=False)
        await cognito.pools.open("t2", is_begun=False)

        assert await cognito.pools.open("t1", is_begun=True) == made
        assert amazon.asked.count("DescribeUserPool") == 1, "the others are none of its business"
        assert sorted(amazon.pool_names()) == ["shared", "tenure-t1", "tenure-t2"]

    async def test_a_pool_that_was_begun_and_not_made_is_made(self, amazon: Amazon, cognito: Cognito) -> None:
        await cognito.pools.open("t1", is_begun=True)

        assert sorted(amazon.pool_names()) == ["shared", "tenure-t1"]

    async def test_it_is_found_on_whichever_page(self, cognito: Cognito, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pools, "_AT_A_TIME", 1)
        made = await cognito.pools.open("t1", is_begun=False)

        assert await cognito.pools.open("t1", is_begun=True) == made

    async def test_of_several_that_got_through_one_is_left(self, amazon: Amazon, cognito: Cognito) -> None:
        with amazon.losing_answers("CreateUserPool", times=2), pytest.raises(ProviderUnavailableError):
            await cognito.pools.open("t1", is_begun=False)
        assert amazon.pool_names().count("tenure-t1") == 2

        left = await cognito.pools.open("t1", is_begun=True)
        assert amazon.pool_names().count("tenure-t1") == 1
        assert await cognito.pools.open("t1", is_begun=True) == left

    async def test_an_answer_that_was_lost_leaves_no_second_pool(self, amazon: Amazon, cognito: Cognito) -> None:
        with amazon.losing_answers("CreateUserPool", times=1):
            left = await cognito.pools.open("t1", is_begun=False)

        assert amazon.pool_names().count("tenure-t1") == 1
        await people_of(cognito, "t1", left).enrol(ANNA, EMAIL, PASSWORD)

    async def test_a_pool_that_was_left_without_a_client_gets_one(self, amazon: Amazon, cognito: Cognito) -> None:
        with (
            amazon.refusing("CreateUserPoolClient", "InternalErrorException"),
            pytest.raises(ProviderUnavailableError, match="InternalErrorException"),
        ):
            await cognito.pools.open("t1", is_begun=False)

        own = await cognito.pools.open("t1", is_begun=True)
        provider = people_of(cognito, "t1", own)
        await provider.enrol(ANNA, EMAIL, PASSWORD)
        assert await provider.recognise(PROOF) is not None
        assert amazon.pool_names().count("tenure-t1") == 1

    @pytest.mark.parametrize("known_by", ["id", "name"])
    async def test_a_pool_goes_once_and_for_all(self, amazon: Amazon, cognito: Cognito, known_by: str) -> None:
        pool = await cognito.pools.open("t1", is_begun=False)
        await cognito.pools.open("t2", is_begun=False)

        for _ in range(2):
            await cognito.pools.close("t1", pool.pool_id if known_by == "id" else None)
            assert sorted(amazon.pool_names()) == ["shared", "tenure-t2"]

    @pytest.mark.parametrize("tags", [{}, {"tenure:installation": "https://other.example.org", "tenure:tenant": "t1"}])
    async def test_a_pool_of_the_same_name_that_is_not_ours_is_left_alone(
        self, amazon: Amazon, cognito: Cognito, tags: Mapping[str, str]
    ) -> None:
        other = amazon.client.create_user_pool(PoolName="tenure-t1", UserPoolTags=tags)["UserPool"]["Id"]

        ours = await cognito.pools.open("t1", is_begun=True)
        await cognito.pools.close("t1", None)

        assert ours.pool_id != other
        assert sorted(amazon.pool_names()) == ["shared", "tenure-t1"]
        amazon.client.describe_user_pool(UserPoolId=other)

    async def test_without_a_shared_pool_only_a_tenants_own_has_people(self, amazon: Amazon) -> None:
        async with open_cognito(amazon.terms()) as cognito:
            assert cognito.directory("t1", pool_id=None, client_id=None) is None
            assert cognito.directory("t1", pool_id="p", client_id="c") is not None


class TestSharedPool:
    async def test_it_is_as_it_must_be(self, cognito: Cognito) -> None:
        await cognito.check_shared()

    async def test_without_one_there_is_nothing_to_check(self, amazon: Amazon) -> None:
        async with open_cognito(amazon.terms()) as cognito:
            await cognito.check_shared()

    @pytest.mark.parametrize(
        ("pool", "client", "sentence"),
        [
            ({"Schema": [{"Name": "email"}]}, {}, "it has no attribute custom:tenantId of the type String"),
            (
                {"Schema": [{"Name": "tenantId", "AttributeDataType": "Number"}]},
                {},
                "it has no attribute custom:tenantId of the type String",
            ),
            ({"MfaConfiguration": "ON"}, {}, "it requires multi-factor authentication"),
            ({"AliasAttributes": ["email"]}, {}, "people are to sign in there with nothing but their user names"),
            ({"UsernameAttributes": ["email"]}, {}, "people are to sign in there with nothing but their user names"),
            ({}, {"ExplicitAuthFlows": FLOWS[1:]}, "its app client does not allow ALLOW_ADMIN_USER_PASSWORD_AUTH"),
            ({}, {"GenerateSecret": True}, "its app client has a secret"),
            ({}, {"ReadAttributes": ["email"]}, "its app client may not read email_verified, custom:tenantId"),
            (
                {"MfaConfiguration": "ON"},
                {"GenerateSecret": True},
                "it requires multi-factor authentication; its app client has a secret",
            ),
        ],
    )
    async def test_it_is_said_what_is_missing(
        self, amazon: Amazon, pool: Mapping[str, Any], client: Mapping[str, Any], sentence: str
    ) -> None:
        made = amazon.shared_pool(pool={**SHARED_POOL, **pool}, client={**SHARED_CLIENT, **client})

        async with open_cognito(amazon.terms(made)) as cognito:
            with pytest.raises(MisconfiguredError) as caught:
                await cognito.check_shared()
        assert str(caught.value) == f"The user pool {made.pool_id} must be changed: {sentence}."

    async def test_one_that_is_not_there_is_said_to_be_missing(self, amazon: Amazon) -> None:
        async with open_cognito(amazon.terms(UserPool(f"{REGION}_gone", "gone"))) as cognito:
            with pytest.raises(MisconfiguredError, match=f"{REGION}_gone or its app client gone is not there"):
                await cognito.check_shared()


def test_amazons_own_keys_are_where_the_issuer_says() -> None:
    terms = CognitoTerms(region="eu-west-1")

    assert terms.issuer_of("eu-west-1_abc") == "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_abc"
    assert terms.keys_url_of("eu-west-1_abc") == f"{terms.issuer_of('eu-west-1_abc')}/.well-known/jwks.json"


def test_a_stand_ins_keys_are_where_it_has_them() -> None:
    terms = CognitoTerms(region="eu-west-1", keys_url="http://127.0.0.1:5000/{pool_id}/keys")

    assert terms.keys_url_of("eu-west-1_abc") == "http://127.0.0.1:5000/eu-west-1_abc/keys"
