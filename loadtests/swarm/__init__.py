"""Load tests with locust: seeded questions with known answers, arrivals on a schedule, and objectives that can fail."""
