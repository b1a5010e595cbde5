"""The repository's own files: what a new user, a container build and a wheel rely on."""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def requirements() -> list[Requirement]:
    """Every requirement of the package and its extras, but for extras that name one another."""
    extras = PROJECT["optional-dependencies"].values()
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]
    return [requirement for requirement in map(Requirement, lines) if requirement.name != "vcr1"]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def docker_instructions() -> list[tuple[str, str]]:
    """The Dockerfile as (instruction, arguments), continued lines joined and comments dropped."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line.strip())]


def make(*arguments: str) -> str:
    """What make prints, freed from the flags of a make that may be running these tests."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))
    }
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    ).stdout


def pip_install_arguments(shell: str) -> list[str]:
    """The arguments of the one ``pip install`` in a piece of shell, without ``-e``."""
    (arguments,) = re.findall(r"pip install ([^&|;\n]*)", shell)
    return [argument for argument in shlex.split(arguments) if argument != "-e"]


def repository_files() -> list[Path]:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


# ---------------------------------------------------------------------------------------------- make


def test_make_lists_its_targets_by_default() -> None:
    listed = {line.split()[0] for line in make().splitlines()}
    assert {"demo", "help", "lint", "setup", "test", "types", "imports", "unit", "upgrade"} <= listed
    assert make("help") == make()


def made_browser(tmp_path: Path, *programs: str) -> tuple[str, str]:
    """What ``make browser`` does and says where there are only some programs, which do nothing but say so."""
    for name in ("true", *programs):
        program = tmp_path / name.split()[0]
        program.write_text(f"#!/bin/sh\necho {name.partition(' ')[2]} | /usr/bin/tee -a {tmp_path}/done\n")
        program.chmod(0o755)
    (tmp_path / "done").write_text("")
    command = [str(shutil.which("make")), "--no-print-directory", "-s", "browser"]
    environment = {"PATH": str(tmp_path)}
    said = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        check=True,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    return (tmp_path / "done").read_text(), said.stderr


def test_a_browser_is_installed_only_where_there_is_none_and_it_can_be(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("there", "user", "root", "elsewhere")]
    for folder in folders:
        folder.mkdir()
    there, user, root, elsewhere = folders
    assert made_browser(there, "google-chrome", "id 0", "apt-get apt") == ("", "")
    done, said = made_browser(user, "id 1000", "apt-get apt")
    assert (done, said.count("\n")) == ("1000\n", 1)
    assert "apt-get install chromium" in said
    done, said = made_browser(root, "id 0", "apt-get apt")
    assert (done, said) == ("0\napt\napt\n", "")
    assert "No Chromium" in made_browser(elsewhere, "id 0")[1]


# --------------------------------------------------------------------------------------- constraints


def test_constraints_are_names_and_versions_only() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    odd = [line for line in lines if not re.fullmatch(r"#.*|[a-z0-9.-]+==[0-9][0-9a-z.]*", line)]
    assert odd == []


def test_constraints_cover_every_requirement_within_its_bounds() -> None:
    pinned = pins()
    versions = {str(one): pinned.get(canonicalize_name(one.name)) for one in requirements()}
    outside = {
        line: version
        for line, version in versions.items()
        if version is None or version not in Requirement(line).specifier
    }
    assert outside == {}


def test_every_requirement_has_a_lower_and_an_upper_bound() -> None:
    operators = {str(one): {part.operator for part in one.specifier} for one in requirements()}
    assert [line for line, found in operators.items() if found != {">=", "<"}] == []


def imported_packages(source: Path) -> set[str]:
    """The top-level names that a file imports absolutely, at any depth of the file."""
    names = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_every_import_of_the_package_is_a_requirement() -> None:
    sources = set((ROOT / "vcr1").rglob("*.py"))
    page = ROOT / "vcr1" / "webpage" / "page.py"  # the only module that needs an extra
    assert imported_packages(page) - sys.stdlib_module_names == {"gradio", "PIL", "vcr1"}
    imported = set().union(*map(imported_packages, sources - {page}))
    required = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    providers = packages_distributions()
    foreign = imported - sys.stdlib_module_names - {"vcr1"}
    declared = {name for name in foreign if required & set(map(canonicalize_name, providers.get(name, [])))}
    assert foreign == declared


