"""What two shells share: settings, logs, health, HTTP, Kafka, metrics. Only shells import it."""
