"""Compose files: what is kept, what is said, and what is refused by its name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from colla.client.compose import describe, is_compose_file, read_compose
from colla.client.deploying import Said
from colla.client.images import AddedFile
from colla.model.errors import CollaError

SHOP = """
services:
  shop:
    image: localhost/shop:1
    command: serve --port 8000
    environment:
      COLOUR: green
      DEBUG: false
    ports: ["80:8000"]
    restart: always
    depends_on: [stock]
    stop_grace_period: 1m30s
    healthcheck:
      test: ["CMD", "curl", "-f", "http://localhost:8000/healthy"]
      start_period: 20s
    deploy:
      replicas: 3
      resources:
        limits: {cpus: "0.50", memory: 256M, pids: 20}
    x-colla: {uses: [stock], public: true, domains: [shop.example.org]}
  stock:
    image: localhost/stock:1
    environment: [LEVEL=2, "TEXT=a=b"]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "compose.yaml"
    path.write_text(text)
    return path


def refusal(folder: Path, text: str) -> CollaError:
    with pytest.raises(CollaError) as raised:
        read_compose(write(folder, text))
    return raised.value


def service(more: str) -> str:
    return f"services:\n  web:\n    image: i\n    {more}\n"


def test_what_is_kept(tmp_path: Path) -> None:
    stock, shop = read_compose(write(tmp_path, SHOP))
    assert (stock.plan.request.name, shop.plan.request.name) == ("stock", "shop"), "those needed come first"
    assert (stock.image, shop.image) == ("localhost/stock:1", "localhost/shop:1")
    request = shop.plan.request
    assert request.environment == "container"
    assert request.command == ("serve", "--port", "8000")
    assert request.env == {"COLOUR": "green", "DEBUG": "false", "PORT": "8000"}
    assert request.replicas == 3
    assert (request.cpus, request.memory_bytes, request.processes) == (0.5, 256 << 20, 20)
    assert (request.health_path, request.start_period_s) == ("/healthy", 20.0)
    assert request.stop_grace_s == 90.0
    assert (request.uses, request.public, request.domains) == (("stock",), True, ("shop.example.org",))
    assert stock.plan.request.env == {"LEVEL": "2", "TEXT": "a=b"}
    assert not stock.plan.replicas_said


def test_what_is_different_is_said(tmp_path: Path) -> None:
    notes = "\n".join(describe(read_compose(write(tmp_path, SHOP))))
    for key in ("shop.restart", "shop.ports", "shop.healthcheck"):
        assert key in notes


def test_what_the_caller_says(tmp_path: Path) -> None:
    (_, shop) = read_compose(write(tmp_path, SHOP), Said(activate=False, env={"COLOUR": "red"}, public=False))
    assert not shop.plan.request.activate
    assert shop.plan.request.env["COLOUR"] == "red"
    assert not shop.plan.request.public


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ("volumes: [data:/data]", "web.volumes: a replica keeps nothing"),
        ("networks: [inner]", "web.networks"),
        ("privileged: true", "web.privileged: colla has nothing like it"),
        ("secrets: [1st]", "web.secrets"),
        ("env_file: .env", "web.env_file"),
        ("environment: [HOME]", "web.environment.HOME"),
        ("ports: ['1:2', '3:4']", "answers on one port"),
        ("ports: ['53:53/udp']", "is not one TCP port"),
        ("ports: ['8000-8010:8000-8010']", "is not one TCP port"),
        ("healthcheck: {test: [pg_isready]}", "web.healthcheck.test"),
        ("healthcheck: {interval: 5s}", "web.healthcheck.test"),
        ("healthcheck: {test: pg_isready, retries: 0}", "web.healthcheck.retries"),
        ("healthcheck: {test: pg_isready, interval: often}", "web.healthcheck.interval"),
        ("deploy: {mode: global}", "web.deploy.mode"),
        ("deploy: {replicas: 0}", "web.deploy.replicas"),
        ("deploy: {resources: {limits: {memory: lots}}}", "no amount of memory"),
        ("stop_grace_period: soon", "is no time"),
        ("ports: [{target: 53, protocol: udp}]", "is not one TCP port"),
        ("healthcheck: {test: a, on_failure: kill}", "web.healthcheck.on_failure: colla has nothing like it"),
        ("deploy: {gpus: 1}", "web.deploy.gpus: colla has nothing like it"),
        ("deploy: {resources: {limits: {disk: 1G}}}", "web.deploy.resources.limits.disk"),
        ("deploy: {resources: {reservations: {devices: []}}}", "web.deploy.resources.reservations.devices"),
        ("x-colla: {use: [stock]}", "web.x-colla.use: colla has nothing like it"),
        ("command: serve $FOLDER", "web.command: $FOLDER has no value here"),
        ("environment: {A: '${A:?say it}'}", "web.environment.A: ${A:?say it} has no value here"),
        ("labels: ['a=${A:-${B:-c}}']", "web.labels: a variable within a variable"),
        ("configs: [page]", "web.configs: no config is called 'page'"),
        ("x-colla: {uses: stock}", "web.x-colla.uses: it is a list"),
        ("x-colla: {uses: [Stock!]}", "web.x-colla.uses: 'Stock!' is no service"),
        ("x-colla: {public: 'no'}", "web.x-colla.public: it is true or false"),
        ("x-colla: {labels: [gpu]}", "web.x-colla.labels: it has names and values"),
        ("x-colla: public", "web.x-colla: it has names and values"),
        ('command: "serve \'a"', "web.command: No closing quotation"),
        ("command: 3", "web.command: it has another form"),
        ("ports: 80", "web.ports: it has another form"),
        ("environment: a", "web.environment: it has another form"),
        ("healthcheck: a", "web.healthcheck: it has names and values"),
        ("deploy: 3", "web.deploy: it has names and values"),
        ("deploy: {resources: {limits: 3}}", "web.deploy.resources.limits: it has names and values"),
        ("cpus: [1]", "web.deploy.resources: "),
    ],
)
def test_what_is_refused_by_name(tmp_path: Path, more: str, named: str) -> None:
    error = refusal(tmp_path, service(more))
    assert error.code == "compose_unsupported"
    assert named in error.message


