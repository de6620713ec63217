"""A lake in a bucket: what is there, what a store that is away costs, and what is said of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.metrics.lake.stores import Bucket, Folder, StoreUnavailableError, store_of
from services.metrics.tests.lake_kit import Shore
from shared.testing.amazon import REGION, AmazonServer

PREFIX = "deep/lake"


@pytest.fixture(scope="module")
def amazon() -> Iterator[AmazonServer]:
    server = AmazonServer()
    yield server
    server.close()


@pytest.fixture
def bucket(amazon: AmazonServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """An empty bucket, which is known as boto3 has it, by the environment."""
    amazon.forget()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", amazon.url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ours")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-of-ours")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # nowhere else are credentials looked for
    amazon.open("s3").create_bucket(Bucket="our-lake", CreateBucketConfiguration={"LocationConstraint": REGION})
    store = store_of(f"s3://our-lake/{PREFIX}/")
    assert isinstance(store, Bucket)
    yield store
    store.close()


def fetched(amazon: AmazonServer, folder: Path) -> Path:
    """Copy the bucket into a folder."""
    client = amazon.open("s3")
    for found in client.list_objects_v2(Bucket="our-lake").get("Contents", []):
        target = folder / found["Key"]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(client.get_object(Bucket="our-lake", Key=found["Key"])["Body"].read())
    return folder / PREFIX


async def test_a_bucket_has_what_a_folder_would_have(
    shore: Shore, bucket: Bucket, amazon: AmazonServer, tmp_path: Path
) -> None:
    ids = await shore.use([0, 0, 30])
    await shore.fill(shore.lake(store=bucket))

    root = fetched(amazon, tmp_path / "fetched")
    assert sorted(row[0] for row in shore.read("id", root=root)) == sorted(ids)
    assert [path.name for path in (root / "usage").iterdir()] == ["dt=2026-03-14", "dt=2026-03-15"]


async def test_what_cannot_be_stored_is_stored_when_the_bucket_is_back_once(
    shore: Shore, bucket: Bucket, amazon: AmazonServer, tmp_path: Path
) -> None:
    lake = shore.lake(store=bucket)
    with amazon.away():
        ids = await shore.use([0, 1])
        with pytest.raises(
            StoreUnavailableError, match=r"^s3://our-lake/deep/lake/usage/dt=.*: EndpointConnectionError\.$"
        ):
            await shore.fill(lake)
        ids += await shore.use([0])
    with amazon.losing_answers("PUT", times=5), pytest.raises(StoreUnavailableError, match="InternalErrorException"):
        await shore.fill(lake)
    await shore.fill(lake)

    assert sorted(row[0] for row in shore.read("id", root=fetched(amazon, tmp_path / "fetched"))) == sorted(ids)


async def test_an_answer_that_is_lost_once_is_asked_for_again_at_once(
    shore: Shore, bucket: Bucket, amazon: AmazonServer
) -> None:
    await shore.use()
    with amazon.losing_answers("PUT", times=1):
        await shore.fill(shore.lake(store=bucket))
    assert amazon.asked.count("PUT") == 3  # the bucket, and the file twice


async def test_a_refusal_says_why_and_tells_no_secret(
    shore: Shore, bucket: Bucket, amazon: AmazonServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shore.use()
    with amazon.refusing("PUT", "AccessDenied", "for a-secret-of-ours"), pytest.raises(StoreUnavailableError) as denied:
        await shore.fill(shore.lake(store=bucket))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    nobodys = Bucket("our-lake", PREFIX)
    with pytest.raises(StoreUnavailableError, match="NoCredentialsError") as unknown:
        await shore.fill(shore.lake(store=nobodys))
    nobodys.close()

    assert str(denied.value).endswith(": AccessDenied.")
    assert "secret" not in f"{denied.value}{unknown.value}"


def test_a_place_is_a_folder_or_a_bucket() -> None:
    assert isinstance(store_of("/lake"), Folder)
    assert isinstance(store_of("s3://our-lake"), Bucket)
