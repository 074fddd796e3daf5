"""Networks of other libraries: what there are, where their weights lie, how they are fetched."""