@pytest.mark.parametrize(
    ("test", "path", "command"),
    [
        ("pg_isready -U $$POSTGRES_USER", "", ("/bin/sh", "-c", "pg_isready -U $POSTGRES_USER")),
        ("[CMD-SHELL, 'a || exit 1']", "", ("/bin/sh", "-c", "a || exit 1")),
        ("[CMD, pg_isready, -q]", "", ("pg_isready", "-q")),
        ("[NONE]", "", ()),
        ("[CMD, wget, -qO-, 'http://127.0.0.1:80/up?x=1']", "/up?x=1", ()),
        ("curl -f http://localhost || exit 1", "/", ()),
        # What asks for something else, or in another way, is run as it stands.
        ("curl -f http://localhost:9090/", "", ("/bin/sh", "-c", "curl -f http://localhost:9090/")),
        ("[CMD, curl, -XPOST, 'http://localhost/up']", "", ("curl", "-XPOST", "http://localhost/up")),
        ("curl http://localhost/ && a", "", ("/bin/sh", "-c", "curl http://localhost/ && a")),
        ("[CMD, curl, 'https://localhost/']", "", ("curl", "https://localhost/")),
    ],
)
def test_what_checks_health(tmp_path: Path, test: str, path: str, command: tuple[str, ...]) -> None:
    (web,) = read_compose(
        write(
            tmp_path,
            service(
                f"healthcheck: {{test: {json.dumps(test) if test[0] != '[' else test}}}\n    expose: [80]"
            ),
        )
    )
    assert (web.plan.request.health_path, web.plan.request.health_command) == (path, command)


def test_how_often_health_is_checked(tmp_path: Path) -> None:
    numbers = "interval: 1m30s, timeout: 500ms, retries: 5, start_period: 40s"
    (web,) = read_compose(write(tmp_path, service(f"healthcheck: {{test: a, {numbers}}}")))
    request = web.plan.request
    assert (request.health_interval_s, request.health_timeout_s) == (90.0, 0.5)
    assert (request.health_failures_max, request.start_period_s) == (5, 40.0)
    (web,) = read_compose(write(tmp_path, service("healthcheck: {disable: true, test: a}")))
    assert (web.plan.request.health_path, web.plan.request.health_command) == ("", ())


def test_secrets_become_variables(tmp_path: Path) -> None:
    text = service(
        "secrets: [key, {source: mail-password, target: mail}]\n    environment: {MAIL_FILE: /run/secrets/mail, A: b}"
    )
    (web,) = read_compose(write(tmp_path, text + "secrets:\n  key: {file: key.txt}\n"))
    assert web.plan.request.secrets == ("KEY", "MAIL")
    assert web.plan.request.env == {"A": "b"}
    assert any("colla secret set web MAIL" in note for note in web.notes)


def test_variables_have_their_defaults_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAG", "mine")
    text = "services:\n  web: {image: 'shop:${TAG:-1}', command: 'pay ${COST-5}$$', environment: {A: '${A:-}'}}\n"
    (web,) = read_compose(write(tmp_path, text + "x-other: {a: $NOT}\n"))
    assert (web.image, web.plan.request.command, web.plan.request.env) == ("shop:1", ("pay", "5$"), {"A": ""})
    assert "web.image: ${TAG:-1} is '1': nothing is taken from your shell or an .env" in web.notes


