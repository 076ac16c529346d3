"""Scenarios of an audit; one file per family, found by the registry."""
