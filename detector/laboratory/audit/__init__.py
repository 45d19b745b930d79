"""What a training would meet, before any."""
