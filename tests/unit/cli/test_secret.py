"""`colla secret`: values come from stdin and files, never from arguments, and are not shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from colla.cli.secret import read_values
from colla.client import types
from colla.model.errors import CollaError

Colla = Callable[..., Result]


def test_values_from_files(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("two\nlines\n")
    assert read_values(["KEY"], tmp_path / "key.pem", None) == {"KEY": "two\nlines"}
    (tmp_path / "env").write_text("# mine\nexport A=1\n\nB = 'with space'\nC=a=b\n")
    assert read_values([], None, tmp_path / "env") == {"A": "1", "B": "with space", "C": "a=b"}


@pytest.mark.parametrize(
    ("names", "file", "env_file", "code"),
    [
        ([], None, None, "bad_usage"),
        (["A", "B"], "key", None, "bad_usage"),
        (["A"], None, "env", "bad_usage"),
        (["a b"], None, None, "bad_secret_name"),
        (["A"], "missing", None, "unreadable"),
        ([], None, "broken", "unreadable"),
        ([], None, "empty", "unreadable"),
    ],
)
def test_what_cannot_be_read(
    tmp_path: Path, names: list[str], file: str | None, env_file: str | None, code: str
) -> None:
    (tmp_path / "key").write_text("x")
    (tmp_path / "env").write_text("A=1")
    (tmp_path / "broken").write_text("A")
    (tmp_path / "empty").write_text("# nothing")
    with pytest.raises(CollaError) as raised:
        read_values(names, (file and tmp_path / file) or None, (env_file and tmp_path / env_file) or None)
    assert raised.value.code == code


def test_set_asks_the_node_and_says_no_value(colla: Colla, node: Any, samples: Any, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("hush\n")
    node.answer("GET services/shop", samples.service("shop", "aa"))
    node.answer("POST services/shop/secrets", types.WrittenAnswer("11" * 16, "shop", 2))
    result = colla("secret", "set", "shop", "KEY", "--file", tmp_path / "key", "--no-wait")
    assert result.exit_code == 0 and "KEY of shop is set, known to 2 computers." in result.stdout
    assert "hush" not in result.output
    assert node.bodies("POST services/shop/secrets") == [{"secrets": {"KEY": "hush"}}]


def test_an_unknown_service_is_told_how_to_begin(colla: Colla, node: Any, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("hush")
    node.answer("GET services/shop", types.ApiError("not_found", "There is no service called 'shop'."))
    result = colla("secret", "set", "shop", "KEY", "--file", tmp_path / "key")
    assert result.exit_code == 4 and "Deploy it first" in result.stderr and "hush" not in result.output


def test_list_shows_what_is_missing(colla: Colla, node: Any) -> None:
    set_one = types.SecretReport(
        "KEY", is_set=True, needed=True, set_at_s=0.0, set_by="ana", computers=("attic",)
    )
    node.answer("GET services/shop/secrets", [set_one, types.SecretReport("MAIL", is_set=False, needed=True)])
    result = colla("secret", "list", "shop")
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [row[:2] for row in rows] == [["KEY", "needed"], ["MAIL", "missing"]] and rows[0][3:] == [
        "ana",
        "attic",
    ]


def test_deploy_with_secrets_starts_when_they_are_set(
    colla: Colla, node: Any, samples: Any, tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text("")
    (tmp_path / "colla.toml").write_text('name = "shop"\nsecrets = ["KEY"]\n')
    values = tmp_path.with_name(tmp_path.name + ".env")
    values.write_text("KEY=hush\n")
    written = types.WrittenAnswer("11" * 16, "shop", 2, created=True)
    node.answer("POST objects", types.PutAnswer("22" * 32, 5, 3, 3)).answer("POST services", written)
    node.answer("POST services/shop/secrets", written).answer("POST services/shop/activate", written)
    node.answer("GET services/shop", types.ApiError("not_found", "no"), samples.service("shop"))
    result = colla("deploy", tmp_path, "--secrets", values, "--no-wait")
    assert result.exit_code == 0, result.output
    (body,) = node.bodies("POST services")
    assert body["secrets"] == ["KEY"] and not body["activate"]
    asked = [path for method, path, _ in node.asked if method == "POST"]
    assert asked == ["objects", "services", "services/shop/secrets", "services/shop/activate"]
