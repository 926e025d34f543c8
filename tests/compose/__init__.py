"""docker-compose.yml for real: `make compose-test`."""
