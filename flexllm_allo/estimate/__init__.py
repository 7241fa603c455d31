"""What a scheduled design will do, told before any vendor tool runs."""
