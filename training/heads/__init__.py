"""Synthetic heads with exact labels: people, expressions, cameras, a ray caster and a shard writer."""
