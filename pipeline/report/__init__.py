"""The report page of a run: pictures first, then distributions, failures and provenance."""
