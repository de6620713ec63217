"""New code over that of the commit before, amid a light load; and the checks, each of which can fail."""

import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest

from tests.chaos.campaign.journal import Journal, Promise
from tests.chaos.campaign.prerequisites import trouble_here
from tests.chaos.campaign.records import Records
from tests.chaos.leftovers import leftovers_ignored
from tests.rolling.check_client import check_client
from tests.rolling.legacy import LIFECYCLES, Legacy
from tests.rolling.release import NoSuchReleaseError, Release, exported, working_tree
from tests.rolling.run import Options, run
from tests.rolling.visitors import PAGES, Visitors

SOUND = {"kind": "onboard", "status": "completed", "failure": None, "kinds": ["started", "completed"]}


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="tenure-rolling-"))
    path.chmod(0o755)  # Postgres runs as a user of its own where we are root
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def old(folder: Path) -> Release:
    try:
        return exported("HEAD~1", folder / "old")
    except NoSuchReleaseError as error:
        pytest.skip(str(error))


@pytest.mark.chaos
@pytest.mark.timeout(480)  # two releases, their servers and every check: minutes where other tests run beside it
async def test_new_code_replaces_that_of_the_commit_before_and_no_client_sees_a_failure(
    old: Release, folder: Path
) -> None:
    if trouble := trouble_here():
        pytest.skip(trouble)
    said: list[str] = []

    with leftovers_ignored():
        is_sound = await run(
            Options(seed=1, rate=4.0, pause=0.5, legacy=10), old, working_tree(folder / "new"), folder, said.append
        )

    assert is_sound, "\n".join(said)


def repository(folder: Path) -> Path:
    """Make a repository with two commits and a change that is in neither."""
    folder.mkdir()
    for content in ("one", "two"):
        (folder / "shared").mkdir(exist_ok=True)
        (folder / "shared" / "code.py").write_text(f"CONTENT = '{content}'\n")
        git(folder, "init", "--quiet")
        git(folder, "add", ".")
        git(folder, "commit", "--quiet", "--message", content)
    (folder / "shared" / "code.py").write_text("CONTENT = 'three'\n")
    (folder / "shared" / "new.py").write_text("")
    return folder


def git(folder: Path, *arguments: str) -> None:
    author = ("-c", "commit.gpgsign=false", "-c", "user.name=test", "-c", "user.email=test@test.example")
    subprocess.run(["git", *author, *arguments], cwd=folder, check=True, capture_output=True)


def test_old_code_is_that_of_its_revision_and_new_code_what_lies_there(folder: Path) -> None:
    home = repository(folder / "home")

    before, after = exported("HEAD~1", folder / "old", repository=home), working_tree(folder / "new", repository=home)

    assert "one" in (before.tree / "shared" / "code.py").read_text()
    assert "three" in (after.tree / "shared" / "code.py").read_text()
    assert (after.tree / "shared" / "new.py").exists()


def test_a_clone_without_history_says_so(folder: Path) -> None:
    home = repository(folder / "home")
    git(folder, "clone", "--quiet", "--depth=1", f"file://{home}", "clone")

    with pytest.raises(NoSuchReleaseError, match=r"no revision HEAD~1 here.*shallow clone"):
        exported("HEAD~1", folder / "old", repository=folder / "clone")


def test_a_folder_without_git_says_so(folder: Path) -> None:
    with pytest.raises(NoSuchReleaseError, match="not a git repository"):
        exported("HEAD~1", folder / "old", repository=folder)


class Table:
    """Workflows as the database has them."""

    def __init__(self, **changes: Any) -> None:
        self._rows = {"w1": SOUND | changes}

    async def workflows(self) -> Mapping[str, Mapping[str, Any]]:
        return self._rows


async def findings(folder: Path, *, setbacks: Counter[str], statuses: list[int], **changes: Any) -> list[str]:
    """Return what is found where customers met setbacks, a visitor these answers, and a workflow became this."""
    journal = Journal(folder / "journal", setbacks=setbacks)
    answers = iter(statuses)
    transport = httpx2.MockTransport(lambda _: httpx2.Response(next(answers)))
    async with httpx2.AsyncClient(transport=transport) as client:
        visitors = Visitors(client, dict.fromkeys(PAGES, "http://service.example"))
        for _ in statuses:
            await visitors._is_answered("billing")
    found = await check_client(journal, visitors, cast("Records", Table(**changes)))
    return [str(finding) for finding in found]


async def test_refused_and_broken_connections_and_503_are_no_failures(folder: Path) -> None:
    met = Counter(ConnectError=3, ReadError=1, RemoteProtocolError=1)

    assert await findings(folder, setbacks=met, statuses=[200, 503]) == []


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ({"setbacks": Counter(ReadTimeout=1)}, "1 requests met ReadTimeout"),
        ({"statuses": [500]}, "billing answered a visitor 500"),
        ({"statuses": [404]}, "billing answered a visitor 404"),
        ({"failure": "timed_out", "status": "compensated"}, "compensated because a service did not answer"),
        ({"kinds": ["started", "timed_out", "completed"]}, "had to ask a service again"),
        ({"kinds": ["started", "needs_attention", "completed"]}, "waited for an operator"),
    ],
)
async def test_whatever_else_a_client_sees_is_found(folder: Path, trouble: Mapping[str, Any], words: str) -> None:
    sound: dict[str, Any] = {"setbacks": Counter(), "statuses": [200]}

    found = await findings(folder, **{**sound, **trouble})

    assert any(words in finding for finding in found), found


def test_a_lifecycle_that_no_old_tenant_has_been_through_is_found(folder: Path) -> None:
    journal = Journal(folder / "journal")
    journal.promises += [Promise(each, each, each, "t1", status="completed") for each in LIFECYCLES - {"suspend"}]
    journal.promises += [Promise("k", "suspend", "w", "t2", status="completed")]
    journal.promises += [Promise("k", "suspend", "w", "t1", status="compensated")]

    found = list(Legacy([], journal, tenants={"t1"}).findings())

    assert [str(each) for each in found] == ["vacuous: no suspend has completed for a tenant that old code has made"]
