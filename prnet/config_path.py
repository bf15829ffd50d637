"""Where the configuration tree lies: beside the package in a checkout, inside it in a wheel."""

from pathlib import Path


def find_config_dir(package_dir: Path) -> Path:
    """The tree of the package at `package_dir`.

    The copy inside the package comes first: only a wheel has one, and a folder named configs beside
    an installed package belongs to somebody else.
    """
    packaged = package_dir / "configs"
    return packaged if packaged.is_dir() else package_dir.parent / "configs"


CONFIG_DIR = str(find_config_dir(Path(__file__).resolve().parent))
