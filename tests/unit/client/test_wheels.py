"""Packages are resolved once per target, fetched once and checked; nothing of them is run."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import wheels as support

from colla.client import wheels
from colla.client.staging import staged
from colla.client.wheels import PackagesWanted
from colla.model.errors import CollaError
from colla.model.wheelhouse import LockedWheel, Target, read_lock
from colla.uv_program import find_uv

pytestmark = pytest.mark.skipif(find_uv() is None, reason="uv is not installed")
TARGETS = (Target("3.12", "linux", "x86_64"), Target("3.13", "linux", "aarch64"))


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that needs `greeting`, which needs `words`; both are to be found beside it, and nothing elsewhere."""
    shelf = tmp_path / "shelf"
    support.make_wheel(shelf, "greeting", {"greeting.py": "import words\n"}, needs="words")
    support.make_wheel(shelf, "words", {"words.py": "hello = 'hello'\n"})
    monkeypatch.setenv("UV_FIND_LINKS", str(shelf))
    monkeypatch.setenv("UV_OFFLINE", "1")
    folder = tmp_path / "service"
    (folder / "pages").mkdir(parents=True)
    (folder / ".venv").mkdir()
    (folder / ".venv" / "large").touch()
    (folder / "pages" / "index.html").write_text("<h1>")
    (folder / "requirements.txt").write_text("greeting\n")
    return folder


def test_wheels_travel_with_the_service(service: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.chdir(service.parent)
    with staged(Path(service.name), PackagesWanted("requirements.txt", TARGETS), told.append) as ready:
        house = ready.folder / "wheelhouse"
        assert sorted(path.name for path in ready.folder.iterdir()) == [
            "pages",
            "requirements.txt",
            "wheelhouse",
        ]
        assert (ready.folder / "pages" / "index.html").read_text() == "<h1>"
        locks = [read_lock((house / target.lock).read_text()) for target in TARGETS]
        assert locks[0] == locks[1] and [wheel.name for wheel in locks[0]] == ["greeting", "words"]
        for wheel in locks[0]:
            assert hashlib.sha256((house / wheel.file).read_bytes()).hexdigest() == wheel.sha256
            assert wheel.fits_everywhere
        assert len(list(house.iterdir())) == 4
        assert "2 Python packages" in ready.note and "Python 3.13 on linux-aarch64" in ready.note
    assert told.count("fetching words 1.0") == 1 and not ready.folder.exists()
    assert (service / ".venv" / "large").exists() and not (service / "wheelhouse").exists()


def test_hashes_of_the_folder_hold(service: Path) -> None:
    wanted = PackagesWanted("requirements.txt", TARGETS[:1])
    (service / "requirements.txt").write_text(f"words==1.0 \\\n    --hash=sha256:{'0' * 64}\n")
    with pytest.raises(CollaError) as raised, staged(service, wanted):
        pass
    assert raised.value.code == "packages_missing"


def test_what_has_no_wheel_is_named(service: Path) -> None:
    (service / "requirements.txt").write_text("words\nno-such-thing\n")
    with (
        pytest.raises(CollaError) as raised,
        staged(service, PackagesWanted("requirements.txt", TARGETS[:1])),
    ):
        pass
    assert raised.value.code == "packages_missing" and "no-such-thing" in raised.value.message


def test_a_damaged_wheel_is_refused(service: Path, tmp_path: Path) -> None:
    path = tmp_path / "shelf" / "words-1.0-py3-none-any.whl"
    with pytest.raises(CollaError) as raised:
        wheels._download(path.as_uri(), tmp_path / "got", "0" * 64, 1 << 20)
    assert raised.value.code == "fetch_failed"
    with pytest.raises(CollaError) as raised:
        wheels._download(path.as_uri(), tmp_path / "got", "0" * 64, 10)
    assert raised.value.code == "packages_too_large"


def test_without_uv_it_says_what_to_install(service: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "find_uv", lambda: None)
    with pytest.raises(CollaError) as raised, staged(service, PackagesWanted("requirements.txt", TARGETS)):
        pass
    assert raised.value.code == "uv_missing" and "colla[python]" in raised.value.hint


@pytest.mark.parametrize(
    "line", ["--index-url http://x", "a @ file:///etc", "a==1", f"a==1 --hash=sha256:{'0' * 64} # ../a.whl"]
)
def test_a_lock_names_wheels_and_nothing_else(line: str) -> None:
    with pytest.raises(ValueError, match="none of a lock"):
        read_lock(line + "\n")


def test_targets_have_names_of_files() -> None:
    for target in TARGETS:
        assert Target.of_lock(target.lock) == target
    assert Target.of((3, 12), "linux", "AMD64") == TARGETS[0]
    assert Target.of_lock("../python3.12-linux-x86_64.txt") is None
    compiled = LockedWheel("a", "1", "0" * 64, "a-1-cp312-cp312-manylinux_2_28_x86_64.whl")
    assert not compiled.fits_everywhere
