"""Studies in somebody else's tracking server: parameters, histories, measurements and the report."""
