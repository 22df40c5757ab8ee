"""Assignment, metrics, inference and scorecards: values in, values out."""
