"""Who reaches what on Amazon's infrastructure, by an evaluator of our own, since moto enforces none of it."""

import base64
import re
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from uuid import UUID

import pytest
from botocore.auth import SigV4Auth
from botocore.credentials import Credentials
from hypothesis import assume, example, given
from hypothesis import strategies as st

from services.provisioning.drivers import parts_of, tenancy_of
from services.provisioning.drivers.aws import AwsTerms, SiloTerms, names, policies
from services.provisioning.drivers.aws.policies import Place
from services.provisioning.drivers.aws.smtp import smtp_password
from services.provisioning.tests.driver_contract import environment
from services.provisioning.tests.iam import Rights, Wish, allows

PLACE = Place("123456789012", "eu-central-1", "tenants", "tenants-bucket")
TABLE = PLACE.table_arn
BUCKET = "arn:aws:s3:::tenants-bucket"
TENANTS = st.text("abAB01_-", min_size=1, max_size=6)
PRODUCTS = st.from_regex(r"[ab0][ab0._-]{0,4}", fullmatch=True)
ENVIRONMENTS = st.builds(tenancy_of, TENANTS, st.none() | PRODUCTS)
ANY_LENGTH = st.builds(
    tenancy_of,
    st.from_regex(r"[ab_-]{1,64}", fullmatch=True),
    st.none() | st.from_regex(r"[ab][ab._-]{0,62}", fullmatch=True),
)
SILO = SiloTerms(
    management_role_arn="arn:aws:iam::123456789012:role/management",
    mail_prefix="aws",
    mail_domain="example.org",
    organizational_unit_id="ou-1",
    topic_arn="arn",
)


def session_of(tenant_id: str, place: Place = PLACE) -> Rights:
    return Rights([policies.of_tenants(place)], policies.of_session(place, tenant_id))


def item(action: str, *keys: str, table: str = TABLE) -> Wish:
    return Wish(f"dynamodb:{action}", table, {"dynamodb:LeadingKeys": list(keys)} if keys else {})


def of_object(action: str, key: str) -> Wish:
    return Wish(f"s3:{action}", f"{BUCKET}/{key}")


def listing(prefix: str | None) -> Wish:
    return Wish("s3:ListBucket", BUCKET, {} if prefix is None else {"s3:prefix": prefix})


