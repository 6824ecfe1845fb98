"""Networks of other libraries as pure functions over parameters and state."""
