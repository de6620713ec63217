import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from deploy.topology import DEPLOY, WATCHER, definitions
from shared.contracts import CATALOGUE, SERVICES
from shared.contracts.billing import AccountOpened, OpenAccount
from shared.messaging import topology
from shared.messaging.topology import RETRY_DELAYS, Manifest
from shared.testing.three_services import ANSWER, ASK, MANIFEST, NEWS

PASSWORDS = {name: f"{name}-secret" for name in (*MANIFEST.services, DEPLOY, WATCHER)}
DEFINITIONS = definitions(MANIFEST, PASSWORDS, salt=b"salt")
EVERYTHING = [each["name"] for each in (*DEFINITIONS["exchanges"], *DEFINITIONS["queues"])] + ["amq.default"]


def may(login: str, what: str) -> set[str]:
    """Name everything for which RabbitMQ would grant a login the right: a pattern matches anywhere in a name."""
    [permissions] = [each for each in DEFINITIONS["permissions"] if each["user"] == login]
    return {name for name in EVERYTHING if re.search(permissions[what], name)}


def test_a_service_may_write_its_own_exchanges_and_nothing_else() -> None:
    assert may("billing", "write") == {"tenure.billing", "tenure.billing.retry"}
    assert may("tenant", "write") == {"tenure.tenant", "tenure.tenant.retry"}
    assert may("onboarding", "write") == {"tenure.onboarding", "tenure.onboarding.retry", "tenure.status"}


def test_a_service_may_read_its_work_and_its_parking_and_nothing_else() -> None:
    for service in MANIFEST.services:
        assert may(service, "read") == {f"{service}.work", f"{service}.parking"}


def test_no_service_may_change_the_topology() -> None:
    for service in MANIFEST.services:
        assert may(service, "configure") == set()


def test_a_name_that_merely_begins_like_a_services_own_is_not_its_own() -> None:
    [permissions] = [each for each in DEFINITIONS["permissions"] if each["user"] == "billing"]

    assert not re.search(permissions["write"], "tenure.billing2")
    assert not re.search(permissions["write"], "x.tenure.billing")
    assert not re.search(permissions["write"], "tenureXbilling")
    assert not re.search(permissions["read"], "billing.workshop")


def test_the_deploy_login_declares_everything_and_reads_and_writes_no_message() -> None:
    assert may(DEPLOY, "configure") == set(EVERYTHING)
    assert may(DEPLOY, "read") == may(DEPLOY, "write") == set()


def test_a_watcher_hears_the_status_and_nothing_else() -> None:
    assert may(WATCHER, "read") == {"tenure.status"}
    assert may(WATCHER, "configure") == may(WATCHER, "write") == set()
    [permissions] = [each for each in DEFINITIONS["permissions"] if each["user"] == WATCHER]
    for right in ("configure", "write", "read"):
        assert re.search(permissions[right], "sub.mine")


METERING = Manifest.of(publishes={"metrics": ()}, subscribes={"metrics": ()})


def test_what_applications_publish_is_read_by_metrics_alone_and_no_service_publishes_there() -> None:
    system = definitions(Manifest.load(), {})
    for each in system["permissions"]:
        is_deploy = each["user"] == DEPLOY
        assert bool(re.search(each["configure"], "tenure.usage")) is is_deploy
        assert bool(re.search(each["configure"], "metrics.usage")) is is_deploy
        assert not re.search(each["write"], "tenure.usage")
        assert not re.search(each["write"], "metrics.usage")
        assert not re.search(each["read"], "tenure.usage")
        assert bool(re.search(each["read"], "metrics.usage")) is (each["user"] == "metrics")


def test_what_applications_publish_waits_in_a_queue_that_loses_nothing() -> None:
    [usage] = [each for each in topology.queues(METERING) if each["name"] == "metrics.usage"]
    [work] = [each for each in topology.queues(METERING) if each["name"] == "metrics.work"]
    routes = {
        (each["source"], each["routing_key"])
        for each in topology.bindings(METERING)
        if each["destination"] == usage["name"]
    }

    assert usage["durable"]
    assert usage["arguments"] == work["arguments"]
    assert routes == {("tenure.usage", "#"), ("tenure.metrics.retry", "usage")}
    assert not any("usage" in each["name"] for each in DEFINITIONS["queues"])


def test_passwords_are_hashed_the_way_rabbitmq_does_and_not_written() -> None:
    [user] = [each for each in DEFINITIONS["users"] if each["name"] == "billing"]

    assert base64.b64decode(user["password_hash"]) == b"salt" + hashlib.sha256(b"saltbilling-secret").digest()
    assert user["tags"] == ""
    assert "secret" not in json.dumps(DEFINITIONS)


def test_salts_are_random() -> None:
    one, other = (definitions(MANIFEST, PASSWORDS)["users"] for _ in range(2))

    assert one[0]["password_hash"] != other[0]["password_hash"]


