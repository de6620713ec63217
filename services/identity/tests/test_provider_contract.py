"""What every identity provider promises, each held to the same."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from services.identity.providers.port import Password, Proof, ProviderUnavailableError, Return
from services.identity.tests.amazon import Amazon
from services.identity.tests.oidc_kit import OidcKit, open_oidc_kit
from services.identity.tests.provider_kits import (
    CognitoKit,
    DirectoryKit,
    ExternalKit,
    Kit,
    PasswordKit,
    built_in_kit,
    own_pool_kits,
    password_of,
    shared_pool_kits,
)
from shared.postgres import Pool

ANNA, BELA = "anna@example.org", "bela@example.org"
NEXT_PASSWORD = "the-next-long-password"
COMPOSED, DECOMPOSED = "a-long-passw\u00f6rd", "a-long-passwo\u0308rd"
PATIENCE = 12.0
"""How long a person is left waiting for a provider that does not answer."""


class ProviderContract:
    """Inherit, and provide the fixture ``kit``."""

    async def test_who_shows_the_right_proof_is_recognised_by_address(self, kit: Kit) -> None:
        await kit.make(ANNA)
        await kit.make(BELA)

        anna = await kit.provider.recognise(await kit.proof(ANNA))
        bela = await kit.provider.recognise(await kit.proof(BELA))

        assert anna is not None
        assert bela is not None
        assert (anna.email, bela.email) == (ANNA, BELA)
        assert anna.subject != bela.subject

    async def test_somebody_has_the_same_name_every_time(self, kit: Kit) -> None:
        await kit.make(ANNA)

        first, second = [await kit.provider.recognise(await kit.proof(ANNA)) for _ in range(2)]

        assert first is not None
        assert first == second

    async def test_a_wrong_proof_is_nobodys(self, kit: Kit) -> None:
        await kit.make(ANNA)

        assert await kit.provider.recognise(await kit.wrong_proof(ANNA)) is None

    async def test_whom_nobody_knows_is_nobody(self, kit: Kit) -> None:
        await kit.make(ANNA)

        assert await kit.provider.recognise(await kit.wrong_proof("nobody@example.org")) is None

    async def test_who_was_removed_is_nobody(self, kit: Kit) -> None:
        await kit.make(ANNA)
        proof = await kit.proof(ANNA)
        await kit.remove(ANNA)

        assert await kit.provider.recognise(proof) is None

    async def test_a_proof_of_another_kind_is_nobodys(self, kit: Kit) -> None:
        user_id = await kit.make(ANNA)
        proof = await kit.proof(ANNA)
        other: Proof = Return("code", "verifier", "nonce")
        if isinstance(proof, Return):
            other = Password(user_id, "a-long-password")

        assert await kit.provider.recognise(other) is None


class ExternalContract:
    """Inherit as well for a provider that is somewhere else, and provide ``other``: the same of another tenant."""

    async def test_the_people_of_another_tenant_are_nobody(self, kit: Kit, other: Kit) -> None:
        await kit.make(ANNA)
        await other.make(BELA)
        proof = await other.proof(BELA)

        assert kit.tenant_id != other.tenant_id
        assert await kit.provider.recognise(proof) is None
        assert await other.provider.recognise(await other.proof(BELA)) is not None

    async def test_of_a_provider_that_is_away_it_is_said_soon(self, kit: ExternalKit) -> None:
        await kit.make(ANNA)
        proof = await kit.proof(ANNA)

        async with asyncio.timeout(PATIENCE):
            with kit.away(), pytest.raises(ProviderUnavailableError):
                await kit.provider.recognise(proof)

        assert await kit.provider.recognise(await kit.proof(ANNA)) is not None


class DirectoryContract:
    """Inherit as well for a provider that keeps our passwords."""

    async def test_an_address_that_is_nobodys_has_no_password(self, kit: DirectoryKit) -> None:
        await kit.make(ANNA)

        assert await kit.provider.recognise(Password(None, password_of(ANNA))) is None

    async def test_one_persons_password_is_not_anothers(self, kit: DirectoryKit) -> None:
        anna_id, _ = await kit.make(ANNA), await kit.make(BELA)

        assert await kit.provider.recognise(Password(anna_id, password_of(BELA))) is None

    @pytest.mark.parametrize("password", ["", " ", "x" * 200])
    async def test_no_text_makes_it_stumble(self, kit: DirectoryKit, password: str) -> None:
        anna_id = await kit.make(ANNA)

        assert await kit.provider.recognise(Password(anna_id, password)) is None

    @pytest.mark.parametrize(
        ("chosen", "typed"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)], ids=["composed", "decomposed"]
    )
    async def test_a_password_is_the_same_whichever_keyboard_wrote_it(
        self, kit: DirectoryKit, chosen: str, typed: str
    ) -> None:
        anna_id = await kit.make(ANNA)
        await kit.provider.enrol(anna_id, ANNA, chosen)

        assert await kit.provider.recognise(Password(anna_id, typed)) is not None

    async def test_who_enrols_twice_has_the_last_password_only(self, kit: DirectoryKit) -> None:
        anna_id = await kit.make(ANNA)
        await kit.provider.enrol(anna_id, ANNA, NEXT_PASSWORD)

        assert await kit.provider.recognise(Password(anna_id, password_of(ANNA))) is None
        assert await kit.provider.recognise(Password(anna_id, NEXT_PASSWORD)) is not None

    async def test_the_same_password_can_be_enrolled_twice(self, kit: DirectoryKit) -> None:
        anna_id = await kit.make(ANNA)
        await kit.provider.enrol(anna_id, ANNA, password_of(ANNA))

        assert await kit.provider.recognise(Password(anna_id, password_of(ANNA))) is not None

    async def test_somebody_can_be_forgotten_twice(self, kit: DirectoryKit) -> None:
        anna_id = await kit.make(ANNA)
        await kit.provider.forget(anna_id)
        await kit.provider.forget(anna_id)

        assert await kit.provider.recognise(Password(anna_id, password_of(ANNA))) is None

    async def test_forgetting_whom_nobody_knows_changes_nothing(self, kit: DirectoryKit) -> None:
        anna_id = await kit.make(ANNA)
        await kit.provider.forget(uuid4())

        assert await kit.provider.recognise(Password(anna_id, password_of(ANNA))) is not None

    async def test_who_was_forgotten_can_enrol_again_under_the_same_name(self, kit: DirectoryKit) -> None:
        anna_id = await kit.make(ANNA)
        before = await kit.provider.recognise(Password(anna_id, password_of(ANNA)))
        await kit.provider.forget(anna_id)
        await kit.provider.enrol(anna_id, ANNA, NEXT_PASSWORD)

        assert await kit.provider.recognise(Password(anna_id, password_of(ANNA))) is None
        assert await kit.provider.recognise(Password(anna_id, NEXT_PASSWORD)) == before


class TestBuiltIn(ProviderContract, DirectoryContract):
    @pytest.fixture
    def kit(self, pool: Pool) -> PasswordKit:
        return built_in_kit(pool)


class TestOidc(ProviderContract, ExternalContract):
    @pytest.fixture
    async def kit(self) -> AsyncIterator[OidcKit]:
        async with open_oidc_kit("t1") as kit:
            yield kit

    @pytest.fixture
    async def other(self) -> AsyncIterator[OidcKit]:
        async with open_oidc_kit("t2") as kit:
            yield kit


class TestCognitoSharedPool(ProviderContract, ExternalContract, DirectoryContract):
    @pytest.fixture
    async def both(self, amazon: Amazon) -> AsyncIterator[tuple[CognitoKit, CognitoKit]]:
        async with shared_pool_kits(amazon) as both:
            yield both

    @pytest.fixture
    def kit(self, both: tuple[CognitoKit, CognitoKit]) -> CognitoKit:
        return both[0]

    @pytest.fixture
    def other(self, both: tuple[CognitoKit, CognitoKit]) -> CognitoKit:
        return both[1]


class TestCognitoOwnPool(TestCognitoSharedPool):
    @pytest.fixture
    async def both(self, amazon: Amazon) -> AsyncIterator[tuple[CognitoKit, CognitoKit]]:
        async with own_pool_kits(amazon) as both:
            yield both
