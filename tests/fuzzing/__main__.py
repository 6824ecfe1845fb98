"""``python -m fuzzing [NAME ...] [--cases N] [--seed N]``, from this folder's parent: a table, and every bad ending."""

import argparse
import sys

from fuzzing import FUZZERS, Ending, counted, fuzzer


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzzing")
    parser.add_argument("names", nargs="*", default=FUZZERS, help="which fuzzers; all of them if none is named")
    parser.add_argument("--cases", type=int, help="how many cases of each, instead of its own number")
    parser.add_argument("--seed", type=int, default=0, help="of the cases")
    asked = parser.parse_args()
    print("fuzzer".ljust(16), *(ending.value.rjust(18) for ending in Ending))
    bad = 0
    for name in asked.names:
        module = fuzzer(name)
        count = counted(module, asked.cases or module.LARGE, asked.seed)
        print(name.ljust(16), *(str(count.endings[ending]).rjust(18) for ending in Ending), flush=True)
        for (ending, _), (case, verdict) in count.examples.items():
            print(f"\n--- {name}, {ending.value}: {case!r}\n{verdict.words.strip()}\n")
        bad += sum(number for ending, number in count.endings.items() if not ending.good)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