def test_every_service_has_one_exchange_for_what_it_says_and_one_for_retries() -> None:
    kinds = {each["name"]: each["type"] for each in DEFINITIONS["exchanges"]}

    assert kinds == {
        "tenure.status": "topic",
        "tenure.usage": "topic",
        **{f"tenure.{service}": "topic" for service in MANIFEST.services},
        **{f"tenure.{service}.retry": "direct" for service in MANIFEST.services},
    }
    assert all(each["durable"] and not each["auto_delete"] for each in DEFINITIONS["exchanges"])


def test_every_queue_is_a_durable_quorum_queue() -> None:
    queues = DEFINITIONS["queues"]

    assert len(queues) == len(MANIFEST.services) * (2 + len(RETRY_DELAYS))
    assert all(each["durable"] and each["arguments"]["x-queue-type"] == "quorum" for each in queues)


def test_what_is_never_settled_leaves_the_work_queue_for_parking() -> None:
    arguments = queue("billing.work")["arguments"]

    assert arguments["x-delivery-limit"] == topology.DELIVERY_LIMIT > 0  # unlimited is read as none by 3.10
    assert arguments["x-dead-letter-exchange"] == "tenure.billing.retry"
    assert ("tenure.billing.retry", "billing.parking", arguments["x-dead-letter-routing-key"]) in bindings()


@pytest.mark.parametrize("delay", RETRY_DELAYS)
def test_what_waits_for_a_retry_expires_into_its_own_work_queue(delay: int) -> None:
    arguments = queue(f"billing.retry.{delay}s")["arguments"]

    assert arguments["x-message-ttl"] == delay * 1000
    assert (arguments["x-dead-letter-exchange"], arguments["x-dead-letter-routing-key"]) == ("", "billing.work")
    assert ("tenure.billing.retry", f"billing.retry.{delay}s", f"retry.{delay}s") in bindings()


def test_dead_lettering_and_full_queues_lose_nothing() -> None:
    for each in DEFINITIONS["queues"]:
        if "x-dead-letter-exchange" in each["arguments"]:
            assert each["arguments"]["x-dead-letter-strategy"] == "at-least-once"
            assert each["arguments"]["x-overflow"] == "reject-publish"


def test_parking_keeps_everything_for_ever() -> None:
    arguments = queue("billing.parking")["arguments"]

    assert arguments.keys() <= {"x-queue-type", "x-delivery-limit"}
    assert arguments.get("x-delivery-limit", 10**9) >= 10**6  # an operator who looks returns what was shown


def test_a_binding_joins_who_says_a_type_to_who_hears_it() -> None:
    assert ("tenure.onboarding", "billing.work", ASK) in bindings()
    assert ("tenure.billing", "onboarding.work", ANSWER) in bindings()
    assert ("tenure.tenant", "billing.work", NEWS) in bindings()
    assert len(MANIFEST.bindings()) == 7


def test_a_private_exchange_reaches_only_queues_of_its_own_service() -> None:
    for exchange, target, _ in bindings():
        if exchange.endswith(".retry"):
            assert target.partition(".")[0] == exchange.removeprefix("tenure.").removesuffix(".retry")


def test_who_may_say_what_follows_from_the_tables() -> None:
    assert MANIFEST.may_say("onboarding", ASK)
    assert not MANIFEST.may_say("tenant", ASK)
    assert not MANIFEST.may_say("nobody", ASK)
    assert MANIFEST.is_heard(ASK)
    assert not MANIFEST.is_heard("billing.subscription_started.v1")


def test_what_is_heard_and_never_said_is_found() -> None:
    manifest = Manifest.of(publishes={"billing": ()}, subscribes={"billing": (OpenAccount,)})

    assert manifest.unsaid() == {ASK}
    assert MANIFEST.unsaid() == set()


def test_what_is_in_no_contract_is_found() -> None:
    manifest = Manifest(publishes={"billing": frozenset({"billing.nonsense.v1", ANSWER})}, subscribes={})

    assert manifest.unknown() == {"billing.nonsense.v1"}


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(MANIFEST.dump())

    assert Manifest.load(path) == MANIFEST
    assert MANIFEST.dump() == Manifest.load(path).dump()


def test_the_manifest_of_the_repository_is_consistent() -> None:
    manifest = Manifest.load()

    assert set(manifest.services) == set(SERVICES)
    assert manifest.unsaid() == set()
    assert manifest.unknown() == set()


def test_each_ask_and_its_answers_find_their_way_in_the_repositorys_manifest() -> None:
    manifest = Manifest.load()
    answers = {key: message for key, message in CATALOGUE.items() if getattr(message, "answers", None)}

    for key, message in answers.items():
        assert manifest.may_say(message.owner, key)
        assert manifest.is_heard(key)


def test_an_exchange_names_its_publisher() -> None:
    for service in SERVICES:
        assert topology.publisher_of(topology.exchange_of(service)) == service
    assert AccountOpened.routing_key().startswith(f"{topology.publisher_of('tenure.billing')}.")


def queue(name: str) -> Any:
    [found] = [each for each in DEFINITIONS["queues"] if each["name"] == name]
    return found


def bindings() -> set[tuple[str, str, str]]:
    return {(each["source"], each["destination"], each["routing_key"]) for each in DEFINITIONS["bindings"]}
