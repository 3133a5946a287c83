"""What a run does, in numbers: work, rates, operations, the report and the curve."""
