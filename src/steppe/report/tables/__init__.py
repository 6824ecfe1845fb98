"""Tables as data: one source of rows for the page, the Markdown summary and the terminal."""
