"""Everything around the stages: command line, configuration, manifests, storage, execution, tracking, reports."""
