"""Where things lie: files that are whole or not there, and where numbers came from."""
