"""Real-time recommendation ranking with experiments that can be trusted."""
