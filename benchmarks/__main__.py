"""Steppe's benchmarks: markdown tables on the terminal, everything in one JSON file.

python benchmarks [fa_cost] [methods_cost] [peers] [scaling] [variance] [measuring]
                  [gpu_training] [gpu_measuring] [gpu_peers] [gpu_plans] [--quick] [--json out/bench.json]
"""

import argparse
import datetime
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

from steppe.storage import provenance

QUESTIONS = ("fa_cost", "methods_cost", "peers", "scaling", "variance", "measuring")

NAMED = ("gpu_training", "gpu_measuring", "gpu_peers", "gpu_plans")
"""Questions that are asked only where they are named."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "questions",
        nargs="*",
        metavar="question",
        help=f"any of {', '.join((*QUESTIONS, *NAMED))}; default: all but {', '.join(NAMED)}",
    )
    parser.add_argument(
        "--quick", action="store_true", help="does everything still run? Few rounds, figures that say little"
    )
    parser.add_argument("--json", type=Path, default=Path("out/bench.json"), help="where all figures go")
    arguments = parser.parse_args()
    if unknown := set(arguments.questions) - {*QUESTIONS, *NAMED}:
        parser.error(f"question must be one of {', '.join((*QUESTIONS, *NAMED))}, got {', '.join(sorted(unknown))}")
    began, found, about = time.perf_counter(), {}, machine()
    print(sentence(about), end="\n\n", flush=True)
    for question in arguments.questions or QUESTIONS:
        module = __import__(question)
        for table in module.tables(arguments.quick):
            print(table.markdown(), flush=True)
            found.setdefault(question, []).append({"title": table.title, "note": table.note, "rows": plain(table.rows)})
    about["load_at_the_end"], about["seconds"] = os.getloadavg()[0], round(time.perf_counter() - began)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(
        json.dumps({"machine": about, "quick": arguments.quick, **found}, indent=1, ensure_ascii=False)
    )
    print(f"{about['seconds']} s; all figures in {arguments.json}")


def machine() -> dict[str, Any]:
    """What the figures depend on: the machine, the versions, the code."""
    describe = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        code = subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        code = "unknown"
    today = datetime.date.today().isoformat()
    return {"date": today, "code": code, **provenance.machine(), "load_at_the_start": os.getloadavg()[0]}


def sentence(about: dict[str, Any]) -> str:
    """The machine in words, with a warning if it is busy."""
    busy = about["load_at_the_start"] > 0.5
    words = f"{about['date']}, code {about['code']}. {about['hardware']}. {about['versions']}."
    return words + (
        f" The machine is busy (load {about['load_at_the_start']:.1f}): ratios will wander." if busy else ""
    )


def plain(value: Any) -> Any:
    """Rows as JSON has them."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


if __name__ == "__main__":
    main()
