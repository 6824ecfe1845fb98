"""What a shell may complete: read from files, because a shell does not wait for JAX."""

from pathlib import Path

CATALOGUE = Path(__file__).parents[1] / "study" / "catalogue"


def studies(incomplete: str) -> list[str]:
    """The studies that ship, and the TOML files, that begin so."""
    shipped = [path.stem for path in CATALOGUE.glob("*.toml")]
    return sorted(name for name in (*shipped, *map(str, Path().glob("*.toml"))) if name.startswith(incomplete))


def kinds(incomplete: str) -> list[str]:
    """What `steppe list` lists."""
    names = ("studies", "datasets", "models", "methods", "transforms", "losses", "measures")
    return [name for name in names if name.startswith(incomplete)]
