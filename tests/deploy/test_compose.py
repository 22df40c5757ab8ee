"""Compose and Dockerfile say the same as the services."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.local.services import COMMON
from pipelines.promote.connection import parse_address
from rankstream import topics
from rankstream.adapters.settings import ServiceSettings, load_settings
from tests.postgres import BINARIES

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
ADMIN: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "compose-admin.yml").read_text())
CONTAINERS: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("ingest", "features", "retrieval", "ranker", "experiments", "monitor")
PROMETHEUS = ROOT / "deploy" / "prometheus"
ATTRIBUTES = ("RANKSTREAM_USER_ATTRIBUTES", "RANKSTREAM_ITEM_ATTRIBUTES")


def settings_of(service: str) -> ServiceSettings:
    """The service's own settings from its environment in docker-compose.yml."""
    module = importlib.import_module(f"services.{service}.settings")
    (settings_class,) = (
        found
        for found in vars(module).values()
        if isinstance(found, type)
        and issubclass(found, ServiceSettings)
        and found.__module__ == module.__name__
    )
    environ = CONTAINERS[service]["environment"]
    return load_settings(settings_class, module.PREFIX, environ)


def ports_of(service: str) -> dict[str, int]:
    """Setting -> port that the service listens on in its container."""
    fields = settings_of(service).model_dump()
    return {name: value for name, value in fields.items() if name.endswith("port")}


def published(
    name: str, containers: dict[str, dict[str, Any]] = CONTAINERS
) -> list[tuple[str, int, int]]:
    """(address, port on the host, port in the container) of each published port."""
    found = []
    for entry in containers[name].get("ports", ()):
        address, host, container = entry.rsplit(":", 2)
        found.append((address, int(host), int(container)))
    return found


@pytest.mark.parametrize("service", OURS)
def test_a_service_accepts_exactly_the_variables_that_compose_gives_it(service: str) -> None:
    settings = settings_of(service)

    environ = CONTAINERS[service]["environment"]
    assert all(isinstance(value, str) for value in environ.values())
    common = {name for name in environ if not name.startswith(f"{service.upper()}_")}
    threads = {name: n for name, n in COMMON.items() if name.endswith("_NUM_THREADS")}
    assert common == set(ATTRIBUTES) | set(threads)
    assert {name: environ[name] for name in threads} == threads
    # A container that listens on loopback cannot be reached.
    hosts = {value for name, value in settings.model_dump().items() if name.endswith("host")}
    assert hosts == {"0.0.0.0"}
    assert settings.kafka_url == "kafka:9092"


@pytest.mark.parametrize("container", [*OURS, "pipelines"])
def test_attributes_of_users_and_items_are_the_same_for_all_that_make_or_read_vectors(
    container: str,
) -> None:
    environ = CONTAINERS[container]["environment"]

    assert {name: environ[name] for name in ATTRIBUTES} == {
        name: f"${{{name}:-}}" for name in ATTRIBUTES
    }


@pytest.mark.parametrize("service", OURS)
def test_public_ports_are_published_and_the_others_only_on_request(service: str) -> None:
    ports = ports_of(service)
    # Who has no admin port beside them has no port for the public.
    public = {"port", "grpc_port"} if "admin_port" in ports else set()

    assert {container for _, _, container in published(service)} == {
        port for name, port in ports.items() if name in public
    }
    assert {container for _, _, container in published(service, ADMIN["services"])} == {
        port for name, port in ports.items() if name not in public
    }


@pytest.mark.parametrize("service", OURS)
def test_metrics_are_scraped_where_operators_ask(service: str) -> None:
    ports = ports_of(service)

    scrape = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in scrape}
    assert targets[service] == [f"{service}:{ports.get('admin_port', ports['port'])}"]


def test_every_port_is_published_on_loopback_only_and_once() -> None:
    every = [
        (name, *entry)
        for containers in (CONTAINERS, ADMIN["services"])
        for name in containers
        for entry in published(name, containers)
    ]

    assert {address for _, address, _, _ in every} == {"127.0.0.1"}
    hosts = [host for _, _, host, _ in every]
    assert len(hosts) == len(set(hosts))
    assert all(container.get("network_mode") is None for container in CONTAINERS.values())


