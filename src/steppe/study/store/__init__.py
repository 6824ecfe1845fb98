"""Where a study lives on disk: what is written is whole, what was finished is never lost, mixed, or believed unseen.

```
DIR/study.toml                    the frozen specification
DIR/data.json                     the fingerprint of the data it runs on, each condition's where they differ
DIR/tuning.json, tuning/          the trials of a tuned study (see `tuning.trials`)
DIR/runs/<condition>-s<seed>/     parameters.npz, measurements.parquet, run.json, SHA256SUMS: there when it is finished
                                  additions.parquet: answers to measures that the study names since
DIR/checkpoints/                  unfinished runs and surfaces
DIR/surfaces.npz                  loss surfaces
DIR/landscapes/<name>/            landscape.npz, landscape.html: written by `steppe landscape`
DIR/measurements.parquet, densities.npz      what its runs say of their networks, and what `steppe measure` adds
DIR/summary.md, report.html, results.parquet      written by the report, as is
DIR/landscape.html                the surfaces to rotate, where there are any
```

What is read back has a checksum, in ``<name>.sha256`` beside it (see `files`). A run's record says whose it is: its
condition and seed, every setting, and the data, so that a run that was moved, copied or renamed is taken for no other.
"""

from steppe.study.store.folder import AGAIN, ForeignRun, Store
from steppe.study.store.names import OF_A_RUN, ROWS, SUMS

__all__ = ["AGAIN", "OF_A_RUN", "ROWS", "SUMS", "ForeignRun", "Store"]
