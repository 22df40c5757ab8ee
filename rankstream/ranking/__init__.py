"""From scores to a slate: order, exploration with exact propensities, explanations."""
