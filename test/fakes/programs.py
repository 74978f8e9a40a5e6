"""Put a fake program where the code under test looks for the real one."""

import sys
from pathlib import Path

_HERE = Path(__file__).parent


def install(fake: str, name: str, directory: Path, python: str = sys.executable) -> Path:
    """Make the fake module `fake` executable as `directory`/`name`, run by `python`."""
    directory.mkdir(parents=True, exist_ok=True)
    program = directory / name
    source = (_HERE / f"{fake}.py").read_text(encoding="utf-8")
    program.write_text(f"#!{python}\n{source}", encoding="utf-8")
    program.chmod(0o755)
    return program


def install_module(fake: str, name: str, directory: Path) -> Path:
    """Make `main` of the fake module `fake` executable; unlike with `install`, it may import what is here."""
    directory.mkdir(parents=True, exist_ok=True)
    program = directory / name
    source = (
        f"import sys; sys.path.insert(0, {str(_HERE.parents[1])!r})\n"
        f"from test.fakes.{fake} import main; main()\n"
    )
    program.write_text(f"#!{sys.executable}\n{source}", encoding="utf-8")
    program.chmod(0o755)
    return program


def make_venv(directory: Path, package: str, version: str) -> Path:
    """A virtual environment that knows one distribution; its interpreter."""
    base = Path(sys._base_executable).resolve()  # type: ignore[attr-defined]
    python = directory / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(base)
    (directory / "pyvenv.cfg").write_text(f"home = {base.parent}\n")
    site = directory / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    metadata = site / f"{package}-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    return python
