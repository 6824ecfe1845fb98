"""How far is it? A page on this machine that shows a study while it runs, from its folder alone."""
