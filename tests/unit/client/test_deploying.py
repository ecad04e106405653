"""What a folder is recognised as, and what its owner is told where it is nothing clear."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from colla.client.deploying import NOTHING_SAID, Said, plan_deploy
from colla.client.staging import staged
from colla.model.errors import CollaError


def fill(folder: Path, *names: str, **texts: str) -> Path:
    """Files with any content, and files `name__ext` with the given one."""
    for name, text in {
        **dict.fromkeys(names, "x"),
        **{k.replace("__", "."): v for k, v in texts.items()},
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def code_of(path: Path, said: Said = NOTHING_SAID) -> str:
    with pytest.raises(CollaError) as raised:
        plan_deploy(path, said)
    assert raised.value.hint, "it must say what to do"
    return raised.value.code


def test_a_site_is_static(tmp_path: Path) -> None:
    plan = plan_deploy(fill(tmp_path / "My Site!", "index.html", "a/b.css"))
    assert (plan.request.environment, plan.request.name, plan.request.command) == ("static", "my-site", ())
    assert plan.request.replicas == 3 and plan.request.activate and not plan.warnings


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("python3 app.py --port 1", ("python3", "app.py", "--port", "1")),
        ("gunicorn app:app -b :$PORT", ("/bin/sh", "-c", "exec gunicorn app:app -b :$PORT")),
        ("cd web && python3 app.py", ("/bin/sh", "-c", "cd web && python3 app.py")),
        ("MODE=live python3 app.py", ("/bin/sh", "-c", "MODE=live python3 app.py")),
        ("python3 -c 'a b'", ("python3", "-c", "a b")),
    ],
)
def test_a_procfile_says_the_command(tmp_path: Path, line: str, command: tuple[str, ...]) -> None:
    folder = fill(tmp_path, "index.html", "app.py", Procfile=f"# a comment\nrelease: make\nweb: {line}\n")
    plan = plan_deploy(folder, Said(name="shop"))
    assert (plan.request.environment, plan.request.command) == ("process", command)


@pytest.mark.parametrize(
    ("names", "texts", "command"),
    [
        (("app.py",), {}, ("python3", "app.py")),
        (("__main__.py", "other.py"), {}, ("python3", ".")),
        ((), {"package__json": '{"scripts": {"start": "node index.js"}}'}, ("node", "index.js")),
    ],
)
def test_a_program_is_recognised(
    tmp_path: Path, names: tuple[str, ...], texts: dict[str, str], command: tuple[str, ...]
) -> None:
    assert plan_deploy(fill(tmp_path, *names, **texts), Said(name="x")).request.command == command


def test_a_front_end_with_a_package_is_a_site(tmp_path: Path) -> None:
    plan = plan_deploy(fill(tmp_path, "index.html", package__json='{"scripts": {"build": "vite"}}'))
    assert plan.request.environment == "static"


def test_the_settings_file_says_the_rest_and_the_caller_has_the_last_word(tmp_path: Path) -> None:
    text = """
        name = "wiki"
        environment = "process"
        command = "python3 wiki.py"
        replicas = 2
        public = true
        domains = ["wiki.example.org"]
        uses = ["api"]
        [env]
        DEBUG = false
        SIZE = 3
        [limits]
        cpus = 0.5
        memory_bytes = 1000000
        [health]
        path = "/up"
        """
    folder = fill(tmp_path, "wiki.py", colla__toml=text)
    request = plan_deploy(folder).request
    assert (request.name, request.command, request.replicas) == ("wiki", ("python3", "wiki.py"), 2)
    assert request.env == {"DEBUG": "false", "SIZE": "3"} and request.uses == ("api",)
    assert (request.public, request.domains, request.health_path) == (True, ("wiki.example.org",), "/up")
    assert (request.cpus, request.memory_bytes, request.processes) == (0.5, 1_000_000, 64)
    said = Said(name="pedia", replicas=5, command="python3 wiki.py -v", env={"SIZE": "4"}, public=False)
    request = plan_deploy(folder, said).request
    assert (request.name, request.replicas, request.public) == ("pedia", 5, False)
    assert request.env == {"DEBUG": "false", "SIZE": "4"} and request.command[-1] == "-v"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("nam = 'x'", "nam"),
        ("replicas = 'x'", "replicas"),
        ("\na = = b", "line 2"),
        ("[limits]\nmemory = 1", "memory"),
    ],
)
def test_a_wrong_settings_file_is_told(tmp_path: Path, text: str, part: str) -> None:
    with pytest.raises(CollaError) as raised:
        plan_deploy(fill(tmp_path, "index.html", colla__toml=text))
    assert raised.value.code == "bad_colla_toml" and part in raised.value.message


def test_a_folder_that_is_not_there_empty_or_unreadable(tmp_path: Path) -> None:
    assert code_of(tmp_path / "nowhere") == "folder_missing"
    (tmp_path / "empty" / "deep").mkdir(parents=True)
    assert code_of(tmp_path / "empty") == "folder_empty"
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert code_of(tmp_path / "loop") == "unreadable"


def test_an_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "index.html", "secret/key.pem")
    monkeypatch.setattr("os.access", lambda path, mode: not str(path).endswith("key.pem"))
    with pytest.raises(CollaError) as raised:
        plan_deploy(tmp_path)
    assert raised.value.code == "unreadable" and "secret/key.pem" in raised.value.message


@pytest.mark.parametrize(
    ("names", "code"),
    [
        (("notes.txt",), "not_recognised"),
        (("app.py", "main.py"), "ambiguous"),
        (("index.html", "app.py"), "ambiguous"),
        (("compose.yaml", "web/x"), "not_recognised"),
        (("Dockerfile",), "not_recognised"),
        (("one.wasm", "two.wasm"), "ambiguous"),
        (("image.tar.gz",), "not_recognised"),
        (("Procfile",), "not_recognised"),
    ],
)
def test_what_is_not_clear_is_said(tmp_path: Path, names: tuple[str, ...], code: str) -> None:
    assert code_of(fill(tmp_path, *names)) == code


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("site.zip", "not_a_folder"),
        ("index.html", "not_a_folder"),
    ],
)
def test_a_file_is_no_folder(tmp_path: Path, name: str, code: str) -> None:
    assert code_of(fill(tmp_path, name) / name) == code


def test_what_is_ambiguous_can_be_said(tmp_path: Path) -> None:
    folder = fill(tmp_path, "index.html", "app.py")
    assert plan_deploy(folder, Said(name="x", environment="static")).request.environment == "static"
    assert plan_deploy(folder, Said(name="x", environment="process")).request.command == ("python3", "app.py")
    assert plan_deploy(folder, Said(name="x", command="./run")).request.command == ("./run",)
    assert code_of(folder, Said(environment="static", command="./run")) == "bad_command"
    assert code_of(folder, Said(environment="container")) == "not_recognised"
    assert code_of(folder, Said(environment="wasm")) == "not_recognised"
    assert code_of(folder, Said(command="python3 'a")) == "bad_command"


@pytest.mark.parametrize(
    ("name", "environment", "service", "command"),
    [
        ("hello.wasm", "wasm", "hello", ("hello.wasm",)),
        ("Shop.tar", "container", "shop", ()),
        ("shop.tar.gz", "container", "shop", ()),
        ("shop.tgz", "container", "shop", ()),
    ],
)
def test_files_that_are_whole_services(
    tmp_path: Path, name: str, environment: str, service: str, command: tuple[str, ...]
) -> None:
    plan = plan_deploy(fill(tmp_path, name) / name)
    assert (plan.request.environment, plan.request.name, plan.request.command) == (
        environment,
        service,
        command,
    )
    assert code_of(tmp_path / name, Said(environment="static")) == "not_a_folder"


def test_a_folder_with_a_module(tmp_path: Path) -> None:
    folder = fill(tmp_path, "app.wasm", "data/words.txt")
    assert plan_deploy(folder, Said(name="x")).request.command == ("app.wasm",)
    assert plan_deploy(folder, Said(name="x", environment="wasm")).request.environment == "wasm"
    fill(tmp_path, "other.wasm")
    chosen = plan_deploy(folder, Said(name="x", environment="wasm", command="other.wasm --quiet"))
    assert chosen.request.command == ("other.wasm", "--quiet")
    assert code_of(folder, Said(environment="wasm", command="none.wasm")) == "bad_command"


def test_a_module_is_staged_as_a_folder(tmp_path: Path) -> None:
    (tmp_path / "app.wasm").write_bytes(b"module")
    with staged(tmp_path / "app.wasm") as ready:
        folder = ready.folder
        assert [path.name for path in folder.iterdir()] == ["app.wasm"]
        assert (folder / "app.wasm").read_bytes() == b"module"
    assert not folder.exists()
    with staged(tmp_path) as same:
        assert same.folder == tmp_path and not same.note


def test_a_built_site_is_pointed_at(tmp_path: Path) -> None:
    with pytest.raises(CollaError) as raised:
        plan_deploy(fill(tmp_path, "src/a.js", "dist/index.html"))
    assert str(tmp_path / "dist") in raised.value.hint


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (Said(name="Not A Label"), "bad_name"),
        (Said(name="a--b"), "bad_name"),
        (Said(replicas=0), "bad_replicas"),
        (Said(replicas=65), "bad_replicas"),
    ],
)
def test_impossible_wishes(tmp_path: Path, said: Said, code: str) -> None:
    assert code_of(fill(tmp_path, "index.html"), said) == code


def test_a_folder_without_letters_needs_a_name(tmp_path: Path) -> None:
    assert code_of(fill(tmp_path / "???", "index.html")) == "bad_name"


def test_databases_that_would_be_lost_are_told(tmp_path: Path) -> None:
    fill(tmp_path, "app.py", "fake.db", "data/readme", ".env")
    with sqlite3.connect(tmp_path / "data" / "shop.sqlite3") as database:
        database.execute("create table t (x)")
    database.close()
    warnings = plan_deploy(tmp_path, Said(name="x")).warnings
    assert any("data/shop.sqlite3" in text and "lost" in text for text in warnings)
    assert not any("fake.db" in text for text in warnings)
    assert any(".env" in text for text in warnings)


def test_packages_that_are_named_and_not_there_have_to_travel(tmp_path: Path) -> None:
    folder = fill(tmp_path, "app.py", "requirements.txt")
    (folder / "requirements.txt").write_text("# none\n")
    assert plan_deploy(folder, Said(name="x")).packages is None
    (folder / "requirements.txt").write_text("flask  # for the pages\n")
    wanted = plan_deploy(folder, Said(name="x")).packages
    assert wanted is not None and wanted.source == "requirements.txt" and len(wanted.targets) == 1
    assert plan_deploy(folder, Said(name="x", environment="static")).packages is None
    (folder / "colla.toml").write_text(
        '[python]\nversions = ["3.12", "3.13"]\nplatforms = ["linux-x86_64", "linux-aarch64"]\n'
    )
    (folder / "pyproject.toml").write_text('[project]\nname = "x"\nversion = "1"\ndependencies = ["flask"]\n')
    wanted = plan_deploy(folder, Said(name="x")).packages
    assert wanted is not None and wanted.source == "requirements.txt"
    assert [str(target) for target in wanted.targets][1] == "Python 3.12 on linux-aarch64"
    (folder / "requirements.txt").unlink()
    wanted = plan_deploy(folder, Said(name="x")).packages
    assert wanted is not None and wanted.source == "pyproject.toml" and len(wanted.targets) == 4
    (folder / "colla.toml").write_text('[python]\nplatforms = ["toaster"]\n')
    assert code_of(folder, Said(name="x")) == "bad_colla_toml"
    (folder / "colla.toml").unlink()
    fill(folder, "flask-3.dist-info/METADATA")
    assert plan_deploy(folder, Said(name="x")).packages is None


def test_node_modules_that_nobody_installs_are_told(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text(
        '{"scripts": {"start": "serve-it --fast"}, "dependencies": {"a": "1"}}'
    )
    plan = plan_deploy(tmp_path, Said(name="x"))
    assert "node_modules" in plan.warnings[0] and plan.request.command == ("serve-it", "--fast")
    fill(tmp_path, "node_modules/a/bin/serve.js")
    (tmp_path / "node_modules" / ".bin").mkdir()
    (tmp_path / "node_modules" / ".bin" / "serve-it").symlink_to("../a/bin/serve.js")
    plan = plan_deploy(tmp_path, Said(name="x"))
    assert not plan.warnings and plan.request.command == ("node", "node_modules/a/bin/serve.js", "--fast")


def test_health_is_checked_in_one_way(tmp_path: Path) -> None:
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "app.py").touch()
    (folder / "colla.toml").write_text('[health]\ncommand = ["./check", "-q"]\ninterval_s = 5.0\n')
    request = plan_deploy(folder).request
    assert (request.health_command, request.health_interval_s) == (("./check", "-q"), 5.0)
    (folder / "colla.toml").write_text('[health]\npath = "/up"\ntcp = true\n')
    assert code_of(folder) == "bad_health"
