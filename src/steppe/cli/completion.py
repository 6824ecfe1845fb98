"""What a shell may complete: read from files, because a shell does not wait for JAX."""

from pathlib import Path

KINDS = ("studies", "datasets", "models", "methods", "transforms", "losses", "measures")
"""What `steppe list` lists."""

CATALOGUE = Path(__file__).parents[1] / "study" / "catalogue"


def studies(incomplete: str) -> list[str]:
    """The studies that ship, and the TOML files, that begin so."""
    shipped = [path.stem for path in CATALOGUE.glob("*.toml")]
    return sorted(name for name in (*shipped, *map(str, Path().glob("*.toml"))) if name.startswith(incomplete))


def kinds(incomplete: str) -> list[str]:
    """The kinds that begin so."""
    return [name for name in KINDS if name.startswith(incomplete)]
