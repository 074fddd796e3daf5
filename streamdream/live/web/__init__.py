"""The page of a live run: the picture and all controls in a browser; see `server`."""
