"""What a claim about quality rests on: samples on disk, measures with intervals, a table that can be audited."""
