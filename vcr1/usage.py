"""What a program says of itself, at once: nothing heavy is loaded for it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

FLAGS = ("--help", "-h")


def show_usage(program: str, purpose: str | None, arguments: Sequence[str] | None = None) -> None:
    """Print a program's help and end, if its command line asks for it; else do nothing.

    ``--help`` shows purpose, examples, options and the config with its comments; ``--help GROUP`` every
    option of a group.

    Args:
        program: name of its config.
        purpose: the docstring of its module.
        arguments: of the command line; those of this process where None.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not any(flag in given for flag in FLAGS):
        return
    topic = next((one for one in given if not one.startswith("-") and "=" not in one), None)
    print(_group(topic) if topic else _program(program, purpose or ""))
    sys.exit(0)


def _conf() -> Path:
    package = Path(__file__).resolve().parent
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def _program(program: str, purpose: str) -> str:
    """Return the help of a program."""
    config = _conf() / f"{program}.yaml"
    if not config.is_file():
        return f"python -m vcr1.{program}\n\n{_plain(purpose)}"
    text = config.read_text(encoding="utf-8").split("\nhydra:")[0]
    lines = [
        f"python -m vcr1.{program}",
        "",
        _plain(purpose),
        "",
        f"Its config, conf/{program}.yaml; write group.key=value to change a value, group=option to choose:",
        "",
        *(f"  {line}".rstrip() for line in text.splitlines()),
        "",
        "Groups and their options; --help GROUP shows what is in them:",
        "",
    ]
    for folder in sorted(path for path in _conf().iterdir() if path.is_dir() and path.name != "hydra"):
        options = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
        lines.append(f"  {folder.name:12} {options}")
    more = [
        "",
        "-m runs a sweep (algorithm.lr=1e-6,1e-5); --cfg job prints the config as composed; --config-dir DIR",
        "adds options of your own. More: https://hydra.cc/docs/advanced/hydra-command-line-flags",
    ]
    return "\n".join(lines + more)


def _group(name: str) -> str:
    """Return the options of a config group, with their comments."""
    files = sorted((_conf() / name).glob("*.yaml"))
    if not files:
        known = ", ".join(sorted(path.name for path in _conf().iterdir() if path.is_dir()))
        return f"there is no group {name}; choose from {known}"
    parts = [f"{name}={path.stem}\n\n{_indented(path)}" for path in files]
    return "\n\n".join(parts)


def _indented(path: Path) -> str:
    text = path.read_text(encoding="utf-8").rstrip()
    return "\n".join(f"  {line}".rstrip() for line in text.splitlines())


def _plain(docstring: str) -> str:
    return docstring.strip().replace("``", "").replace("`", "")
