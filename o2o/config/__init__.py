"""From YAML to one checked configuration: names, types, ranges, contradictions."""
