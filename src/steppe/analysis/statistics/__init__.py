"""Statistics of arrays: tests, effect sizes, intervals, corrections, power. Nothing here knows of studies."""