# ---------------------------------------------------------------------------------------- Dockerfile


def test_container_runs_training_as_an_ordinary_user() -> None:
    instructions = docker_instructions()
    words = [word for word, _ in instructions]
    users = [rest for word, rest in instructions if word == "USER"]
    assert words.index("USER") < words.index("ENTRYPOINT")
    assert users
    assert not {"root", "0"} & {user.split(":")[0] for user in users}
    assert json.loads(dict(instructions)["ENTRYPOINT"]) == ["python", "-m", "vcr1.train"]


def test_container_installs_with_the_command_of_make_demo() -> None:
    shell = " && ".join(rest for word, rest in docker_instructions() if word == "RUN")
    in_container = pip_install_arguments(shell)
    assert in_container == pip_install_arguments(make("--dry-run", "--always-make", ".venv/.runtime"))
    assert in_container[-3:] == ["-c", "constraints.txt", "."]


def test_container_copies_files_that_exist_and_are_not_ignored() -> None:
    copies = [shlex.split(rest)[:-1] for word, rest in docker_instructions() if word in {"COPY", "ADD"}]
    sources = [source for copy in copies for source in copy if not source.startswith("--")]
    kept = (ROOT / ".dockerignore").read_text().splitlines()
    assert sources
    assert [source for source in sources if not (ROOT / source).exists() or f"!{source}" not in kept] == []


# ------------------------------------------------------------------------------------------ the tree


def test_no_file_names_a_machine_or_an_index() -> None:
    checkout = rf"|{re.escape(str(ROOT))}\b" if len(ROOT.parts) > 2 else ""
    machine = re.compile(
        rf"(?<![\w.*$}}\])])/(?:home|root|Users|work)/{checkout}|\bfile:/{{2}}|https?://\S*/simple\b"
    )
    hits = []
    for path in repository_files():
        content = path.read_bytes()
        if b"\0" in content:
            continue
        for number, line in enumerate(content.decode().splitlines(), start=1):
            hits += [f"{path.relative_to(ROOT)}:{number}: {match[0]}" for match in machine.finditer(line)]
    assert hits == []


# --------------------------------------------------------------------------------------------- wheel

COMPOSE_FROM_WHEEL = """
import sys
sys.path.insert(0, sys.argv[1])
import vcr1, vcr1.config.entry
from hydra import compose, initialize_config_dir
folder = vcr1.config.choices.conf_dir()
with initialize_config_dir(str(folder), version_base=None):
    compose("train", overrides=["experiment=demo"])
print(vcr1.__file__, folder, sep="\\n")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the sdist as an installer would; both without the network."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_wheel_holds_the_package_its_configs_and_its_data_only(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    package = [path for path in repository_files() if path.is_relative_to(ROOT / "vcr1")]
    configs = [path for path in repository_files() if path.is_relative_to(ROOT / "conf")]
    expected = {str(path.relative_to(ROOT)) for path in package}
    expected |= {f"vcr1/{path.relative_to(ROOT)}" for path in configs}
    assert "vcr1/conf/train.yaml" in held
    assert {name for name in held if ".dist-info/" not in name} == expected
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in held)


def test_demo_composes_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", COMPOSE_FROM_WHEEL, str(site)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    module, folder = done.stdout.splitlines()[-2:]
    assert Path(module) == site / "vcr1" / "__init__.py"
    assert Path(folder) == site / "vcr1" / "conf"


def test_no_two_files_of_tests_have_one_name() -> None:
    # pytest imports them by their bare name, as they import what stands beside them.
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert sorted(name for name in set(names) if names.count(name) > 1) == []