def test_what_others_are_needed_for(tmp_path: Path) -> None:
    jobs = "services:\n  web: {image: i, depends_on: {db: {condition: CONDITION}, log: {required: false}}}\n  db: {image: d}\n"
    db, web = read_compose(write(tmp_path, jobs.replace("CONDITION", "service_healthy")))
    assert db.plan.request.name == "db"
    assert any(note.startswith("web.depends_on: ") for note in web.notes)
    message = refusal(tmp_path, jobs.replace("CONDITION", "service_completed_successfully")).message
    assert "web.depends_on.db: a service runs on and on" in message


def test_what_stands_at_the_top_is_said(tmp_path: Path) -> None:
    text = service("restart: always") + "networks: {inner: }\nvolumes: {data: }\nversion: '3'\n"
    notes = list(describe(read_compose(write(tmp_path, text))))
    assert [note.partition(":")[0] for note in notes] == ["networks", "volumes", "version", "web.restart"]


CONFIGS = """
configs:
  page: {file: page.html}
  settings: {content: "colour=${COLOUR:-red}"}
"""


def test_configs_become_files_of_the_image(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_bytes(b"hello")
    detailed = "{source: settings, target: /etc/shop.conf, mode: 0640, uid: '103', gid: '104'}"
    (web,) = read_compose(write(tmp_path, service(f"configs: [page, {detailed}]") + CONFIGS))
    assert web.plan.files == (
        AddedFile("/page", b"hello", 0o444),
        AddedFile("/etc/shop.conf", b"colour=red", 0o640, 103, 104),
    )
    assert any(note.startswith("web.configs: ") and "every member" in note for note in web.notes)


@pytest.mark.parametrize(
    ("use", "declared", "why"),
    [
        ("c", "{file: missing.txt}", "cannot be read"),
        ("c", "{external: true}", "nothing like 'external'"),
        ("c", "{environment: SETTINGS}", "nothing like 'environment'"),
        ("c", "{name: c}", "neither `file` nor `content`"),
        ("{source: c, target: settings}", "{content: a}", "no whole path"),
        ("{source: c, target: /etc/../../settings}", "{content: a}", "no whole path"),
        ("{source: c, target: /run/settings}", "{content: a}", "would not be seen"),
        ("{source: c, mode: rw}", "{content: a}", "'rw' is no mode"),
        ("{source: c, uid: 70000}", "{content: a}", "70000 is no uid"),
    ],
)
def test_configs_that_cannot_be_given(tmp_path: Path, use: str, declared: str, why: str) -> None:
    error = refusal(tmp_path, service(f"configs: [{use}]") + f"configs:\n  c: {declared}\n")
    assert "web.configs: " in error.message
    assert why in error.message


def test_configs_are_small(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(700 << 10))
    text = service("configs: [a, b]") + "configs:\n  a: {file: large}\n  b: {file: large}\n"
    assert "1 MiB" in refusal(tmp_path, text).message


def test_everything_refused_is_named_at_once(tmp_path: Path) -> None:
    text = service("volumes: [a:/a]\n    devices: [/dev/x]") + "include: [other.yaml]\n"
    message = refusal(tmp_path, text).message
    assert all(word in message for word in ("web.volumes", "web.devices", "include"))


def test_an_image_has_to_be_there(tmp_path: Path) -> None:
    assert "web.image: it is missing" in refusal(tmp_path, "services:\n  web: {command: x}\n").message
    assert "build the image first" in refusal(tmp_path, "services:\n  web: {build: .}\n").message
    (web,) = read_compose(write(tmp_path, "services:\n  web: {build: ., image: here}\n"))
    assert web.image == "here"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("services: [", "line 1"),
        ("- a", "no `services`"),
        ("services: {}", "1 to 64"),
        ("services:\n  web:\n", "has no content"),
        ("services:\n  a: {image: i, depends_on: [b]}\n  b: {image: i, depends_on: [a]}\n", "circle"),
        ("services:\n  a: {image: i, depends_on: [c]}\n", "no service is called c"),
        ("services:\n  a: {image: i, labels: &x [*x]}\n", "too much"),
        ("services: {a: {image: i}}\nconfigs: [c]\n", "has to name things"),
    ],
)
def test_files_that_are_not_right(tmp_path: Path, text: str, why: str) -> None:
    error = refusal(tmp_path, text)
    assert error.code == "bad_compose"
    assert why in error.message


def test_which_files_are_read(tmp_path: Path) -> None:
    assert is_compose_file(write(tmp_path, SHOP))
    assert not is_compose_file(tmp_path)
    assert not is_compose_file(tmp_path / "none.yaml")
