"""Models to the registry, its aliases, its ledger, and the topic that services follow."""
