"""On which machines is it computed? Engines carry tasks to them; the folder that a task writes to is the truth."""