@pytest.mark.parametrize("service", [name for name in OURS if name != "monitor"])
def test_urls_between_services_name_a_container_and_a_port_that_it_listens_on(
    service: str,
) -> None:
    values = settings_of(service).model_dump()

    for name in ("redis_url", "retrieval_url"):
        if name not in values:
            continue
        found = re.match(r"(?:\w+://)?([\w-]+):(\d+)", values[name])
        assert found is not None, values[name]
        target, port = found[1], int(found[2])
        listens = {container for _, _, container in published(target)}
        assert port in (ports_of(target).values() if target in OURS else listens)


@pytest.mark.parametrize("service", OURS)
def test_folders_that_a_service_is_told_of_are_volumes(service: str) -> None:
    mounted = {entry.split(":")[1] for entry in CONTAINERS[service].get("volumes", ())}

    told = {
        value for value in CONTAINERS[service]["environment"].values() if value.startswith("/data/")
    }

    assert told == mounted
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    # Made in the image, so that a new volume belongs to the user that the service runs as.
    assert all(f" {folder} " in dockerfile for folder in told)


def test_images_are_pinned_and_named_volumes_exist() -> None:
    images = [entry["image"] for entry in CONTAINERS.values() if "image" in entry]

    assert images
    assert all(re.search(r":v?\d+(\.\d+)+$", image) for image in images), images
    named = {
        entry.split(":")[0]
        for container in CONTAINERS.values()
        for entry in container.get("volumes", ())
        if not entry.startswith("./")
    }
    assert named == set(COMPOSE["volumes"])


def test_files_that_are_mounted_and_units_that_are_built_exist() -> None:
    for container in CONTAINERS.values():
        for entry in container.get("volumes", ()):
            if entry.startswith("./"):
                assert (ROOT / entry.split(":")[0]).exists(), entry
        if "build" in container:
            assert (ROOT / container["build"]["args"]["UNIT"]).is_dir()
            assert (ROOT / container["build"]["dockerfile"]).is_file()


def test_dependencies_wait_for_health_where_the_dependency_has_a_check() -> None:
    conditions = {
        (name, target): entry["condition"]
        for name, container in CONTAINERS.items()
        for target, entry in container.get("depends_on", {}).items()
    }

    assert all(conditions[name, "topics"] == "service_completed_successfully" for name in OURS)
    assert conditions["topics", "kafka"] == "service_healthy"
    # Not ready without a model, which needs the rest of the system: nobody may wait for it.
    assert conditions["ranker", "retrieval"] == "service_started"