class TestSession:
    @given(ENVIRONMENTS)
    def test_a_tenant_reaches_what_is_its_own(self, tenant_id: str) -> None:
        rights = session_of(tenant_id)

        for shard in (0, names.SHARDS - 1):
            assert allows(rights, item("GetItem", f"{tenant_id}#{shard}"))
        assert allows(rights, item("BatchWriteItem", f"{tenant_id}#0", f"{tenant_id}#1"))
        assert allows(rights, of_object("PutObject", f"tenants/{tenant_id}/a/b"))
        assert allows(rights, listing(f"tenants/{tenant_id}/"))

    @given(ENVIRONMENTS, ENVIRONMENTS, st.text("abAB01_-#/*?:.!", max_size=8))
    @example("a", "a-b", "")
    @example("a", "a_b", "")
    @example("a", "aa", "#0")
    @example("a-b", "a", "")
    @example("a", "a:b", "")
    @example("a:b", "a", ":b/")
    @example("a:b", "a:b-c", "")
    @example("a:b", "b", "")
    def test_nothing_of_one_is_anything_of_another(self, own: str, other: str, rest: str) -> None:
        assume(own != other)
        rights = session_of(own)

        for key in (*names.partitions(other), names.record_partition(other), f"{other}#{rest}"):
            assert not allows(rights, item("GetItem", key))
            assert not allows(rights, item("BatchGetItem", f"{own}#0", key))
        assert not allows(rights, of_object("GetObject", f"{names.prefix(other)}{rest}"))
        assert not allows(rights, listing(f"{names.prefix(other)}{rest}"))

    @given(ENVIRONMENTS, st.text("ab01_-#/*?:.!", max_size=8))
    def test_no_key_is_reached_that_a_removal_would_not_find(self, tenant_id: str, rest: str) -> None:
        key = f"{tenant_id}{rest}"

        assert allows(session_of(tenant_id), item("PutItem", key)) == (key in names.partitions(tenant_id))

    @given(ENVIRONMENTS)
    def test_our_own_record_of_a_tenant_is_not_the_tenants(self, tenant_id: str) -> None:
        rights = session_of(tenant_id)

        for action in ("GetItem", "PutItem", "UpdateItem", "DeleteItem"):
            assert not allows(rights, item(action, names.record_partition(tenant_id)))

    def test_nothing_is_reached_without_naming_keys(self) -> None:
        rights = session_of("a")

        for action in ("Query", "Scan", "GetItem", "PartiQLSelect", "DescribeTable"):
            assert not allows(rights, item(action))
        assert not allows(rights, item("Scan", "a#0"))
        assert not allows(rights, item("Query", "a#0", table=f"{TABLE}/index/by-name"))
        assert not allows(rights, item("GetItem", "a#0", table=f"{TABLE}-2"))
        assert not allows(rights, listing(None))
        assert not allows(rights, listing(""))
        assert not allows(rights, listing("tenants/a"))

    def test_other_tables_buckets_and_services_are_out_of_reach(self) -> None:
        rights = session_of("a")

        assert not allows(rights, Wish("s3:GetObject", "arn:aws:s3:::tenants-bucket-2/tenants/a/x"))
        assert not allows(rights, Wish("s3:DeleteBucket", BUCKET))
        for action in ("iam:CreateUser", "sts:AssumeRole", "ssm:GetParameter", "ses:SendEmail"):
            assert not allows(rights, Wish(action, None))

    def test_it_fits_into_a_session_whatever_the_tenant_is_called(self) -> None:
        from orjson import dumps  # noqa: PLC0415

        longest = Place("1" * 12, "ap-southeast-4", "t" * 60, "b" * 63, sends_mail=True)

        for tenant_id in ("t" * 64, tenancy_of("t" * 64, "p" * 63)):
            assert len(dumps(policies.of_session(longest, tenant_id))) <= 2048

    @given(ANY_LENGTH, ANY_LENGTH)
    @example("t" * 64, tenancy_of("t" * 64, "p"))
    @example(tenancy_of("t" * 30, "p" * 63), tenancy_of("t" * 30, "p" * 62))
    @example(tenancy_of("t" * 64, "p" * 63), tenancy_of("t" * 64, "p" * 62 + "q"))
    def test_however_long_it_is_called_nothing_of_one_environment_is_anything_of_another(
        self, own: str, other: str
    ) -> None:
        assume(own != other)
        rights = session_of(own)

        assert allows(rights, item("GetItem", names.partitions(own)[0]))
        assert allows(rights, of_object("GetObject", f"{names.prefix(own)}file"))
        for key in (*names.partitions(other), names.record_partition(other)):
            assert not allows(rights, item("GetItem", key))
        assert not allows(rights, of_object("GetObject", f"{names.prefix(other)}file"))
        assert not allows(rights, listing(names.prefix(other)))

    @pytest.mark.parametrize("length", [2, 25, 31, 64])
    def test_a_cut_key_is_no_other_ones_whole_key(self, length: int) -> None:
        (cut, *_) = names.partitions(tenancy_of("t" * length, "p" * 63))

        with pytest.raises(ValueError, match="character"):
            names.partitions(cut.removesuffix("#0"))

    @pytest.mark.parametrize(
        "tenant_id",
        ["", "a#", "a/b", "*", "a?", "${aws:userid}", "ä", "a:", ":a", "a:B", "a:.", "a:b:c", "a:b/c", "a:*", "a!b"],
    )
    def test_what_is_no_tenants_id_gets_no_policy(self, tenant_id: str) -> None:
        with pytest.raises(ValueError, match="character"):
            policies.of_session(PLACE, tenant_id)


