"""Renders benchmarks/results.jsonl as tables, between two comments of benchmarks/notes/runs.md, and prints them.

python -m benchmarks.table
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.experiment import SUITES, load_suite
from benchmarks.results import RESULTS, ROOT, measure_of, read_results

RUNS = ROOT / "benchmarks" / "notes" / "runs.md"
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
COLUMNS = (
    "run",
    "teacher -> student",
    "budget",
    "seeds",
    "accuracy or mean IoU",
    "relative",
    "agreement",
    "images made / kept",
    "steps",
    "time, of it images",
    "peak memory",
    "machine",
    "commit",
)
Row = dict[str, Any]


def main() -> None:
    """Write the tables and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--document", type=Path, default=RUNS, help="Markdown file with the two comments")
    arguments = parser.parse_args()
    tables = render(read_results(arguments.results))
    text = arguments.document.read_text(encoding="utf-8")
    arguments.document.write_text(put_between(text, tables), encoding="utf-8")
    print(tables)


def put_between(text: str, tables: str) -> str:
    """Return `text` with the tables between its two comments. Raises SystemExit when it has no such comments."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"the file has no {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}"


def render(rows: list[Row]) -> str:
    """Return Markdown with one table per suite and one of single runs.

    A line shows a run at its latest commit on one processor, with all seeds.
    """
    if not rows:
        return "No rows yet."
    suites = [*(name for name in SUITES if any(row["suite"] == name for row in rows)), None]
    tables = []
    for suite in suites:
        groups = _groups([row for row in rows if row["suite"] == suite])
        if groups:
            tables.append(_table(suite, groups))
    dirty = "\n\n\\* with uncommitted changes" if any(row["dirty"] for row in rows) else ""
    return "\n\n".join(tables) + dirty


def _groups(rows: list[Row]) -> list[list[Row]]:
    """Return groups of rows that differ only in their seed, in the order of first appearance, the newest per seed.

    Rows of different processors are separate groups, because a budget allows more steps on the faster one.
    """
    groups: dict[str, dict[int, Row]] = {}
    for row in rows:
        keys = ("recipe", "teacher", "student", "budget", "eval", "pool", "overrides", "teacher_flags")
        processor = [row["machine"][fact] for fact in ("device", "cpu", "gpu")]
        seeds = groups.setdefault(json.dumps([*processor, *(row[key] for key in keys)]), {})
        if any(other["commit"] != row["commit"] for other in seeds.values()):
            seeds.clear()
        seeds[row["seed"]] = row
    return [[seeds[seed] for seed in sorted(seeds)] for seeds in groups.values()]


def _table(suite: str | None, groups: list[list[Row]]) -> str:
    title = f"### {suite}\n\n{load_suite(suite).about}" if suite else "### single runs"
    command = f"\n\n`python -m benchmarks.run --suite {suite}`" if suite else ""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    lines += [f"| {' | '.join(_cells(group))} |" for group in groups]
    return f"{title}{command}\n\n" + "\n".join(lines)


def _cells(group: list[Row]) -> list[str]:
    row = group[0]
    measure = measure_of(row)
    name = row["name"] or ", ".join(row["overrides"])
    where = row["machine"]
    cores = f"{where['cores']} core{'s' if where['cores'] > 1 else ''}"
    processor = where["gpu"] if where["device"] != "cpu" else f"{cores}, {where['cpu']}"
    return [
        f"`{row['recipe']}`" + (f" {name}" if name else ""),
        f"{row['teacher']} -> {row['student']}",
        row["budget"] or "steps",
        ", ".join(str(each["seed"]) for each in group),
        _spread(group, f"student_{measure}", lambda share: f"{100 * share:.2f}", " %"),
        _spread(group, f"relative_{measure}", lambda share: f"{share:.3f}"),
        _spread(group, "agreement", lambda share: f"{share:.3f}"),
        f"{_mean(group, 'images_generated'):,.0f} / {_mean(group, 'images_kept'):,.0f}",
        f"{_mean(group, 'steps'):,.0f}",
        f"{_mean(group, 'total_s'):,.0f} s, {_mean(group, 'synthesis_s') / _mean(group, 'total_s'):.0%}",
        f"{max(each['peak_bytes'] for each in group) / 1e9:.1f} GB",
        f"{processor}, {where['precision']}",
        row["commit"][:7] + ("\\*" if any(each["dirty"] for each in group) else ""),
    ]


def _mean(group: list[Row], key: str) -> float:
    return sum(row[key] for row in group) / len(group)


def _spread(group: list[Row], key: str, show: Callable[[float], str], unit: str = "") -> str:
    """Return one value, or the mean of several with the smallest and the largest."""
    values = [row[key] for row in group]
    if None in values:
        return "-"
    if len(values) == 1:
        return show(values[0]) + unit
    return f"{show(_mean(group, key))}{unit} ({show(min(values))} to {show(max(values))})"


if __name__ == "__main__":
    main()
