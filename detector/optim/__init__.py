"""What changes the weights: optimizers, schedules of the rate, averaged weights."""