class TestClosing:
    NOW = datetime(2026, 1, 1, tzinfo=UTC)

    def _may(self, tenant_id: str, *, issued_at: datetime, before: datetime | None = None) -> bool:
        closed = policies.of_closed_tenant("a", written=self.NOW, before=before)
        rights = Rights([policies.of_tenants(PLACE), closed], policies.of_session(PLACE, tenant_id))
        context = {
            "aws:PrincipalTag/tenure:tenant": tenant_id,
            "aws:TokenIssueTime": issued_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "dynamodb:LeadingKeys": [f"{tenant_id}#0"],
        }
        return allows(rights, Wish("dynamodb:GetItem", TABLE, context))

    def test_no_session_of_a_closed_tenant_is_of_use_and_all_others_are(self) -> None:
        assert not self._may("a", issued_at=self.NOW)
        assert not self._may("a", issued_at=self.NOW + timedelta(minutes=5))
        assert self._may("a-b", issued_at=self.NOW)
        assert self._may("a:b", issued_at=self.NOW)

    def test_sessions_that_begin_after_a_moment_are_of_use(self) -> None:
        assert not self._may("a", issued_at=self.NOW - timedelta(seconds=1), before=self.NOW)
        assert self._may("a", issued_at=self.NOW, before=self.NOW)

    def test_it_says_when_it_was_written(self) -> None:
        assert policies.written_at(policies.of_closed_tenant("a", written=self.NOW)) == self.NOW.timestamp()

    def test_in_a_closed_account_nobody_does_anything_but_we(self) -> None:
        def may(role: str) -> bool:
            arn = f"arn:aws:iam::111111111111:role/{role}"
            everything = {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
            rights = Rights([everything], account=[everything, policies.of_closed_account()])
            return allows(rights, Wish("ses:SendRawEmail", None, {"aws:PrincipalArn": arn}))

        assert not may("tenure-tenant")
        assert may("OrganizationAccountAccessRole")


class TestBootstrap:
    def _may(self, action: str, resource: str) -> bool:
        return allows(Rights([policies.of_bootstrap("1" * 12, "eu-central-1")]), Wish(action, resource))

    @pytest.mark.parametrize(
        "action",
        ["iam:PutRolePolicy", "iam:AttachRolePolicy", "iam:CreateUser", "iam:CreateAccessKey", "iam:PassRole",
         "sts:AssumeRole", "ssm:GetParameter", "dynamodb:GetItem", "s3:GetObject", "ses:SendRawEmail"],
    )  # fmt: skip
    def test_it_gives_nothing_to_anybody_and_reads_nothing_of_the_tenants(self, action: str) -> None:
        for resource in ("arn:aws:iam::111111111111:role/OrganizationAccountAccessRole", "arn:aws:s3:::b/k", "*"):
            assert not self._may(action, resource)

    def test_it_can_stop_an_accounts_mail_and_let_it_go_on_and_change_nothing_else_of_it(self) -> None:
        assert self._may("ses:UpdateAccountSendingEnabled", "*")
        for action in ("UpdateConfigurationSetSendingEnabled", "DeleteIdentity", "DeleteConfigurationSet", "SendEmail"):
            assert not self._may(f"ses:{action}", "*")

    def test_it_writes_down_which_products_run_and_cannot_touch_passwords(self) -> None:
        parameters = f"arn:aws:ssm:eu-central-1:{'1' * 12}:parameter"

        assert self._may("ssm:PutParameter", f"{parameters}/tenure/products/notes")
        assert not self._may("ssm:PutParameter", f"{parameters}/tenure/smtp")
        assert not self._may("ssm:DeleteParameters", f"{parameters}/tenure/products-of-others")


class TestNames:
    @given(TENANTS, st.uuids(), st.uuids())
    def test_each_environment_has_an_address_and_a_name_of_its_own(
        self, tenant_id: str, one: UUID, another: UUID
    ) -> None:
        assume(one != another)
        first, second = (environment(tenant_id * 10, "silo", environment_id=each) for each in (one, another))

        for name, longest in ((names.account_name, 50), (lambda each: names.email(SILO, each), 64)):
            assert name(first) != name(second)
            assert 6 <= len(name(first)) <= longest

    def test_what_a_product_has_can_be_told_from_what_its_tenant_has(self) -> None:
        own, products = environment("a", "silo"), environment("a:b.c", "silo", product="b.c")

        tags = [names.tags(AwsTerms(installation="x", region="r"), each) for each in (own, products)]

        assert [(each["tenure:tenant"], each.get("tenure:product")) for each in tags] == [("a", None), ("a", "b.c")]

    @given(ANY_LENGTH, ANY_LENGTH)
    @example("a:b", "a-b")
    @example("a:b", "a_b")
    @example("a" * 57, "a" * 58)
    @example(tenancy_of("a" * 64, "b" * 57), tenancy_of("a" * 64, "b" * 58))
    def test_sessions_and_policies_of_two_environments_never_have_the_same_name(self, one: str, another: str) -> None:
        assume(one != another)
        for name, longest in ((names.session_name, 64), (names.closing_policy, 128)):
            assert name(one) != name(another)
            assert re.fullmatch(rf"[\w+=,.@-]{{2,{longest}}}", name(one), re.ASCII)

    @pytest.mark.parametrize("length", [2, 25, 64])
    def test_a_cut_name_is_no_other_ones_whole_name(self, length: int) -> None:
        cut = names.session_name(tenancy_of("t" * length, "p" * 63))

        with pytest.raises(ValueError, match="character"):
            names.session_name(cut.removeprefix("tenure-").replace("@", ":"))

    @given(ANY_LENGTH)
    def test_mail_reaches_whatever_an_account_is_called_after(self, tenant_id: str) -> None:
        made = environment(tenant_id, "silo", product=parts_of(tenant_id)[1])

        assert re.fullmatch(r"aws\+[\w-]+\.[0-9a-f]{12}@example\.org", names.email(SILO, made), re.ASCII)

    def test_an_account_after_a_closed_one_has_another_address(self) -> None:
        first = environment("a", "silo", environment_id=UUID(int=1))
        second = environment("a", "silo", environment_id=UUID(int=1), resources={names.GENERATION: 1})

        assert names.email(SILO, first).startswith("aws+a.")
        assert names.email(SILO, first) != names.email(SILO, second)


@given(st.text("abcXYZ019+/", min_size=1, max_size=40), st.sampled_from(["eu-central-1", "us-east-1"]))
def test_an_smtp_password_is_what_amazon_signs_with_the_same_key(secret: str, region: str) -> None:
    signer = SigV4Auth(Credentials("id", secret), "ses", region)
    request = SimpleNamespace(context={"timestamp": "11111111T000000Z"})

    version, signature = (decoded := base64.b64decode(smtp_password(secret, region)))[:1], decoded[1:]

    assert version == b"\x04"
    assert signature.hex() == signer.signature("SendRawEmail", request)
