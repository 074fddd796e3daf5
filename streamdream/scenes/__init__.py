"""The scenes of a film, which do not depend on each other; `listing` is to be read first."""
