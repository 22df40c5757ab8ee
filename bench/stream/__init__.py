"""The features service on a real Kafka and Redis: throughput, freshness, scaling, recovery."""
