"""What a run reports on its way: rows in memory, in a CSV file, and on a progress bar."""

import csv
from pathlib import Path

__all__ = ["History", "Row"]

Row = dict[str, float]
"""One reading: step, loss (mean since the reading before), lr, seconds, and what was evaluated."""


class History:
    """The rows of a run.

    Args:
        rows: those of the part of the run done before.
        log: path of a CSV file, or None; its folder is made where it is missing.
        progress: whether to show a bar, or its title.
        steps: length of the run.
    """

    def __init__(
        self, rows: list[Row], log: str | Path | None, progress: bool | str, steps: int
    ) -> None:
        self.rows, self.log, self.bar = list(rows), log, None
        if log is not None:
            Path(log).parent.mkdir(parents=True, exist_ok=True)
        if rows:
            self._write("w", rows)  # drops what came after the checkpoint
        if progress:
            from tqdm.auto import tqdm

            title = progress if isinstance(progress, str) else None
            self.bar = tqdm(total=steps, desc=title, initial=self._step(), unit="step")

    def add(self, row: Row) -> None:
        """Keep a row, write it, show it."""
        before, columns = self._step(), self._columns()
        self.rows.append(row)
        if self._columns() == columns:
            self._write("a", [row])
        else:  # a first row, or the first evaluation: the header changes
            self._write("w", self.rows)
        if self.bar is not None:
            self.bar.set_postfix(loss=f"{row['loss']:.4g}", refresh=False)
            self.bar.update(self._step() - before)

    def close(self) -> None:
        """Let the bar be."""
        if self.bar is not None:
            self.bar.close()

    def _step(self) -> int:
        return int(self.rows[-1]["step"]) if self.rows else 0

    def _columns(self) -> list[str]:
        return list(dict.fromkeys(key for row in self.rows for key in row))

    def _write(self, mode: str, rows: list[Row]) -> None:
        if self.log is None:
            return
        with Path(self.log).open(mode, newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns())
            if mode == "w":
                writer.writeheader()
            writer.writerows(rows)
