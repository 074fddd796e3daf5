"""Many files in one run; `plan` is to be read first, then `session`."""