def test_the_broker_takes_what_the_topics_promise() -> None:
    environ = CONTAINERS["kafka"]["environment"]

    assert environ["KAFKA_MESSAGE_MAX_BYTES"] == str(topics.MAX_RECORD_BYTES)
    assert environ["KAFKA_LOG_RETENTION_MS"] == "-1"
    assert environ["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"


def test_redis_keeps_what_it_acknowledged() -> None:
    command = CONTAINERS["redis"]["command"]

    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options == {
        "--appendonly": "yes",
        "--appendfsync": "always",
        "--auto-aof-rewrite-min-size": "256mb",
        "--maxmemory-policy": "noeviction",
    }


@pytest.mark.parametrize(
    ("name", "option"), [("pipelines", "registry"), ("mlflow", "backend-store-uri")]
)
def test_the_registry_is_a_database_that_nobody_else_can_reach(name: str, option: str) -> None:
    postgres, reader = CONTAINERS["postgres"], CONTAINERS[name]
    (address,) = (part for part in reader["command"] if part.startswith(f"--{option}="))

    url = parse_address(address.partition("=")[2])

    assert (url.host, url.port) == ("postgres", 5432)
    assert postgres["environment"] == {"POSTGRES_USER": url.username, "POSTGRES_DB": url.database}
    on_network = {n for n, c in CONTAINERS.items() if "registry" in c.get("networks", ())}
    assert on_network == {"postgres", "pipelines", "mlflow"}
    assert postgres["networks"] == ["registry"]
    assert COMPOSE["networks"] == {"registry": {"internal": True}}
    assert "ports" not in postgres
    assert set(reader["profiles"]) <= set(postgres["profiles"])
    assert reader["depends_on"]["postgres"]["condition"] == "service_healthy"


@pytest.mark.parametrize("name", ["pipelines", "mlflow"])
def test_the_password_of_the_registry_is_on_a_volume_that_nobody_else_mounts(name: str) -> None:
    postgres, reader = CONTAINERS["postgres"], CONTAINERS[name]
    _, script, pgpass, uid, _ = postgres["entrypoint"]

    folder = os.path.dirname(pgpass)

    assert "PASSWORD" not in (ROOT / "docker-compose.yml").read_text()
    assert reader["environment"]["PGPASSFILE"] == pgpass
    assert f"registry:{folder}:ro" in reader["volumes"]
    assert f"registry:{folder}" in postgres["volumes"]
    assert f"./deploy/postgres/start.sh:{script}:ro" in postgres["volumes"]
    mounts = {n for n, c in CONTAINERS.items() if "registry:" in str(c.get("volumes"))}
    assert mounts == {"postgres", "pipelines", "mlflow"}
    assert f"--uid {uid} " in (ROOT / "deploy" / "Dockerfile").read_text()


def test_the_pages_are_of_the_version_that_writes() -> None:
    def pinned(lock: str) -> list[str]:
        return re.findall(r"^mlflow-skinny==(\S+)", (ROOT / lock).read_text(), re.M)

    # Another one finds tables that it does not know, and refuses them.
    assert pinned("deploy/mlflow/requirements.txt") == pinned("pipelines/requirements.txt")


def test_the_first_start_of_the_database_draws_a_password_that_later_ones_keep(
    tmp_path: Path,
) -> None:
    def start(pgpass: Path) -> str:
        command = ["sh", "-c", 'printf "%s" "$0 $POSTGRES_PASSWORD"', "postgres"]
        script = ["sh", str(ROOT / "deploy/postgres/start.sh"), str(pgpass), str(os.getuid())]
        ran = subprocess.run([*script, *command], capture_output=True, text=True, check=True)
        return ran.stdout

    first, again, other = (start(tmp_path / name) for name in ("pgpass", "pgpass", "another"))

    name, password = first.split(" ")
    assert name == "postgres"
    assert re.fullmatch(r"[0-9a-f]{48}", password)
    assert first == again
    assert first != other
    # As libpq takes it: one line, and nobody else may read it.
    assert (tmp_path / "pgpass").read_text() == f"*:*:*:*:{password}\n"
    assert (tmp_path / "pgpass").stat().st_mode & 0o777 == 0o600
    assert {path.name for path in tmp_path.iterdir()} == {"pgpass", "another"}


def test_the_tests_run_the_version_of_postgresql_that_compose_does() -> None:
    major = re.match(r"postgres:(\d+)\.", CONTAINERS["postgres"]["image"])

    assert major is not None
    assert BINARIES.name == f"pginstall{major[1]}"


def test_the_image_runs_one_folder_unprivileged_and_builds_without_a_frontend() -> None:
    text = (ROOT / "deploy" / "Dockerfile").read_text()

    # A syntax line makes the builder download its frontend: no offline build.
    assert "# syntax=" not in text
    assert "--require-hashes" in text
    assert "USER rankstream" in text
    assert "COPY ${UNIT} /app/${UNIT}" in text
    assert not re.search(r"^COPY services", text, re.M)
    assert "HEALTHCHECK" in text


@pytest.mark.skipif(
    shutil.which("docker-compose") is None, reason="docker-compose is not installed"
)
def test_docker_compose_takes_the_file() -> None:
    ran = subprocess.run(
        ["docker-compose", "--profile", "train", "--profile", "mlflow", "config", "--services"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr
    assert set(ran.stdout.split()) == set(CONTAINERS)
