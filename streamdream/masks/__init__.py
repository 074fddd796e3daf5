"""Where a picture is redrawn, and where its source stays as it is."""
