"""What every part rests on: types, checks, arrays, programs, trees, batches and losses."""
